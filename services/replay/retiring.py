"""Removes a generation: first nobody reads or writes it any more, then its memory is freed slice by slice."""

import time
from collections.abc import Callable, Iterator
from typing import Final

from services.medication_list.generations import (
    GenerationRecord,
    GenerationRefusedError,
    GenerationState,
    is_announced,
    mark,
    record_of,
)
from services.medication_list.store.roles import WorkerKind
from services.replay.place import Place

_SLICE: Final = 500
_PAUSE_S: Final = 0.002
"""Between two slices, so that nobody waits long for the store."""


def refuse_unfit(place: Place, generation: str) -> GenerationRecord:
    """Its record, if it can be retired. Raises GenerationRefusedError."""
    pointer = place.pointer()
    record = record_of(pointer, generation)
    if generation == pointer.generation:
        raise GenerationRefusedError(
            f"{generation} is the live one: switch to another generation before it is retired."
        )
    if is_announced(pointer.token):
        raise GenerationRefusedError("A switch is under way: retire nothing now, and try again in a second.")
    if record.state == GenerationState.FILLING and any(
        each.kind == WorkerKind.REPLAY for each in place.roles.attending(generation)
    ):
        raise GenerationRefusedError(f"A replay is filling {generation}: end it first.")
    return record


def retire(
    place: Place,
    generation: str,
    told: Callable[[int], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Retire a generation, or go on with what was begun; returns how many keys were deleted.

    The offset goes first: every call that reads or writes a generation looks for it in the same step, so from then on
    nobody can hold anything of it. `told` is called with the number deleted so far.
    """
    record = refuse_unfit(place, generation)
    if record.state != GenerationState.RETIRED:
        mark(place.roles, generation, GenerationState.RETIRED)
    for partition in range(place.partitions):
        if not place.inventory.forget(partition, generation):
            raise GenerationRefusedError(f"{generation} is live in partition {partition}: nothing of that was deleted.")
    deleted = 0
    while True:
        found = 0
        for number in _round(place, generation, sleep):
            found += number
            told(deleted + found)
        if not found:
            return deleted
        # Once more: what a switch of the store's own tables hid from one round is found by the next.
        deleted += found


def _round(place: Place, generation: str, sleep: Callable[[float], None]) -> Iterator[int]:
    cursor = 0
    while True:
        cursor, number = place.inventory.sweep(generation, cursor, _SLICE)
        yield number
        if cursor == 0:
            return
        sleep(_PAUSE_S)
