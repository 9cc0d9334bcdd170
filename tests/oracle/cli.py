"""`medchain check`: reads the log, folds it a second time by itself, and compares every patient with the platform."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from deploy.local import state
from schemas.framing import RegistryUnavailableError
from services.clock import Clock, SystemClock
from services.command_line.telling import CANNOT, AsJson, ending, tell, tell_error
from services.medication_list.record_log import LogLookupError
from services.medication_list.store.port import StoreUnavailableError
from services.publishing.kafka_access import KafkaAccess, kafka_access
from services.schema_registry import framing_at_start
from services.topics import cluster
from services.topics.registry import load
from tests.oracle.comparing import Held, Report, compare
from tests.oracle.held import NothingHeldError, open_redis
from tests.oracle.reader import TOPIC, LogEndedEarlyError, read_log

FAR: Final = timedelta(days=120) // timedelta(milliseconds=1)
"""How far ahead the second clock stands: past the 90 days of visibility, the 30 of a dispatch, and most replacements."""
SHOWN: Final = 200
"""Differences printed; all of them are in the JSON."""

NOT_COMPARED: Final = (
    NothingHeldError,
    StoreUnavailableError,
    cluster.ClusterAwayError,
    LogEndedEarlyError,
    LogLookupError,
    RegistryUnavailableError,
)
"""What keeps the two from being compared."""

OpenHeld = Callable[[str, KafkaAccess], AbstractContextManager[Held]]
"""Opens what the platform holds, from the URL of the list's store and the access to its log."""
Kafka = Annotated[
    str | None, typer.Option("--kafka", help="Bootstrap servers; else the platform that `make up` started.")
]
ListUrl = Annotated[str | None, typer.Option("--list-url", help="Where the list is held; else that platform's.")]
Registry = Annotated[
    str | None,
    typer.Option(
        "--schema-registry", envvar="MEDCHAIN_SCHEMA_REGISTRY", help="Its URL, where topics carry its framing."
    ),
]
Write = Annotated[Path | None, typer.Option("--write", help="Write the report to this file too, in JSON.")]
Sample = Annotated[int | None, typer.Option("--sample", min=1, help="Only so many patients.")]


def make_app(open_held: OpenHeld, clock: Clock) -> typer.Typer:
    """The command, for a way to open what the platform holds. It exits 1 on any difference, 2 if it cannot compare."""
    app = typer.Typer(name="check", add_completion=False, pretty_exceptions_enable=False)

    @app.command()
    def check(
        kafka: Kafka = None,
        list_url: ListUrl = None,
        schema_registry: Registry = None,
        write: Write = None,
        sample: Sample = None,
        *,
        as_json: AsJson = False,
    ) -> None:
        """Compare every patient's outcomes and list with what the oracle comes to from the log alone.

        Exit codes: 0 nothing differs; 1 something does; 2 it could not be compared.
        """
        running = state.running()
        local = KafkaAccess(running.kafka) if running else None
        access = kafka_access(kafka) if kafka else local
        held_at = list_url or (running.redis if running else None)
        if access is None or held_at is None:
            tell_error("No platform runs here: say --kafka and --list-url, or `make up`.", CANNOT, as_json=as_json)
        framing = framing_at_start(schema_registry or (running.schema_registry if running else None))
        now_ms = clock.now_ms()
        with ending(CANNOT, *NOT_COMPARED, as_json=as_json), cluster.asked(access), open_held(held_at, access) as held:
            log = read_log(access, load().partitions(TOPIC), framing=framing)
            report = compare(log, held, [now_ms, now_ms + FAR], sample)
        if write is not None:
            write.write_text(json.dumps(report.as_plain(), indent=2), encoding="utf-8")
        tell(report.as_plain(), lambda out: page(report, out), as_json=as_json)
        raise typer.Exit(0 if report.is_clean else 1)

    return app


def page(report: Report, out: Console) -> None:
    """Print each difference, how far the view lags, and the counts."""
    for difference in report.differences[:SHOWN]:
        what = f"{difference.patient} {difference.path}"
        out.print(f"{what}: expected {difference.expected}, found {difference.found}", markup=False, highlight=False)
    if len(report.differences) > SHOWN:
        out.print(f"... and {len(report.differences) - SHOWN} more differences")
    for partition, behind in report.behind.items():
        out.print(f"partition {partition}: the view is {behind} records behind the log; they were not compared")
    table = Table("what", "how many")
    for name, value in report.as_plain().items():
        if isinstance(value, int):
            table.add_row(name, str(value))
    out.print(table)


app = make_app(lambda url, kafka: open_redis(url, load().partitions(TOPIC), kafka), SystemClock())
