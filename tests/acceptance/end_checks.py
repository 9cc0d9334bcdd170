"""How a scenario ends: its `final`, its notices and orders as they lie on their topics, and each sentence of its `then`."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from schemas.events import (
    ClaimRequested,
    DispatchRequested,
    DispenseOrder,
    DispenseReversed,
    MedicationDispensed,
    Notice,
    PrescriptionIssued,
    TreatmentChanged,
    TreatmentRecorded,
)
from services.medication_list.read_api.presenting import to_json
from tests.acceptance.answered import Answered, seen
from tests.acceptance.header_checks import check_sentence
from tests.acceptance.journey import CLINICIAN, PHARMACIST, Journey, Neighbours, View
from tests.acceptance.notices import WHOM, check_told, due_to_issuers, name_of
from tests.acceptance.step_checks import milliseconds
from tests.acceptance.translate import ACTORS, ORGANISATIONS, Play
from tests.acceptance.unclear import Unclear
from tests.acceptance.values import NO_VALUE, instant
from tests.chain import Message


class End(NamedTuple):
    """A journey that is over, with what its organisations were told of it."""

    journey: Journey
    neighbours: Neighbours
    messages: list[Message]

    @property
    def notices(self) -> list[Notice]:
        """All that lie on topics of notices."""
        return [each.message for each in self.messages if isinstance(each.message, Notice)]

    @property
    def orders(self) -> list[Message]:
        """All that lie on topics of dispense orders."""
        return [each for each in self.messages if isinstance(each.message, DispenseOrder)]

    @property
    def told(self) -> list[str]:
        """Every notice as the scenarios write it: "kind to whom about what"."""
        play = self.journey.play
        return [
            f"{each.kind} to {WHOM.get(each.organisation, each.organisation)} about {_about(play, each)}"
            for each in self.notices
        ]

    @property
    def sent_orders(self) -> list[str]:
        """Every order as "whom about what"."""
        orders = [each.message for each in self.orders]
        return [f"{WHOM[each.pharmacy]} about {name_of(self.journey.play, each.prescription)}" for each in orders]

    def binds_at_once(self, n: int, dispatch: DispatchRequested) -> bool:
        """Whether nobody held the prescription when a step dispatched it."""
        before = [view for at, view in self.journey.views.items() if at < n]
        return not before or "holder" not in before[-1].prescriptions.get(dispatch.prescription, {})

    def about(self, kind: str, name: str) -> Notice:
        """The one notice of this kind about a prescription or hand-out."""
        subject = self.journey.play.id_of(name)
        (notice,) = [
            each for each in self.notices if each.kind == kind and subject in (each.subject, each.prescription)
        ]
        return notice

    def rx(self, name: str = "R1") -> dict[str, Any]:
        """A prescription as it stands at the end."""
        return self.journey.prescription(name)

    def hand_out(self, name: str) -> dict[str, Any]:
        """A hand-out as it stands at the end, by its name."""
        dispense = self.journey.play.id_of(name)
        return next(each for view in self.views for each in hand_outs(view) if each["dispense"] == dispense)

    @property
    def views(self) -> list[View]:
        """Every patient at the end."""
        return [self.journey.look(letter) for letter in sorted(set(self.journey.play.patients.values()))]

    @property
    def whole(self) -> dict[str, Any]:
        """The list at the end."""
        return self.journey.now.whole

    def after(self, n: int) -> View:
        """What was seen after a step."""
        return self.journey.views[n]


def _about(play: Play, notice: Notice) -> str:
    known = [name_of(play, each) for each in (notice.subject, notice.prescription) if each]
    return next((each for each in known if len(each) < 9), str(notice.subject))


def hand_outs(view: View) -> list[dict[str, Any]]:
    """Every hand-out that is shown anywhere; of a locked prescription, which no search by patient finds, in the list."""
    in_list = {each["prescription"]: each for entry in view.entries for each in entry.get("prescriptions", ())}
    joined = [each for shown in (in_list | view.prescriptions).values() for each in shown.get("hand_outs", ())]
    return [*joined, *view.whole["unseen_hand_outs"]]


# --- Nothing else -----------------------------------------------------------------------------------------------------


def check_notices(end: End, scenario: Mapping[str, Any]) -> None:
    """Exactly those that the scenario lists, else those that are due by the header's rule; a hand-out's with its flags."""
    told = end.told
    if "notices" in scenario:
        # A scenario names the treatment that goes on, the notice the prescription by which it does.
        assert sorted(told) == sorted(each.replace("about T1", "about R2") for each in scenario["notices"])
    else:
        check_told(scenario, told, due_to_issuers(end.journey.play, end.journey.judged))
    for topic, notice in end.messages:
        if isinstance(notice, Notice):
            assert topic == f"notices.{notice.organisation}"
        if isinstance(notice, Notice) and notice.kind == "dispensed":
            assert set(notice.flags) == flags_told(end, str(notice.subject))


def flags_told(end: End, dispense: str) -> set[str]:
    """Those that the hand-out was answered with; of one that waited, those that it has since its prescription is known."""
    flags = dispensed(end.journey)[dispense]
    if "prescription_unknown" not in flags:
        return flags
    return set(end.hand_out(name_of(end.journey.play, dispense)).get("flags", ()))


def dispensed(journey: Journey) -> dict[str, set[str]]:
    """The flags of every hand-out that was applied, by its id."""
    answers = [told for answers in journey.answers.values() for told in answers]
    return {
        told.body.dispense: told.flags
        for told in answers
        if isinstance(told.body, MedicationDispensed) and told.outcome == "applied"
    }


def check_orders(end: End) -> None:
    """One for each dispatch that bound, on its pharmacy's topic, with everything that it needs to hand out."""
    dispatches = [
        (n, told.body)
        for n, answers in end.journey.answers.items()
        for told in answers
        if isinstance(told.body, DispatchRequested) and told.outcome == "applied"
    ]
    sent = {order.message.dispatch for order in end.orders}
    assert sent <= {body.dispatch for _, body in dispatches}
    assert {body.dispatch for n, body in dispatches if end.binds_at_once(n, body)} <= sent
    for topic, order in end.orders:
        assert topic == f"dispense-orders.{order.pharmacy}"
        check_order(end, order)


def check_order(end: End, order: DispenseOrder) -> None:
    """The whole prescription as it was signed, the dosing in force, allergies, and whose it is."""
    name = name_of(end.journey.play, order.prescription)
    issued = end.journey.play.sent[name].body
    assert order.issued == issued
    assert isinstance(issued, PrescriptionIssued)
    changed = [each for each in end.journey.applied if isinstance(each.body, TreatmentChanged)]
    if not changed:
        assert order.dosing_in_force == issued.dosing
    if end.whole["allergy_status"] == "not_asked":
        assert order.allergies == ()
    letter = end.journey.play.patients[name]
    assert json.loads(order.identity or b"") == {
        "national_id": end.journey.patient(letter).digits,
        "name": end.journey.name_of(letter),
    }


def check_nothing_else(end: End) -> None:
    """No hand-out and no entry but those that the scenario brought."""
    shown = [each["dispense"] for view in end.views for each in hand_outs(view)]
    assert sorted(shown) == sorted(dispensed(end.journey)), "each hand-out is shown once"
    signed = [told.body for answers in end.journey.answers.values() for told in answers if told.status == 201]
    treatments = {each.treatment for each in signed if isinstance(each, PrescriptionIssued | TreatmentRecorded)}
    assert {entry["treatment"] for view in end.views for entry in view.entries} <= treatments


# --- Then -------------------------------------------------------------------------------------------------------------

Said = re.Match[str]


def is_as_said(end: End, said: Said) -> None:
    """Whatever of status, holder and amounts the sentence has."""
    groups, shown = said.groupdict(), end.rx(said.groupdict().get("rx") or "R1")
    for key in ("status", "dispenses_left", "dispenses_done", "refills_left", "handed_out", "total", "returned"):
        if groups.get(key) is not None:
            value: int | str = groups[key] if key == "status" else int(groups[key])
            assert shown.get(key, 0) == value
    if "nobody" in said[0]:
        assert "holder" not in shown


def counts_hand_outs(end: End, _said: Said) -> None:
    assert [each["dispense"] for each in end.rx()["hand_outs"]] == [end.journey.play.id_of("D1")]
    assert (end.rx()["handed_out"], end.rx()["total"]) == (100, 100)


def has_each_hand_out_once(end: End, said: Said) -> None:
    natural = end.journey.play.id_of(said["rx"])
    handed = [event.body for event in end.journey.applied if isinstance(event.body, MedicationDispensed)]
    expected = [body.dispense for body in handed if body.prescription == natural]
    assert sorted(each["dispense"] for each in end.rx(said["rx"])["hand_outs"]) == sorted(expected)


def has_three_unflagged(end: End, _said: Said) -> None:
    assert [each.get("flags", []) for each in end.rx()["hand_outs"]] == [[], [], []]


def has_no_flag(end: End, said: Said) -> None:
    assert end.hand_out(said["d"]).get("flags", []) == []


def is_not_found(end: End, said: Said) -> None:
    name = said.groupdict().get("rx") or "R1"
    patient = end.journey.patient(end.journey.play.patients[name])
    found = end.journey.chain.search(patient.digits, PHARMACIST, every=False)
    assert end.journey.play.id_of(name) not in {each["prescription"] for each in found}


def tells_dispensed(end: End, said: Said) -> None:
    for name in re.findall(r"D\d", said[0]) or ["D1"]:
        notice = end.about("dispensed", name)
        assert notice.organisation == ORGANISATIONS["OA"]
        assert notice.prescription == end.rx()["prescription"]
        assert sorted(notice.flags) == end.hand_out(name).get("flags", [])
        assert notice.by == end.hand_out(name)["pharmacy"]
    if "flag" in said[0]:
        assert all(each.flags for each in end.notices if each.kind == "dispensed")


def tells_holder_of_recall(end: End, _said: Said) -> None:
    notice = end.about("recalled_while_held", "R1")
    recalls = [(each["reason"], each["by"]["organisation"]) for each in end.rx()["recalls"]]
    assert notice.organisation == ORGANISATIONS["P"]
    assert (notice.reason, notice.by) in recalls


def tells_issuer_of_recall(end: End, _said: Said) -> None:
    notice = end.about("recalled_by_other", "R1")
    assert (notice.organisation, notice.by) == (ORGANISATIONS["OA"], ORGANISATIONS["OB"])
    assert notice.reason in [each["reason"] for each in end.rx()["recalls"]]


def tells_none_to_b(end: End, _said: Said) -> None:
    assert not [each for each in end.notices if each.organisation == ORGANISATIONS["OB"]]


def tells_reversed(end: End, _said: Said) -> None:
    notice = end.about("reversed", "D1")
    assert (notice.organisation, notice.subject) == (ORGANISATIONS["OA"], end.journey.play.id_of("D1"))


def tells_nothing_else(end: End, _said: Said) -> None:
    """What was told is held to the scenario's words anyway: here, that nothing was told twice."""
    assert len(set(end.told)) == len(end.told)


def tells_order_void(end: End, _said: Said) -> None:
    assert end.about("order_void", "R1").organisation == ORGANISATIONS["P"]


def has_orders_at_p_only(end: End, _said: Said) -> None:
    assert [topic for topic, _ in end.orders] == [f"dispense-orders.{ORGANISATIONS['P']}"]


def has_orders_at(end: End, said: Said) -> None:
    topic = f"dispense-orders.{ORGANISATIONS[said['whom']]}"
    assert [each.topic for each in end.orders].count(topic) == 1


def was_held_throughout(end: End, said: Said) -> None:
    """Whenever anybody held it."""
    natural = end.journey.play.id_of(said["rx"])
    shown = [view.prescriptions[natural] for view in end.journey.views.values() if natural in view.prescriptions]
    held = [each["holder"] for each in shown if "holder" in each]
    assert set(held) == {ORGANISATIONS[said["whom"]]}
    assert len(held) > 1


def left_no_trace(end: End, _said: Said) -> None:
    """Whatever was refused: everything is seen as before."""
    refused = [n for n, answers in end.journey.answers.items() if any(told.outcome == "refused" for told in answers)]
    assert refused
    for n in refused:
        before = [view for at, view in end.journey.views.items() if at < n]
        assert seen(end.after(n)) == seen(before[-1])


def keeps_claim(end: End, said: Said) -> None:
    shown = [each for view in end.journey.views.values() for each in view.prescriptions.values()]
    assert {each["claim"] for each in shown if "claim" in each} == {end.journey.play.id_of(said["c"])}


def was_always_listed(end: End, _said: Said) -> None:
    for view in end.journey.views.values():
        (entry,) = view.entries
        assert [each["prescription"] for each in entry["prescriptions"]] == [end.rx()["prescription"]]


def finds_all(end: End, _said: Said) -> None:
    statuses = {name: each["status"] for name, each in end.journey.now.prescriptions.items()}
    assert statuses == {end.journey.play.id_of(f"R{n}"): status for n, status in enumerate("EUTRF", 1)}


def has_new_event_id(end: End, _said: Said) -> None:
    first, again = end.journey.told_of("C2")
    (anew,) = end.journey.told_of("C3")
    assert first.document["event_id"] == again.document["event_id"] != anew.document["event_id"]


def is_not_in_the_log(end: End, _said: Said) -> None:
    """The claim that was turned away; those that were applied are."""
    became = [(event.body, judged.outcome) for event, judged in end.journey.judged]
    claims = [(body.claim, outcome) for body, outcome in became if isinstance(body, ClaimRequested)]
    logged = {each.body.claim for each in end.journey.chain.events() if isinstance(each.body, ClaimRequested)}
    assert claims[0][1] == "turned away"
    assert all((claim in logged) is (outcome != "turned away") for claim, outcome in claims)


def ended_claim(end: End, said: Said) -> None:
    """With the first hand-out of the one, the other's claim."""
    natural = end.journey.play.id_of(said["rx"])
    n = next(
        step.n for step in end.journey.play.taken if (step.actor, step.action) == (f"pharmacy {said['by']}", "dispense")
    )
    assert end.after(n - 1).prescriptions[natural]["holder"] == ORGANISATIONS[said["whose"]]
    assert "holder" not in end.after(n).prescriptions[natural]


def has_200_tablets(end: End, _said: Said) -> None:
    (entry,) = end.whole["treatments"]
    (shown,) = entry["prescriptions"]
    assert shown["handed_out"] == 200
    assert {each["pharmacy"] for each in shown["hand_outs"]} == {ORGANISATIONS["P"], ORGANISATIONS["Q"]}


def stands_with_flags(end: End, _said: Said) -> None:
    assert end.rx()["status"] == "T"
    (flags,) = dispensed(end.journey).values()
    assert set(end.hand_out("D1")["flags"]) == flags
    assert "reversed" not in end.hand_out("D1")


def has_one_entry(end: End, said: Said) -> None:
    (entry,) = end.journey.now.entries
    if said.groupdict().get("t"):
        assert entry["treatment"] == end.journey.play.id_of("T1")
    if said.groupdict().get("three"):
        assert len(entry["prescriptions"]) == 3
    if said.groupdict().get("chain"):
        chain = [each["prescription"] for each in entry["prescriptions"]]
        assert chain == [end.journey.play.id_of("R2"), end.journey.play.id_of("R1")]


def has_both_times(end: End, _said: Said) -> None:
    assert milliseconds(end.rx()["recalls"][0]["at"]) == instant("d0 12:00")
    assert milliseconds(end.hand_out("D1")["handed_out_at"]) == instant("d0 10:00")


def says_not_after_recall(end: End, _said: Said) -> None:
    assert end.hand_out("D1")["flags"] == ["dispensed_without_claim"]
    assert "dispensed_after_recall" not in end.rx()["flags"]


def is_recalled(end: End, said: Said) -> None:
    """For the reason that is named, where one is; a holder keeps what was recalled."""
    shown, groups = end.rx(), said.groupdict()
    assert shown["status"] in (groups.get("status") or "TU")
    assert "recalled" in shown["flags"]
    reasons = [recall["reason"] for recall in shown["recalls"]]
    assert (groups.get("reason") or reasons[0]) in reasons
    if "no notice" in said[0]:
        assert not [each for each in end.notices if each.kind == "recalled_by_other"]


def is_corrected(end: End, _said: Said) -> None:
    (line,) = end.hand_out("D2")["lines"]
    assert line["quantity"] == {"value": 10, "unit": "tablet"}
    assert end.hand_out("D1")["reversed"] is True
    assert end.rx()["handed_out"] == 10


def told_holder(end: End, _said: Said) -> None:
    recalls = [
        told
        for answers in end.journey.answers.values()
        for told in answers
        if "holder" in told.document.get("resource", {})
    ]
    assert recalls[-1].document["resource"]["holder"] == ORGANISATIONS["P"]


def is_not_dispensable(end: End, said: Said) -> None:
    assert end.rx()["status"] == "T"
    is_not_found(end, said)


def stays(end: End, said: Said) -> None:
    assert "reversed" not in end.hand_out("D1")
    if "R1 stays R" in said[0]:
        assert end.rx()["status"] == "R"


def was_handed_out(end: End, _said: Said) -> None:
    """The recall is shown, and with it that it came too late."""
    assert end.rx()["status"] == "R"
    assert "recalled_after_completion" in end.rx()["flags"]
    assert [milliseconds(recall["at"]) for recall in end.rx()["recalls"]] > [
        milliseconds(end.hand_out("D1")["handed_out_at"])
    ]


def is_shown_reversed(end: End, _said: Said) -> None:
    assert end.hand_out("D1")["reversed"] is True
    last = [entry["last_dispense"]["dispense"] for entry in end.journey.now.entries if "last_dispense" in entry]
    assert end.journey.play.id_of("D1") not in last


def has_returned(end: End, _said: Said) -> None:
    assert end.hand_out("D1")["returned"] == {"value": 30, "unit": "tablet"}
    shown = end.rx()
    assert (shown["returned"], shown["handed_out"], shown["total"]) == (30, 100, 100)


def gave_nothing_back(end: End, _said: Said) -> None:
    keys = ("status", "handed_out", "refills_left", "dispenses_left", "dispenses_done")
    bodies = {n: told.body for n, answers in end.journey.answers.items() for told in answers}
    (n,) = [n for n, body in bodies.items() if isinstance(body, DispenseReversed) and body.quantity is not None]
    before, after = (end.after(at).prescriptions[end.rx()["prescription"]] for at in (n - 1, n))
    assert [before[key] for key in keys] == [after[key] for key in keys]


def needed_no_event(end: End, _said: Said) -> None:
    """The same events, read at another time."""
    journey, statuses = end.journey, {}
    known = len(journey.chain.history(journey.patient("X").digits, CLINICIAN))
    for day in ("d0+59d", "d0+60d"):
        journey.chain.set_clock(instant(day))
        statuses[day] = journey.look("X").prescriptions[journey.play.id_of("R1")]["status"]
    assert statuses == {"d0+59d": "E", "d0+60d": "T"}
    assert len(journey.chain.history(journey.patient("X").digits, CLINICIAN)) == known


def nothing_recalled(end: End, _said: Said) -> None:
    for shown in end.journey.now.prescriptions.values():
        assert not shown.get("recalls")
        assert "recalled" not in shown.get("flags", ())


def needed_no_event_to_disappear(end: End, _said: Said) -> None:
    """The last two looks at the same version."""
    before, after = (end.journey.views[n].whole for n in sorted(end.journey.views)[-2:])
    assert before["version"] == after["version"]
    assert len(before["treatments"]) == len(after["treatments"]) + 1


def nobody_sent_anything(end: End, _said: Said) -> None:
    """But for what the scenario sends."""
    history = end.journey.chain.history(end.journey.patient("X").digits, CLINICIAN)
    assert [each["type"] for each in history] == [type(event.body).__name__ for event, _ in end.journey.judged]


def history_has(end: End, said: Said) -> None:
    """Every event about it that took effect."""
    history = end.journey.chain.history(end.journey.patient("X").digits, CLINICIAN)
    field = {"T": "treatment", "A": "allergy"}[said["what"][0]]
    natural = end.journey.play.id_of(said["what"])
    kinds = [each["type"] for each in history if each["content"].get(field) == natural]
    sent = [type(each.body).__name__ for each in end.journey.applied if getattr(each.body, field, None) == natural]
    assert kinds == sent
    assert kinds


def stays_with_entry(end: End, _said: Said) -> None:
    (entry,) = end.journey.now.entries
    assert entry["last_dispense"]["dispense"] == end.journey.play.id_of("D1")


def is_unchanged(end: End, _said: Said) -> None:
    first = next(view for view in end.journey.views.values() if end.rx()["prescription"] in view.prescriptions)
    assert end.rx()["issued"] == first.prescriptions[end.rx()["prescription"]]["issued"]


def shows_changed_dosing(end: End, _said: Said) -> None:
    changed = [event for event in end.journey.applied if isinstance(event.body, TreatmentChanged)][-1]
    assert isinstance(changed.body, TreatmentChanged)
    entry = next(each for each in end.journey.now.entries if each["treatment"] == changed.body.treatment)
    assert entry["dosing"]["dosing"] == json.loads(to_json(changed.body.dosing))
    assert entry["dosing"]["by"]["organisation"] == changed.source.organisation


def can_be_dispensed(end: End, _said: Said) -> None:
    """Done, here: R1 is held by P by now, R2 is claimed by Q, and both are handed out."""
    journey = end.journey
    patient = {"national_id": journey.patient("X").digits}
    claimed = {"patient": patient, "prescription": journey.play.id_of("R2")}
    assert journey.chain.post("pharmacy", "/v1/claims", claimed, ACTORS["pharmacy Q"]).status_code == 201
    for name, pharmacy in (("R1", "pharmacy P"), ("R2", "pharmacy Q")):
        handed = {
            "patient": patient,
            "prescription": journey.play.id_of(name),
            "lines": [{"quantity": {"value": 100, "unit": "tablet"}}],
            "period_completed": True,
            "completed": False,
        }
        answer = journey.chain.post("pharmacy", "/v1/dispenses", handed, ACTORS[pharmacy])
        assert (answer.status_code, answer.json()["flags"]) == (201, [])


def did_not_move_the_version(end: End, _said: Said) -> None:
    """Neither a claim nor a hand-out of the scenario."""
    steps = [step.n for step in end.journey.play.taken if step.action in ("claim", "dispense")]
    assert steps
    assert all(end.after(n - 1).whole["version"] == end.after(n).whole["version"] for n in steps)


def shows_both(end: End, _said: Said) -> None:
    assert {entry["treatment"] for entry in end.journey.now.entries} == {
        end.journey.play.id_of(name) for name in ("T1", "T2")
    }


def leaves_another_alone(end: End, _said: Said) -> None:
    """One that shares the partition of the log, and nothing else."""
    neighbour = end.neighbours.beside(end.journey.position["X"])
    prescription, _ = end.neighbours.prescribe_for(neighbour)
    shown = end.journey.chain.read_list(neighbour.digits, CLINICIAN)
    assert (shown["complete"], shown["incomplete_since"]) == (True, None)
    claimed = {"patient": {"national_id": neighbour.digits}, "prescription": prescription}
    answer = end.journey.chain.post("pharmacy", "/v1/claims", claimed, PHARMACIST)
    assert (answer.status_code, answer.json()["flags"]) == (201, [])


def is_shown(end: End, _said: Said) -> None:
    (entry,) = end.journey.now.entries
    assert entry["last_dispense"]["dispense"] == end.journey.play.id_of("D1")


def goes_by_oslo(end: End, _said: Said) -> None:
    assert end.journey.answers[3][0].reason == "expired"
    assert end.after(3).whole["as_of"] == "2026-06-30T22:05:00.000Z"


def do_not_exist(end: End, _said: Said) -> None:
    assert end.journey.now.prescriptions == {}
    assert end.journey.now.entries == []
    ids = {end.journey.play.id_of(name) for name in ("R1", "R2", "R3")}
    assert not ids & {getattr(each.body, "prescription", None) for each in end.journey.chain.events()}


def tells_bad_line(end: End, _said: Said) -> None:
    (told,) = end.journey.answers[1]
    assert {each["pointer"].split("/")[2] for each in told.document["errors"]} == {"1"}


def law_holds(end: End, _said: Said) -> None:
    for name, letter in (("R1", "X"), ("R2", "Y")):
        open_ones = end.journey.chain.search(end.journey.patient(letter).digits, PHARMACIST, every=False)
        assert open_ones == []
        assert [each.get("reversed", False) for each in end.rx(name)["hand_outs"]] == [False]
        assert end.rx(name)["handed_out"] == 100


THEN: Final[dict[str, Callable[[End, Said], None]]] = {
    # Prescriptions
    r"(?P<rx>R\d) status (?P<status>\w)(, held by nobody)?": is_as_said,
    r"(?P<rx>R\d) dispenses left (?P<dispenses_left>\d)|dispenses done (?P<dispenses_done>\d)": is_as_said,
    r"(?P<handed_out>\d+) of (?P<total>\d+)( tablets)? handed out( in all|, both periods used up)?": is_as_said,
    r"handed out (?P<handed_out>\d+) of (?P<total>\d+)": is_as_said,
    r"(?P<rx>R1) status (?P<status>E), dispenses done (?P<dispenses_done>1), (?P<handed_out>100) of (?P<total>200)": is_as_said,
    r"(?P<rx>R1) stays (?P<status>E), (?P<handed_out>0) of (?P<total>100)": is_as_said,
    r"one period used up: the refill is still there, refills left (?P<refills_left>1)": is_as_said,
    r"effects follow the log: the recall came first, (?P<rx>R1) is (?P<status>T)": is_as_said,
    r"exactly one dispense on R1, 100 of 100 tablets": counts_hand_outs,
    r"no dispense on (?P<rx>R\d) is lost or doubled": has_each_hand_out_once,
    r"three dispenses, none flagged": has_three_unflagged,
    r"(?P<d>D\d) has no flag": has_no_flag,
    r"search_open_prescriptions does not return (?P<rx>R\d+)": is_not_found,
    r'with "all": R3 as T and R4 as R are returned too, and R5 as F': finds_all,
    r"(?P<rx>R\d) was held by (?P<whom>[PQ]) throughout": was_held_throughout,
    r"the refused claim of Q left no trace on the list": left_no_trace,
    r"(?P<c>C\d) stays the valid claim": keeps_claim,
    r"the claim of P was not touched": left_no_trace,
    r"R1 was on the list all the time": was_always_listed,
    r"a new try has a new id": has_new_event_id,
    r"the first is not in the log": is_not_in_the_log,
    r"the hand-out of (?P<by>[PQ]) closed (?P<rx>R\d): the claim of (?P<whose>[PQ]) ended then": ended_claim,
    r"both hand-outs are on the list: the patient has 200 tablets": has_200_tablets,
    r"the recall came first, so R1 stays T; the hand-out stands and is shown with its flags": stands_with_flags,
    r"both facts with their own times on the list": has_both_times,
    r"the list does not say that P handed out after the recall": says_not_after_recall,
    r"the list shows D2 with 10 tablets; D1 is shown as reversed .*|no dispense of 100 tablets counts": is_corrected,
    r"the answer to the recall tells that P holds it": told_holder,
    r"status (?P<status>R): the completion of a holder counts from its claim; the recall stays visible": is_recalled,
    r"R1 (is )?recalled with reason (?P<reason>\w+)(; no notice to A about its own act)?": is_recalled,
    r"R1 stays recalled": is_recalled,
    r"the rest cannot be dispensed|the reversal does not make a recalled prescription dispensable": is_not_dispensable,
    r"D1 stays|D1 stands, R1 stays R": stays,
    r"the medicine was handed out: the list does not say that R1 was stopped in time": was_handed_out,
    r"the list no longer says that the patient got D1, or shows it as reversed": is_shown_reversed,
    r"30 tablets are shown as returned; handed out stays 100 of 100": has_returned,
    r"returned goods give back no quantity, refill or status": gave_nothing_back,
    r"nothing was recalled": nothing_recalled,
    r"R1 itself is unchanged": is_unchanged,
    r"R1 and R2 can be claimed and dispensed like all else": can_be_dispensed,
    r"00:05 in Oslo is 22:05Z of the day before: .*": goes_by_oslo,
    r"none of R1, R2, R3 exists": do_not_exist,
    r"the answer tells which line is bad": tells_bad_line,
    r"in both nothing is dispensable and one hand-out of 100 stands": law_holds,
    # Entries
    r"one entry, not two": has_one_entry,
    r"one entry (?P<t>T1)( with its old id; (?P<chain>chain R1, R2; head R2)| with (?P<three>three) prescriptions)?": has_one_entry,
    r"no event was needed on d0\+60d for R1 to become T": needed_no_event,
    r"no event was needed for it to disappear": needed_no_event_to_disappear,
    r"nobody had to send anything": nobody_sent_anything,
    r"the history still has (?P<what>T\d)": history_has,
    r"(?P<what>A\d) with both steps is in the history": history_has,
    r"the hand-out that happened stays visible with the entry": stays_with_entry,
    r"the list shows the dosing in force and who changed it": shows_changed_dosing,
    r"after the refused attempt nothing was stored": left_no_trace,
    r"neither the claim nor the hand-out of a known prescription moved the version": did_not_move_the_version,
    r"later events go on: T1 and T2 are shown": shows_both,
    r"another patient is not touched": leaves_another_alone,
    r"D1 on the list": is_shown,
    # What organisations are told
    r"notice to the organisation of prescriber A: dispense D1 of R1": tells_dispensed,
    r"three notices to the organisation of prescriber A \(D1, D2, D3\)": tells_dispensed,
    r"notice to prescriber A( with the flags| about D1 once A is known|: D1 with the flag)": tells_dispensed,
    r"prescriber A gets two notices, each with its flags": tells_dispensed,
    r"no other notice": tells_nothing_else,
    r"notice to P, the holder(: R1 is recalled, with the reason|, of the recall)": tells_holder_of_recall,
    r"notice to the organisation of prescriber A: R1 recalled by B with the reason": tells_issuer_of_recall,
    r"no such notice to B": tells_none_to_b,
    r"notice to prescriber A points at D1": tells_reversed,
    r"exactly one order, on the topic of P only; Q receives nothing": has_orders_at_p_only,
    r"P is told on its topic that its order is void": tells_order_void,
    r"one order for (?P<whom>Q)": has_orders_at,
}


def check_then(end: End, answered: Answered, unclear: Unclear, sentences: list[str]) -> None:
    """Hold the end to each sentence, in a check of its own or in the header's words."""
    answered.notices_told, answered.orders_sent = end.told, end.sent_orders
    for sentence in [*answered.deferred, *sentences]:
        try:
            with unclear.noted("then"):
                _check(end, answered, sentence)
        except AssertionError as error:
            error.add_note(f"then: {sentence}")
            raise


def _check(end: End, answered: Answered, sentence: str) -> None:
    matching = ((re.fullmatch(pattern, sentence), holds) for pattern, holds in THEN.items())
    said, holds = next(((said, holds) for said, holds in matching if said is not None), (None, None))
    if said is None or holds is None:
        check_sentence(answered, sentence)
        return
    try:
        holds(end, said)
    except NO_VALUE as error:
        raise AssertionError(f"{sentence!r} does not fit what is shown: {error!r}") from error
