"""The law of the facts, on the oracle: in any order of arrival that keeps each sender's own order, they agree."""

import random
from collections.abc import Sequence
from datetime import date
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import events as ev
from tests.oracle.history import LogRecord
from tests.oracle.naive import judge, show
from tests.oracle.story import WHO, at, hand_out, named, prescription, tablets

PATIENT = "0123456789abcdef0123456789abcdef"
PRESCRIPTIONS = ("R1", "R2", "R3", "R4")
TREATMENTS = ("T1", "T2")
Fact = tuple[str, int, ev.Body]
"""Who sends it, when it happened, what it says."""


class Agreed(NamedTuple):
    """What every order of arrival must come to."""

    open: frozenset[str]
    standing: frozenset[tuple[str, str]]
    unseen: frozenset[str]
    entries: frozenset[tuple[str, str]]


def issues() -> st.SearchStrategy[Fact]:
    """A prescription: its treatment, its day of signing and what it renews follow from the draw."""

    def make(rx: str, treatment: str, day: int, renews: str | None, later: int | None) -> Fact:
        renewed = named(renews) if renews not in (None, rx) else None
        earliest = None if later is None else date(2026, 3, 2 + later)
        fields: dict[str, Any] = {"issued_at_ms": at(day), "renews": renewed, "earliest_dispense": earliest}
        return ("A", at(day), prescription(rx, treatment, **fields))

    days = st.integers(0, 20)
    later = st.none() | st.integers(0, 28)
    return st.builds(
        make,
        st.sampled_from(PRESCRIPTIONS),
        st.sampled_from(TREATMENTS),
        days,
        st.none() | st.sampled_from(PRESCRIPTIONS),
        later,
    )


def others() -> st.SearchStrategy[Fact]:
    """Recalls, stops, hand-outs, reversals, deaths."""
    rx, day = st.sampled_from(PRESCRIPTIONS), st.integers(0, 25)
    dispenses = st.sampled_from(("D1", "D2", "D3"))
    return st.one_of(
        st.builds(lambda r, d: ("B", at(d), ev.PrescriptionRecalled(prescription=named(r), reason="other")), rx, day),
        st.builds(
            lambda t, d: ("B", at(d), ev.TreatmentDiscontinued(treatment=named(t), at_ms=at(d), reason="other")),
            st.sampled_from(TREATMENTS),
            day,
        ),
        st.builds(
            lambda name, r, d, amount, done: ("P", at(d), hand_out(name, r, amount, completed=done)),
            dispenses,
            rx,
            day,
            st.sampled_from((10, 30, 60)),
            st.booleans(),
        ),
        st.builds(
            lambda name, part: (
                "P",
                at(26),
                ev.DispenseReversed(
                    reversal=named(f"V {name} {part}"),
                    dispense=named(name),
                    reason="mistake",
                    quantity=tablets(5) if part else None,
                ),
            ),
            dispenses,
            st.booleans(),
        ),
        st.just(("citizen", at(24), ev.PatientDied(on=date(2026, 3, 26)))),
    )


def one_of_each(facts: Sequence[Fact]) -> list[Fact]:
    """The first fact for each natural id: which of two conflicting reports came first may decide."""
    seen: dict[object, Fact] = {}
    for fact in facts:
        body = fact[2]
        key: object = body
        if isinstance(body, ev.PrescriptionIssued):
            key = body.prescription
        elif isinstance(body, ev.MedicationDispensed | ev.DispenseReversed):
            key = (type(body), body.dispense if isinstance(body, ev.MedicationDispensed) else body.reversal)
        seen.setdefault(key if isinstance(key, str | tuple) else repr(key), fact)
    return list(seen.values())


def log_of(facts: Sequence[Fact]) -> list[LogRecord]:
    """The facts as records, in this order of arrival."""
    return [
        LogRecord(
            0,
            offset,
            at(30) + offset,
            ev.Event(
                event_id=named(repr(body)),
                patient=PATIENT,
                occurred_at_ms=occurred_ms,
                received_at_ms=at(30) + offset,
                source=WHO[who],
                body=body,
            ),
        )
        for offset, (who, occurred_ms, body) in enumerate(facts)
    ]


def reordered(facts: Sequence[Fact], dice: random.Random) -> list[Fact]:
    """Another order of arrival, each sender's own order kept."""
    queues = {who: [fact for fact in facts if fact[0] == who] for who, _, _ in facts}
    order = [fact[0] for fact in facts]
    dice.shuffle(order)
    return [queues[who].pop(0) for who in order]


def agreed(records: Sequence[LogRecord], at_ms: int) -> Agreed:
    """What the list comes to at that time."""
    shown = show(records, at_ms)
    entries = shown.treatments + shown.other_prescriptions
    every = [p for entry in entries for p in entry.prescriptions]
    handed = [(p.prescription, h.dispense) for p in every for h in p.hand_outs if not h.reversed]
    return Agreed(
        frozenset(p.prescription for p in every if p.status == "E"),
        frozenset(handed),
        frozenset(h.dispense for h in shown.unseen_hand_outs if not h.reversed),
        frozenset((entry.treatment, entry.status) for entry in entries),
    )


CLOCKS: tuple[int, ...] = (at(28), at(40), at(80))


@settings(max_examples=300)
@given(
    facts=st.builds(
        lambda some, more: [*some, *more], st.lists(issues(), min_size=1, max_size=5), st.lists(others(), max_size=8)
    ),
    dice=st.randoms(use_true_random=False),
)
def test_facts_agree_in_any_order_of_arrival(facts: list[Fact], dice: random.Random) -> None:
    chosen = one_of_each(facts)
    dice.shuffle(chosen)
    first, second = log_of(chosen), log_of(reordered(chosen, dice))
    for at_ms in CLOCKS:
        assert agreed(first, at_ms) == agreed(second, at_ms)


@settings(max_examples=100)
@given(
    facts=st.builds(
        lambda some, more: [*some, *more], st.lists(issues(), min_size=1, max_size=5), st.lists(others(), max_size=8)
    ),
    dice=st.randoms(use_true_random=False),
)
def test_a_history_told_twice_is_all_known_the_second_time(facts: list[Fact], dice: random.Random) -> None:
    chosen = one_of_each(facts)
    once = log_of(chosen)
    again = [
        LogRecord(0, len(once) + index, record.broker_time_ms, record.event)
        for index, record in enumerate(dice.sample(once, len(once)))
    ]
    verdicts = judge([*once, *again])
    assert {verdict.outcome for verdict in verdicts[len(once) :]} == {"duplicate"}
    for at_ms in CLOCKS:
        assert show([*once, *again], at_ms) == show(once, at_ms)
