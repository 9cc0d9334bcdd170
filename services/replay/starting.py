"""What a replay would do now: begin, continue, or refuse in one sentence that says what to do."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from services.medication_list.fold import VERSION
from services.medication_list.generations import (
    RELEASE,
    GenerationRecord,
    GenerationRefusedError,
    GenerationState,
    begin_beside,
    enter,
    mark,
    record_of,
)
from services.medication_list.store.roles import Pointer, RoleState, WorkerKind
from services.replay.place import Place

SAMPLED_KEYS: Final = 2_000


class Doing(StrEnum):
    """What a replay does."""

    BEGIN = "begin"
    """A generation beside the live one."""
    RESUME = "resume"
    """Go on with one that a replay began and did not finish."""
    REBUILD = "rebuild"
    """The live view itself, which was lost."""


@dataclass(frozen=True, slots=True)
class Room:
    """The memory for a second view, in bytes. `needed` is estimated from the live one."""

    used: int
    limit: int
    reserve: int
    needed: int

    @property
    def is_enough(self) -> bool:
        """Whether a second view fits, and the reserve stays free."""
        return self.used + self.needed <= self.limit - self.reserve


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be done; `generation` is None where it is still to be named."""

    doing: Doing
    generation: str | None
    fold_version: int
    room: Room


def plan(place: Place, reserve: float, fold_version: int = VERSION) -> Plan:
    """What a start comes to. `reserve`: the share of the store's memory that must stay free.

    Raises GenerationRefusedError where it comes to nothing.
    """
    pointer = place.roles.pointer()
    if pointer is None or _is_building(place):
        return _rebuild(place, pointer, reserve, fold_version)
    filling = [name for name in pointer.records if record_of(pointer, name).state == GenerationState.FILLING]
    for name in filling:
        _refuse_another_start(place, pointer, name, fold_version)
        return Plan(Doing.RESUME, name, fold_version, room(place, pointer, reserve, name))
    for name in pointer.records:
        record = record_of(pointer, name)
        if name != pointer.generation and record.state == GenerationState.WHOLE and record.fold_version == fold_version:
            raise GenerationRefusedError(
                f"{name} of fold version {fold_version} stands beside the live {pointer.generation} already: feed it with "
                f"`replay follow`, switch to it, or retire it first."
            )
    found = room(place, pointer, reserve, None)
    if not found.is_enough:
        raise GenerationRefusedError(
            f"There is no room for a second view: it needs about {mib(found.needed)}, {mib(found.used)} of "
            f"{mib(found.limit)} are used, and {mib(found.reserve)} must stay free. Raise maxmemory, retire a generation, "
            "or give a smaller --reserve."
        )
    return Plan(Doing.BEGIN, None, fold_version, found)


def refuse_beyond(place: Place, planned: Plan, until: Mapping[int, int]) -> None:
    """Raises GenerationRefusedError where what would be gone on with has come further than it shall: none goes back.

    `until`: for some partitions, the offset before which to stop.
    """
    if planned.doing is not Doing.RESUME or planned.generation is None:
        return
    stands = place.offsets(planned.generation)
    beyond = [each for each, stop in until.items() if (stands[each] or 0) > stop]
    if beyond:
        raise GenerationRefusedError(
            f"{planned.generation} is half made and stands beyond that in partition {beyond[0]}, at offset "
            f"{stands[beyond[0]]}: `replay retire {planned.generation}` first, and start again."
        )


def begin(place: Place, planned: Plan) -> str:
    """Carry the plan out as far as the store is concerned; returns the generation to fill.

    Raises GenerationRefusedError where somebody else began one in the same moment.
    """
    now_ms = place.clock.now_ms()
    if planned.doing is Doing.BEGIN:
        made = begin_beside(
            place.roles, place.log, GenerationRecord(planned.fold_version, RELEASE, now_ms, GenerationState.FILLING)
        )
        _give_way(place, made)
        return made
    if planned.doing is Doing.REBUILD:
        return enter(place.roles, place.log, GenerationRecord(planned.fold_version, RELEASE, now_ms))
    assert planned.generation is not None, "what is gone on with has a name"
    return planned.generation


def _give_way(place: Place, made: str) -> None:
    """Two started at once both find nothing begun: one that then sees two removes its own.

    Both may; one of them always does, since the later one sees the other.
    """
    pointer = place.pointer()
    filling = (name for name in pointer.records if record_of(pointer, name).state == GenerationState.FILLING)
    other = next((name for name in filling if name != made), None)
    if other is not None:
        mark(place.roles, made, GenerationState.RETIRED)
        for partition in range(place.partitions):
            place.inventory.forget(partition, made)  # nothing else of it is there yet
        raise GenerationRefusedError(
            f"Another replay, into {other}, was started in the same moment, so this one was taken back: start again."
        )


def to_follow(place: Place, fold_version: int = VERSION) -> str:
    """The generation of this fold that nobody else may feed, rather than the live one.

    Raises GenerationRefusedError where none is whole.
    """
    pointer = place.pointer()
    records = {name: record_of(pointer, name) for name in pointer.records}
    mine = [
        name
        for name, record in records.items()
        if record.fold_version == fold_version and record.state == GenerationState.WHOLE
    ]
    if not mine:
        raise GenerationRefusedError(
            f"No whole generation is of fold version {fold_version}: `replay start` makes one."
        )
    return next((name for name in mine if name != pointer.generation), mine[0])


def room(place: Place, pointer: Pointer | None, reserve: float, filling: str | None) -> Room:
    """What there is for a second view; what is in `filling` already counts as there."""
    memory = place.inventory.memory()
    sizes = place.inventory.sizes(SAMPLED_KEYS)
    live = 0 if pointer is None else sizes.get(pointer.generation, 0)
    needed = max(0, live - (0 if filling is None else sizes.get(filling, 0)))
    return Room(memory.used, memory.limit, int(memory.limit * reserve), needed)


def _rebuild(place: Place, pointer: Pointer | None, reserve: float, fold_version: int) -> Plan:
    name = None if pointer is None else pointer.generation
    if name is not None and any(each.kind != WorkerKind.REPLAY for each in place.roles.attending(name)):
        raise GenerationRefusedError(
            f"The live view {name} was lost and its processors build it again: a replay would only get in their way."
        )
    return Plan(Doing.REBUILD, name, fold_version, room(place, None, reserve, None))


def _is_building(place: Place) -> bool:
    roles = place.roles.roles(range(place.partitions)).values()
    return any(role is None or role.state == RoleState.BUILDING for role in roles)


def _refuse_another_start(place: Place, pointer: Pointer, name: str, fold_version: int) -> None:
    if any(each.kind == WorkerKind.REPLAY for each in place.roles.attending(name)):
        raise GenerationRefusedError(
            f"A replay into {name} is running: look at it with `generations`, or end it first; it would go on from there."
        )
    made_by = record_of(pointer, name).fold_version
    if made_by != fold_version:
        raise GenerationRefusedError(
            f"{name} is half made, by version {made_by} of the fold, and this is version {fold_version}: go on with the "
            f"release that began it, or retire it first."
        )


def mib(size: int) -> str:
    """Bytes as people read them."""
    return f"{size / (1 << 20):,.0f} MiB"
