"""Compares generations of the view that stand side by side, byte for byte."""

from collections.abc import Iterator
from typing import Any

from tests.chaos.checker import Kind, Violation

Hashes = dict[str, dict[bytes, bytes]]


def differing(view: Any, partitions: int) -> tuple[int, list[Violation]]:
    """How many partitions were compared, and every key that differs between the live generation and another.

    A partition is compared where the other generation has come as far.
    """
    pointer = view.hgetall("live")
    live = pointer[b"generation"].decode()
    others = [name[2:].decode() for name in pointer if name.startswith(b"g:") and name[2:].decode() != live]
    compared = [
        (other, partition)
        for other in others
        for partition in range(partitions)
        if len({view.hget(f"{each}:{{{partition}}}:offset", "offset") for each in (live, other)}) == 1
    ]
    return len(compared), [each for where in compared for each in _partition(view, live, *where)]


def _partition(view: Any, live: str, other: str, partition: int) -> Iterator[Violation]:
    ours, theirs = _hashes(view, live, partition), _hashes(view, other, partition)
    for key in sorted(ours.keys() | theirs.keys()):
        if ours.get(key) != theirs.get(key):
            fields = sorted(
                field.decode(errors="backslashreplace")
                for field in {**ours.get(key, {}), **theirs.get(key, {})}
                if ours.get(key, {}).get(field) != theirs.get(key, {}).get(field)
            )
            where = f"partition {partition}, {key}"
            yield Violation(Kind.DIFFERS, where, f"{live} and {other} differ in {', '.join(fields[:5])}")


def _hashes(view: Any, generation: str, partition: int) -> Hashes:
    """Every hash of a generation by its name without the generation.

    But for what is of one of them alone: the epoch counts rewrites, and only one that was made after a loss withholds records.
    """
    prefix = f"{generation}:{{{partition}}}:"
    names = [key.decode() for key in view.scan_iter(match=f"{prefix}*", count=1000)]
    names = [name for name in names if name not in {f"{prefix}offset", f"{prefix}withheld"}]
    pipeline = view.pipeline(transaction=False)
    for name in names:
        pipeline.hgetall(name)
    return {name.removeprefix(prefix): hash_ for name, hash_ in zip(names, pipeline.execute(), strict=True)}
