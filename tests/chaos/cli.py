"""`medchain chaos`: break the platform in every way that is listed, and say what came of it."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from deploy.local.artifacts import CannotSetUpError
from deploy.local.layout import BUILD
from deploy.local.program import ProgramDiedError
from deploy.local.supervisor import end_on_signals
from deploy.local.waiting import NeverCameTrueError
from services.command_line.telling import AsJson, Exit, finite, tell, tell_error
from tests.chaos.checker import Kind, Violation
from tests.chaos.faults import FAULTS
from tests.chaos.mutants import MUTANTS
from tests.chaos.report import as_plain, fault_table, summary
from tests.chaos.rounds import Outcome, Plan, Tell, play

FOLDER: Final = BUILD / "chaos"
REPORT: Final = BUILD / "chaos.json"
SHOWN: Final = 20

app = typer.Typer(
    name="chaos", help="Break the platform, and check it.", add_completion=False, pretty_exceptions_enable=False
)
out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)


@app.command()
def chaos(  # noqa: PLR0913  every option of the command
    rounds: Annotated[int, typer.Option(min=1, help="How many rounds, each on a platform of its own.")] = 1,
    seed: Annotated[int, typer.Option(help="The first round's; each further round has the next one.")] = 1,
    events: Annotated[int, typer.Option(min=100, help="How many events a round.")] = 20_000,
    rate: Annotated[float, typer.Option(min=1, callback=finite, help="Events a second.")] = 450.0,
    faults: Annotated[int, typer.Option(min=1, help="Places in a round's schedule; some hold two faults.")] = 5,
    only: Annotated[list[str] | None, typer.Option(help="Inject this fault; may be repeated.")] = None,
    mutant: Annotated[
        list[str] | None, typer.Option(help="service=mutant: take a protection out; the check must fail.")
    ] = None,
    *,
    keep: Annotated[bool, typer.Option(help="Keep the folders of rounds in which nothing was wrong too.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="List the faults and mutants, and do nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Play rounds of load under faults on real processes; an independent checker decides.

    Exit codes: 0 nothing was violated; 1 something was; 2 it could not be played. They are platforms of its own that it plays
    on: nothing else changes.
    """
    if listed:
        tell(_catalogue(), lambda out: out.print(_catalogue_table()), as_json=as_json)
        return
    unknown = [name for name in only or () if name not in FAULTS]
    mutants = {service: name for service, _, name in (each.partition("=") for each in mutant or ())}
    unknown += [name or service for service, name in mutants.items() if name not in MUTANTS]
    if unknown:
        tell_error(f"Unknown: {', '.join(unknown)}. `medchain chaos --list` lists all.", Exit.CANNOT, as_json=as_json)
    end_on_signals()  # a file system that was mounted for a round must not outlive it
    outcomes = []
    for number in range(rounds):
        plan = Plan(
            seed=seed + number, events=events, rate=rate, faults=faults, only=tuple(only or ()), mutants=mutants
        )
        with _progress(f"round {number + 1} of {rounds}, seed {plan.seed}", events, quiet=as_json) as tell_progress:
            outcomes.append(_played(plan, tell_progress, as_json=as_json))
        if not as_json:
            _tell_round(outcomes[-1])
        if not outcomes[-1].violations and not keep:
            shutil.rmtree(outcomes[-1].folder, ignore_errors=True)
        # After each round: a long run that is cut off has not been in vain.
        report = as_plain(seed, outcomes)
        REPORT.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    tell(report, lambda out: _page(out, report), as_json=as_json)
    if report["violations"]:
        raise typer.Exit(Exit.NOT_WELL)


def _page(out: Console, report: dict[str, Any]) -> None:
    out.print(fault_table(report), summary(report))
    out.print(f"Written to {REPORT.relative_to(BUILD.parent)}")


def _played(plan: Plan, tell_progress: Tell, *, as_json: bool) -> Outcome:
    folder = FOLDER / f"round-{plan.seed}"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        return play(plan, folder, tell_progress)
    except CannotSetUpError as error:
        tell_error(f"Seed {plan.seed} could not be played: {error}", Exit.CANNOT, as_json=as_json)
    except (ProgramDiedError, NeverCameTrueError, RuntimeError) as error:
        # A platform that does not start, or that the clients could not use, is a finding like any other.
        return Outcome(plan.seed, folder, violations=[Violation(Kind.UNRECOVERED, "the round", str(error))])


def _tell_round(outcome: Outcome) -> None:
    rate = outcome.events / outcome.seconds if outcome.seconds else 0
    found = f"[bold red]{len(outcome.violations)} violations[/]" if outcome.violations else "[green]0 violations[/]"
    names = ", ".join(each.fault for each in outcome.injected)
    out.print(
        f"seed {outcome.seed}: {outcome.events:,} events at {rate:.0f}/s, {outcome.reads:,} reads; {names}: {found}",
        highlight=False,
    )
    for each in outcome.violations[:SHOWN]:
        out.print(f"  [red]{each.kind}[/] {escape(each.where)}: {escape(each.what)}", highlight=False)
    if outcome.violations:
        out.print(f"  kept: {_shown(outcome.folder)}; again: make chaos ROUNDS=1 SEED={outcome.seed}", highlight=False)


@contextmanager
def _progress(what: str, events: int, *, quiet: bool) -> Iterator[Tell]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, disable=quiet or not err.is_terminal, transient=True) as bar:
        task = bar.add_task(what, total=events)
        yield lambda doing, done: bar.update(task, description=f"{what}: {doing}", completed=done)


def _catalogue() -> dict[str, dict[str, str]]:
    """What there is to be chosen from, by name, and what each does."""
    return {
        "faults": {name: fault.about for name, fault in FAULTS.items()},
        "mutants": {name: (mutant.__doc__ or "").splitlines()[0] for name, mutant in MUTANTS.items()},
    }


def _catalogue_table() -> Table:
    table = Table("name", "what", title="Faults and mutants", title_justify="left")
    found = _catalogue()
    for name, about in found["faults"].items():
        table.add_row(name, about)
    for name, about in found["mutants"].items():
        table.add_row(f"mutant {name}", about)
    return table


def _shown(path: Path) -> str:
    return str(path.relative_to(BUILD.parent))
