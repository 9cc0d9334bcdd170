"""What must hold of any history at all, on the oracle."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from schemas import events as ev
from tests.oracle.histories import MAKERS, history
from tests.oracle.history import LogRecord
from tests.oracle.naive import fold, judge, show
from tests.oracle.story import at

LENGTH = 100
EXCEPTED: Mapping[str, Any] = {"prescriptions": (), "last_dispense": None, "flags": ()}
"""What hand-outs and the like may change without moving the version; a withdrawn entry may come to be seen by them."""


def any_history(seed: int, number: int) -> list[LogRecord]:
    return history(seed * 100 + number, LENGTH)


@pytest.mark.parametrize("number", range(25))
def test_every_record_ends_in_one_outcome_and_the_list_can_be_shown(seed: int, number: int) -> None:
    records = any_history(seed, number)
    verdicts = judge(records)
    assert [verdict.record for verdict in verdicts] == records
    assert {verdict.outcome for verdict in verdicts} <= {"applied", "duplicate", "refused", "parked"}
    assert all((verdict.reason is not None) == (verdict.outcome in ("refused", "parked")) for verdict in verdicts)
    assert all(not verdict.flags for verdict in verdicts if verdict.outcome in ("duplicate", "parked"))
    for day in (0, 100, 400):
        shown = show(records, at(day))
        for entry in shown.treatments + shown.other_prescriptions:
            for prescription in entry.prescriptions:
                assert (prescription.status == "U") == (prescription.holder is not None)
                assert 0 <= prescription.refills_left <= prescription.dispenses_left


@pytest.mark.parametrize("number", range(10))
def test_what_was_judged_is_not_judged_anew_by_what_comes_later(seed: int, number: int) -> None:
    """But for a waiting reversal, whose outcome may change when its hand-out comes."""
    records = any_history(seed, number)
    whole = judge(records)
    for end in (LENGTH // 3, LENGTH // 2):
        for early, late in zip(judge(records[:end]), whole, strict=False):
            changed = {str(flag) for flag in late.flags} == {"outcome_changed"}
            assert changed or (early.outcome, early.reason, early.flags) == (late.outcome, late.reason, late.flags)


@pytest.mark.parametrize("number", range(5))
def test_the_list_shows_what_moved_the_version_and_nothing_else_but_what_is_excepted(seed: int, number: int) -> None:
    """If the version stands still, then so do stops, pauses, dosings, allergies and all else that is not excepted."""
    records = any_history(seed, number)
    clock = records[-1].broker_time_ms

    def seen(end: int) -> object:
        shown = show(records[:end], clock)
        entries = shown.treatments + shown.other_prescriptions
        kept = [msgspec.structs.replace(entry, **EXCEPTED) for entry in entries if "withdrawn" not in entry.flags]
        others = {"other_prescriptions": (), "reconciled": None, "unseen_hand_outs": ()}
        return msgspec.structs.replace(shown, treatments=tuple(kept), **others)

    for end in range(1, LENGTH):
        before, after = fold(records[:end]).chart.version, fold(records[: end + 1]).chart.version
        if before == after:
            assert seen(end) == seen(end + 1)


def test_histories_reach_every_type_of_event_and_every_outcome() -> None:
    told: Counter[str] = Counter()
    types: set[type] = set()
    for fixed_seed in range(40):
        for verdict in judge(history(fixed_seed, LENGTH)):
            told[verdict.outcome] += 1
            if verdict.outcome == "applied" and isinstance(verdict.record.event, ev.Event):
                types.add(type(verdict.record.event.body))
    assert set(told) == {"applied", "duplicate", "refused", "parked"}
    assert types == set(ev.BODIES)
    assert len(MAKERS) == len(ev.BODIES)
