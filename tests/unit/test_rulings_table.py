"""Walks every cell of the table in docs/rulings.md through the fold, and finds the cells that are missing from it."""

import re
from collections.abc import Callable, Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from schemas import events as ev
from schemas.reasons import Flag, NoticeKind, Reason
from tests.unit.fold_world import (
    HOUR_MS,
    Said,
    Then,
    World,
    aborted,
    allergic,
    at,
    changed,
    claimed,
    closed,
    death_retracted,
    died,
    discontinued,
    dispatch_withdrawn,
    dispatched,
    dispensed,
    dosing,
    given,
    issued,
    multidose,
    multidose_ended,
    on,
    paused,
    recalled,
    reconciled,
    recorded,
    refuted,
    reinstated,
    released,
    renewal_declined,
    renewal_requested,
    resumed,
    reversed_,
    use_reported,
    withdrawn,
)

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "rulings.md"
COLUMNS: Final = ("event", "prescription", "treatment", "outcome", "flags", "effects")
PRESCRIPTIONS: Final = ("none", "waiting", "E", "U self", "U other", "R", "T", "F")
TREATMENTS: Final = (
    "unknown",
    "active",
    "paused",
    "discontinued",
    "withdrawn",
    "course ended",
    "deceased",
    "incomplete",
)
ANY: Final = "any"
NOW: Final = at(5, 12)
FOURTH_DAY: Final = at(3)


class Cell(NamedTuple):
    """One cell: an event that meets a prescription and a treatment."""

    event: str
    prescription: str
    treatment: str


class Row(NamedTuple):
    """One row of the table, which stands for one or more cells."""

    event: str
    prescriptions: tuple[str, ...]
    treatments: tuple[str, ...]
    outcome: str
    flags: frozenset[str]
    effects: tuple[str, ...]


# --- The table -------------------------------------------------------------------------------------------------------


def _listed(text: str, separator: str = ",") -> tuple[str, ...]:
    return () if text == "-" else tuple(part.strip() for part in text.split(separator))


@cache
def rows() -> tuple[Row, ...]:
    """The rows of the table, as the document has them."""
    _, _, after = DOCUMENT.read_text(encoding="utf-8").partition("## The table")
    lines = [line for line in after.splitlines() if line.startswith("|")]
    cells = [[part.strip() for part in line.strip("|").split("|")] for line in lines]
    assert tuple(cells[0]) == COLUMNS
    assert all(len(each) == len(COLUMNS) for each in cells)
    return tuple(
        Row(event, _listed(rx), _listed(treatment), outcome, frozenset(_listed(flags)), _listed(effects, ";"))
        for event, rx, treatment, outcome, flags, effects in cells[2:]
    )


def _precision(row: Row) -> int:
    """A row that says `any` stands for what no other names: of prescriptions first, then of treatments."""
    return 2 * (ANY not in row.prescriptions) + (ANY not in row.treatments)


def _fits(row: Row, cell: Cell) -> bool:
    is_prescription = row.prescriptions == (ANY,) or cell.prescription in row.prescriptions
    return (
        row.event == cell.event and is_prescription and (row.treatments == (ANY,) or cell.treatment in row.treatments)
    )


def rows_for(cell: Cell) -> list[Row]:
    """The rows of the best precision that stand for a cell: exactly one, if the table is in order."""
    fitting = [row for row in rows() if _fits(row, cell)]
    best = max((_precision(row) for row in fitting), default=0)
    return [row for row in fitting if _precision(row) == best]


# --- The situations --------------------------------------------------------------------------------------------------

IMPOSSIBLE: Final = frozenset(
    {(rx, "unknown") for rx in PRESCRIPTIONS if rx not in {"none", "waiting"}}
    | {(rx, treatment) for rx in ("E", "F") for treatment in ("discontinued", "withdrawn", "deceased")}
)
SITUATIONS: Final = tuple(pair for pair in product(PRESCRIPTIONS, TREATMENTS) if pair not in IMPOSSIBLE)


def _terms(treatment: str) -> dict[str, Any]:
    return {"use": "course", "dosing": dosing(end=on(2))} if treatment == "course ended" else {}


def _of_prescription(rx: str, treatment: str) -> Iterator[Said]:
    """How R1 came to be what it is, on the first two days."""
    terms = _terms(treatment)
    if rx in {"none", "waiting"}:
        if treatment != "unknown":
            yield recorded(at_ms=at(0), **terms)
        if rx == "waiting":
            yield dispensed("D0", at_ms=at(1))
        return
    yield issued(refills=1, at_ms=at(0), valid_until=on(2) if rx == "F" else on(365), **terms)
    if rx in {"U self", "R"}:
        yield claimed(at_ms=at(1))
    if rx == "U other":
        yield claimed(by="Q", at_ms=at(1))
    if rx == "R":
        yield dispensed("D0", at_ms=at(1, 9), completed=True)
    if rx == "T" and treatment != "deceased":
        yield recalled(at_ms=at(1))


OF_TREATMENT: Final[dict[str, Said]] = {
    "paused": paused(start=on(3), at_ms=FOURTH_DAY),
    "discontinued": discontinued(at_ms=FOURTH_DAY),
    "withdrawn": withdrawn(at_ms=FOURTH_DAY),
    "deceased": died(on(3), at_ms=FOURTH_DAY),
}


def attempt(rx: str, treatment: str) -> World:
    """The straightforward way to a situation, whether it leads there or not."""
    world = given(*_of_prescription(rx, treatment))
    if treatment in OF_TREATMENT:
        given(OF_TREATMENT[treatment], world=world)
    if treatment == "incomplete":
        world.park(FOURTH_DAY)
    world.now_ms = NOW
    return world


def situation_of(world: World) -> tuple[str, str]:
    """What the columns call the state of a world."""
    rx = "waiting" if world.waiting("R1") else "none"
    if world.knows("R1"):
        letter, holder = world.status(), world.holder()
        rx = {"P": "U self", "Q": "U other"}[holder] if holder else letter
    treatment = world.treatment_is()
    if world.meta.death is not None:
        return rx, "deceased"
    return rx, "incomplete" if world.meta.incomplete_since_ms else treatment


# --- The events ------------------------------------------------------------------------------------------------------


def _r1(world: World) -> Said:
    """R1 by doctor B where it was never seen; else what was seen, once more."""
    if not world.knows("R1"):
        return issued(by="B", refills=1, signed_ms=NOW)
    first = next(event for event, _ in world.history if isinstance(event.body, ev.PrescriptionIssued))
    return Said("A", first.body)


def _r1_otherwise(world: World) -> Said:
    by = "A" if world.knows("R1") else "B"
    return issued(by=by, refills=1, signed_ms=NOW, indication_text="high blood sugar")


def _confirmed(world: World, behind: int) -> Said:
    return reconciled(world.meta.version - behind, at_ms=NOW, read_ms=NOW - HOUR_MS)


EVENTS: Final[dict[str, Callable[[World], Said]]] = {
    "PrescriptionIssued: R1": _r1,
    "PrescriptionIssued: R1 with other content": _r1_otherwise,
    "PrescriptionIssued: R2, signed later": lambda _: issued("R2", by="B", signed_ms=NOW),
    "PrescriptionRecalled: by its issuer": lambda _: recalled(),
    "PrescriptionRecalled: by another doctor": lambda _: recalled(by="B"),
    "TreatmentRecorded": lambda _: recorded(kind="supplement"),
    "TreatmentChanged": lambda _: changed(),
    "TreatmentPaused": lambda _: paused(start=on(5)),
    "TreatmentResumed": lambda _: resumed(),
    "TreatmentDiscontinued": lambda _: discontinued(stopped_ms=NOW),
    "TreatmentReinstated": lambda _: reinstated(),
    "TreatmentWithdrawn": lambda _: withdrawn(),
    "UseReported": lambda _: use_reported(),
    "ListReconciled: the present version": lambda world: _confirmed(world, 0),
    "ListReconciled: an older version": lambda world: _confirmed(world, 1),
    "AllergyRecorded": lambda _: allergic(),
    "AllergyRefuted: of one never seen": lambda _: refuted(),
    "MultidoseAssigned": lambda _: multidose(),
    "MultidoseEnded: of none": lambda _: multidose_ended(),
    "PatientDied": lambda _: died(on(4)),
    "DeathRetracted": lambda _: death_retracted(),
    "ClaimRequested": lambda _: claimed(claim="C9"),
    "ClaimAborted: C1, by P": lambda _: aborted(),
    "ClaimReleased: C1": lambda _: released(),
    "MedicationDispensed: one period": lambda _: dispensed("D9"),
    "MedicationDispensed: completed": lambda _: dispensed("D9", completed=True),
    "DispenseReversed: D0, by P": lambda _: reversed_("D0"),
    "DispenseReversed: D0, by another pharmacy": lambda _: reversed_("D0", by="Q"),
    "DispatchRequested: to P": lambda _: dispatched(),
    "DispatchWithdrawn: of none": lambda _: dispatch_withdrawn(),
    "RenewalRequested: of A": lambda _: renewal_requested(),
    "RenewalDeclined: of none": lambda _: renewal_declined(),
    "ParkedRecordClosed: what is parked": lambda world: closed(world.meta.parked[0].place if world.meta.parked else 0),
    "ParkedRecordClosed: what is not parked": lambda _: closed(999),
    "ParkedRecordClosed: by a doctor": lambda _: closed(0, by="A"),
}
CELLS: Final = tuple(Cell(event, rx, treatment) for event in EVENTS for rx, treatment in SITUATIONS)


# --- What happened, in the words of the table ------------------------------------------------------------------------


def _state(world: World) -> dict[str, str]:
    return {"R1": world.status() if world.knows("R1") else "-", "T1": world.treatment_is()}


def _effects(before: dict[str, str], world: World, then: Then) -> list[str]:
    after = _state(world)
    effects = [f"{name} {after[name]}" for name in after if after[name] != before[name]]
    effects += [f"tell {who}: {kind}" for kind, who in then.notices]
    effects += [f"order to {pharmacy}" for pharmacy in then.orders]
    waits = any(name.startswith("waiting:") and value for name, value in then.judgement.puts.items())
    return sorted([*effects, "waits"] if waits else effects)


def _at_noon(said: Said) -> Said:
    return Said(said.by, said.body, NOW, NOW)


@pytest.mark.parametrize("event", EVENTS)
def test_every_cell_of_the_table_is_what_the_fold_does(event: str) -> None:
    """Each situation is made anew for each event; what differs is listed at once."""
    wrong = []
    for cell in (cell for cell in CELLS if cell.event == event):
        (row,) = rows_for(cell)
        world = attempt(cell.prescription, cell.treatment)
        before = _state(world)
        then = world.when(_at_noon(EVENTS[event](world)))
        expected = (row.outcome, sorted(row.flags), sorted(row.effects))
        actual = (then.outcome, sorted(then.flags), _effects(before, world, then))
        if actual != expected:
            wrong.append(f"{cell}:\n  table: {expected}\n  fold:  {actual}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("prescription", "treatment"), SITUATIONS)
def test_every_situation_can_be_brought_about(prescription: str, treatment: str) -> None:
    assert situation_of(attempt(prescription, treatment)) == (prescription, treatment)


@pytest.mark.parametrize(("prescription", "treatment"), sorted(IMPOSSIBLE))
def test_what_the_table_leaves_out_cannot_be_brought_about(prescription: str, treatment: str) -> None:
    assert situation_of(attempt(prescription, treatment)) != (prescription, treatment)


def test_no_cell_is_missing_or_stands_twice(capsys: pytest.CaptureFixture[str]) -> None:
    unclear = {cell: len(rows_for(cell)) for cell in CELLS if len(rows_for(cell)) != 1}
    assert not unclear
    with capsys.disabled():
        print(f"\ntable of rulings: {len(rows())} rows, {len(CELLS)} cells, {len(CELLS)} tested")  # noqa: T201 - the count is asked for


def test_every_type_of_event_stands_in_the_table() -> None:
    assert {event.partition(":")[0] for event in EVENTS} == {body.__name__ for body in ev.EVERY_BODY}


def test_every_row_stands_for_a_cell() -> None:
    used = {row for cell in CELLS for row in rows_for(cell)}
    assert [row for row in rows() if row not in used] == []


def test_the_table_uses_no_word_that_the_vocabularies_lack() -> None:
    reasons = {match[1] for row in rows() if (match := re.fullmatch(r"refused\((\w+)\)", row.outcome))}
    kinds = {
        match[1] for row in rows() for effect in row.effects if (match := re.fullmatch(r"tell \w+: (\w+)", effect))
    }
    assert reasons <= {str(reason) for reason in Reason}
    assert kinds <= {str(kind) for kind in NoticeKind}
    assert {flag for row in rows() for flag in row.flags} <= {str(flag) for flag in Flag}
