"""`medchain patient`: one patient's events, the list as it was, and the patient folded anew."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final
from zoneinfo import ZoneInfo

import typer
from rich.console import Console

from services.admission.rules import FUTURE_TOLERANCE_MS
from services.casework.desk import CaseRefusedError, DeskOpened, open_desk
from services.casework.looking import Operator, PatientFile, Pseudonym, Reason, note_look, patient_of
from services.casework.past_list import list_of
from services.casework.refold_answer import changes, page, told
from services.casework.telling import answered, instant
from services.casework.timeline import Timeline, TimelineEvent, facts_of, timeline_of
from services.command_line.telling import AsJson, Yes, tell
from services.medication_list.read_api.list_answer import ListAnswer

OSLO: Final = ZoneInfo("Europe/Oslo")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
AsOf = Annotated[
    str | None,
    typer.Option("--as-of", help="The list as it was known then: ISO 8601, Norwegian time unless it says otherwise."),
]


def make_app(desk_opened: DeskOpened) -> typer.Typer:
    """The commands, for a way to open the desk."""
    app = typer.Typer(
        name="patient", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__
    )
    for add in (_add_timeline, _add_list, _add_refold):
        add(app, desk_opened)
    return app


def _add_timeline(app: typer.Typer, desk_opened: DeskOpened) -> None:
    @app.command()
    def timeline(
        reason: Reason,
        patient_file: PatientFile = None,
        pseudonym: Pseudonym = None,
        operator: Operator = None,
        *,
        as_json: AsJson = False,
    ) -> None:
        """Each event of a patient: when, who, what, what became of it, and what it changed in the list."""
        with answered(as_json=as_json), desk_opened() as desk:
            patient = patient_of(desk, patient_file, pseudonym)
            note_look(desk.accesses, "patient timeline", reason, operator, patient=patient)
            found = timeline_of(desk, patient)
            tell(found, lambda out: _page(out, found), as_json=as_json)


def _add_list(app: typer.Typer, desk_opened: DeskOpened) -> None:
    @app.command("list")
    def list_(
        reason: Reason,
        as_of: AsOf = None,
        patient_file: PatientFile = None,
        pseudonym: Pseudonym = None,
        operator: Operator = None,
        *,
        as_json: AsJson = False,
    ) -> None:
        """A patient's list, now or as it was known at an earlier time."""
        with answered(as_json=as_json), desk_opened() as desk:
            at_ms = None if as_of is None else instant_of(as_of, desk.clock.now_ms())
            patient = patient_of(desk, patient_file, pseudonym)
            note_look(desk.accesses, "patient list", reason, operator, patient=patient)
            found = list_of(desk, patient, at_ms)
            tell(found, lambda out: _list_page(out, found), as_json=as_json)


def _add_refold(app: typer.Typer, desk_opened: DeskOpened) -> None:
    @app.command()
    def refold(
        reason: Reason,
        patient_file: PatientFile = None,
        pseudonym: Pseudonym = None,
        operator: Operator = None,
        *,
        yes: Yes = False,
        as_json: AsJson = False,
    ) -> None:
        """Fold one patient anew, in order, while traffic runs: shows which answers change, and does it with --yes."""
        with answered(as_json=as_json), desk_opened() as desk:
            patient = patient_of(desk, patient_file, pseudonym)
            note_look(desk.accesses, "patient refold", reason, operator, patient=patient, changes=yes)
            refolder = desk.refolder()
            plan = refolder.refold(patient) if yes else refolder.preview(patient)
            assert plan is not None, "nobody was asked"
            document = told(desk, plan, done=yes)
            tell(document, lambda out: page(out, document), as_json=as_json)


def instant_of(text: str, now_ms: int) -> int:
    """Milliseconds since the epoch. Raises CaseRefusedError, also for a time that is not past: nothing is known of it."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise CaseRefusedError("--as-of: a time such as 2026-03-02T09:00, or with a zone.") from None
    at_ms = ((when if when.tzinfo is not None else when.replace(tzinfo=OSLO)) - _EPOCH) // timedelta(milliseconds=1)
    if not 0 <= at_ms <= now_ms + FUTURE_TOLERANCE_MS:
        raise CaseRefusedError("--as-of: a time that is past, and no earlier than 1970.")
    return at_ms


def _page(out: Console, found: Timeline) -> None:
    for each in found.events:
        _event(out, each)
    if found.incomplete_since_ms is not None:
        out.print(f"The list is incomplete since {instant(found.incomplete_since_ms)}: see what is parked.")
    out.print(f"{len(found.events)} events, generation {found.generation}")


def _event(out: Console, each: TimelineEvent) -> None:
    event = each.event
    outcome = f"{event.outcome}({event.reason})" if event.reason else event.outcome
    who = "" if event.by is None else f" by {event.by.organisation} ({event.by.role})"
    flags = f" [{', '.join(event.flags)}]" if event.flags else ""
    head = f"{instant(event.recorded_at_ms)} {event.position} {event.type or 'unreadable'}{who}: {outcome}{flags}"
    out.print(head, markup=False)
    if event.answered is not None:
        first = event.answered
        out.print(f"  answered first: {first.outcome}{f'({first.reason})' if first.reason else ''}", markup=False)
    if each.hidden:
        out.print("  hidden: its number was another patient's already, so that it is in no list")
    changes(out, each.changed)


def _list_page(out: Console, found: ListAnswer) -> None:
    out.print(f"The list as of {instant(found.as_of_ms)}, up to {found.position or 'no record'}")
    for entry, facts in facts_of(found).items():
        out.print(entry, markup=False)
        for name, value in facts.items():
            out.print(f"  {name}: {value}", markup=False)


app = make_app(open_desk)
