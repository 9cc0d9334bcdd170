"""`python -m deploy.local up|run|down|status`: what the Makefile calls."""

import contextlib
import os
import signal
import subprocess
import sys
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from deploy.local.artifacts import CannotSetUpError
from deploy.local.layout import CHECKOUT, PLATFORM, RUN
from deploy.local.made_data import EVENTS, TownNotPlayedError, play_into_empty, somebody
from deploy.local.platform import WORKERS, Platform
from deploy.local.program import ProgramDiedError
from deploy.local.state import AlreadyRunsError, State, held, running
from deploy.local.supervisor import end_on_signals
from deploy.local.waiting import NeverCameTrueError, wait_until
from services.medication_list.log.source_log import SourceLogUnavailableError

UP_WITHIN_S: Final = 120.0
DOWN_WITHIN_S: Final = 60.0
LOG: Final = RUN / "platform.log"
WHERE: Final = """\
How each process is: <where>/health/ready. Its resources: <where>/openapi.json (prescriber, pharmacy, medication-list).
A town, once more: build/venv/bin/medchain simulate. All of it checked: build/venv/bin/medchain check. Stop: make down."""

app = typer.Typer(
    name="deploy.local",
    help="The platform on this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Console(soft_wrap=True)
Workers = Annotated[int, typer.Option("--workers", min=1, help="How many processors.")]


@app.command()
def up(
    workers: Workers = WORKERS,
    events: Annotated[
        int, typer.Option(min=0, help="How many events a town plays into an empty log; 0: none.")
    ] = EVENTS,
) -> None:
    """Start the platform in the background, with made data in it, and print where to find what."""
    if not held():
        RUN.mkdir(parents=True, exist_ok=True)
        with LOG.open("wb") as log:
            process = subprocess.Popen(  # noqa: S603  our own command line, no shell
                [sys.executable, "-m", "deploy.local", "run", f"--workers={workers}"],
                cwd=CHECKOUT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_until(
                lambda: process.poll() is not None or _is_ready(), within_s=UP_WITHIN_S, what="the platform is up"
            )
        except NeverCameTrueError:
            process.terminate()
        if not _is_ready():
            sys.stderr.write(f"The platform did not start; {LOG} says:\n{LOG.read_text(errors='replace')[-3000:]}\n")
            raise typer.Exit(1)
    _fill(events)
    status()
    out.print(WHERE, highlight=False)


@app.command()
def run(workers: Workers = WORKERS) -> None:
    """Run the platform in the foreground until SIGTERM or Ctrl-C."""
    end_on_signals()
    try:
        ratio = os.environ.get("MEDCHAIN_TRACES_RATIO")
        with Platform(
            PLATFORM,
            workers=workers,
            schema_registry=os.environ.get("MEDCHAIN_SCHEMA_REGISTRY") or None,
            traces=os.environ.get("MEDCHAIN_TRACES") or None,
            traces_ratio=float(ratio) if ratio else None,
        ):
            signal.pause()
    except (AlreadyRunsError, CannotSetUpError, NeverCameTrueError, ProgramDiedError) as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(1) from error


@app.command()
def down() -> None:
    """End the platform that `up` started."""
    state = running()
    if state is None:
        out.print("nothing runs")
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(state.supervisor, signal.SIGTERM)
    wait_until(lambda: not held(), within_s=DOWN_WITHIN_S, what="the platform is down")
    out.print("the platform is down")


@app.command()
def status() -> None:
    """Print what runs, and where. Exit 1 if nothing does."""
    state = running()
    if state is None:
        out.print("nothing runs; `make up` starts the platform")
        raise typer.Exit(1)
    out.print(_table(state))


def _fill(events: int) -> None:
    state = running()
    assert state is not None, "it was ready a moment ago"
    try:
        if play_into_empty(state, events):
            who = somebody(events)
            out.print(
                f"The log was empty: a town of made people has lived in it. One of them is {who}.", highlight=False
            )
    except (TownNotPlayedError, SourceLogUnavailableError) as error:
        sys.stderr.write(f"The platform runs, and has no made data: {error}.\n")
        raise typer.Exit(1) from error


def _is_ready() -> bool:
    state = running()
    return state is not None and state.ready


def _table(state: State) -> Table:
    table = Table(
        "part",
        "where",
        "process",
        "log",
        title="The platform" + ("" if state.ready else " (starting)"),
        title_justify="left",
    )
    addresses = {"kafka": state.kafka, "redis": state.redis}
    for name, program in state.programs.items():
        log = program.log.removeprefix(f"{CHECKOUT}/")
        table.add_row(name, program.url or addresses.get(name, ""), str(program.pid or "-"), log)
    return table


if __name__ == "__main__":
    app()
