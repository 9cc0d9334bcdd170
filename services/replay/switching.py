"""Makes another generation live, or the one before it again: checked first, then within a second or not at all."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from services.medication_list.generations import GenerationRefusedError, GenerationState, is_announced, record_of
from services.medication_list.store.roles import Pointer, RoleState, WorkerKind
from services.medication_list.switch_protocol import flip, freeze, give_up, has_reached, left_last
from services.replay.place import Place

WITHIN_S: Final = 0.8
"""*Policy*: how long writes may wait for a switch; workers give it up by themselves after a second."""
_NEAR: Final = 2_000
"""*Policy*: a generation so many events behind does not catch up while writes wait."""
_STEP_S: Final = 0.002


@dataclass(frozen=True, slots=True)
class Switched:
    """A switch that was made: `ms` is how long nothing could be written."""

    before: str
    live: str
    ms: float


def refuse_unfit(place: Place, generation: str, *, leave_unsent: bool = False) -> Pointer:
    """The pointer, if this generation can become live now. Raises GenerationRefusedError with what to do otherwise.

    `leave_unsent`: also where the live one has parked what this one has judged.
    """
    pointer = place.pointer()
    record = record_of(pointer, generation)
    if generation == pointer.generation:
        raise GenerationRefusedError(f"{generation} is the live one already: there is nothing to switch.")
    if is_announced(pointer.token):
        raise GenerationRefusedError("Another switch is under way: workers give it up after a second; try again then.")
    if record.state == GenerationState.RETIRED:
        raise GenerationRefusedError(f"{generation} was retired: `replay start` makes a new one.")
    if record.state == GenerationState.FILLING:
        raise GenerationRefusedError(
            f"{generation} is not finished: go on with `replay start`, and switch when it is whole."
        )
    roles = place.roles.roles(range(place.partitions))
    building = [each for each, role in roles.items() if role is None or role.state != RoleState.LIVE]
    if building:
        raise GenerationRefusedError(f"Partition {building[0]} is not live: wait until the view is whole again.")
    _refuse_unfed(place, pointer, generation, record.fold_version)
    behind = lag(place, pointer, generation)
    if behind > _NEAR:
        raise GenerationRefusedError(
            f"{generation} is {behind} events behind the live one: writes would wait for it. Wait until it has caught up."
        )
    if not leave_unsent:
        _refuse_unsent(place, pointer, generation)
    return pointer


def switch(
    place: Place,
    generation: str,
    within_s: float = WITHIN_S,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
    *,
    leave_unsent: bool = False,
) -> Switched:
    """Make a generation the live one; if it does not reach the live one within this time, all is as before.

    Raises GenerationRefusedError.
    """
    before = refuse_unfit(place, generation, leave_unsent=leave_unsent).generation
    began_s = monotonic()
    announced = freeze(place.roles, place.partitions)
    try:
        _await_reached(place, announced, generation, began_s + within_s, sleep, monotonic)
        if not leave_unsent:
            _refuse_unsent(place, announced, generation)  # again: the live one may have parked more until it was frozen
        flipped = flip(place.roles, place.partitions, announced, generation)
    except BaseException:
        give_up(place.roles, place.partitions, announced)
        raise
    if not flipped:
        raise GenerationRefusedError("Somebody gave the switch up: everything is as it was; try again.")
    return Switched(before, generation, 1000 * (monotonic() - began_s))


def _await_reached(
    place: Place,
    announced: Pointer,
    generation: str,
    until_s: float,
    sleep: Callable[[float], None],
    monotonic: Callable[[], float],
) -> None:
    while not has_reached(place.roles, place.partitions, announced, generation):
        if monotonic() > until_s:
            raise GenerationRefusedError(
                f"{generation} did not come in time to where {announced.generation} was frozen, so everything is as it "
                "was: see that its workers run, and try again."
            )
        sleep(_STEP_S)


def way_back(place: Place) -> str:
    """The generation that was live before the live one. Raises GenerationRefusedError where there is none."""
    found = left_last(place.pointer())
    if found is None:
        raise GenerationRefusedError("No generation that was live before is left: there is no way back but a replay.")
    return found


def lag(place: Place, pointer: Pointer, generation: str) -> int:
    """How many events a generation is behind the live one."""
    live, ours = place.offsets(pointer.generation), place.offsets(generation)
    return sum(max(0, (offset or 0) - (ours[each] or 0)) for each, offset in live.items())


def _refuse_unsent(place: Place, pointer: Pointer, generation: str) -> None:
    """What the live one has parked sent nothing out, and the other one judged it while it was not the one that sends."""
    live, other = place.store_of(pointer.generation), place.store_of(generation)
    unsent = sum(len(live.parked(each).keys() - other.parked(each).keys()) for each in range(place.partitions))
    if unsent:
        raise GenerationRefusedError(
            f"{unsent} records lie parked in the live {pointer.generation}, and {generation} has judged them: what is to go "
            "out for them would never go out. Let processors that can read them mend the live one first (within a minute), "
            "or switch with --leave-unsent."
        )


def _refuse_unfed(place: Place, pointer: Pointer, generation: str, fold_version: int) -> None:
    """Somebody must bring it to the frozen offsets now, and processors must feed it once it is live."""
    if not place.roles.attending(generation):
        raise GenerationRefusedError(
            f"Nobody works on {generation}: start its release's processors, or `replay follow`, and let it catch up first."
        )
    own = [name for name in pointer.records if record_of(pointer, name).fold_version == fold_version]
    for name in own:
        for worker in place.roles.attending(name):
            if worker.kind == WorkerKind.PROCESSOR or (worker.kind == WorkerKind.PINNED and name == generation):
                return
    raise GenerationRefusedError(
        f"No processor of fold version {fold_version} runs, and nobody would feed {generation} once it is live: start the "
        "processors of that release beside the others; they find it by themselves."
    )
