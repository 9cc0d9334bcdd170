"""`medchain status`: the platform on one screen, live: processes, partitions, outcomes, what waits, Redis, generations."""

import time
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from io import StringIO
from typing import Annotated, Final

import typer
from msgspec import Struct, structs
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from services.canonical_log import configure
from services.casework.telling import answered, second
from services.command_line.named_platform import NamedPlatform, named_platform
from services.command_line.telling import Exit, finite, tell
from services.medication_list.overview.log_side import LogAsker
from services.medication_list.overview.overview import Overview, PartitionOverview, RedisOverview, overview
from services.medication_list.store.link import Link
from services.operations.reaching import ServiceStatus, ask_services
from services.topics.registry import load

app = typer.Typer(name="status", add_completion=False, pretty_exceptions_enable=False)

_EVENTS: Final = "medchain_processor_events_total"
_NOBODY_ASKED: Final = "No process is named, and none was asked: set MEDCHAIN_SERVICES to name=URL,... of those to ask."
_COLOURS: Final = {"ready": "green", "degraded": "yellow"}


class Status(Struct, frozen=True):
    """All of it at one time. `outcomes`: records judged since the processors started; `per_second`: since the last look."""

    at_ms: int
    well: bool
    services: tuple[ServiceStatus, ...]
    without_owner: tuple[int, ...] | None
    outcomes: dict[str, float]
    per_second: dict[str, float] | None
    overview: Overview
    troubles: tuple[str, ...] = ()
    """What else is not well."""


@app.callback(invoke_without_command=True)
def status(
    *,
    once: Annotated[bool, typer.Option("--once", help="Look once, print, and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Look once, and print JSON.")] = False,
    every_s: Annotated[
        float, typer.Option("--every", min=0.5, callback=finite, help="Seconds between two looks.")
    ] = 2.0,
) -> None:
    """Show the platform on one screen, and look again until ended.

    Exit codes: 0 all is well; 1 something is not (it says what); 2 no platform is named, and none runs here.

    Without a terminal, and with --once or --json, it looks once. The platform is the one of MEDCHAIN_KAFKA, MEDCHAIN_REDIS
    and MEDCHAIN_SERVICES (name=URL,...), else the one that `make up` started.
    """
    # What libraries say of a broker that is away would stand between the lines of the answer, which says it too.
    configure("status", stream=StringIO())
    console = Console(soft_wrap=True, highlight=False)
    with answered(as_json=as_json):
        platform = named_platform()
        with closing(Link(platform.redis)) as link, closing(LogAsker(platform.kafka)) as asker:
            seen = look(platform, asker, link, None)
            if not once and not as_json and console.is_terminal:
                _follow(console, platform, asker, link, seen, every_s)
            tell(_plain(seen), lambda out: out.print(screen(seen)), as_json=as_json)
    raise typer.Exit(Exit.DONE if seen.well else Exit.NOT_WELL)


def look(platform: NamedPlatform, asker: LogAsker, link: Link, before: Status | None) -> Status:
    """Ask all of them once."""
    seen = overview(asker, link, load())
    services = ask_services(platform.processes())
    outcomes = outcomes_in(each.metrics for each in services)
    ready = all(each.state == "ready" for each in services)
    troubles = () if services else (_NOBODY_ASKED,)
    return Status(
        seen.at_ms,
        ready and not troubles and not seen.away and seen.without_owner == (),
        services,
        seen.without_owner,
        outcomes,
        None if before is None else _rates(before, seen.at_ms, outcomes),
        seen,
        troubles,
    )


def outcomes_in(texts: Iterable[str]) -> dict[str, float]:
    """What processors say that they judged, by outcome, from what they tell at /metrics."""
    counts: Counter[str] = Counter()
    for text in texts:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == _EVENTS:
                    counts[sample.labels["outcome"]] += int(sample.value)
    return {name: float(count) for name, count in sorted(counts.items())}


def _rates(before: Status, at_ms: int, outcomes: dict[str, float]) -> dict[str, float]:
    seconds = max(0.001, (at_ms - before.at_ms) / 1000)
    # A processor that started again counts from nothing: no rate then, rather than a negative one.
    return {name: max(0.0, count - before.outcomes.get(name, 0.0)) / seconds for name, count in outcomes.items()}


def _plain(seen: Status) -> Status:
    """Without what only the rates are made of."""
    services = tuple(ServiceStatus(each.name, each.url, each.state, each.troubles) for each in seen.services)
    return structs.replace(seen, services=services)


def _follow(
    console: Console, platform: NamedPlatform, asker: LogAsker, link: Link, seen: Status, every_s: float
) -> None:
    """Until Ctrl-C."""
    with Live(screen(seen), console=console, screen=True, auto_refresh=False) as live:
        try:
            while True:
                time.sleep(every_s)
                seen = look(platform, asker, link, seen)
                live.update(screen(seen), refresh=True)
        except KeyboardInterrupt:
            raise typer.Exit(Exit.DONE if seen.well else Exit.NOT_WELL) from None


# --- The screen ---------------------------------------------------------------------------------------------------


def screen(seen: Status) -> Group:
    """What people see."""
    head = Text(f"{second(seen.at_ms)}  ", style="bold")
    head.append("all is well", "green") if seen.well else head.append("something is not well", "bold red")
    away = [Text(each, style="bold red") for each in (*seen.troubles, *seen.overview.away)]
    return Group(head, *away, _services(seen), _partitions(seen), _rest(seen), _generations(seen.overview))


def _services(seen: Status) -> Table:
    table = Table("process", "where", "how it is", "why", title="Processes", title_justify="left")
    for each in seen.services:
        state = Text(each.state, style=_COLOURS.get(each.state, "bold red"))
        table.add_row(each.name, each.url, state, "\n".join(each.troubles))
    return table


def _partitions(seen: Status) -> Table:
    columns = ("partition", "owner", "state", "offset", "end", "lag", "lag s", "parked", "outbox", "since s")
    table = Table(*columns, title="Partitions", title_justify="left")
    for each in seen.overview.partitions:
        table.add_row(*_cells(each), style=None if each.owner is not None and not each.lag else "yellow")
    return table


def _cells(each: PartitionOverview) -> tuple[str, ...]:
    owner = "nobody" if each.owner is None else each.owner[-12:]
    numbers = (each.offset, each.end, each.lag, each.lag_seconds, each.parked, each.outbox, each.outbox_seconds)
    return (str(each.partition), owner, each.state or "-", *map(_number, numbers))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _rest(seen: Status) -> Text:
    rates = {} if seen.per_second is None else seen.per_second
    judged = ", ".join(f"{count:,.0f} {name}{_rate(rates.get(name))}" for name, count in seen.outcomes.items())
    return Text(f"judged since the processors started: {judged or 'nothing'}\n{_memory(seen.overview.redis)}")


def _rate(per_second: float | None) -> str:
    return "" if per_second is None else f" ({per_second:,.1f}/s)"


def _memory(redis: RedisOverview | None) -> str:
    if redis is None:
        return "Redis: unknown"
    of = f" of {redis.max_bytes / 1e6:,.0f} MB" if redis.max_bytes else ", no limit"
    return f"Redis {redis.version}: {redis.used_bytes / 1e6:,.1f} MB{of}, {redis.policy}"


def _generations(seen: Overview) -> Table:
    table = Table("generation", "fold", "release", "made", "is", "lag", title="Generations", title_justify="left")
    for each in seen.generations:
        half = ", being made" if each.is_live or each.is_fed else ", half made, and nobody works on it"
        state = ("live" if each.is_live else "beside it") + ("" if each.is_complete else half)
        made = second(each.made_at_ms)
        table.add_row(each.generation, str(each.fold_version), each.release, made, state, _number(each.lag))
    return table
