"""`medchain demo`: the whole platform at work: started, a town played through it, one patient followed, checked, measured."""

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import quantiles
from typing import Annotated, Any, Final

import httpx
import redis
import typer
from msgspec import Struct
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deploy.local.artifacts import CannotSetUpError
from deploy.local.keys import keys_of
from deploy.local.layout import BUILD
from deploy.local.own_folder import FolderRefusedError, emptied
from deploy.local.platform import Platform
from deploy.local.program import ProgramDiedError
from deploy.local.state import AlreadyRunsError
from deploy.local.waiting import NeverCameTrueError, wait_until
from schemas.events import AllergyRecorded
from services.command_line.app import COMMAND
from services.command_line.follow import Story, StoryBrokenError
from services.command_line.telling import AsJson, Exit, ending, tell
from services.publishing.kafka_access import KafkaAccess
from services.simulator.cli import counts_table, progress
from services.simulator.connecting import SERVICES, Via, Where, channels
from services.simulator.diary import Planned
from services.simulator.history import History, Line, read
from services.simulator.http_channel import HttpChannel, stated
from services.simulator.playing import Played, play
from services.simulator.population import Town, patient
from services.simulator.town import events, patients_for

FOLDER: Final = BUILD / "demo"
REPORT: Final = BUILD / "demo.json"
FOLLOWED: Final = 9_000_000
"""The patient who is followed: nobody of the town has such a high number."""
PROBES: Final = 300
PROBES_PER_SECOND: Final = 50.0
CAUGHT_UP_WITHIN_S: Final = 120.0
SHOWN: Final = 20
"""Differences that are printed."""

NOT_STARTED: Final = (FolderRefusedError, AlreadyRunsError, ProgramDiedError, NeverCameTrueError, CannotSetUpError)
"""Why a platform of one's own does not come about."""

app = typer.Typer(
    name="demo",
    help="Start everything, play the town, follow one patient, check.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Console()


class DemoFailedError(RuntimeError):
    """The demo ran, but gave no result to report; the text says why."""


class CheckNotMadeError(RuntimeError):
    """`medchain check` could not compare; the text says why."""


class Checked(Struct, frozen=True):
    """The oracle's result, as given by `medchain check --json`."""

    accepted: int
    applied: int
    duplicate: int
    refused: int
    parked: int
    flagged: int
    patients: int
    treatments: int
    lost: int
    mismatches: int
    behind: int


@app.command()
def demo(
    events_wanted: Annotated[int, typer.Option("--events", min=100, help="How many events the town plays.")] = 10_000,
    seed: Annotated[int, typer.Option(help="The same seed plays the same town.")] = 1,
    via: Annotated[Via, typer.Option(help="Which way in.")] = Via.ALL,
    *,
    as_json: AsJson = False,
) -> None:
    """Start the platform, play the town, follow one patient, check all of it, and stop everything again.

    Exit codes: 0 all of it is well; 1 something is not; 2 it could not be played. It is a platform of its own that is played
    on: nothing else changes.
    """
    out.quiet = as_json
    town = Town(patients_for(events_wanted))
    with (
        ending(Exit.NOT_WELL, DemoFailedError, CheckNotMadeError, as_json=as_json),
        started(FOLDER, FOLDER, town, as_json=as_json) as platform,
    ):
        report = _lived_in(platform, town, seed, events_wanted, via)
    REPORT.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")

    def page(_: Console) -> None:
        out.print(summary(report))
        written = f"Written to {_shown(REPORT)}; what was sent and answered: {_shown(FOLDER / 'history.jsonl')}"
        out.print(written, highlight=False)

    tell(report, page, as_json=as_json)
    if report["lost"] or report["mismatches"] or report["behind"] or report["story"] != "told":
        raise typer.Exit(Exit.NOT_WELL)


@contextmanager
def started(folder: Path, usual: Path, town: Town, *, as_json: bool) -> Iterator[Platform]:
    """A platform of this command's own, in an empty folder, until it is left; ends the command where none comes about."""
    with ending(Exit.CANNOT, *NOT_STARTED, as_json=as_json):
        emptied(folder, usual)
        out.rule("[bold]The medication chain[/bold]: one citizen, one list")
        with step("Starting broker, Redis, topics and services"):
            platform = Platform(folder / "platform", run=folder / "run", usual_ports=False, parties=town.parties)
            platform.start()
    try:
        yield platform
    finally:
        with step("Stopping everything"):
            platform.stop()


def _lived_in(platform: Platform, town: Town, seed: int, n: int, via: Via) -> dict[str, Any]:
    """Everything between the start and the stop; what the report says."""
    where = _where(platform)
    began = time.monotonic()
    with History(FOLDER / "history.jsonl") as lines:
        played = _town_played(where, town, lines, seed, n, via)
    try:
        with step("Waiting until all of it is judged"):
            _wait_until_judged(where, town, FOLDER / "history.jsonl")
    except NeverCameTrueError as error:
        # The check below says what is missing.
        out.print(f"[bold red]{escape(str(error))}[/bold red]")
    seconds = time.monotonic() - began
    out.print(counts_table(lines.counts))
    out.rule("One patient, step by step")
    story = _followed(where, town)
    with step(f"Measuring {PROBES} writes at {PROBES_PER_SECOND:.0f} a second"):
        visible = _write_to_visible_ms(where, town)
    with step("Checking every patient against the oracle"):
        checked = _checked(platform)
    return {
        **{name: getattr(checked, name) for name in Checked.__struct_fields__},
        "events_per_second": round(played.actions / seconds, 1),
        "write_to_visible_ms": visible,
        "bytes_per_patient": _bytes_per_patient(platform, checked.patients),
        "story": story,
    }


def _town_played(where: Where, town: Town, lines: History, seed: int, n: int, via: Via) -> Played:
    async def run(told: Callable[[int], None]) -> Played:
        return await play(events(seed, n, town=town), channels(via, where, town, lines), told=told)

    with (
        step(f"Playing {n:,} events of a town with {len(town.patients):,} patients"),
        progress("playing the town", n) as told,
    ):
        return asyncio.run(run(told))


def _followed(where: Where, town: Town) -> str:
    """Tell the story of one patient; "told", or where it broke."""
    story = Story(where.urls, town, patient(FOLLOWED), out)
    try:
        story.tell()
    except (StoryBrokenError, httpx.HTTPError) as error:
        out.print(f"[bold red]The story broke:[/bold red] {error}")
        return f"broken: {error}"
    return "told"


def _wait_until_judged(where: Where, town: Town, history: Path) -> None:
    """Return once the list has taken account of the last event of every partition. Raises NeverCameTrueError."""
    last: dict[str, Line] = {}
    for line in read(history):
        if line.position is not None:
            last[line.position.split("-")[0]] = line
    caller = {"Medchain-Caller": stated(town.doctors[0])}
    with httpx.Client(base_url=where.urls["medication-list"], headers=caller, trust_env=False) as client:
        for line in last.values():
            number = town.patients[line.patient].national_id.digits
            asked = {"patient": {"national_id": number}, "after_position": line.position}
            wait_until(partial(_is_readable, client, asked), within_s=CAUGHT_UP_WITHIN_S, what="the log is judged")


def _is_readable(client: httpx.Client, asked: dict[str, Any]) -> bool:
    try:
        return client.post("/v1/list/read", json=asked).is_success
    except httpx.TransportError:
        return False


def _write_to_visible_ms(where: Where, town: Town) -> dict[str, float]:
    """From sending a write to its answer, which comes once the store has it: p50, p95 and p99 in milliseconds."""
    doctor, path = town.doctors[0], FOLDER / "probes.jsonl"
    now_ms = time.time_ns() // 1_000_000
    probes = [
        Planned(_probe_id(number, now_ms), number % len(town.patients), now_ms, now_ms, doctor, _probe(number, now_ms))
        for number in range(PROBES)
    ]

    async def run(lines: History) -> None:
        await play(probes, {HttpChannel(where.urls, town, lines): 1}, rate=PROBES_PER_SECOND)

    with History(path) as lines:
        asyncio.run(run(lines))
    taken = [line.answered_at_ms - line.sent_at_ms for line in read(path) if line.position is not None]
    if len(taken) < PROBES:
        raise DemoFailedError(f"Only {len(taken)} of {PROBES} writes became visible: {dict(lines.counts)}")
    cuts = quantiles(taken, n=100)
    return {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98]}


def _probe(number: int, now_ms: int) -> AllergyRecorded:
    return AllergyRecorded(allergy=_probe_id(number, now_ms), substance="Hasselnøtt", reaction="Kløe", severity="low")


def _probe_id(number: int, now_ms: int) -> str:
    return f"{now_ms & 0xFFFFFFFF:08x}-0000-4000-a000-{number:012x}"


def _checked(platform: Platform) -> Checked:
    """What `medchain check` says, asked again while the view is still behind. Raises CheckNotMadeError."""
    found: dict[str, Any] = {}

    def caught_up() -> bool:
        found.update(asked_to_check(platform, FOLDER))
        return bool(found["behind"] == 0)

    try:
        wait_until(caught_up, within_s=CAUGHT_UP_WITHIN_S, what="the view has all of the log")
    except NeverCameTrueError:
        out.print("[bold red]The view never caught up with the log.[/bold red]")
    show_differences(found)
    return Checked(**{name: found[name] for name in Checked.__struct_fields__})


def asked_to_check(platform: Platform, folder: Path) -> dict[str, Any]:
    """What `medchain check` says, values included, since the town's people are fictitious. Raises CheckNotMadeError."""
    where = ("--kafka", platform.kafka_address, "--list-url", platform.redis_url)
    words = ("check", *where, "--show", "--reason", "made people", "--json")
    told = {**os.environ, "MEDCHAIN_ACCESS_RECORD": str(folder / "access-record.jsonl")}
    said = subprocess.run(  # noqa: S603  our own command line
        [*COMMAND, *words], env=told, capture_output=True, text=True, check=False
    )
    try:
        found: dict[str, Any] = json.loads(said.stdout)
    except ValueError:
        found = {"error": said.stderr[-2000:]}
    if "error" in found:
        raise CheckNotMadeError(f"The check could not be made: {found['error']}")
    return found


def show_differences(found: dict[str, Any]) -> None:
    """The first of them."""
    for difference in found["differences"][:SHOWN]:
        out.print(f"[red]{escape(str(difference))}[/red]", highlight=False)


def _bytes_per_patient(platform: Platform, patients: int) -> int:
    """What Redis needs for a patient on average: hash and index, by Redis' own count."""
    with redis.Redis.from_url(platform.redis_url) as client:
        keys = [key for kind in ("p", "e") for key in client.scan_iter(match=f"*}}:{kind}:*", count=1000)]
        pipeline = client.pipeline(transaction=False)
        for key in keys:
            pipeline.memory_usage(key, samples=0)
        return int(sum(pipeline.execute()) / max(1, patients))


def _where(platform: Platform) -> Where:
    keys = keys_of(platform.directory)
    urls = {name: platform.url(name) for name in SERVICES}
    return Where(
        KafkaAccess(platform.kafka_address), urls, keys["MEDCHAIN_PSEUDONYM_KEY"], keys["MEDCHAIN_SEALING_KEY"]
    )


def summary(report: dict[str, Any]) -> Table:
    """The report as a table."""
    table = Table("what", "how much", title="What it came to", title_justify="left")
    table.columns[1].justify = "right"
    for name, value in report.items():
        if isinstance(value, dict):
            table.add_row(name, ", ".join(f"{part} {number:.0f}" for part, number in value.items()))
        else:
            bad = name in ("lost", "mismatches", "behind") and value
            table.add_row(
                name, f"[bold red]{value}[/]" if bad else f"{value:,}" if isinstance(value, int | float) else str(value)
            )
    return table


@contextmanager
def step(what: str) -> Iterator[None]:
    """Says what is being done, and how long it took."""
    began = time.monotonic()
    out.print(f"[dim]…[/dim] {what}", highlight=False)
    yield
    out.print(f"[green]✓[/green] {what} [dim]({time.monotonic() - began:.1f} s)[/dim]", highlight=False)


def _shown(path: Path) -> str:
    return str(path.relative_to(BUILD.parent))
