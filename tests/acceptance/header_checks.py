"""What the words of the scenarios' header say of a step, in any order and combination, held to whoever plays it.

A sentence is understood as a whole, or in its parts: "refused(held), naming P; R1 status U". One that nobody understands
is told by scenario, step and sentence: it is the runner that lacks a word.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from schemas.events import PrescriptionIssued, PrescriptionRecalled, TreatmentDiscontinued
from schemas.reasons import DoorReason, Flag, Reason
from tests.acceptance.notices import check_notice_sentence, check_order_sentence
from tests.acceptance.translate import AT_THE_DOOR, ORGANISATIONS, Step, actor_of, organisation_of
from tests.acceptance.values import NO_VALUE, NotUnderstoodError, calendar_day, code_of, dosing_period
from tests.acceptance.witness import (
    Witness,
    entries,
    flags_of,
    hand_out,
    hand_outs,
    is_shown,
    judged_of,
    shown_entry,
)

Said = re.Match[str]
Check = Callable[[Witness, Said], None]
SHOWN_FLAGS: Final = frozenset({"recalled", "expired", "withdrawn"})
"""Header: these are shown on the prescription or entry, wherever a sentence has them."""
NUMBERS: Final = {"no": 0, "one": 1, "a": 1, "two": 2, "three": 3, "four": 4, "five": 5}


def check_sentence(seen: Witness, sentence: str) -> None:
    """Hold the step to one sentence. Raises NotUnderstoodError for one that has no translation."""
    found = _understood(_with_names(seen, sentence.strip().rstrip(".")), "")
    if found is None:
        raise NotUnderstoodError(f"nobody understands {sentence!r}")
    for said, holds in found:
        try:
            holds(seen, said)
        except NO_VALUE as error:
            raise AssertionError(f"{sentence!r} does not fit what is shown: {error!r}") from error


def understands(sentence: str) -> bool:
    """Whether a sentence has a translation."""
    return _understood(sentence, "") is not None


def check_unsaid_flags(seen: Witness, scenario: Any) -> None:
    """What was applied without a word of flags has none, but for those that the scenario has a word for elsewhere."""
    said = " ".join(seen.step.expect)
    if "applied" in seen.step.expect and "flag" not in said and "waits" not in said:
        elsewhere = str([scenario.get("then"), scenario.get("final"), said])
        surplus = {flag for judged in seen.judged() for flag in judged.flags if flag not in elsewhere}
        assert not surplus, f"step {seen.step.n}: flags that nobody expects: {sorted(surplus)}"


def _with_names(seen: Witness, sentence: str) -> str:
    """Calls "the treatment" and "the entry" by the name of the one that the step is about."""
    named = next((name for name in _names(seen.step.target) if name[0] in "TR"), _of_what_is_named(seen) or "R1")
    return re.sub(r"^(?:shows )?the (?:treatment|entry)(?= (?!of))", f"T{named[1:]}", sentence)


def _understood(sentence: str, subject: str) -> list[tuple[Said, Check]] | None:
    """Each part with its check; a part without a name goes on about the one before."""
    for text in dict.fromkeys([f"{subject} {sentence}".strip(), sentence]):
        for pattern, holds in CHECKS.items():
            said = re.fullmatch(pattern, text)
            if said is not None:
                return [(said, holds)]
    claimed = re.split(r": |,? because ", sentence, maxsplit=1)
    if len(claimed) > 1:
        # What follows explains it.
        return _understood(claimed[0], subject)
    for mark in (
        r"; ",
        r", (?:and |but |so )?",
        r" (?:and|but|while) ",
        r" with (?=(?:the )?flags?\b)",
        r" (?=without )",
    ):
        parts = re.split(mark, sentence)
        if len(parts) > 1:
            found = _each_understood(parts, subject)
            if found is not None:
                return found
    return None


def _each_understood(parts: Iterable[str], subject: str) -> list[tuple[Said, Check]] | None:
    found: list[tuple[Said, Check]] = []
    for part in parts:
        more = _understood(part.strip(), subject)
        if more is None:
            return None
        found += more
        subject = next(iter(re.findall(r"^(?:shows )?([RTDA]\d+)\b", part)), subject)
    return found


# --- What a sentence is about -----------------------------------------------------------------------------------------


def _names(text: str | None) -> list[str]:
    return list(dict.fromkeys(re.findall(r"\b[A-Z]\d+\b", text or "")))


def _prescriptions(seen: Witness, said: Said) -> list[str]:
    """Those that are named; else those of the step; else the one that there is."""
    named = [name for name in _names(_part(said, "rx")) if name.startswith("R")]
    if named:
        return named
    of_step = [name for name in _names(seen.step.target) if name.startswith("R")]
    return of_step or [_of_what_is_named(seen) or "R1"]


def _of_what_is_named(seen: Witness) -> str | None:
    """The prescription of the claim, hand-out or treatment that the step is about."""
    signed = {name: event.body for name, event in seen.play.sent.items() if isinstance(event.body, PrescriptionIssued)}
    issued = {body.prescription: name for name, body in signed.items()}
    for name in _names(seen.step.target):
        known = seen.play.sent.get(name)
        found = issued.get(getattr(known.body, "prescription", "")) if known else None
        if found:
            return found
        treatment = seen.play.treatment_named(name) if name.startswith("T") else None
        of_treatment = [rx for rx, body in signed.items() if body.treatment == treatment]
        if of_treatment:
            return of_treatment[-1]
    return None


def _whom(said: str | None) -> str | None:
    return (
        None
        if said in (None, "nobody", "no one", "none")
        else organisation_of(re.sub(r"^(the )?pharmacy ", "", str(said)))
    )


def _part(said: Said, name: str) -> str:
    """What a group of the pattern holds, in whichever of its alternatives."""
    return next((value for key, value in said.groupdict().items() if key.rstrip("2") == name and value), "")


def _count(text: str) -> float:
    return float(NUMBERS[text]) if text in NUMBERS else float(text.replace(",", "."))


# --- Outcomes ---------------------------------------------------------------------------------------------------------


def _is_outcome(seen: Witness, said: Said) -> None:
    judged = [judged_of(seen, said["name"])] if said.groupdict().get("name") else seen.judged()
    assert judged, "nothing was judged"
    assert {each.outcome for each in judged} == {said["outcome"]}


def _is_refused(seen: Witness, said: Said) -> None:
    name = said.groupdict().get("name")
    judged = [judged_of(seen, name)] if name else seen.judged()
    assert judged, "nothing was judged"
    assert {each.outcome for each in judged} == {"refused"}
    if said.groupdict().get("reason"):
        assert {each.reason for each in judged} == {said["reason"]}
    because = said.groupdict().get("because") or ""
    meant = {str(reason) for reason in Reason if re.search(rf"\b{str(reason).replace('_', '[ _]')}\b", because)}
    assert not meant or {each.reason for each in judged} <= meant
    if said.groupdict().get("named"):
        _names_what_is_said(seen, said["named"])


def _is_named(seen: Witness, said: Said) -> None:
    _names_what_is_said(seen, said["named"])


def _names_what_is_said(seen: Witness, text: str) -> None:
    """Everything that the words name, and nothing else; where they name nothing by its name, something."""
    (judged,) = seen.judged()
    expected = set(_ids_in(seen, text))
    assert judged.named, f"named nothing, and should have {text}"
    if expected:
        assert set(re.split(r", ?", judged.named)) == expected


def _ids_in(seen: Witness, text: str) -> Iterable[str]:
    """Ids, organisations and dates."""
    for name in _names(text):
        yield seen.play.treatment_named(name) if name.startswith("T") else seen.play.id_of(name)
    for letter in re.findall(r"\b(?:pharmacy )?([PQ])\b", text):
        yield ORGANISATIONS[letter]
    for day in re.findall(r"\bd0(?:[+-]\d+d)?|\d{4}-\d\d-\d\d", text):
        yield calendar_day(day).isoformat()
    if re.search(r"\bthe (earliest )?date\b", text) and not re.search(r"d0|\d{4}-", text):
        yield str(seen.prescription(_names(seen.step.target)[0])["issued"]["earliest_dispense"])


def _is_turned_away(seen: Witness, said: Said) -> None:
    """By the service that was asked; where none is asked, it was not taken to anybody."""
    assert seen.step.door
    for status, document in seen.documents():
        assert 400 <= status < 500
        reasons = {each["reason"] for each in document.get("errors", ())} | {
            str(document.get("type")).rpartition("/")[2]
        }
        meant = {str(each) for each in DoorReason if re.search(rf"\b{each}\b", said["how"]) and "_" in each}
        assert meant <= reasons
    if seen.documents():
        assert seen.is_unchanged(), "something was stored"


def _is_answered(seen: Witness, said: Said) -> None:
    for status, _ in seen.documents():
        assert str(status) == said["code"] or said["code"].startswith(f"{status // 100}x")


def _is_unchanged(seen: Witness, _said: Said) -> None:
    assert seen.is_unchanged()


def _waits(seen: Witness, said: Said) -> None:
    """Applied, and flagged by what it waits for."""
    flag = {"R": "prescription_unknown", "T": "treatment_unknown", "D": "dispense_unknown", "A": "allergy_unknown"}
    judged = seen.judged()
    assert {each.outcome for each in judged} == {"applied"}
    assert all(flag[said["on"][0]] in each.flags for each in judged)


def _raises_an_alarm(seen: Witness, _said: Said) -> None:
    assert seen.has_raised_an_alarm()


def _holds_by_itself(_seen: Witness, _said: Said) -> None:
    """The scenario's own steps show it: none of them is the event that nobody had to send."""


def _has_in_history(seen: Witness, said: Said) -> None:
    for name in _names(_part(said, "what")):
        natural = seen.play.treatment_named(name) if name.startswith("T") else seen.play.id_of(name)
        assert seen.has_in_history(natural), f"the history has nothing of {name}"


def _points_at(seen: Witness, said: Said) -> None:
    """Each error with its place; at that field, where one is named."""
    for _, document in seen.documents():
        pointers = [each["pointer"] for each in document["errors"]]
        assert pointers
        field = said.groupdict().get("field")
        assert field is None or any(field.replace(" ", "_") in pointer for pointer in pointers)


def _was_confirmed(seen: Witness, _said: Said) -> None:
    confirmed = seen.whole()["reconciled"]
    assert confirmed["by"]["organisation"]
    assert confirmed["at"]


def _are_all_shown(seen: Witness, _said: Said) -> None:
    """Whatever prescriptions the scenario has."""
    assert all(is_shown(seen, name) for name in seen.play.sent if re.fullmatch(r"R\d+", name))


def _counts_once(seen: Witness, said: Said) -> None:
    for name in _names(said["d"]):
        shown = [each for each in hand_outs(seen) if each["dispense"] == seen.play.id_of(name)]
        assert [each.get("reversed", False) for each in shown] == [False]


def _does_not_exist(seen: Witness, said: Said) -> None:
    for name in _names(_part(said, "what")):
        assert not is_shown(seen, name)


def _is_of_kind(seen: Witness, said: Said) -> None:
    assert shown_entry(seen, said["t"])["kind"] == code_of("recorded_kind", said["kind"])


def _tells_first(seen: Witness, said: Said) -> None:
    for _, document in seen.documents():
        first = document["first"]
        if said["outcome"] is None:
            assert first
            continue
        assert (first["outcome"], first.get("reason")) == (said["outcome"], said["reason"])


def _answers(seen: Witness, said: Said) -> None:
    told = {"recalled": "recalled", "expired": "expired", "completed": "already_dispensed"} | {
        "already dispensed": "already_dispensed",
        "already completed": "already_dispensed",
        "already recalled": "already_recalled",
        "marked for recall": "marked_with_dispenser",
        "marked for recall with the dispenser": "marked_with_dispenser",
    }
    for _, document in seen.documents():
        assert document["named"] == {"answer": told[said["what"].replace("_", " ")]}


# --- Flags ------------------------------------------------------------------------------------------------------------


def _flags_in(text: str) -> set[str]:
    known = {str(flag) for flag in Flag}
    found = set(re.findall(r"[a-z]+(?:_[a-z]+)*", text))
    unknown = {each for each in found - known if "_" in each}
    if unknown:
        raise NotUnderstoodError(f"{', '.join(sorted(unknown))} is no flag")
    return found & known


def _has_flags(seen: Witness, said: Said) -> None:
    """Exactly these; those that are shown on the prescription or entry may be there alone."""
    expected, judged = _flags_in(said["flags"]), seen.judged()
    flags = {flag for each in judged for flag in each.flags}
    assert flags <= expected, f"also {sorted(flags - expected)}"
    assert expected - flags <= SHOWN_FLAGS, f"not {sorted(expected - flags - SHOWN_FLAGS)}"
    for flag in expected - flags:
        assert flag in _flags_around(seen, said), f"nothing shows {flag}"
    for flag in _flags_in(said.groupdict().get("nots") or ""):
        assert flag not in flags


def _flags_around(seen: Witness, said: Said) -> set[str]:
    """Those that are shown on what the step is about, or anywhere in the list after a read."""
    names = _prescriptions(seen, said) + [name for name in _names(seen.step.target) if name.startswith("T")]
    shown = [flags_of(seen, name) for name in names if not name.startswith("T") or is_shown(seen, name)]
    of_entries = [set(each.get("flags", ())) for each in entries(seen)]
    return set().union(*shown, *of_entries)


def _has_no_flags(seen: Witness, said: Said) -> None:
    name = _part(said, "what")
    flags = flags_of(seen, name) if name else {flag for each in seen.judged() for flag in each.flags}
    assert not flags


def _lacks_flags(seen: Witness, said: Said) -> None:
    flags = {flag for each in seen.judged() for flag in each.flags}
    assert not flags & _flags_in(said["flags"])


def _shows_flags(seen: Witness, said: Said) -> None:
    """Among others."""
    assert _flags_in(said["flags"]) <= flags_of(seen, said["what"])


# --- Prescriptions ----------------------------------------------------------------------------------------------------


def _has_status(seen: Witness, said: Said) -> None:
    for name in _prescriptions(seen, said):
        shown = seen.prescription(name)
        assert shown["status"] == said["status"], f"{name} is {shown['status']}"
        if said["holder"]:
            assert shown.get("holder") == _whom(said["holder"])


STATES: Final = {"dispensable": "E", "open": "E", "being dispensed": "U", "completed": "R", "dispensed": "R"} | {
    "recalled": "T",
    "expired": "F",
}


def _is_in_state(seen: Witness, said: Said) -> None:
    for name in _prescriptions(seen, said):
        shown = seen.prescription(name)
        fits = shown["status"] == STATES[said["word"]] or said["word"] in shown.get("flags", ())
        assert fits is not bool(said["not"]), f"{name} is {shown['status']} {shown.get('flags', [])}"


def _is_held(seen: Witness, said: Said) -> None:
    for name in _prescriptions(seen, said):
        assert seen.prescription(name).get("holder") == _whom(said.groupdict().get("holder"))


def _counts(seen: Witness, said: Said) -> None:
    for name in _prescriptions(seen, said):
        shown = seen.prescription(name)
        for key, value in said.groupdict().items():
            if key in ("handed_out", "total", "returned") and value is not None:
                assert shown.get(key, 0) == _count(value), f"{name}: {key} is {shown.get(key)}"
        if said.groupdict().get("key"):
            key = said["key"].replace(" ", "_")
            assert shown.get(key, 0) == _count(said["number"]), f"{name}: {key} is {shown.get(key)}"


def _can_be_claimed(seen: Witness, said: Said) -> None:
    for name in _prescriptions(seen, said):
        assert (seen.prescription(name)["status"] == "E") is not bool(said["not"])


def _is_open_nowhere(seen: Witness, _said: Said) -> None:
    shown = [each for one in entries(seen) for each in one.get("prescriptions", ())]
    assert not [each for each in shown if each["status"] == "E"]


def _is_open(seen: Witness, said: Said) -> None:
    """As a search for what is open would find it."""
    for name in _names(said["what"]):
        assert (seen.prescription(name)["status"] in "EU") is not bool(said["not"])


def _keeps(seen: Witness, said: Said) -> None:
    for name in _prescriptions(seen, said):
        assert seen.prescription(name).get("holder") == ORGANISATIONS[_part(said, "whom")]


def _is_locked(seen: Witness, said: Said) -> None:
    for name in _prescriptions(seen, said):
        assert seen.prescription(name)["issued"].get("locked", False) is True


def _has_hand_outs(seen: Witness, said: Said) -> None:
    for name in _prescriptions(seen, said):
        standing = [each for each in seen.prescription(name).get("hand_outs", ()) if not each.get("reversed")]
        assert len(standing) == _count(said["many"])
        assert not (said["unflagged"] and any(each.get("flags") for each in standing))


def _is_tied(seen: Witness, said: Said) -> None:
    for name in _prescriptions(seen, said):
        assert seen.prescription(name).get("dispatched_to") == _whom(said.groupdict().get("whom"))


def _is_recalled_by(seen: Witness, said: Said) -> None:
    for name in _prescriptions(seen, said):
        reasons = {each["reason"] for each in seen.prescription(name).get("recalls", ())}
        assert set(re.split(", | and ", said["reasons"])) <= reasons


def _ends(seen: Witness, said: Said) -> None:
    for name in _prescriptions(seen, said):
        field = "earliest_dispense" if "earliest" in said[0] else "valid_until"
        assert seen.prescription(name)["issued"][field] == calendar_day(said["day"]).isoformat()


# --- Entries ----------------------------------------------------------------------------------------------------------


def _has_entry_state(seen: Witness, said: Said) -> None:
    state = {"stopped": "discontinued", "ended": "completed", "finished": "completed"}.get(said["state"], said["state"])
    for name in _names(said["t"]):
        if state == "withdrawn":
            shown = is_shown(seen, name)
            assert not shown or "withdrawn" in flags_of(seen, name)
        else:
            assert shown_entry(seen, name)["status"] == state


def _is_paused(seen: Witness, said: Said) -> None:
    entry = shown_entry(seen, said["t"])
    assert entry["status"] == "paused"
    assert entry["paused"].get("until") == calendar_day(said["day"]).isoformat()


def _has_prescriptions(seen: Witness, said: Said) -> None:
    shown = {each["prescription"] for each in shown_entry(seen, said["t"]).get("prescriptions", ())}
    assert {seen.play.id_of(name) for name in _names(said["what"])} <= shown


def _has_head(seen: Witness, said: Said) -> None:
    assert shown_entry(seen, said["t"])["prescriptions"][0]["prescription"] == seen.play.id_of(said["head"])


def _has_no_last(seen: Witness, _said: Said) -> None:
    assert not [each for each in entries(seen) if each.get("last_dispense")]


def _are_shown(seen: Witness, said: Said) -> None:
    for name in _names(said["what"]):
        assert is_shown(seen, name), f"{name} is not shown"
        if name.startswith("A"):
            _is_as_recorded(seen, name)


def _is_as_recorded(seen: Witness, name: str) -> None:
    body, natural = seen.play.sent[name].body, seen.play.id_of(name)
    shown = next(each["recorded"] for each in seen.whole()["allergies"] if each["recorded"]["allergy"] == natural)
    for field in ("substance", "reaction", "severity"):
        assert shown.get(field) == getattr(body, field)


def _is_stopped_with_reason(seen: Witness, said: Said) -> None:
    entry, event = shown_entry(seen, said["t"]), seen.play.sent[f"stop of {said['t']}"]
    assert isinstance(event.body, TreatmentDiscontinued)
    assert entry["status"] == "discontinued"
    assert entry["stopped"]["reason"] == event.body.reason
    assert entry["stopped"]["at"]
    assert entry["stopped"]["by"]["organisation"] == organisation_of(said["whom"])


def _has_data_of(seen: Witness, said: Said) -> None:
    """The newest prescription of the entry, and its dosing."""
    entry, event = shown_entry(seen, said["t"]), seen.play.sent[said["rx"]]
    assert entry["status"] == said["state"]
    assert entry["prescriptions"][0]["prescription"] == seen.play.id_of(said["rx"])
    assert entry["dosing"]["by"]["organisation"] == event.source.organisation


def _are_all_others(seen: Witness, _said: Said) -> None:
    whole = seen.whole()
    assert not whole.get("treatments")
    shown = {each["prescriptions"][0]["prescription"] for each in whole["other_prescriptions"]}
    assert shown == {seen.play.id_of(name) for name in seen.play.sent if re.fullmatch(r"R\d+", name)}


def _shows_earliest(seen: Witness, said: Said) -> None:
    signed = seen.play.sent[said["rx"]].body
    assert isinstance(signed, PrescriptionIssued)
    assert signed.earliest_dispense is not None
    assert is_shown(seen, said["rx"])
    assert seen.prescription(said["rx"])["issued"]["earliest_dispense"] == signed.earliest_dispense.isoformat()


def _shows_recall(seen: Witness, said: Said) -> None:
    """In the list and, after a search, in what that found."""
    natural = seen.play.id_of(said["rx"])
    body = seen.play.sent[f"recall of {said['rx']}"].body
    assert isinstance(body, PrescriptionRecalled)
    found = [each for each in seen.found() if each["prescription"] == natural]
    for shown in [seen.prescription(said["rx"]), *found]:
        assert shown["status"] == said["status"]
        assert "recalled" in shown["flags"]
        assert body.reason in [recall["reason"] for recall in shown["recalls"]]
    assert is_shown(seen, said["rx"])


def _are_not_shown(seen: Witness, said: Said) -> None:
    for name in _names(_part(said, "what")):
        assert not is_shown(seen, name), f"{name} is shown"


def _counts_entries(seen: Witness, said: Said) -> None:
    assert len(entries(seen)) == _count(said["many"] or "no")
    _are_shown_if_named(seen, f"{said['what']} {said['what2']}")


def _are_shown_if_named(seen: Witness, names: str | None) -> None:
    for name in _names(names):
        assert is_shown(seen, name), f"{name} is not shown"


def _is_among_others(seen: Witness, said: Said) -> None:
    others = {each["treatment"] for each in seen.whole().get("other_prescriptions", ())}
    assert {seen.play.treatment_named(name) for name in _names(said["what"])} <= others


def _was_last(seen: Witness, said: Said) -> None:
    name = said["t"] or next(iter(_names(seen.step.target)), "R1")
    last = shown_entry(seen, name if name[0] in "RT" else "R1").get("last_dispense")
    assert (last and last["dispense"]) == (None if said["d"] == "none" else seen.play.id_of(said["d"]))


def _has_chain(seen: Witness, said: Said) -> None:
    """As it is told: the oldest first; the list shows the newest-signed first."""
    named = said["t"] or _names(said["chain"])[0]
    chain = [each["prescription"] for each in shown_entry(seen, named).get("prescriptions", ())]
    assert chain == [seen.play.id_of(name) for name in reversed(_names(said["chain"]))]


def _has_dose(seen: Witness, said: Said) -> None:
    named = said["t"] or next((name for name in _names(seen.step.target) if name[0] in "RT"), "R1")
    period = dosing_period(said["dose"], None, None)[0]
    shown = shown_entry(seen, named)["dosing"]["dosing"]["periods"][0]
    expected = period.as_needed.dose if period.as_needed else period.fixed[0].dose
    given = shown["as_needed"] if shown.get("as_needed") else shown["fixed"][0]
    assert given["dose"]["low"] == float(expected.low)


def _has_detail(seen: Witness, said: Said) -> None:
    """Kind, indication, administration and the like, as the entry shows them."""
    key = {"indication": "indication_text"}.get(said["key"], said["key"].replace(" ", "_"))
    assert str(shown_entry(seen, said["t"]).get(key)) == said["value"].strip('"')


def _is_used(seen: Witness, said: Said) -> None:
    assert shown_entry(seen, said["t"])["reported_use"]["use"] == said["use"].replace(" ", "_")


def _is_done_by(seen: Witness, said: Said) -> None:
    stopped = shown_entry(seen, said["t"])["stopped"]
    assert stopped["by"]["organisation"] == organisation_of(said["whom"])


# --- Hand-outs --------------------------------------------------------------------------------------------------------


def _is_reversed(seen: Witness, said: Said) -> None:
    for name in _names(said["d"]):
        assert hand_out(seen, name).get("reversed", False) is not (said["is"] in ("stands", "stand", "counts"))


def _is_unseen(seen: Witness, said: Said) -> None:
    unseen = {each["dispense"] for each in seen.whole().get("unseen_hand_outs", ())}
    assert {seen.play.id_of(name) for name in _names(said["d"])} <= unseen


def _has_joined(seen: Witness, said: Said) -> None:
    for name in _names(said["d"]):
        assert "prescription_unknown" not in hand_out(seen, name).get("flags", ())
        assert seen.play.id_of(name) not in {each["dispense"] for each in seen.whole().get("unseen_hand_outs", ())}


def _shows_conflict(seen: Witness, said: Said) -> None:
    with_report = [one for one in entries(seen) if one.get("conflicting_reports")]
    shown = [each["dispense"] for one in with_report for each in one["conflicting_reports"]]
    assert shown
    assert all("conflicting_report" in one["flags"] for one in with_report)
    assert {seen.play.id_of(name) for name in _names(said[0]) if name.startswith("D")} <= set(shown)


# --- The whole list ---------------------------------------------------------------------------------------------------


def _allergy_status(seen: Witness, said: Said) -> None:
    word = _part(said, "status")
    meant = "not_asked" if "ask" in word else "none_known" if word.startswith("no") else "recorded"
    assert seen.whole().get("allergy_status", "not_asked") == meant


def _packs(seen: Witness, said: Said) -> None:
    multidose = seen.whole().get("multidose") or {}
    assert multidose.get("pharmacy") == _whom(said.groupdict().get("whom"))


def _is_responsible(seen: Witness, said: Said) -> None:
    assert (seen.whole().get("multidose") or {}).get("doctor") == actor_of(said["whom"]).person


def _is_deceased(seen: Witness, said: Said) -> None:
    shown = seen.whole().get("deceased_on")
    assert (shown is None) is bool(said["not"])
    if said["day"]:
        assert shown == calendar_day(said["day"]).isoformat()


def _is_complete(seen: Witness, said: Said) -> None:
    assert (seen.whole().get("incomplete_since") is None) is (said["what"] == "complete")


def _is_confirmed(seen: Witness, said: Said) -> None:
    assert seen.whole()["reconciled"]["by"]["organisation"] == organisation_of(said["whom"])


def _moves(seen: Witness, said: Said) -> None:
    assert (seen.whole()["version"] != seen.version_before) is (_part(said, "how") in ("moves", "moved", "has moved"))


def _is_a_version(_seen: Witness, _said: Said) -> None:
    """Read with its token when the step was taken."""


def _finds(seen: Witness, said: Said) -> None:
    """What is named, each with what is said of it; and, where a search returns a list, nothing else."""
    found = {each["prescription"]: each for each in seen.found()}
    for name, about in _pairs(_part(said, "what")):
        assert seen.play.id_of(name) in found, f"{name} is not found"
        shown = found[seen.play.id_of(name)]
        status, holder = re.search(r"\b[EURTF]\b", about), re.search(r"held by ([PQ])", about)
        assert status is None or shown["status"] == status[0]
        assert holder is None or shown.get("holder") == ORGANISATIONS[holder[1]]


def _pairs(text: str) -> list[tuple[str, str]]:
    return [(one, two or three) for one, two, three in re.findall(r"(R\d+)(?: \(([^)]*)\)| as ([EURTF]))?", text)]


def _finds_not(seen: Witness, said: Said) -> None:
    found = {each["prescription"] for each in seen.found()}
    assert not found & {seen.play.id_of(name) for name in _names(_part(said, "what"))}


def _finds_nothing(seen: Witness, _said: Said) -> None:
    assert seen.found() == []


# --- The sentences ----------------------------------------------------------------------------------------------------

_RX: Final = r"(?P<rx>R\d+(?:(?:, | and |, and )R\d+)*)"
_T: Final = r"(?P<t>[TR]\d+(?:(?:, | and )[TR]\d+)*)"
_WHO: Final = r"(?:the )?(?:pharmacy )?[PQ]|nobody|no one|none"
_IS: Final = r"(?:(?:is|are|stays|remains|becomes|still|again|now|then|shown as|shows as|shows|:|=) ?)*"
_WHAT: Final = r"[RTDA]\d+(?:(?:, | and |, and )[RTDA]\d+)*"
_DONE: Final = r"(?: again| still| now| then)?(?: \([^)]*\))?"
_FLAGS: Final = r"(?P<flags>[a-z]+(?:_[a-z]+)*(?:(?:,| and|, and) [a-z]+(?:_[a-z]+)*)*)"
_NUMBER: Final = r"\d+(?:[.,]\d+)?"
_COUNTED: Final = r"(?: [a-z]+)?"
_DAY: Final = r"(?P<day>d0(?:[+-]\d+d)?|\d{4}-\d\d-\d\d)"

CHECKS: Final[dict[str, Check]] = {
    # Outcomes
    r"(?:(?P<name>[A-Z]\d+):? (?:is )?)?(?P<outcome>applied|duplicate|parked)": _is_outcome,
    r"(?:(?P<name>[A-Z]\d+):? (?:is )?)?refused ?\((?P<reason>[a-z_]+)\)(?:(?:,| and)? ?(?:naming|names|which names) (?P<named>.+))?": _is_refused,
    r"(?:(?P<name>[A-Z]\d+):? (?:is )?)?refused(?:, because (?P<because>[^;]+?))?(?:,? (?:and )?naming (?P<named>.+))?": _is_refused,
    r"refused ?\((?P<reason>[a-z_]+)\): (?P<named>.+)": _is_refused,
    r"(?:naming|(?:and )?(?:the )?(?:answer|refusal) names) (?P<named>.+)": _is_named,
    r"(?:turned away|rejected)(?P<how>.*)": _is_turned_away,
    r"(?:(?:the )?(?:answer(?:s|ed)?|status|HTTP)(?: is| with)? ?)?(?P<code>[2-5](?:\d\d|xx))(?:[:,(]? (?!of\b).*)?": _is_answered,
    r"nothing (?:is |was )?(?:stored|changed|changes|moves|moved|happens|in the log)(?: .*)?": _is_unchanged,
    r"(?:everything |the list |R\d+ |T\d+ )?(?:is |stays |the same list )?(?:unchanged|as before)": _is_unchanged,
    r"(?:it )?waits on (?P<on>[RTDA]\d+)(?: .*)?": _waits,
    r"the first outcome is told(?:: (?P<outcome>applied|refused)(?:\((?P<reason>\w+)\))?)?": _tells_first,
    r"(?:with )?(?:an )?alarm(?: is raised)?": _raises_an_alarm,
    rf"(?:the )?history (?:still )?(?:has|shows|keeps) (?P<what>{_WHAT})|(?P<what2>{_WHAT}) (?:is|are|stays?) in the history": _has_in_history,
    r"(?:the |each |every )?errors? (?:points?|is) at (?:the )?(?P<field>[a-z_ ]+)|each error (?:with|has) its (?:JSON )?pointer|the answer (?:lists|has|tells|names) every error": _points_at,
    r"(?:the list )?(?:says|shows|tells) who confirmed it(?: last)?(?: and when)?": _was_confirmed,
    r"both (?:prescriptions |facts |hand-outs )?(?:are|stay) (?:on the list|shown)": _are_all_shown,
    rf"(?P<d>{_WHAT}) counts? (?:exactly )?once": _counts_once,
    r"nobody had to .*|no event was needed.*|the (?:dispatch|pause|course) (?:lapsed|ended) by itself": _holds_by_itself,
    rf"(?:none of )?(?P<what>{_WHAT}) (?:does not exist|do not exist|exists)": _does_not_exist,
    r"the answer (?:says|tells):? (?:that it is |that it was |it is )?(?P<what>recalled|expired|completed|already[ _]\w+|marked[\w ]*)": _answers,
    # Flags
    rf"(?:with )?flags? (?!exactly){_FLAGS}(?: on [RTDA]\d+)?(?: only)?(?:, (?:not|no|but not) (?P<nots>\w+(?:(?:, | or | and )\w+)*))?": _has_flags,
    r"(?:(?P<what>[RTD]\d+) (?:has |shows |with )?)?(?:no|without(?: any| a)?) (?:further |other )?flags?(?: on (?P<what2>[RTD]\d+))?": _has_no_flags,
    r"(?:not|no)(?: flag)? (?P<flags>[a-z]+(?:_[a-z]+)+)": _lacks_flags,
    rf"(?P<what>[RTD]\d+)(?: is| has| shows| carries| with| keeps|,)* (?:the )?flag(?:ged|s)? {_FLAGS}": _shows_flags,
    rf"(?P<what>[RTD]\d+) (?:has|shows|carries) {_FLAGS}": _shows_flags,
    # Prescriptions
    rf"(?:{_RX}:? )?{_IS}(?:status )?(?P<status>[EURTF]){_DONE}(?:,? (?:and )?{_IS}held by (?P<holder>{_WHO}))?": _has_status,
    rf"(?:{_RX}:? )?{_IS}(?P<not>not )?(?P<word>dispensable|open|being dispensed|completed|dispensed|recalled|expired){_DONE}": _is_in_state,
    rf"(?:{_RX}:? )?{_IS}(?:held by|holder:?|with) (?P<holder>{_WHO})": _is_held,
    rf"(?:{_RX}:? )?{_IS}not held(?: by anybody| any more)?|nobody holds {_RX.replace('rx', 'rx2')}": _is_held,
    rf"(?:{_RX}:? )?{_IS}(?:has )?(?P<key>refills left|dispenses left|dispenses done|returned|total):? (?P<number>{_NUMBER}){_COUNTED}": _counts,
    rf"(?:{_RX}:? )?{_IS}(?:has )?(?P<number>{_NUMBER}|no|one|two|three) (?P<key>refills left|dispenses left|dispenses done)": _counts,
    rf"(?:{_RX}:? )?{_IS}handed out:? (?P<handed_out>{_NUMBER})(?: of (?P<total>{_NUMBER}))?{_COUNTED}(?: in all)?": _counts,
    rf"(?:{_RX}:? )?{_IS}(?P<handed_out>{_NUMBER}) of (?P<total>{_NUMBER}){_COUNTED}(?: {_IS}handed out)?(?: in all)?": _counts,
    rf"(?:{_RX}:? )?{_IS}(?P<returned>{_NUMBER}){_COUNTED} (?:are |is )?(?:shown as )?returned": _counts,
    rf"(?:{_RX}:? )?{_IS}(?:tied|bound|dispatched) to (?P<whom>{_WHO})": _is_tied,
    rf"(?:{_RX}:? )?{_IS}not (?:tied|bound|dispatched)(?: to anybody| any more)?": _is_tied,
    rf"{_RX} {_IS}recalled,? (?:with (?:the )?reason|reason|by|because of|for) (?P<reasons>[a-z_]+(?:(?:, | and )[a-z_]+)*)": _is_recalled_by,
    rf"(?:{_RX} )?{_IS}(?:valid until|expires on|ends on|earliest date|earliest dispense|not before):? {_DAY}": _ends,
    rf"{_RX} can(?P<not>not| not|) be (?:claimed|dispensed)(?: by anybody| again)?": _can_be_claimed,
    r"nothing is dispensable|nothing can be (?:claimed|dispensed)": _is_open_nowhere,
    rf"(?:a )?search(?:_open_prescriptions)? (?P<not>does not )?returns? (?P<what>{_WHAT})": _is_open,
    rf"{_RX} (?:is |shown as |marked )*(?:as )?locked|marked as locked": _is_locked,
    r"(?P<whom>[PQ]) (?:keeps (?:its|the) claim|(?:still )?holds (?P<rx>R\d+)(?: once)?)|the claim of (?P<whom2>[PQ]) stays(?: valid)?": _keeps,
    r"(?:exactly )?(?P<many>no|one|two|three|four|\d+) (?:standing )?(?:dispenses?|hand-outs?)(?: (?:on|of) (?P<rx>R\d+))?(?P<unflagged>, none flagged|, no flags?)?": _has_hand_outs,
    # Entries
    rf"{_T} {_IS}(?P<state>active|paused|completed|discontinued|stopped|ended|finished|withdrawn){_DONE}(?: any more)?": _has_entry_state,
    rf"(?:the list |it )?(?:shows|lists|has|includes|still shows) (?P<what>{_WHAT})(?: (?:as a warning|in the list|on the list|once))?": _are_shown,
    rf"(?P<what>{_WHAT}) (?:is |are )?(?:still |again )?(?:shown|on the list|listed|in the list|visible)(?: as a warning)?{_DONE}": _are_shown,
    rf"(?P<what>{_WHAT}) (?:is |are )?(?:no longer |not |never )(?:shown|on the list|listed|in the list|visible)(?: as a warning| any more)?{_DONE}": _are_not_shown,
    rf"(?P<what>{_WHAT}) (?:is |are )?(?:hidden|gone|absent){_DONE}|(?:does not show|shows no) (?P<what2>{_WHAT})": _are_not_shown,
    rf"(?:exactly |shows |still )?(?P<many>no|one|two|three|four|five|\d+) (?:list )?(?:entry|entries)(?:,? (?P<what>{_WHAT}))?(?:,? with (?:its old id|(?P<what2>{_WHAT})))?(?:,? not (?:two|three))?|the list is empty|(?:an )?empty list": _counts_entries,
    rf"(?:shows )?(?P<what>{_WHAT}) (?:is |are )?(?:shown |listed |stands |stand )?(?:under|among) \"?other prescriptions\"?": _is_among_others,
    r"(?:(?:shows )?(?:the treatment of )?(?P<t>[TR]\d+):? )?(?:with )?last dispense:? (?P<d>D\d+|none)": _was_last,
    r"(?P<t>T\d+) discontinued, by (?P<whom>[ABC]), with date and reason": _is_stopped_with_reason,
    r"(?P<t>T\d+) (?P<state>active|paused|completed|discontinued), same entry id, data of (?P<rx>R\d+)": _has_data_of,
    r"both shown under \"other prescriptions\"(?:, neither among the medicines)?": _are_all_others,
    r"the list shows (?P<rx>R\d+) with its earliest date": _shows_earliest,
    r"(?P<rx>R\d+) (?:is|shows) (?P<status>[EURTF]) and (?:shows the recall with its reason|that it is recalled)": _shows_recall,
    rf"(?:(?P<t>T\d+):? )?chain (?P<chain>{_WHAT})": _has_chain,
    r"(?P<t>T\d+) (?:shows|has|holds) (?P<what>R\d+(?:(?:, | and )R\d+)*)": _has_prescriptions,
    r"(?:(?P<t>T\d+):? )head (?P<head>R\d+)": _has_head,
    r"(?:shows )?no last dispense": _has_no_last,
    rf"{_T} {_IS}paused until {_DAY}": _is_paused,
    r"(?:(?P<t>[TR]\d+):? )?(?:the )?(?:dosing in force|dose|dosing):? (?:is )?(?P<dose>.+)": _has_dose,
    r"(?:shows )?(?P<t>T\d+) as (?P<kind>over the counter|(?:a )?supplement|otc|paper|hospital|patient[ _]stated|stated by .*)": _is_of_kind,
    r"(?P<t>[TR]\d+):? (?:has )?(?P<key>kind|indication|administration|use|paper prescription):? (?P<value>.+)": _has_detail,
    r"(?P<t>[TR]\d+):? (?:is )?(?:taken|use reported|reported use|reported):? (?:as )?\"?(?P<use>as[ _]stated|otherwise|not[ _]taking)\"?": _is_used,
    r"(?P<t>[TR]\d+):? (?:is )?(?:stopped|discontinued|withdrawn) by (?P<whom>.+)": _is_done_by,
    # Hand-outs
    rf"(?P<d>{_WHAT}):? (?:is |are )?(?:shown as |still )?(?P<is>reversed|stands|stand|counts|does not count|counts for nothing)": _is_reversed,
    rf"(?:shows )?(?P<d>{_WHAT}) (?:shown |stands )?(?:under|among) \"?handed out, prescription not seen\"?": _is_unseen,
    rf"(?P<d>{_WHAT}) (?:has|have) joined(?: .*)?": _has_joined,
    r"(?:T\d+|the treatment|the entry) shows the conflicting report(?: of D\d+)?": _shows_conflict,
    # The whole list
    r"(?:allergy status:? |allergies: )(?P<status>\w+)|(?:shows )?\"?(?P<status2>none[_ ]known|no known allergies|nobody has asked|not asked)\"?(?: (?:is )?shown)?": _allergy_status,
    rf"(?:(?:the )?(?:multi-?dose )?(?:is )?(?:packed|packs) (?:by|at) |multi-?dose (?:is )?(?:at|from|with|by|pharmacy) )(?P<whom>{_WHO})|no multi-?dose(?: pharmacy)?": _packs,
    r"(?P<whom>(?:prescriber |doctor )?[ABC]) is (?:the )?responsible(?: .*)?": _is_responsible,
    rf"(?:(?:the list )?shows that )?(?:the patient is )?(?:shown as )?(?P<not>not )?(?:deceased|dead)(?: on {_DAY})?": _is_deceased,
    r"(?:the list |it )?(?:says that it is |is )?(?P<what>complete|incomplete)(?: since .*| and since when)?": _is_complete,
    r"(?:the list is )?confirmed by (?P<whom>.+)": _is_confirmed,
    r"(?:the )?version (?P<how>moves|moved|has moved|stays|stayed|unchanged|is unchanged|does not move|did not move)|(?:the )?(?P<how2>same) version": _moves,
    r"(?:gives )?(?:a |the )?(?:version |read token |token )*v\d+": _is_a_version,
    # Searches
    r"(?:returns|finds) (?:nothing|no prescriptions?|none)|(?:nothing|no prescriptions?)(?: is| are)?(?: returned| found)?": _finds_nothing,
    r"(?:returns|finds) (?P<what>(?:only )?R\d+.*)|(?P<what2>R\d+.*) (?:is|are) (?:returned|found)(?: too)?": _finds,
    rf"(?:(?:does not |nor )?(?:return|find)s?(?: not)?|not|but not) (?P<what>{_WHAT})|(?P<what2>{_WHAT}) (?:is |are )?not (?:returned|found)": _finds_not,
    # What organisations are told
    r"(?:exactly |only )?(?:no|one|an|two|\d) (?:further |new |dispense )?orders?\b.*|.*\border (?:goes|went|is sent|for|to) .*|[PQ] (?:gets|receives) (?:the|an|one) order": check_order_sentence,
    r".*\b(?:notices?|notified|informed|told|tells)\b.*|.*\border is void": check_notice_sentence,
}


def belongs_to_the_door(sentence: str) -> bool:
    """Whether a sentence speaks of what a service turns away."""
    return AT_THE_DOOR.match(sentence) is not None


def needs_a_service(step: Step, sentence: str) -> bool:
    """Whether only a running service can show it."""
    return step.door or belongs_to_the_door(sentence)
