"""`medchain simulate`: play a town through the platform."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from schemas.framing import RegistryUnavailableError
from services.command_line.named_platform import NoPlatformError, runs_here
from services.command_line.telling import AsJson, DryRun, Exit, ending, err, finite, tell
from services.schema_registry import RegistryRefusedError, framing_now
from services.simulator.connecting import Via, Where, channels, named_where, refuse_without_keys
from services.simulator.diary import Planned
from services.simulator.history import History
from services.simulator.playing import Channel, Played, play
from services.simulator.population import Town
from services.simulator.town import events, patients_for
from services.topics import cluster
from services.topics.cluster import ClusterAwayError
from services.topics.registry import load

_NOT_PLAYED: Final = (NoPlatformError, ClusterAwayError, RegistryUnavailableError, RegistryRefusedError)

app = typer.Typer(name="simulate", help="Play a town through the platform.", add_completion=False)


@app.command()
def simulate(
    events_wanted: Annotated[int, typer.Option("--events", min=1, help="How many events.")] = 10_000,
    patients: Annotated[
        int | None, typer.Option(min=1, help="How many patients; else one for every 100 events.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed plays the same town.")] = 1,
    via: Annotated[
        Via, typer.Option(help="Which way in; `both` is http and submissions, `all` the log too.")
    ] = Via.BOTH,
    rate: Annotated[
        float | None, typer.Option(min=0.1, callback=finite, help="Events a second; else as fast as it goes.")
    ] = None,
    history: Annotated[Path | None, typer.Option(help="Where to write what was sent and answered.")] = None,
    *,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Play a town: what its people prescribe, claim, hand out, change and stop, from a seed.

    Exit codes: 0 it was played; 2 it was not. The platform is the one of MEDCHAIN_KAFKA and the services' URLs, else the one
    that `make up` started.
    """
    town = Town(patients if patients is not None else patients_for(events_wanted))
    path = history or _usual_history()
    with ending(Exit.CANNOT, *_NOT_PLAYED, as_json=as_json):
        where = named_where()
        refuse_without_keys(via, where)
        single = runs_here(where.kafka)
        with cluster.asked(where.kafka):
            if dry_run:
                lacking = cluster.missing(where.kafka, load(), town.parties, one_broker=single)
                _tell_plan(where, town, events_wanted, via, lacking, as_json=as_json)
                return
            framing = framing_now(where.schema_registry)
            cluster.create(where.kafka, load(), town.parties, one_broker=single)
            with History(path) as lines, progress(f"playing {via}", events_wanted, quiet=as_json) as told:
                opened = partial(channels, via, where, town, lines, framing)
                played = asyncio.run(_play(events(seed, events_wanted, town=town), opened, rate, told))

    def page(out: Console) -> None:
        out.print(counts_table(lines.counts))
        speed = f"{played.seconds:.1f} s ({played.events_per_second:.0f} a second)"
        out.print(f"{played.actions} events in {speed}; history: {path}", markup=False)

    tell(summary(played, lines, len(town.patients)), page, as_json=as_json)


def _tell_plan(where: Where, town: Town, n: int, via: Via, lacking: Sequence[str], *, as_json: bool) -> None:
    would = {"events": n, "patients": len(town.patients), "via": via, "kafka": str(where.kafka), "services": where.urls}
    text = (
        f"Would play {n:,} events of a town with {len(town.patients):,} made people into the log at {where.kafka}, by way of "
        f"{via} ({', '.join(where.urls.values())}), and make {len(lacking)} topics that are missing. They stay there for ever: "
        "not for a platform with real patients. Nothing was done."
    )
    tell({"would_play": would | {"topics": list(lacking)}}, text, as_json=as_json)


async def _play(
    planned: Iterable[Planned],
    opened: Callable[[], dict[Channel, int]],
    rate: float | None,
    told: Callable[[int], None],
) -> Played:
    # Kafka's clients and HTTP's must be made where the loop runs.
    return await play(planned, opened(), rate=rate, told=told)


def summary(played: Played, lines: History, patients: int) -> dict[str, Any]:
    """The result of a run, for a program to read."""
    outcomes: dict[str, dict[str, int]] = {}
    for (channel, outcome), count in sorted(lines.counts.items()):
        outcomes.setdefault(channel, {})[outcome] = count
    return {
        "events": played.actions,
        "patients": patients,
        "seconds": round(played.seconds, 3),
        "events_per_second": round(played.events_per_second, 1),
        "outcomes": outcomes,
        "reasons": dict(lines.reasons.most_common()),
        "history": str(lines.path),
    }


def counts_table(counts: Counter[tuple[str, str]]) -> Table:
    """What became of the events, by channel."""
    table = Table("channel", "outcome", "events", title="What became of them", title_justify="left")
    table.columns[2].justify = "right"
    for (channel, outcome), count in sorted(counts.items()):
        table.add_row(channel, outcome, f"{count:,}")
    return table


@contextmanager
def progress(what: str, total: int, *, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """A progress bar on the terminal (nothing without one); gives what is to be called with the number done."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, disable=quiet or not err.is_terminal, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


def _usual_history() -> Path:
    from deploy.local.layout import BUILD  # noqa: PLC0415  costs time that a call that names its file need not spend

    return BUILD / "simulate" / "history.jsonl"
