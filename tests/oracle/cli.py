"""`medchain check`: reads the log, folds it a second time by itself, and compares every patient with the platform."""

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from schemas.framing import RegistryUnavailableError
from services.casework.access_record import AccessNotRecordedError, ReasonRefusedError
from services.casework.looking import Operator, ReasonToShow, Show, values_looked_at
from services.clock import Clock, SystemClock
from services.command_line.named_platform import NoPlatformError, named_platform
from services.command_line.telling import AsJson, Exit, ending, tell
from services.medication_list.log.record_log import LogLookupError
from services.medication_list.store.port import StoreUnavailableError
from services.medication_list.store.reading import NotReadyError
from services.publishing.kafka_access import KafkaAccess
from services.schema_registry import RegistryRefusedError, framing_now
from services.topics import cluster
from services.topics.registry import load
from tests.oracle.comparing import Held, compare
from tests.oracle.held import NothingHeldError, open_redis
from tests.oracle.reader import TOPIC, Log, LogEndedEarlyError, read_log

FAR: Final = timedelta(days=120) // timedelta(milliseconds=1)
"""How far ahead the second clock stands: past the 90 days of visibility, the 30 of a dispatch, and most replacements."""
SHOWN: Final = 200
"""Differences printed; all of them are in the JSON."""

NOT_COMPARED: Final = (
    NoPlatformError,
    NothingHeldError,
    StoreUnavailableError,
    cluster.ClusterAwayError,
    LogEndedEarlyError,
    LogLookupError,
    RegistryUnavailableError,
    RegistryRefusedError,
    NotReadyError,
    ReasonRefusedError,
    AccessNotRecordedError,
)
"""What keeps the two from being compared."""

OpenHeld = Callable[[str, KafkaAccess], AbstractContextManager[Held]]
"""Opens what the platform holds, from the URL of the list's store and the access to its log."""
Kafka = Annotated[
    str | None,
    typer.Option("--kafka", help="Bootstrap servers; else MEDCHAIN_KAFKA, else the platform that `make up` started."),
]
ListUrl = Annotated[
    str | None,
    typer.Option("--list-url", help="URL of the Redis that holds the list; else MEDCHAIN_REDIS, or that platform's."),
]
Registry = Annotated[
    str | None,
    typer.Option(
        "--schema-registry",
        help="Its URL, where topics carry its framing; else MEDCHAIN_SCHEMA_REGISTRY, or that platform's.",
    ),
]
Write = Annotated[Path | None, typer.Option("--write", help="Write the report to this file too, in JSON.")]
Sample = Annotated[int | None, typer.Option("--sample", min=1, help="Only so many patients.")]


def make_app(open_held: OpenHeld, clock: Clock, read: Callable[..., Log] = read_log) -> typer.Typer:
    """The command, for a way to open what the platform holds. It exits 1 on any difference, 2 if it cannot compare."""
    app = typer.Typer(name="check", add_completion=False, pretty_exceptions_enable=False)

    @app.command()
    def check(  # noqa: PLR0913  every option of the command
        kafka: Kafka = None,
        list_url: ListUrl = None,
        schema_registry: Registry = None,
        write: Write = None,
        sample: Sample = None,
        reason: ReasonToShow = None,
        operator: Operator = None,
        *,
        show: Show = False,
        as_json: AsJson = False,
    ) -> None:
        """Compare every patient's outcomes and list with what the oracle comes to from the log alone.

        It tells in what they differ. With --show it tells the values too, which is a look at those patients: recorded, with who
        and why, before it is made. Exit codes: 0 nothing differs; 1 something does; 2 it could not be compared.
        """
        now_ms = clock.now_ms()
        with ending(Exit.CANNOT, *NOT_COMPARED, as_json=as_json):
            platform = named_platform(kafka=kafka, redis=list_url)
            looked_at = values_looked_at("check", reason, operator, platform.folder) if show else None
            framing = framing_now(schema_registry or platform.schema_registry)
            with cluster.asked(platform.kafka), open_held(platform.redis, platform.kafka) as held:
                log = read(platform.kafka, load().partitions(TOPIC), framing=framing)
                report = compare(log, held, [now_ms, now_ms + FAR], sample)
            if looked_at is not None:
                looked_at(report.whose_values())
        document = report.as_plain(show=show)
        if write is not None:
            with ending(Exit.CANNOT, OSError, as_json=as_json):
                write.write_text(json.dumps(document, indent=2), encoding="utf-8")
        tell(document, lambda out: page(document, report.behind, out), as_json=as_json)
        raise typer.Exit(Exit.DONE if report.is_clean else Exit.NOT_WELL)

    return app


def page(found: Mapping[str, Any], behind: Mapping[int, int], out: Console) -> None:
    """Print each difference, how far the view lags, and the counts."""
    differences = found["differences"]
    for each in differences[:SHOWN]:
        out.print(f"{each['patient']} {each['path']}: expected {each['expected']}, found {each['found']}", markup=False)
    if len(differences) > SHOWN:
        out.print(f"... and {len(differences) - SHOWN} more differences")
    for partition, records in behind.items():
        out.print(f"partition {partition}: the view is {records} records behind the log; they were not compared")
    table = Table("what", "how many")
    for name, value in found.items():
        if isinstance(value, int):
            table.add_row(name, str(value))
    out.print(table)


app = make_app(lambda url, kafka: open_redis(url, load().partitions(TOPIC), kafka), SystemClock())
