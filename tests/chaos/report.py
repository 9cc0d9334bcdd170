"""What all rounds came to: a table for people, and build/chaos.json for programs."""

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from tests.chaos.checker import Kind
from tests.chaos.faults import FAULTS
from tests.chaos.rounds import Injected, Outcome


def as_plain(seed: int, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The report. `faults`: by name, of those that were injected or could not be."""
    kinds = Counter(each.kind for outcome in outcomes for each in outcome.violations)
    return {
        "seed": seed,
        "rounds": len(outcomes),
        "events": sum(outcome.events for outcome in outcomes),
        "violations": sum(kinds.values()),
        "lost": kinds[Kind.LOST],
        "doubled": kinds[Kind.DOUBLED],
        "reordered": kinds[Kind.REORDERED],
        "other": {str(kind): number for kind, number in kinds.items() if kind not in _NAMED},
        "events_per_second": [round(each.events / each.seconds, 1) for each in outcomes if each.seconds],
        "records": sum(outcome.records for outcome in outcomes),
        "effects": sum(outcome.effects for outcome in outcomes),
        "reads": sum(outcome.reads for outcome in outcomes),
        "reads_refused": sum(outcome.reads_refused for outcome in outcomes),
        "partitions_twice": sum(outcome.partitions_twice for outcome in outcomes),
        "answers": dict(sum((Counter(outcome.answers) for outcome in outcomes), Counter[str]())),
        "failed_seeds": [outcome.seed for outcome in outcomes if outcome.violations],
        "faults": _faults([each for outcome in outcomes for each in outcome.injected]),
    }


_NAMED = (Kind.LOST, Kind.DOUBLED, Kind.REORDERED)


def _faults(injected: Sequence[Injected]) -> dict[str, Any]:
    found: dict[str, dict[str, Any]] = {}
    for name in sorted({each.fault for each in injected}):
        several = [each for each in injected if each.fault == name and each.impossible is None]
        times = [each.recovered_ms for each in several if each.recovered_ms is not None]
        bound = FAULTS[name].bound_ms
        found[name] = {
            "injected": len(several),
            "recovered_ms_p50": round(statistics.median(times)) if times else None,
            "recovered_ms_max": max(times, default=None),
            "bound_ms": bound,
            "over_bound": sum(bound is not None and each > bound for each in times),
        }
        reasons = sorted({each.impossible for each in injected if each.fault == name and each.impossible})
        if reasons:
            found[name]["not_injected"] = "; ".join(reasons)
    return found


def fault_table(report: dict[str, Any]) -> Table:
    """Each fault: how often, and how long until everything moved again."""
    table = Table("fault", "injected", "p50 ms", "max ms", "bound ms", title="Faults", title_justify="left")
    for number in range(1, 5):
        table.columns[number].justify = "right"
    for name, each in report["faults"].items():
        late = each["over_bound"] > 0
        slowest = "-" if each["recovered_ms_max"] is None else f"{each['recovered_ms_max']:,}"
        table.add_row(
            name,
            f"{each['injected']}" if "not_injected" not in each else f"[yellow]not: {each['not_injected']}[/]",
            "-" if each["recovered_ms_p50"] is None else f"{each['recovered_ms_p50']:,}",
            f"[yellow]{slowest}[/]" if late else slowest,
            "-" if each["bound_ms"] is None else f"{each['bound_ms']:,}",
        )
    return table


def summary(report: dict[str, Any]) -> Table:
    """The counts."""
    table = Table("what", "how many", title="What it came to", title_justify="left")
    table.columns[1].justify = "right"
    for name in ("rounds", "events", "records", "effects", "reads", "reads_refused"):
        table.add_row(name, f"{report[name]:,}")
    for name in ("violations", "lost", "doubled", "reordered"):
        table.add_row(name, f"[bold red]{report[name]:,}[/]" if report[name] else "0")
    for name, number in report["other"].items():
        table.add_row(name, f"[bold red]{number:,}[/]")
    return table
