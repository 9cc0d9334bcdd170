"""`medchain replay`: make the view again beside the live one, compare, switch, go back, retire."""

import re
import resource
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Final, Self

import msgspec
import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from deploy.local.supervisor import end_on_signals
from services.casework.looking import Operator, ReasonToShow, Show, values_looked_at
from services.command_line.telling import AsJson, Exit, Yes, err, out, tell
from services.medication_list.generations import GenerationRefusedError, GenerationState, record_of
from services.medication_list.log.positions import LogPlace
from services.replay import retiring, switching
from services.replay.child import ChildReader
from services.replay.compare import Comparison, compare, kinds_of
from services.replay.crew import Crew
from services.replay.place import LogTail, Place, open_place
from services.replay.starting import SAMPLED_KEYS, Doing, Plan, begin, mib, plan, refuse_beyond, to_follow
from services.replay.telling import answered
from services.replay.watching import Look, Phase, Watch

app = typer.Typer(
    name="replay",
    help="Make the view again beside the live one, compare, switch, go back, retire. Exit codes: 0 done, 1 there are "
    "differences, 2 refused or cannot be done.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_JSON_EVERY_S: Final = 1.0
_LINE_EVERY_S: Final = 10.0

Generation = Annotated[str, typer.Argument(help="Its name, as `medchain generations` lists it.")]
LeaveUnsent = Annotated[
    bool,
    typer.Option(
        "--leave-unsent",
        help="Also where the live one has parked what the other has judged, though what is to go out for it never will.",
    ),
]
Workers = Annotated[int, typer.Option(min=1, max=64, help="Bulk readers, each a process with its own partitions.")]
MaxShare = Annotated[
    float,
    typer.Option(
        min=0.005, max=1.0, help="The most of a core's time that each may take; less while the live view lags."
    ),
]
Reserve = Annotated[float, typer.Option(min=0.0, max=0.9, help="The share of the store's memory that must stay free.")]
Until = Annotated[
    str | None,
    typer.Option(
        help="Stop there: a position (partition-offset, included) or a time by the broker's clock (ISO 8601)."
    ),
]
Follow = Annotated[bool, typer.Option(help="Stay and feed it once it is whole, until ended.")]


@app.command()
def start(
    workers: Workers = 1,
    until: Until = None,
    max_share: MaxShare = 0.5,
    reserve: Reserve = 0.1,
    *,
    follow: Follow = True,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Make a generation by this release's fold beside the live one, or go on with one that was begun.

    It may be killed at any time: the same command goes on from there. Once it is whole it is fed until this command is
    ended, or until the release's own processors feed it.
    """
    with answered(as_json=as_json):
        stop = None if until is None else stop_of(until)
        with open_place() as place:
            planned = plan(place, reserve)
            bounds = {} if stop is None else _bounds(place, stop)
            refuse_beyond(place, planned, bounds)
            if not yes:
                _tell_plan(planned, until, as_json=as_json)
                return
            generation = begin(place, planned)
            _run(place, generation, workers, bounds, max_share, planned, follow=follow, as_json=as_json)


@app.command("follow")
def follow_(workers: Workers = 1, max_share: MaxShare = 0.5, *, as_json: AsJson = False) -> None:
    """Feed the generations of this release's fold that nobody else feeds, so that the way to them, or back, is open."""
    with answered(as_json=as_json), open_place() as place:
        beside = to_follow(place)
        _run(place, beside, workers, {}, max_share, None, follow=True, as_json=as_json)


@app.command("compare")
def compare_(
    generation: Generation,
    sample: Annotated[int | None, typer.Option(min=1, help="About so many patients, in no order; else all.")] = None,
    reason: ReasonToShow = None,
    operator: Operator = None,
    *,
    show: Show = False,
    as_json: AsJson = False,
) -> None:
    """Compare a generation with the live one, patient by patient, while both go on. Exit 1 on any difference.

    With --show it is a look at the patients whose values it shows: recorded, with who and why, before they are.
    """
    with answered(as_json=as_json), open_place() as place:
        pointer = place.pointer()
        state = record_of(pointer, generation).state
        if generation == pointer.generation:
            raise GenerationRefusedError(f"{generation} is the live one: name the one to compare with it.")
        if state == GenerationState.RETIRED:
            raise GenerationRefusedError(f"{generation} was retired: there is nothing left to compare.")
        looked_at = values_looked_at("replay compare", reason, operator, place.folder) if show else None
        found = compare(place, pointer.generation, generation, sample)
        if looked_at is not None:
            looked_at(found.whose_values())
    document = found.as_plain(show=show) | {"memory_mib": _memory_mib()}
    tell(document, lambda _: _tell_comparison(found, show=show), as_json=as_json)
    raise typer.Exit(Exit.DONE if found.is_clean else Exit.NOT_WELL)


@app.command()
def switch(
    generation: Generation, *, leave_unsent: LeaveUnsent = False, yes: Yes = False, as_json: AsJson = False
) -> None:
    """Make a generation the live one: at once, or not at all; writes wait for less than a second."""
    with answered(as_json=as_json), open_place() as place:
        _switch(place, generation, leave_unsent=leave_unsent, yes=yes, as_json=as_json)


@app.command()
def rollback(*, leave_unsent: LeaveUnsent = False, yes: Yes = False, as_json: AsJson = False) -> None:
    """Switch back to the generation that was live before."""
    with answered(as_json=as_json), open_place() as place:
        _switch(place, switching.way_back(place), leave_unsent=leave_unsent, yes=yes, as_json=as_json)


@app.command()
def retire(generation: Generation, *, yes: Yes = False, as_json: AsJson = False) -> None:
    """Delete a generation that is not live, slice by slice. There is no way back to it."""
    with answered(as_json=as_json), open_place() as place:
        record = retiring.refuse_unfit(place, generation)
        size = place.inventory.sizes(SAMPLED_KEYS).get(generation, 0)
        told: dict[str, Any] = {"generation": generation, "fold_version": record.fold_version, "bytes": size}
        if not yes:
            text = f"Would delete {generation}, about {mib(size)}. Nothing was done: --yes."
            tell({"would_retire": told}, text, as_json=as_json)
            return
        deleted = retiring.retire(place, generation)
        text = f"{generation} is gone: {deleted:,} keys, about {mib(size)}."
        tell({"retired": told, "keys": deleted}, text, as_json=as_json)


def _switch(place: Place, generation: str, *, leave_unsent: bool, yes: bool, as_json: bool) -> None:
    before = switching.refuse_unfit(place, generation, leave_unsent=leave_unsent).generation
    if not yes:
        text = f"Would switch from {before} to {generation}. Nothing was done: --yes."
        tell({"would_switch": {"before": before, "live": generation}}, text, as_json=as_json)
        return
    done = switching.switch(place, generation, leave_unsent=leave_unsent)
    text = f"{done.live} is live, and {done.before} is not; writes waited for {done.ms:.0f} ms. The way back: replay rollback."
    tell({"switched": {"before": done.before, "live": done.live, "ms": round(done.ms, 1)}}, text, as_json=as_json)


# --- Running ------------------------------------------------------------------------------------------------------


def _run(
    place: Place,
    generation: str,
    workers: int,
    bounds: Mapping[int, int],
    max_share: float,
    planned: Plan | None,
    *,
    follow: bool,
    as_json: bool,
) -> None:
    """`planned`: how it is made; None where it is whole, and may be left at any time."""
    assert place.kafka is not None
    assert place.settings is not None
    started = partial(ChildReader, settings=place.settings)
    with (
        closing(LogTail(place.kafka, place.partitions)) as tail,
        Crew(generation, place.partitions, workers, bounds, place.clock, started) as crew,
    ):
        reserve = 0 if planned is None else planned.room.reserve
        watch = Watch(place, tail, crew, generation, max_share, reserve, bounds)
        end_on_signals()
        try:
            crew.start(max_share)
            _show(watch, follow=follow, as_json=as_json)
        except SystemExit:
            if planned is not None and watch.phase is Phase.FILLING:
                # As for a script that waits for it: what was ended here is not done.
                raise GenerationRefusedError(_ended(generation, Phase.FILLING)) from None
            raise
        if crew.is_done:
            _refuse_left(place, generation, watch.phase)
    if not as_json:
        err.print(_ended(generation, watch.phase), markup=False)


def _refuse_left(place: Place, generation: str, phase: Phase) -> None:
    """All readers left. Raises GenerationRefusedError unless they did because it is whole and others feed it."""
    if record_of(place.pointer(), generation).state == GenerationState.RETIRED:
        raise GenerationRefusedError(f"{generation} was retired meanwhile: `replay start` makes a new one.")
    if phase is Phase.FILLING:
        raise GenerationRefusedError(
            f"Processors feed {generation} now, and go on with it: there is nothing left to do."
        )


def stop_of(until: str) -> LogPlace | datetime:
    """What --until names. Raises GenerationRefusedError."""
    position = re.fullmatch(r"(\d{1,9})-(\d{1,18})", until)
    if position is not None:
        return LogPlace(int(position[1]), int(position[2]))
    try:
        moment = datetime.fromisoformat(until)
    except ValueError:
        raise GenerationRefusedError(
            f"--until {until}: neither a position nor a time such as 2026-11-26T08:00+01:00."
        ) from None
    if moment.tzinfo is None:
        raise GenerationRefusedError("--until: say the time with its offset from UTC, such as 2026-11-26T08:00+01:00.")
    if _ms(moment) < 0:
        raise GenerationRefusedError(f"--until {until}: no record is from before 1970.")
    return moment


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _bounds(place: Place, stop: LogPlace | datetime) -> Mapping[int, int]:
    """The offset before which each partition stops.

    A position stops the others where the broker's clock was when it took that record. Raises GenerationRefusedError.
    """
    assert place.kafka is not None
    with closing(LogTail(place.kafka, place.partitions)) as tail:
        if isinstance(stop, datetime):
            if _ms(stop) >= place.clock.now_ms():
                raise GenerationRefusedError(
                    "--until: that time has not come yet, and nobody knows what comes until then."
                )
            return tail.at(_ms(stop))
        if stop.partition not in tail.ends():
            raise GenerationRefusedError(f"The log has no partition {stop.partition}.")
        return {**tail.at(tail.time_of(*stop)), stop.partition: stop.offset + 1}


def _show(watch: Watch, *, follow: bool, as_json: bool) -> None:
    """Show looks until there is nothing left to do."""
    told_at_s, phase = -_LINE_EVERY_S, Phase.FILLING
    is_live = not as_json and err.is_terminal
    with Live(console=err, auto_refresh=False, transient=True) if is_live else _Silent() as screen:
        for look in watch.looks(follow=follow):
            is_turn = look.phase is not phase
            phase = look.phase
            every_s = _JSON_EVERY_S if as_json else _LINE_EVERY_S
            if is_live:
                screen.update(_page(look), refresh=True)
            elif is_turn or look.seconds - told_at_s >= every_s:
                told_at_s = look.seconds
                if as_json:
                    out.print(msgspec.json.encode(asdict(look)).decode(), markup=False)
                else:
                    err.print(_line(look), markup=False)


class _Silent:
    """A screen for nobody."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, _page: Group, *, refresh: bool) -> None:
        """Show nothing."""


def _page(look: Look) -> Group:
    table = Table.grid(padding=(0, 2))
    table.add_row("generation", look.generation)
    table.add_row("state", "paused: no room" if look.is_paused else str(look.phase))
    table.add_row("events", f"{look.done:,} of {look.of:,}")
    table.add_row("rate", f"{look.rate:,.0f} a second")
    table.add_row("time left", "" if look.left_s is None else f"{look.left_s:,.0f} s")
    table.add_row("live view lags", f"{look.live_lag:,} events")
    table.add_row("share of a core", f"{look.share:.2f}")
    return Group(table, Text("Ctrl-C ends it; the same command goes on from there.", "dim"))


def _line(look: Look) -> str:
    left = "" if look.left_s is None else f", {look.left_s:,.0f} s left"
    paused = ", paused: no room" if look.is_paused else ""
    return (
        f"{look.generation} {look.phase}: {look.done:,} of {look.of:,} events, {look.rate:,.0f} a second{left}; "
        f"live view lags {look.live_lag:,}, share {look.share:.2f}{paused}"
    )


def _ended(generation: str, phase: Phase) -> str:
    match phase:
        case Phase.FILLING:
            return f"{generation} is not whole yet: the same command goes on from here."
        case Phase.AS_FAR_AS_ASKED:
            return f"{generation} is as far as asked and not whole: `replay start` without --until goes on."
        case Phase.WHOLE:
            return (
                f"{generation} is whole. Compare it (`replay compare {generation}`), then switch to it; it must be "
                "fed until then, by its release's processors or by `replay follow`."
            )


# --- Telling ------------------------------------------------------------------------------------------------------


def _tell_plan(planned: Plan, until: str | None, *, as_json: bool) -> None:
    room = planned.room
    text = {
        Doing.BEGIN: f"Would make a generation by fold version {planned.fold_version} beside the live one",
        Doing.RESUME: f"Would go on with {planned.generation}",
        Doing.REBUILD: "Would build the live view, which was lost",
    }[planned.doing]
    text += "" if until is None else f", as far as {until}"
    text += (
        f". It needs about {mib(room.needed)} more; {mib(room.used)} of {mib(room.limit)} are used, "
        f"and {mib(room.reserve)} stay free. Nothing was done: --yes."
    )
    tell({"would": asdict(planned) | {"until": until}}, text, as_json=as_json)


def _tell_comparison(found: Comparison, *, show: bool) -> None:
    table = Table("kind", "differences", "patients", "patient", "before", "after")
    for name, kind in kinds_of(found.kinds):
        for number, (patient, each) in enumerate(kind.examples):
            counts = (f"{kind.count:,}", f"{kind.patients:,}") if number == 0 else ("", "")
            table.add_row(
                Text(name if number == 0 else ""), *counts, patient, *(Text(word) for word in each.told(show=show))
            )
    if found.kinds:
        out.print(table)
    for kind_of_note, count in found.notes.items():
        out.print(f"{count:,} entries of {kind_of_note} differ.")
    behind = f"; {found.behind:,} were behind and not compared" if found.behind else ""
    what = "all" if found.is_whole else "a sample"
    out.print(
        f"{found.before} (before) and {found.after} (after), {what}: {found.compared:,} patients compared in "
        f"{found.seconds:.1f} s with {_memory_mib():.0f} MiB, {found.differing:,} differ{behind}."
    )


def _memory_mib() -> float:
    """The most that this process ever used."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
