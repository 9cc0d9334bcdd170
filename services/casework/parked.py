"""`medchain parked`: records that could not be judged, by reason, sender, schema and age; shown, and refolded once mended."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

import typer
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from schemas.reasons import ParkReason
from services.casework.closing import Closing, close, closing_of, organisation_of
from services.casework.desk import CaseRefusedError, Desk, DeskOpened, open_desk
from services.casework.event import place_at
from services.casework.looking import Operator, Reason, note_look
from services.casework.parking import ParkedRecord, ShownRecord, note_at, parked_records, shown
from services.casework.refold_answer import RefoldTold, page, told
from services.casework.telling import EXPECTED, answered, exit_of, instant, sentence_of
from services.command_line.telling import AsJson, Exit, Yes, tell, tell_error
from services.medication_list.refolding.refolder import RefoldRefusedError
from services.medication_list.stored.parked_note import unpack_note

PlaceArgument = Annotated[str, typer.Argument(metavar="PLACE", help="Partition and offset, as the list says: 3-1042.")]
OptionalPlace = Annotated[
    str | None, typer.Argument(metavar="[PLACE]", help="One parked record; else every patient who has any.")
]
OlderThan = Annotated[int, typer.Option("--older-than", min=0, help="At least so many minutes old.")]


class ParkedList(Struct, frozen=True):
    """Parked records: counted, and one by one."""

    total: int
    mendable: int
    by_reason: dict[str, int]
    by_sender: dict[str, int]
    by_schema: dict[str, int]
    records: tuple[ParkedRecord, ...]


def make_app(desk_opened: DeskOpened) -> typer.Typer:
    """The commands, for a way to open the desk."""
    app = typer.Typer(
        name="parked", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__
    )
    for add in (_add_list, _add_show, _add_refold, _add_close):
        add(app, desk_opened)
    return app


def _add_list(app: typer.Typer, desk_opened: DeskOpened) -> None:
    @app.command("list")
    def list_(
        park_reason: Annotated[
            ParkReason | None, typer.Option("--park-reason", help="Only those parked for it.")
        ] = None,
        sender: Annotated[str | None, typer.Option("--sender", help="Only those of this system.")] = None,
        schema: Annotated[str | None, typer.Option("--schema", help="Only those written with it.")] = None,
        older_than_min: OlderThan = 0,
        *,
        all_: Annotated[bool, typer.Option("--all", help="Those that were closed, too.")] = False,
        as_json: AsJson = False,
    ) -> None:
        """Everything that is parked: where, why, from whom, since when, and whether this release can judge it."""
        with answered(as_json=as_json), desk_opened() as desk:
            found = _listed(
                each
                for each in parked_records(desk)
                if (all_ or not each.closed)
                and (park_reason is None or each.reason == park_reason)
                and (sender is None or each.sender == sender)
                and (schema is None or each.schema == schema)
                and each.age_ms >= older_than_min * 60_000
            )
            nothing = "Nothing is parked."
            if any(each is not None for each in (park_reason, sender, schema)) or older_than_min:
                nothing = "Nothing that is parked fits."
            tell(found, (lambda out: _list_page(out, found)) if found.records else nothing, as_json=as_json)


def _add_show(app: typer.Typer, desk_opened: DeskOpened) -> None:
    @app.command()
    def show(
        place: PlaceArgument,
        reason: Reason,
        operator: Operator = None,
        *,
        as_json: AsJson = False,
    ) -> None:
        """One parked record as far as it can be read; identities are masked."""
        with answered(as_json=as_json), desk_opened() as desk:
            at = place_at(desk, place)
            patient = note_at(desk, at).patient
            note_look(desk.accesses, "parked show", reason, operator, position=place, patient=patient)
            found = shown(desk, at)
            tell(found, lambda out: _show_page(out, found), as_json=as_json)


def _add_refold(app: typer.Typer, desk_opened: DeskOpened) -> None:
    @app.command()
    def refold(
        reason: Reason,
        place: OptionalPlace = None,
        operator: Operator = None,
        *,
        yes: Yes = False,
        as_json: AsJson = False,
    ) -> None:
        """Fold anew the patients of parked records that this release can judge; with --yes."""
        with answered(as_json=as_json), desk_opened() as desk:
            patients = _patients(desk, place)
            found, failed = _refolded(desk, patients, reason, operator, yes=yes)

            def shown_page(out: Console) -> None:
                _refold_page(out, found)

            if failed:
                sentence = _why_not_all(found, failed, len(patients), done=yes)
                tell_error(sentence, exit_of(*failed.values()), as_json=as_json, page=shown_page, refolded=found)
            tell(found, shown_page if patients else "Nothing is parked that marks a list.", as_json=as_json)


def _add_close(app: typer.Typer, desk_opened: DeskOpened) -> None:
    @app.command("close")
    def close_(
        place: PlaceArgument,
        reason: Reason,
        organisation: Annotated[
            str | None, typer.Option("--organisation", help="Whose operator closes it: it stands in the log.")
        ] = None,
        operator: Operator = None,
        *,
        although_mendable: Annotated[
            bool, typer.Option("--although-mendable", help="Close what a newer release may be able to judge.")
        ] = False,
        yes: Yes = False,
        as_json: AsJson = False,
    ) -> None:
        """Close a record that will never be judged: the list waits for it no longer; with --yes."""
        with answered(as_json=as_json), desk_opened() as desk:
            at = place_at(desk, place)
            patient = note_at(desk, at).patient
            note_look(desk.accesses, "parked close", reason, operator, position=place, patient=patient, changes=yes)
            closing = closing_of(desk, at, although_mendable=although_mendable)
            number = organisation_of(closing, organisation)
            if yes:
                closing = close(desk, at, closing, reason, number)
            tell(closing, lambda out: _close_page(out, closing), as_json=as_json)
            if closing.done and closing.outcome not in (None, "applied", "duplicate"):
                raise typer.Exit(Exit.NOT_WELL)


def _patients(desk: Desk, place: str | None) -> list[str]:
    """Whose list a parked record marks, or all patients'."""
    if place is not None:
        patient = note_at(desk, place_at(desk, place)).patient
        if patient is None:
            raise CaseRefusedError(
                "Nobody can tell whose record this is, so no list waits for it and there is none to fold anew."
            )
        return [patient]
    notes = (
        unpack_note(packed)
        for partition in range(desk.partitions)
        for _, packed in sorted(desk.store.parked(partition).items())
    )
    return list(dict.fromkeys(note.patient for note in notes if note.patient is not None and note.closed is None))


def _refolded(
    desk: Desk, patients: Iterable[str], reason: str, operator: str | None, *, yes: bool
) -> tuple[Sequence[RefoldTold], Mapping[str, Exception]]:
    """Fold each of them anew, or show what that would do; and why some could not be, by pseudonym."""
    refolder = desk.refolder()
    found: list[RefoldTold] = []
    failed: dict[str, Exception] = {}
    for patient in patients:
        try:
            note_look(desk.accesses, "parked refold", reason, operator, patient=patient, changes=yes)
            plan = refolder.refold(patient) if yes else refolder.preview(patient)
        except RefoldRefusedError as error:
            failed[patient] = error  # this patient's own affair: the lists of the others wait no less
            continue
        except EXPECTED as error:
            failed[patient] = error
            break
        assert plan is not None, "nobody was asked"
        found.append(told(desk, plan, done=yes))
    return found, failed


def _why_not_all(found: Sequence[RefoldTold], failed: Mapping[str, Exception], of: int, *, done: bool) -> str:
    if not found and len(failed) == 1:
        (error,) = failed.values()
        return sentence_of(error)
    head = f"{len(found)} of {of} patients {'were' if done else 'would be'} folded anew, as told."
    return " ".join([head, *(f"{patient}: {sentence_of(error)}" for patient, error in failed.items())])


def _listed(records: Iterable[ParkedRecord]) -> ParkedList:
    kept = tuple(records)
    return ParkedList(
        total=len(kept),
        mendable=sum(each.mendable for each in kept),
        by_reason=dict(Counter(each.reason for each in kept).most_common()),
        by_sender=dict(Counter(each.sender or "-" for each in kept).most_common()),
        by_schema=dict(Counter(each.schema or "-" for each in kept).most_common()),
        records=kept,
    )


def _list_page(out: Console, found: ParkedList) -> None:
    table = Table("place", "reason", "sender", "type", "schema", "since", "marks a list", "can be judged now")
    for each in found.records:
        table.add_row(
            *(each.position, each.reason, each.sender or "-", each.type or "-", each.schema or "-"),
            *(instant(each.at_ms), "yes" if each.marks_a_list else "no", "yes" if each.mendable else "no"),
        )
    out.print(table)
    out.print(f"{found.total} parked, {found.mendable} of them can be judged now")


def _show_page(out: Console, found: ShownRecord) -> None:
    record = found.record
    out.print(f"{record.position}: {record.reason}, since {instant(record.at_ms)}; {found.why}", markup=False)
    known = "known" if found.schema_is_known else "not known"
    out.print(f"  {found.bytes} bytes, beginning {found.begins_with}; as a schema's mark: {known}")
    for name, value in found.headers.items():
        out.print(f"  {name}: {value}", markup=False)
    if found.content is not None:
        out.print_json(data=found.content, default=str)


def _close_page(out: Console, found: Closing) -> None:
    how = "by an event in the log" if found.by_event else "by a note, since nobody can tell whose it is"
    if not found.done:
        out.print(f"{found.position}, parked({found.park_reason}), would be closed {how}.", markup=False)
        out.print("Nothing was written. Say --yes to do it.")
        return
    at = f" at {found.closed_at}: {found.outcome}" if found.closed_at else ""
    out.print(f"{found.position} was closed {how}{at}", markup=False)


def _refold_page(out: Console, found: Sequence[RefoldTold]) -> None:
    for each in found:
        page(out, each)


app = make_app(open_desk)
