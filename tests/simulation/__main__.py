"""`python -m tests.simulation`: runs schedules, one seed after the other, and prints what a failing one came to."""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from tests.simulation.mutants import MUTANTS
from tests.simulation.schedule import Result, run

_AT_ONCE = 50
_SHOWN = 5


@dataclass
class Told:
    """What a number of schedules came to."""

    schedules: int = 0
    failed: list[tuple[int, str]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    calm_after_s: float = 0.0
    cpu_s: float = 0.0

    def add(self, other: "Told") -> None:
        """Both together."""
        self.schedules += other.schedules
        self.failed += other.failed
        self.counts += other.counts
        self.faults += other.faults
        self.calm_after_s = max(self.calm_after_s, other.calm_after_s)
        self.cpu_s += other.cpu_s


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--schedules", type=int, default=1000, help="how many")
    parser.add_argument("--seed", type=int, default=1, help="the first one's; each further schedule has the next one")
    parser.add_argument("--trace", action="store_true", help="print the history of every schedule, step by step")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="take this protection out")
    asked = parser.parse_args(arguments)
    if asked.trace or asked.mutant:
        return _one_by_one(range(asked.seed, asked.seed + asked.schedules), asked.mutant, traces=asked.trace)
    began_s = time.monotonic()
    told = run_all(range(asked.seed, asked.seed + asked.schedules))
    _tell(told, time.monotonic() - began_s)
    return 1 if told.failed else 0


def run_all(seeds: range, workers: int | None = None) -> Told:
    """Run these in as many processes as there are cores."""
    told = Told()
    parts = [seeds[start : start + _AT_ONCE] for start in range(0, len(seeds), _AT_ONCE)]
    with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
        for part in pool.map(run_some, parts):
            told.add(part)
    return told


def run_some(seeds: Iterable[int]) -> Told:
    """Run these one after the other, here."""
    told, began_s = Told(), time.process_time()
    for seed in seeds:
        result = run(seed)
        told.schedules += 1
        told.counts.update(result.counts)
        told.faults.update(result.faults)
        told.calm_after_s = max(told.calm_after_s, result.calm_after_s)
        if result.violations:
            told.failed.append((seed, explain(result)))
    told.cpu_s = time.process_time() - began_s
    return told


def explain(result: Result, last: int = 60) -> str:
    """What was broken, the steps that led there, and how to see it again."""
    until = next((n for n, line in enumerate(result.history.lines()) if " CHECK " in line), len(result.history))
    lines = result.history.lines()[max(0, until - last) : until + 1]
    broken = [f"{each.invariant}: {each.what}" for each in result.violations[:_SHOWN]]
    again = f"again, from the beginning, to digest {result.history.digest()}: {result.again}"
    return "\n".join([f"seed {result.seed}:", *broken, "", *lines, "", again])


def _one_by_one(seeds: Iterable[int], mutant: str | None, *, traces: bool) -> int:
    failed = 0
    for seed in seeds:
        result = run(seed, mutant)
        failed += bool(result.violations)
        if traces:
            sys.stdout.write("\n".join([*result.history.lines(), f"digest {result.history.digest()}", ""]))
        elif result.violations:
            sys.stdout.write(f"{seed} {result.violations[0].invariant}: {result.violations[0].what}\n")
    sys.stdout.write(f"{failed} failed\n")
    return 1 if failed else 0


def _tell(told: Told, took_s: float) -> None:
    for _, why in told.failed[:_SHOWN]:
        sys.stdout.write(why + "\n\n")
    seeds = ", ".join(str(seed) for seed, _ in told.failed)
    sys.stdout.write(
        f"{told.schedules} schedules in {took_s:.0f} s ({told.cpu_s:.0f} s of CPU), {len(told.failed)} failed"
        + (f": seeds {seeds}" if seeds else "")
        + f"\ncame to rest within {told.calm_after_s:.0f} s of virtual time\n"
    )
    for what, counted in (("counted", told.counts), ("faults", told.faults)):
        sys.stdout.write(f"{what}: " + ", ".join(f"{name} {count}" for name, count in sorted(counted.items())) + "\n")


if __name__ == "__main__":
    sys.exit(main())
