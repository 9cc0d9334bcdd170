"""`medchain doctor`: examines an installation, and says for each defect what to do about it."""

import asyncio
from collections import Counter
from contextlib import closing
from io import StringIO
from typing import Annotated

import typer
from msgspec import Struct
from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.canonical_log import configure
from services.casework.telling import answered
from services.command_line.named_platform import named_platform
from services.command_line.telling import AsJson, Exit, tell
from services.medication_list.store.link import Link
from services.operations.examining import Finding, Seriousness, on_this_machine
from services.operations.examining_platform import broker_findings, process_findings, redis_findings

app = typer.Typer(name="doctor", add_completion=False, pretty_exceptions_enable=False)


class Report(Struct, frozen=True):
    """Every check, in the order in which they were made."""

    exit: Exit
    findings: tuple[Finding, ...]


@app.callback(invoke_without_command=True)
def doctor(
    *,
    one_broker: Annotated[
        bool | None,
        typer.Option("--one-broker/--many-brokers", help="What topics are compared with; else by how many there are."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look an installation over, and say of each thing that is not as it must be what to do about it.

    Exit codes: 0 all is well; 1 warnings only; 2 something must be done, could not be looked at, or no platform is named.

    It looks at Python, packages and keys; the broker's version, its disk, the topics, and the newest record of each
    partition (its schema and its time); Redis' version, settings, memory, functions and clock; the fold that made the live
    generation, and data that no generation owns; every process. It reads, and changes nothing. The platform is the one of MEDCHAIN_KAFKA, MEDCHAIN_REDIS and MEDCHAIN_SERVICES
    (name=URL,...), else the one that `make up` started.
    """
    # What libraries say of a broker that is away would stand between the lines of the answer, which says it too.
    configure("doctor", stream=StringIO())
    with answered(as_json=as_json):
        platform = named_platform()
        processes = platform.processes()
        with closing(Link(platform.redis)) as link:
            findings = (
                *on_this_machine(platform.keys),
                *asyncio.run(broker_findings(platform, one_broker=one_broker)),
                *asyncio.run(redis_findings(platform, link)),
                *process_findings(processes),
            )
        report = Report(_exit_of(findings), findings)
        tell(report, lambda out: _page(report, out), as_json=as_json)
        raise typer.Exit(report.exit)


def _exit_of(findings: tuple[Finding, ...]) -> Exit:
    found = {each.is_ for each in findings}
    if Seriousness.ERROR in found:
        return Exit.CANNOT
    return Exit.NOT_WELL if Seriousness.WARNING in found else Exit.DONE


_COLOURS = {Seriousness.WELL: "green", Seriousness.WARNING: "yellow", Seriousness.ERROR: "bold red"}


def _page(report: Report, out: Console) -> None:
    table = Table("check", "", "what was found", "what to do")
    for each in report.findings:
        table.add_row(each.check, Text(each.is_.value, style=_COLOURS[each.is_]), each.found, each.do)
    out.print(table)
    counts = Counter(each.is_ for each in report.findings)
    out.print(", ".join(f"{counts[each]} {each.value}" for each in Seriousness))
