"""`medchain event`: where one event is in the chain, with positions and times."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from services.casework.desk import CaseRefusedError, Desk, DeskOpened, open_desk
from services.casework.looking import Operator, PatientFile, Pseudonym, Reason, note_look, patient_of
from services.casework.telling import answered, instant
from services.casework.tracing import Trace, place_of_event, trace
from services.command_line.telling import AsJson, tell
from services.medication_list.log.positions import InvalidPositionError, LogPlace, place_of

EventId = Annotated[str, typer.Argument(metavar="ID", help="The event's id; of one that nobody can read, its ce_id.")]
Position = Annotated[
    str | None,
    typer.Option("--position", help="Where it lies, as its answer said: then no patient need be named."),
]


def make_app(desk_opened: DeskOpened) -> typer.Typer:
    """The command, for a way to open the desk."""
    app = typer.Typer(
        name="event", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__
    )

    @app.callback()
    def event() -> None:
        """Where one event is in the chain."""

    @app.command("trace")
    def trace_(
        event_id: EventId,
        reason: Reason,
        position: Position = None,
        patient_file: PatientFile = None,
        pseudonym: Pseudonym = None,
        operator: Operator = None,
        *,
        as_json: AsJson = False,
    ) -> None:
        """An event's place in the log, what became of it, and each of its effects: waiting, or sent, where and when."""
        with answered(as_json=as_json), desk_opened() as desk:
            place = None if position is None else place_at(desk, position)
            patient = patient_of(desk, patient_file, pseudonym) if place is None else None
            # That a patient has no such event is also information about the patient.
            note_look(
                desk.accesses, "event trace", reason, operator, event_id=event_id, position=position, patient=patient
            )
            if place is None:
                assert patient is not None, "an event is looked for at its place, or among those of its patient"
                place = place_of_event(desk, event_id, patient)
            found, _ = trace(desk, place)
            if found.event_id != event_id:
                raise CaseRefusedError("The record at that position is another event's.")
            tell(found, lambda out: _page(out, found), as_json=as_json)

    return app


def place_at(desk: Desk, position: str) -> LogPlace:
    """The place that a position names. Raises CaseRefusedError."""
    try:
        return place_of(position, desk.partitions)
    except InvalidPositionError:
        raise CaseRefusedError("A position is a partition of this log and an offset, such as 3-1042.") from None


def _page(out: Console, found: Trace) -> None:
    where = f"{found.position}, taken by the broker {instant(found.recorded_at_ms)}"
    out.print(f"{found.type or 'An event that cannot be read'} at {where}", markup=False)
    if found.occurred_at_ms is not None:
        out.print(f"  happened {instant(found.occurred_at_ms)}, received {instant(found.received_at_ms)}")
        out.print(f"  from {found.system} of {found.organisation}", markup=False)
    if not found.judged:
        out.print(f"  not judged yet: the view of this partition stands at offset {found.view_offset}")
        return
    outcome = f"{found.outcome}({found.reason})" if found.reason else str(found.outcome)
    first = f", first at {found.first_position}" if found.first_position else ""
    out.print(f"  {outcome}{first} {' '.join(found.flags)}".rstrip(), markup=False)
    if found.effects:
        table = Table("effect", "topic", "state", "when", "position", "id")
        for each in found.effects:
            when = instant(each.at_ms)
            table.add_row(each.what, each.topic, each.state, when, each.position or "-", each.effect_id)
        out.print(table)


app = make_app(open_desk)
