"""How a scenario ends, as it says it for a machine: its `final`, held to whoever played it."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from tests.acceptance.translate import organisation_of
from tests.acceptance.values import NO_VALUE, NotUnderstoodError, calendar_day
from tests.acceptance.witness import Witness, entries, entry, flags_of, hand_out, is_shown, shown_entry

Checks = Mapping[str, Callable[[Witness, str, str, Any], None]]
COUNTS: Final = ("dispenses_left", "dispenses_done", "refills_left", "handed_out", "total", "returned")
STATES: Final = ("active", "paused", "completed", "discontinued")


def check_final(seen: Witness, final: Mapping[str, Any]) -> None:
    """Every object by its name, and the list. A key that nobody understands fails by name."""
    for name, said in final.items():
        checks = _LIST if name == "list" else _CHECKS.get(name[0])
        if checks is None:
            raise NotUnderstoodError(f"{seen.play.scenario['id']}, final: nobody knows what {name!r} is")
        for key, value in _as_mapping(name, said).items():
            holds = checks.get(str(key).replace(" ", "_"))
            if holds is None:
                raise NotUnderstoodError(f"{seen.play.scenario['id']}, final: nobody knows {key!r} of {name}")
            try:
                holds(seen, name, str(key).replace(" ", "_"), value)
            except NO_VALUE as error:
                raise AssertionError(f"{name} {key}: {value} does not fit what is shown: {error!r}") from error


def _as_mapping(name: str, said: Any) -> Mapping[Any, Any]:
    """`R1: T` and `T1: hidden` say the one thing that matters; `list: 1` is how many entries, `list: [T1]` which."""
    if isinstance(said, Mapping):
        return said
    if name == "list":
        return (
            {"entries": said}
            if isinstance(said, int)
            else {"shows": said}
            if isinstance(said, list)
            else {str(said): True}
        )
    if name.startswith("R"):
        return {"status": said}
    return {"status": said} if said in STATES else {str(said): True}


def _listed(value: Any) -> list[str]:
    return (
        []
        if value is None
        else [str(each) for each in value]
        if isinstance(value, list | tuple)
        else str(value).split(", ")
    )


# --- Prescriptions ----------------------------------------------------------------------------------------------------


def _equals(seen: Witness, name: str, key: str, value: Any) -> None:
    shown = seen.prescription(name).get(key, 0 if key in COUNTS else None)
    assert shown == value, f"{name} {key}: expected {value}, shown {shown}"


def _is_organisation(seen: Witness, name: str, key: str, value: Any) -> None:
    shown = seen.prescription(name).get({"tied_to": "dispatched_to"}.get(key, key))
    is_nobody = value in (None, False, "nobody", "none")
    assert shown == (None if is_nobody else organisation_of(value)), f"{name} {key}: expected {value}, shown {shown}"


def _has_flags(seen: Witness, name: str, _key: str, value: Any) -> None:
    """Among others; an empty list says that there are none."""
    flags, expected = flags_of(seen, name), set(_listed(value))
    assert expected <= flags, f"{name}: expected {sorted(expected)}, shown {sorted(flags)}"
    assert expected or not flags, f"{name}: shown {sorted(flags)}"


def _has_claim(seen: Witness, name: str, _key: str, value: Any) -> None:
    assert seen.prescription(name).get("claim") == (None if value is None else seen.play.id_of(str(value)))


def _was_recalled(seen: Witness, name: str, _key: str, value: Any) -> None:
    reasons = [each["reason"] for each in seen.prescription(name).get("recalls", ())]
    if isinstance(value, bool):
        assert bool(reasons) is value
    else:
        assert set(_listed(value)) <= set(reasons), f"{name}: recalled by {reasons}"


def _has_date(seen: Witness, name: str, key: str, value: Any) -> None:
    assert seen.prescription(name)["issued"].get(key) == calendar_day(value).isoformat()


def _shows_flag(seen: Witness, name: str, key: str, value: Any) -> None:
    assert (key in flags_of(seen, name)) is bool(value)


def _has_hand_outs(seen: Witness, name: str, _key: str, value: Any) -> None:
    standing = [each["dispense"] for each in seen.prescription(name).get("hand_outs", ()) if not each.get("reversed")]
    if isinstance(value, int):
        assert len(standing) == value
    else:
        assert set(standing) == {seen.play.id_of(each) for each in _listed(value)}


def _is_in_treatment(seen: Witness, name: str, _key: str, value: Any) -> None:
    shown = shown_entry(seen, str(value)).get("prescriptions", ())
    assert seen.play.id_of(name) in {each["prescription"] for each in shown}


_OF_PRESCRIPTIONS: Final = {
    "status": _equals,
    **dict.fromkeys(COUNTS, _equals),
    **dict.fromkeys(("holder", "dispatched_to", "tied_to"), _is_organisation),
    **dict.fromkeys(("valid_until", "earliest_dispense"), _has_date),
    "expired": _shows_flag,
    "flags": _has_flags,
    "claim": _has_claim,
    **dict.fromkeys(("recalled", "recall", "recalls", "recall_reason"), _was_recalled),
    **dict.fromkeys(("dispenses", "hand_outs"), _has_hand_outs),
    "treatment": _is_in_treatment,
}


# --- Entries, hand-outs, allergies ------------------------------------------------------------------------------------


def _has_state(seen: Witness, name: str, _key: str, value: Any) -> None:
    if value == "hidden":
        assert entry(seen, name) is None
    elif value == "withdrawn":
        assert entry(seen, name) is None or "withdrawn" in flags_of(seen, name)
    else:
        assert shown_entry(seen, name)["status"] == value


def _is_shown(seen: Witness, name: str, key: str, value: Any) -> None:
    assert is_shown(seen, name) is (bool(value) is (key in ("shown", "listed"))), f"{name} {key}"


def _has_chain(seen: Witness, name: str, _key: str, value: Any) -> None:
    """In whichever order."""
    shown = {each["prescription"] for each in shown_entry(seen, name).get("prescriptions", ())}
    assert shown == {seen.play.id_of(each) for each in _listed(value)}


def _has_head(seen: Witness, name: str, _key: str, value: Any) -> None:
    assert shown_entry(seen, name)["prescriptions"][0]["prescription"] == seen.play.id_of(str(value))


def _was_last(seen: Witness, name: str, _key: str, value: Any) -> None:
    last = shown_entry(seen, name).get("last_dispense")
    assert (last and last["dispense"]) == (None if value is None else seen.play.id_of(str(value)))


def _has_detail(seen: Witness, name: str, key: str, value: Any) -> None:
    shown = shown_entry(seen, name).get({"indication": "indication_text"}.get(key, key))
    assert shown == value, f"{name} {key}: expected {value}, shown {shown}"


_DETAILS: Final = (
    "kind",
    "use",
    "indication",
    "indication_text",
    "administration",
    "substitution_reserved",
    "paper_prescription",
)
_PRESENCE: Final = dict.fromkeys(("shown", "listed", "hidden", "absent"), _is_shown)
_OF_TREATMENTS: Final = {
    **dict.fromkeys(("status", "state"), _has_state),
    **_PRESENCE,
    "withdrawn": _shows_flag,
    "flags": _has_flags,
    **dict.fromkeys(("prescriptions", "chain"), _has_chain),
    "head": _has_head,
    "last_dispense": _was_last,
    **dict.fromkeys(_DETAILS, _has_detail),
}


def _is_reversed(seen: Witness, name: str, key: str, value: Any) -> None:
    assert hand_out(seen, name).get("reversed", False) is (bool(value) is (key == "reversed"))


def _has_returned(seen: Witness, name: str, _key: str, value: Any) -> None:
    assert (hand_out(seen, name).get("returned") or {"value": 0})["value"] == value


_OF_HAND_OUTS: Final = {
    **dict.fromkeys(("reversed", "stands"), _is_reversed),
    **_PRESENCE,
    "flags": _has_flags,
    "returned": _has_returned,
}
_CHECKS: Final[Mapping[str, Checks]] = {"R": _OF_PRESCRIPTIONS, "T": _OF_TREATMENTS, "D": _OF_HAND_OUTS, "A": _PRESENCE}


# --- The list ---------------------------------------------------------------------------------------------------------


def _has_entries(seen: Witness, _name: str, _key: str, value: Any) -> None:
    """How many, or exactly which."""
    if isinstance(value, int):
        assert len(entries(seen)) == value, f"{len(entries(seen))} entries"
    else:
        shown = {each["treatment"] for each in entries(seen)}
        assert shown == {seen.play.treatment_named(each) for each in _listed(value)}


def _shows(seen: Witness, _name: str, _key: str, value: Any) -> None:
    assert all(is_shown(seen, each) for each in _listed(value)), f"{value}: not all shown"


def _hides(seen: Witness, _name: str, _key: str, value: Any) -> None:
    """What is named; where nothing is, everything."""
    if value is True:
        assert not entries(seen)
    else:
        assert not [each for each in _listed(value) if is_shown(seen, each)]


def _has_in_state(seen: Witness, _name: str, key: str, value: Any) -> None:
    assert all(shown_entry(seen, each)["status"] == key for each in _listed(value)), f"{value}: not all {key}"


def _has_others(seen: Witness, _name: str, _key: str, value: Any) -> None:
    others = {each["treatment"] for each in seen.whole().get("other_prescriptions", ())}
    assert others == {seen.play.treatment_named(each) for each in _listed(value)}


def _has_allergies(seen: Witness, _name: str, _key: str, value: Any) -> None:
    shown = {each["recorded"]["allergy"] for each in seen.whole().get("allergies", ())}
    assert shown == {seen.play.id_of(each) for each in _listed(value)}


def _has_allergy_status(seen: Witness, _name: str, _key: str, value: Any) -> None:
    assert seen.whole().get("allergy_status", "not_asked") == str(value).replace(" ", "_")


def _is_complete(seen: Witness, _name: str, key: str, value: Any) -> None:
    assert (seen.whole().get("incomplete_since") is None) is (bool(value) is (key == "complete"))


def _has_unseen(seen: Witness, _name: str, _key: str, value: Any) -> None:
    shown = {each["dispense"] for each in seen.whole().get("unseen_hand_outs", ())}
    assert shown == {seen.play.id_of(each) for each in _listed(value)}


def _is_deceased(seen: Witness, _name: str, _key: str, value: Any) -> None:
    shown = seen.whole().get("deceased_on")
    expected = None if not value else shown if value is True else calendar_day(value).isoformat()
    assert shown == expected
    assert bool(shown) is bool(value)


def _is_packed(seen: Witness, _name: str, _key: str, value: Any) -> None:
    multidose = seen.whole().get("multidose") or {}
    assert multidose.get("pharmacy") == (None if value in (None, "nobody") else organisation_of(value))


_LIST: Final[Checks] = {
    "entries": _has_entries,
    **dict.fromkeys(("shows", "shown"), _shows),
    **dict.fromkeys(("hidden", "hides", "empty", "not_shown"), _hides),
    **dict.fromkeys(STATES, _has_in_state),
    **dict.fromkeys(("other_prescriptions", "others"), _has_others),
    "allergies": _has_allergies,
    "allergy_status": _has_allergy_status,
    **dict.fromkeys(("complete", "incomplete"), _is_complete),
    **dict.fromkeys(("unseen", "unseen_hand_outs"), _has_unseen),
    **dict.fromkeys(("deceased", "deceased_on"), _is_deceased),
    **dict.fromkeys(("multidose", "multidose_pharmacy"), _is_packed),
}
