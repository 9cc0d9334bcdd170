"""What a step of a scenario expects, each sentence held to what the services answered and show."""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from schemas import events as ev
from tests.acceptance.journey import Journey
from tests.acceptance.translate import ACTORS, ORGANISATIONS

Said = re.Match[str]
NAMED: Final = {
    "held": "holder",
    "already_held": "holder",
    "dispatched_to": "pharmacy",
    "too_early": "earliest_dispense",
    "stale": "moved",
}
"""Under which name a refusal tells what it names."""


def milliseconds(instant: str) -> int:
    """Of an instant as the services write it."""
    return round(datetime.fromisoformat(instant).timestamp() * 1000)


# --- Outcomes ---------------------------------------------------------------------------------------------------------


def is_outcome(journey: Journey, said: Said) -> None:
    assert journey.told
    assert [told.outcome for told in journey.told] == [said[0]] * len(journey.told)
    expected = journey.step.expect if journey.step else ()
    if said[0] == "applied" and not any(re.match(r"flags? ", each) for each in expected):
        assert [told.flags for told in journey.told] == [set()] * len(journey.told), "a flag that nobody expects"


def is_parked(journey: Journey, _said: Said) -> None:
    assert journey.step is not None
    digits = journey.patient(journey.step.patient).digits
    last = journey.chain.history(digits, ACTORS["clinician C"])[-1]
    assert (last["position"], last["outcome"]) == (journey.position[journey.step.patient], "parked")
    assert last["reason"] == "unknown_schema"
    assert "content" not in last


def is_refused(journey: Journey, said: Said) -> None:
    told = journey.the_answer
    assert (told.outcome, told.reason) == ("refused", said["reason"])
    named = told.document.get(NAMED.get(said["reason"], ""))
    if said["whom"]:
        assert named == ORGANISATIONS[said["whom"]]
    if said["date"]:
        assert isinstance(told.body, ev.ClaimRequested)
        issued = journey.now.prescriptions[told.body.prescription]["issued"]
        assert named == issued["earliest_dispense"]
    if said["moved"]:
        assert named == journey.play.id_of(said["moved"])


def is_turned_away(journey: Journey, _said: Said) -> None:
    told = journey.the_answer
    assert (told.outcome, told.reason) == ("turned away", "invalid")
    assert [(each["pointer"], each["reason"]) for each in told.document["errors"]] == [
        ("/occurred_at", "claim_too_old")
    ]


def is_turned_away_whole(journey: Journey, _said: Said) -> None:
    told = journey.the_answer
    assert told.outcome == "turned away"
    faults = {(each["pointer"], each["reason"]) for each in told.document["errors"]}
    assert journey.step is not None
    names = [name for name, event in journey.play.sent.items() if isinstance(event.body, ev.PrescriptionIssued)]
    assert faults == {
        (f"/prescriptions/{names.index(name)}/{field}", "missing") for name, field in journey.step.without.items()
    }


def has_flags(journey: Journey, said: Said) -> None:
    expected = {said["flag"]} if "flag" in said.groupdict() else set(re.findall(r"\w+_\w+", said[0]))
    assert journey.the_answer.flags == expected


def has_no_flags(journey: Journey, _said: Said) -> None:
    assert journey.the_answer.flags == set()


def tells_first(journey: Journey, said: Said) -> None:
    first = journey.the_answer.document["first"]
    assert (first["outcome"], first["reason"]) == ("refused", said["reason"])


# --- Answers ----------------------------------------------------------------------------------------------------------


def answers_claim(journey: Journey, _said: Said) -> None:
    given = journey.the_answer.document["resource"]
    issued = journey.play.sent["R1"].body
    assert isinstance(issued, ev.PrescriptionIssued)
    shown = given["prescription"]
    assert shown["prescription"] == issued.prescription
    assert shown["issued"]["medication"]["product"] == {"kind": "substance", "name": "Metformin"}
    assert shown["issued"]["quantity"] == {"value": 100, "unit": "tablet"}
    assert given["dosing_in_force"]["dosing"] == shown["issued"]["dosing"]
    assert "1 tablet" in given["dosing_in_force"]["text"]
    assert (given["allergy_status"], given["allergies"], given["flags"]) == ("not_asked", [], [])
    assert given["patient"] == {"national_id": journey.patient("X").digits, "name": journey.name_of("X")}


def answers_both_dosings(journey: Journey, _said: Said) -> None:
    given = journey.the_answer.document["resource"]
    in_force, own = given["dosing_in_force"], given["prescription"]["issued"]
    assert dose_of(in_force["dosing"]) == 0.5
    assert dose_of(own["dosing"]) == 1
    assert in_force["strength"] == own["medication"]["strength"] == "500 mg"
    assert "500 mg" in in_force["text"]


def dose_of(dosing: dict[str, Any]) -> float:
    return float(dosing["periods"][0]["fixed"][0]["dose"]["low"])


def answers_recall(journey: Journey, said: Said) -> None:
    told = {"marked for recall with the dispenser": "marked_with_dispenser", "already dispensed": "already_dispensed"}
    assert journey.the_answer.document["named"] == {"answer": told[said["what"]]}


# --- Prescriptions ----------------------------------------------------------------------------------------------------


def has_status(journey: Journey, said: Said) -> None:
    shown = journey.prescription(said["rx"])
    assert shown["status"] == said["status"]
    if said["holder"]:
        assert shown.get("holder") == ORGANISATIONS.get(said["holder"])
    if said["left"]:
        assert shown["dispenses_left"] == int(said["left"])
    if said["flag"]:
        assert said["flag"] in shown["flags"]
    if said["status"] in "EU":
        path = f"/v1/prescriptions/{shown['prescription']}/status"
        answer = journey.chain.get("medication-list", path, ACTORS["prescriber A"])
        assert shown.items() <= answer.json().items(), "the status of one prescription and the search agree"


def has_refills_left(journey: Journey, said: Said) -> None:
    assert journey.prescription("R1")["refills_left"] == int(said["left"])


def is_held(journey: Journey, said: Said) -> None:
    assert journey.prescription("R1")["holder"] == ORGANISATIONS[said["whom"]]


def is_tied(journey: Journey, said: Said) -> None:
    assert journey.prescription("R1")["dispatched_to"] == ORGANISATIONS[said["whom"]]


def shows_recall(journey: Journey, _said: Said) -> None:
    (entry,) = journey.now.entries
    (in_list,) = entry["prescriptions"]
    for shown in [in_list, *journey.found]:
        assert shown["status"] == "U"
        assert "recalled" in shown["flags"]
        assert [recall["reason"] for recall in shown["recalls"]] == ["other"]


def finds_some(journey: Journey, _said: Said) -> None:
    found = {each["prescription"]: (each["status"], each.get("holder")) for each in journey.found}
    assert found == {
        journey.play.id_of("R1"): ("E", None),
        journey.play.id_of("R2"): ("U", ORGANISATIONS["P"]),
    }


# --- The list ---------------------------------------------------------------------------------------------------------


def shows_treatment(journey: Journey, said: Said) -> None:
    entry = journey.entry(said["t"])
    assert entry is not None
    assert entry["status"] == said["state"]
    assert ("withdrawn" in entry.get("flags", ())) is bool(said["withdrawn"])


def hides_treatment(journey: Journey, said: Said) -> None:
    assert journey.entry(said["t"]) is None


def shows_incomplete(journey: Journey, _said: Said) -> None:
    whole = journey.now.whole
    assert journey.entry("T1") is not None
    assert whole["complete"] is False
    assert milliseconds(whole["incomplete_since"]) == journey.parked.timestamp
    assert whole["read_token"]


def shows_unseen(journey: Journey, _said: Said) -> None:
    assert [handed["dispense"] for handed in journey.now.whole["unseen_hand_outs"]] == [journey.play.id_of("D1")]


def shows_no_entry(journey: Journey, _said: Said) -> None:
    assert journey.now.entries == []


def has_joined(journey: Journey, _said: Said) -> None:
    (handed,) = journey.prescription("R1")["hand_outs"]
    assert handed["dispense"] == journey.play.id_of("D1")
    assert "prescription_unknown" not in handed["flags"]
    assert journey.now.whole["unseen_hand_outs"] == []


def shows_last_dispense(journey: Journey, _said: Said) -> None:
    (entry,) = journey.now.whole["treatments"]
    assert entry["last_dispense"]["dispense"] == journey.play.id_of("D1")


def shows_conflict(journey: Journey, _said: Said) -> None:
    (entry,) = journey.now.whole["treatments"]
    assert [each["dispense"] for each in entry["conflicting_reports"]] == [journey.play.id_of("D1")]
    assert "conflicting_report" in entry["flags"]


def shows_stop(journey: Journey, _said: Said) -> None:
    entry = journey.entry("T1")
    assert entry is not None
    stopped = journey.views[2].whole["as_of"]
    assert entry["status"] == "discontinued"
    assert (entry["stopped"]["at"], entry["stopped"]["reason"]) == (stopped, "treatment_finished")
    assert entry["stopped"]["by"]["organisation"] == ORGANISATIONS["OA"]


def shows_data_of(journey: Journey, _said: Said) -> None:
    (entry,) = journey.now.whole["treatments"]
    assert (entry["treatment"], entry["status"]) == (journey.play.id_of("T1"), "active")
    assert entry["dosing"]["by"]["organisation"] == ORGANISATIONS["OB"]
    assert entry["prescriptions"][0]["prescription"] == journey.play.id_of("R2")


def shows_other(journey: Journey, _said: Said) -> None:
    whole = journey.now.whole
    assert whole["treatments"] == []
    shown = {each["prescriptions"][0]["prescription"] for each in whole["other_prescriptions"]}
    assert shown == {journey.play.id_of("R1"), journey.play.id_of("R2")}


def shows_allergy(journey: Journey, _said: Said) -> None:
    (shown,) = journey.now.whole["allergies"]
    assert shown["recorded"] == {
        "allergy": journey.play.id_of("A1"),
        "substance": "penicillin",
        "reaction": "anaphylaxis",
        "severity": "high",
    }
    assert journey.now.whole["allergy_status"] == "recorded"


def shows_no_allergy(journey: Journey, _said: Said) -> None:
    assert journey.now.whole["allergies"] == []


def shows_earliest(journey: Journey, _said: Said) -> None:
    (entry,) = journey.now.whole["treatments"]
    assert entry["prescriptions"][0]["issued"]["earliest_dispense"] == "2026-05-31"


def is_a_version(journey: Journey, _said: Said) -> None:
    assert isinstance(journey.now.whole["version"], int)
    assert len(journey.now.whole["read_token"]) > 20


def comes_as_an_order(_journey: Journey, _said: Said) -> None:
    """Read from the pharmacy's topic when the scenario has ended: see `end_checks.orders_of`."""


CHECKS: Final[dict[str, Callable[[Journey, Said], None]]] = {
    r"applied|duplicate": is_outcome,
    r"parked": is_parked,
    r"refused\((?P<reason>\w+)\)(, naming (?P<whom>[PQ])|(?P<date>, naming the date)|, naming what moved: (?P<moved>R\d))?": is_refused,
    r"turned away at the door": is_turned_away,
    r"turned away at the door as a whole, with every error of every line": is_turned_away_whole,
    r"flag (?P<flag>\w+)( on D2 only|, not dispensed_after_recall)?": has_flags,
    r"flags .*": has_flags,
    r"no flags": has_no_flags,
    r"the first outcome is told: refused\((?P<reason>\w+)\)": tells_first,
    r"the answer carries the whole prescription, the dosing in force, allergies and flags": answers_claim,
    r"the answer carries the dosing in force \(half a tablet\) and the prescription's own .*": answers_both_dosings,
    r"the answer says (?P<what>.*)": answers_recall,
    r"(?P<rx>R\d) status (?P<status>[EURTF])( held by (?P<holder>P|Q|nobody)|, dispenses left (?P<left>\d))?(, flag (?P<flag>\w+))?": has_status,
    r"refills left (?P<left>\d)": has_refills_left,
    r"held by (?P<whom>[PQ])": is_held,
    r"tied to (?P<whom>[PQ])": is_tied,
    r"R1 (is|shows) U and .*": shows_recall,
    r"returns R1 \(E\) and R2 \(U, held by P\)|not R3, R4, R5": finds_some,
    r"(?P<t>T\d) (shown as )?(?P<state>active|completed|discontinued)( \(.*\)|, flag (?P<withdrawn>withdrawn))?": shows_treatment,
    r"(?P<t>T\d) not shown.*": hides_treatment,
    r"T1 discontinued, by A, with date and reason": shows_stop,
    r"T1 active, same entry id, data of R2": shows_data_of,
    r"shows T1, says that it is incomplete.*": shows_incomplete,
    r"shows D1 under .*": shows_unseen,
    r"no list entry": shows_no_entry,
    r"D1 has joined the treatment.*": has_joined,
    r"shows the treatment of R1 with last dispense D1": shows_last_dispense,
    r"the treatment shows the conflicting report": shows_conflict,
    r"both shown under .*": shows_other,
    r"shows A1": shows_allergy,
    r"A1 not shown as a warning": shows_no_allergy,
    r"the list shows R1 with its earliest date": shows_earliest,
    r"one order, with the whole prescription, .*": comes_as_an_order,
    r"(version )?v\d": is_a_version,
}


def check_step(journey: Journey) -> None:
    """Hold the present step to each of its expectations; one that nobody understands fails."""
    assert journey.step is not None
    for expected in journey.step.expect:
        matching = ((re.fullmatch(pattern, expected), holds) for pattern, holds in CHECKS.items())
        said, holds = next(((said, holds) for said, holds in matching if said is not None), (None, None))
        assert said is not None, f"nobody checks {expected!r}"
        assert holds is not None
        try:
            holds(journey, said)
        except AssertionError as error:
            error.add_note(f"step {journey.step.n}: {expected}; answered {[each.document for each in journey.told]}")
            raise
