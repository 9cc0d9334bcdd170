"""What a refold would do, or has done, as shown to an operator before and after."""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from rich.console import Console
from rich.table import Table

from services.casework.desk import Desk
from services.casework.telling import instant
from services.casework.timeline import Change, changes_between
from services.medication_list.fold import Verdict
from services.medication_list.log.positions import position_of
from services.medication_list.read_api.view import show
from services.medication_list.refolding.refolder import Refold
from services.medication_list.stored.effects import topic_of
from services.medication_list.stored.packing import unpack_fields


class AnswerTold(Struct, frozen=True):
    """One answer that changes. `corrected`: its sender gets a notice outcome_changed; otherwise only flags differ."""

    position: str
    event_id: str
    type: str
    organisation: str
    answered: str
    now: str
    flags_before: tuple[str, ...]
    flags_now: tuple[str, ...]
    corrected: bool


class RefoldTold(Struct, frozen=True):
    """One patient folded anew. `done` is false if it is only shown; `needed` is false if nothing would change."""

    done: bool
    needed: bool
    patient: str
    records: int
    unparked: tuple[str, ...]
    still_parked: tuple[str, ...]
    answers: tuple[AnswerTold, ...]
    effects: tuple[str, ...]
    """What goes out: kind, and the topic that it goes to."""
    list_changes: tuple[Change, ...]


def told(desk: Desk, plan: Refold, *, done: bool) -> RefoldTold:
    """The document of a refold."""
    now_ms = desk.clock.now_ms()
    return RefoldTold(
        done=done and plan.is_needed,
        needed=plan.is_needed,
        patient=plan.patient,
        records=plan.records,
        unparked=tuple(position_of(plan.partition, each) for each in plan.unparked),
        still_parked=tuple(position_of(plan.partition, each) for each in plan.parked),
        answers=tuple(
            AnswerTold(
                position=position_of(plan.partition, each.offset),
                event_id=each.event_id,
                type=each.event_type,
                organisation=each.organisation,
                answered=_outcome(each.answered),
                now=_outcome(each.now),
                flags_before=tuple(map(str, each.answered.flags)),
                flags_now=tuple(map(str, each.now.flags)),
                corrected=each.is_outcome,
            )
            for each in plan.changes
        ),
        effects=tuple(f"{type(due).__name__.removesuffix('Due').lower()} to {topic_of(due)}" for due in plan.effects),
        list_changes=changes_between(
            show(unpack_fields(plan.before), now_ms), show(unpack_fields(plan.rewrite.put), now_ms)
        ),
    )


def page(out: Console, document: RefoldTold) -> None:
    """A refold for people to read."""
    if not document.needed:
        out.print("Nothing to refold: what stands is what this patient's records come to.")
        return
    out.print(f"{'Folded anew' if document.done else 'Would be folded anew'}: {document.records} records")
    _positions(out, "judged now that had been parked", document.unparked)
    _positions(out, "still parked", document.still_parked)
    if document.answers:
        table = Table("position", "type", "organisation", "answered", "now", "correction")
        for each in document.answers:
            answered, now = (
                _with(each.answered, each.flags_before),
                _with(each.now, each.flags_now),
            )
            table.add_row(
                each.position, each.type, each.organisation, answered, now, "yes" if each.corrected else "flags only"
            )
        out.print("Answers that change:")
        out.print(table)
    for effect in document.effects:
        out.print(f"  goes out: {effect}")
    changes(out, document.list_changes)
    if not document.done:
        out.print("Nothing was written. Say --yes to do it.")


def changes(out: Console, changed: Sequence[Change], indent: str = "  ") -> None:
    """Entries of a list before and after."""
    for each in changed:
        out.print(f"{indent}{each.entry}", markup=False)
        for name in dict.fromkeys([*(each.before or {}), *(each.after or {})]):
            before, after = (each.before or {}).get(name), (each.after or {}).get(name)
            out.print(f"{indent}  {name}: {_short(name, before)} -> {_short(name, after)}", markup=False)


def _short(name: str, value: Any) -> str:
    if value is None:
        return "-"
    return instant(value) if name == "incomplete since" else str(value)


def _positions(out: Console, what: str, positions: Sequence[str]) -> None:
    if positions:
        out.print(f"  {what}: {', '.join(positions)}")


def _outcome(verdict: Verdict) -> str:
    return f"refused({verdict.reason})" if verdict.reason else verdict.outcome


def _with(outcome: str, flags: Sequence[str]) -> str:
    return f"{outcome} {', '.join(flags)}".rstrip()
