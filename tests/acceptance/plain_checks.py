"""What a step of our own scenarios expects, in few sentences: held to whatever judges the events and shows the list.

The fold, the oracle and the running services are looked at through `Seen`, as JSON in the form that readers get.
"""

import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

from tests.acceptance.translate import ORGANISATIONS, Play, Step

Said = re.Match[str]
NOBODY: Final = "nobody"


class Judged(NamedTuple):
    """What became of one event. named: what a refusal or an answer names, None where nothing."""

    outcome: str
    reason: str | None
    flags: frozenset[str]
    named: str | None


class Seen(Protocol):
    """A scenario after one of its steps."""

    @property
    def play(self) -> Play:
        """Whose names stand for which ids."""

    def judged(self) -> list[Judged]:
        """The step's events."""

    def whole(self) -> dict[str, Any]:
        """The list of the step's patient at the step's time."""

    def prescription(self, name: str) -> dict[str, Any]:
        """One prescription at the step's time, also one that its entry's age hides."""


def check(seen: Seen, step: Step, version_before: int, left_out: str = "nothing") -> None:
    """Hold the step to each of its expectations; applied without a word of flags means none.

    version_before: what the list said after the step before this one. left_out: how sentences begin that the judge at
    hand knows nothing of.
    """
    for expected in step.expect:
        said, holds = _understood(expected)
        if expected.startswith(left_out):
            continue
        try:
            holds(seen, said)
        except AssertionError as error:
            error.add_note(f"step {step.n}, {step.action} {step.events and type(step.events[0].body)}: {expected}")
            raise
    if "applied" in step.expect and not any(re.match(r"flags? ", each) for each in step.expect):
        assert [judged.flags for judged in seen.judged()] == [frozenset()] * len(seen.judged()), f"step {step.n}"
    for expected, has_moved in (("version moves", True), ("version stays", False)):
        if expected in step.expect:
            assert (seen.whole()["version"] != version_before) is has_moved, f"step {step.n}: {expected}"


def _understood(expected: str) -> tuple[Said, Callable[[Seen, Said], None]]:
    """The one check of a sentence."""
    matching = [(re.fullmatch(pattern, expected), holds) for pattern, holds in CHECKS.items()]
    found = [(said, holds) for said, holds in matching if said is not None]
    assert len(found) == 1, f"{expected!r} is understood by {len(found)} checks"
    return found[0]


def _is_outcome(seen: Seen, said: Said) -> None:
    assert {judged.outcome for judged in seen.judged()} == {said[0]}


def _is_refused(seen: Seen, said: Said) -> None:
    (judged,) = seen.judged()
    assert (judged.outcome, judged.reason) == ("refused", said["reason"])
    if said["named"]:
        known = {name: seen.play.id_of(name) for name in re.findall(r"[RTDA]\d", said["named"])} | dict(ORGANISATIONS)
        assert judged.named is not None
        assert set(re.split(", ?", judged.named)) == {known.get(each, each) for each in said["named"].split(" and ")}


def _has_flags(seen: Seen, said: Said) -> None:
    (judged,) = seen.judged()
    assert judged.flags == set(said["flags"].split(", "))


def _answers(seen: Seen, said: Said) -> None:
    (judged,) = seen.judged()
    assert judged.named == said["what"]


# --- Prescriptions ----------------------------------------------------------------------------------------------------


def _has_status(seen: Seen, said: Said) -> None:
    for name in said["rxs"].split(", "):
        shown = seen.prescription(name)
        assert shown["status"] == said["status"], f"{name} is {shown['status']}"
        if said["holder"]:
            assert shown.get("holder") == ORGANISATIONS.get(said["holder"])


def _shows_flags(seen: Seen, said: Said) -> None:
    """Exactly these."""
    assert _flags_of(seen, said["what"]) == _listed(said["flags"], "no flags")


def _flags_of(seen: Seen, name: str) -> set[str]:
    if name.startswith("R"):
        return set(seen.prescription(name).get("flags", ()))
    if name.startswith("T"):
        return set(_entry(seen, name).get("flags", ()))
    return set(_hand_out(seen, name).get("flags", ()))


def _counts(seen: Seen, said: Said) -> None:
    shown = seen.prescription(said["rx"])
    for key in ("refills_left", "dispenses_left", "handed_out", "total", "returned", "dispenses_done"):
        value = said.groupdict().get(key)
        if value is not None:
            assert shown.get(key, 0) == float(value), f"{key} is {shown.get(key)}"


def _is_recalled(seen: Seen, said: Said) -> None:
    """By these closers, in log order."""
    assert [each["reason"] for each in seen.prescription(said["rx"]).get("recalls", ())] == said["reasons"].split(", ")


def _is_tied(seen: Seen, said: Said) -> None:
    assert seen.prescription(said["rx"]).get("dispatched_to") == ORGANISATIONS.get(said["whom"])


# --- Hand-outs --------------------------------------------------------------------------------------------------------


def _hand_out(seen: Seen, name: str) -> dict[str, Any]:
    dispense = seen.play.id_of(name)
    prescriptions = [shown for entry in _entries(seen) for shown in entry.get("prescriptions", ())]
    hand_outs = [each for shown in prescriptions for each in shown.get("hand_outs", ())]
    return next(each for each in (*hand_outs, *_unseen(seen)) if each["dispense"] == dispense)


def _unseen(seen: Seen) -> list[dict[str, Any]]:
    return list(seen.whole().get("unseen_hand_outs", ()))


def _is_reversed(seen: Seen, said: Said) -> None:
    assert _hand_out(seen, said["d"]).get("reversed", False) is (said["is"] == "reversed")


def _is_unseen(seen: Seen, said: Said) -> None:
    expected = [seen.play.id_of(name) for name in re.findall(r"D\d", said["ds"])]
    assert [each["dispense"] for each in _unseen(seen)] == expected


def _was_last(seen: Seen, said: Said) -> None:
    last = _entry(seen, said["t"]).get("last_dispense")
    assert (last and last["dispense"]) == (None if said["d"] == "none" else seen.play.id_of(said["d"]))


def _shows_conflict(seen: Seen, said: Said) -> None:
    reports = _entry(seen, said["t"])["conflicting_reports"]
    assert [each["dispense"] for each in reports] == [seen.play.id_of(said["d"])]


# --- Entries ----------------------------------------------------------------------------------------------------------


def _entries(seen: Seen) -> list[dict[str, Any]]:
    whole = seen.whole()
    return [*whole.get("treatments", ()), *whole.get("other_prescriptions", ())]


def _entry(seen: Seen, name: str) -> dict[str, Any]:
    return next(each for each in _entries(seen) if each["treatment"] == seen.play.id_of(name))


def _has_state(seen: Seen, said: Said) -> None:
    assert _entry(seen, said["t"])["status"] == said["state"]


def _is_hidden(seen: Seen, said: Said) -> None:
    assert seen.play.id_of(said["t"]) not in {each["treatment"] for each in _entries(seen)}


def _has_chain(seen: Seen, said: Said) -> None:
    """The newest-signed first."""
    chain = [each["prescription"] for each in _entry(seen, said["t"]).get("prescriptions", ())]
    assert chain == [seen.play.id_of(name) for name in said["chain"].split(", ")]


def _counts_entries(seen: Seen, said: Said) -> None:
    assert len(_entries(seen)) == int(said["many"])


def _is_among_others(seen: Seen, said: Said) -> None:
    others = {each["treatment"] for each in seen.whole().get("other_prescriptions", ())}
    assert seen.play.id_of(said["t"]) in others


def _has_dose(seen: Seen, said: Said) -> None:
    dosing = _entry(seen, said["t"])["dosing"]["dosing"]
    assert dosing["periods"][0]["fixed"][0]["dose"]["low"] == float(said["dose"])


def _has_kind(seen: Seen, said: Said) -> None:
    assert _entry(seen, said["t"])["kind"] == said["kind"]


def _is_used(seen: Seen, said: Said) -> None:
    assert _entry(seen, said["t"])["reported_use"]["use"] == said["use"]


def _is_stopped_by(seen: Seen, said: Said) -> None:
    assert _entry(seen, said["t"])["stopped"]["by"]["organisation"] == ORGANISATIONS[said["whom"]]


# --- The whole list ---------------------------------------------------------------------------------------------------


def _allergies_are(seen: Seen, said: Said) -> None:
    known = {each["recorded"]["allergy"] for each in seen.whole().get("allergies", ())}
    assert known == {seen.play.id_of(name) for name in re.findall(r"A\d", said["which"])}


def _allergy_status_is(seen: Seen, said: Said) -> None:
    assert seen.whole().get("allergy_status", "not_asked") == said["status"]


def _packs(seen: Seen, said: Said) -> None:
    multidose = seen.whole().get("multidose")
    if said["whom"] == NOBODY:
        assert multidose is None or multidose.get("pharmacy") is None
    else:
        assert multidose is not None
        assert multidose["pharmacy"] == ORGANISATIONS[said["whom"]]


def _is_deceased(seen: Seen, said: Said) -> None:
    assert (seen.whole().get("deceased_on") is None) is bool(said["not"])


def _is_confirmed(seen: Seen, said: Said) -> None:
    assert seen.whole()["reconciled"]["by"]["organisation"] == ORGANISATIONS[said["whom"]]


def _is_complete(seen: Seen, said: Said) -> None:
    assert (seen.whole().get("incomplete_since") is None) is (said["what"] == "complete")


def _is_checked_apart(_seen: Seen, _said: Said) -> None:
    """By `check`, which knows the version before; or by whoever reads with the token."""


def _listed(text: str, none: str) -> set[str]:
    return set() if text == none else set(text.split(", "))


CHECKS: Final[dict[str, Callable[[Seen, Said], None]]] = {
    r"applied|duplicate|parked": _is_outcome,
    r"refused\((?P<reason>\w+)\)(, naming (?P<named>.+))?": _is_refused,
    r"flags? (?P<flags>\w+(, \w+)*)": _has_flags,
    r"the answer says (?P<what>\w+)": _answers,
    r"(?P<rxs>R\d(, R\d)*) status (?P<status>[EURTF])( held by (?P<holder>P|Q|nobody))?": _has_status,
    r"(?P<what>[RTD]\d) shows (?P<flags>no flags|[a-z]+(_[a-z]+)*(, [a-z]+(_[a-z]+)*)*)": _shows_flags,
    r"(?P<rx>R\d) (refills left (?P<refills_left>\d+)|dispenses left (?P<dispenses_left>\d+))": _counts,
    r"(?P<rx>R\d) handed out (?P<handed_out>[\d.]+) of (?P<total>[\d.]+)": _counts,
    r"(?P<rx>R\d) (returned (?P<returned>\d+)|dispenses done (?P<dispenses_done>\d+))": _counts,
    r"(?P<rx>R\d) recalled by (?P<reasons>\w+(, \w+)*)": _is_recalled,
    r"(?P<rx>R\d) tied to (?P<whom>[PQ]|nobody)": _is_tied,
    r"(?P<d>D\d) (?P<is>reversed|stands)": _is_reversed,
    r"unseen: (?P<ds>none|D\d(, D\d)*)": _is_unseen,
    r"(?P<t>T\d) last dispense (?P<d>D\d|none)": _was_last,
    r"(?P<t>T\d) shows the conflicting report of (?P<d>D\d)": _shows_conflict,
    r"(?P<t>T\d) (?P<state>active|paused|completed|discontinued)": _has_state,
    r"(?P<t>T\d) not shown": _is_hidden,
    r"(?P<t>T\d) chain (?P<chain>R\d(, R\d)*)": _has_chain,
    r"entries (?P<many>\d+)": _counts_entries,
    r"(?P<t>T\d) among other prescriptions": _is_among_others,
    r"(?P<t>T\d) dose (?P<dose>[\d.]+)": _has_dose,
    r"(?P<t>T\d) kind (?P<kind>\w+)": _has_kind,
    r"(?P<t>T\d) taken (?P<use>\w+)": _is_used,
    r"(?P<t>T\d) stopped by (?P<whom>O[ABC])": _is_stopped_by,
    r"allergies: (?P<which>none|A\d(, A\d)*)": _allergies_are,
    r"allergy status (?P<status>\w+)": _allergy_status_is,
    r"packed by (?P<whom>[PQ]|nobody)": _packs,
    r"(?P<not>not )?deceased": _is_deceased,
    r"confirmed by (?P<whom>O[ABC])": _is_confirmed,
    r"(?P<what>complete|incomplete)": _is_complete,
    r"version (moves|stays)|v\d": _is_checked_apart,
}
