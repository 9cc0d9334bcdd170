"""Generations of the view: begun where nothing is stored or beside the live one, known by their records, refused if they do not fit."""

import re
import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Final

import msgspec

from schemas.events import RelayProgress
from services.medication_list.log.source_log import LogIdentity, SourceLog
from services.medication_list.store.epochs import by_chance
from services.medication_list.store.port import StoreUnavailableError
from services.medication_list.store.roles import Beginning, Pointer, Role, Roles, RoleState

RELEASE: Final = "0.1.0"
"""What a generation's record says of the code that began it."""
NAME: Final = re.compile(r"g([1-9][0-9]*)-[0-9a-f]{6}")
_ATTEMPTS: Final = 5


class GenerationRefusedError(Exception):
    """This process must not work on this store; the text is the one sentence that an operator needs."""


class GenerationGoneError(GenerationRefusedError):
    """The generation that this process fed was retired, and its release has no other: it may end."""


class GenerationState(StrEnum):
    """How far a generation is; whether it is live, only the pointer says."""

    FILLING = "filling"
    """A replay makes it: it is fed by that replay alone, and cannot become live."""
    WHOLE = "whole"
    """It has been where the live one was: its release's processors feed it, and it can become live."""
    RETIRED = "retired"
    """It is being deleted, or gone. Its name stays known, so that no other one gets it."""


class GenerationRecord(msgspec.Struct, frozen=True):
    """What is known of a generation: which fold of which release made it, when, and how far it is."""

    fold_version: int
    release: str
    made_at_ms: int
    state: GenerationState = GenerationState.WHOLE
    left_at_epoch: int = 0
    """The pointer's epoch until which it was the live one; 0: it never was, or it is."""


def random_name(number: int) -> str:
    """A name that was never used: `g<number>-<six hex digits>`."""
    return f"g{number}-{secrets.token_hex(3)}"


def enter(
    roles: Roles,
    log: SourceLog,
    record: GenerationRecord,
    generation: str | None = None,
    name: Callable[[int], str] = random_name,
    *,
    may_begin: bool = True,
) -> str:
    """The generation that a worker of this release works on, begun where nothing stands: see `generation_for`.

    Any number of workers may enter at once, and again after a loss; the first one begins and the others join. A
    partition without a role begins at offset 0 and is not shown before it reaches the end that the log has now.
    In an empty store, a worker that fed a non-live generation waits for one that fed the live one: it must not
    decide what is live next.

    Raises:
        GenerationRefusedError: the store may evict keys, holds the view of another log or reaches beyond this one, or
            holds no generation for this version of the fold.
        StoreUnavailableError, SourceLogUnavailableError: ask again.
    """
    if not roles.keeps_everything():
        raise GenerationRefusedError("Redis may evict keys: set maxmemory-policy to noeviction.")
    identity = log.identity()
    for _ in range(_ATTEMPTS):
        if not may_begin and roles.pointer() is None:
            raise StoreUnavailableError("the store is empty, and this worker waits for the live view to be begun")
        pointer = _pointer(roles, log, identity, record, name)
        wanted = generation or generation_for(pointer, record.fold_version) or pointer.generation
        _refuse_misfit(pointer, identity, wanted, record)
        ends = log.ends()
        _refuse_beyond(roles, log, wanted, ends)
        if not _begin_missing(roles, log, pointer, wanted, ends):
            return wanted
        # Looked at once more: another worker may have begun something else in between, or the store was emptied.
        _point_anew_if_emptied(roles, pointer, wanted, name)
    raise StoreUnavailableError("the store is emptied again and again")


def generation_for(pointer: Pointer, fold_version: int) -> str | None:
    """What a release's processors feed: the live generation if its fold made it, else the newest whole one of its fold.

    So two releases beside one another feed each its own, whichever is live, before a switch and after it; and a
    restart of either changes nothing.
    """
    records = {name: record_of(pointer, name) for name in pointer.records}
    fitting = [
        name
        for name, record in records.items()
        if record.fold_version == fold_version and record.state == GenerationState.WHOLE
    ]
    if pointer.generation in fitting:
        return pointer.generation
    return max(fitting, key=_number, default=None)


def refuse_another_log(roles: Roles, log: SourceLog) -> None:
    """For those who read or relay what others make: a view is of one log. In an empty store there is none yet.

    Raises:
        GenerationRefusedError: the store holds the view of another log.
        StoreUnavailableError, SourceLogUnavailableError: ask again.
    """
    pointer = roles.pointer()
    if pointer is not None:
        _refuse_another_log(pointer, log.identity())


def begin_beside(
    roles: Roles, log: SourceLog, record: GenerationRecord, name: Callable[[int], str] = random_name
) -> str:
    """Begin a generation beside the live one, empty and capped at it, and return its name.

    Raises GenerationRefusedError where there is no live one, or it is of another log.
    """
    for _ in range(_ATTEMPTS):
        pointer = roles.pointer()
        if pointer is None:
            raise GenerationRefusedError("There is no live generation to begin another one beside.")
        number = 1 + max(_number(each) for each in pointer.records)
        made = name(number)
        _refuse_misfit(pointer, log.identity(), pointer.generation, None)
        ends = log.ends()
        # Where the live one's role was lost, this one would be shown in its place, and empty.
        alone = roles.begin({each: Beginning(made, pointer.epoch, 0, 0, beside=1) for each in ends})
        if alone:
            raise GenerationRefusedError(
                f"Partition {min(alone)} has no role: wait until the live generation has begun there."
            )
        # The token stays: a switch that is under way is not disturbed, and one that came first is noticed.
        if roles.point(pointer, replace(pointer, records={made: msgspec.msgpack.encode(record)})):
            return made
    raise GenerationRefusedError("Others keep changing the generations: try again.")


def begin_again(roles: Roles, generation: str, partitions: Collection[int]) -> None:
    """Begin a generation anew, beside the live one, where its offset was lost: all that it had there was lost with it.

    A partition whose role was lost too waits until the live one has begun there. A generation that was retired stays
    gone: the pointer says so before its offset goes, so a look after the offset was missed is not too early.
    """
    pointer = roles.pointer()
    if pointer is not None and record_of(pointer, generation).state != GenerationState.RETIRED:
        beginning = Beginning(generation, pointer.epoch, 0, 0, beside=1)
        roles.begin({each: beginning._replace(first_epoch=by_chance()) for each in partitions})


def mark(roles: Roles, generation: str, state: GenerationState) -> None:
    """Note how far a generation is. While a switch is under way nothing is noted.

    Raises GenerationRefusedError for the live one, an unknown one, and while a switch is under way.
    """
    for _ in range(_ATTEMPTS):
        pointer = roles.pointer()
        if pointer is None:
            raise GenerationRefusedError("There is no generation in this store.")
        record = record_of(pointer, generation)
        if pointer.generation == generation and state != GenerationState.WHOLE:
            raise GenerationRefusedError(f"Generation {generation} is the live one.")
        if is_announced(pointer.token):
            raise GenerationRefusedError("A switch is under way: let it finish, or give it up.")
        noted = msgspec.msgpack.encode(msgspec.structs.replace(record, state=state))
        if roles.point(pointer, replace(pointer, records={generation: noted})):
            return
    raise GenerationRefusedError("Others keep changing the generations: try again.")


def record_of(pointer: Pointer, generation: str) -> GenerationRecord:
    """What is known of a generation. Raises GenerationRefusedError for an unknown one."""
    encoded = pointer.records.get(generation)
    if encoded is None:
        raise GenerationRefusedError(f"There is no generation {generation} in this store.")
    return msgspec.msgpack.decode(encoded, type=GenerationRecord)


def is_announced(token: str) -> bool:
    """Whether a pointer's token says that a switch is under way."""
    return token.startswith("switch-")


# --- Entering -----------------------------------------------------------------------------------------------------


def _pointer(
    roles: Roles, log: SourceLog, identity: LogIdentity, record: GenerationRecord, name: Callable[[int], str]
) -> Pointer:
    """The pointer that stands; in an empty store the first worker sets it."""
    pointer = roles.pointer()
    if pointer is not None:
        return pointer
    orphan = _orphan(roles, list(log.ends()))
    # Another worker may have set the pointer, and begun, between the two looks.
    pointer = roles.pointer()
    if pointer is None and orphan is not None:
        raise GenerationRefusedError(
            f"Redis lost its pointer, though partitions are live with {orphan}: restore it, or empty Redis."
        )
    if pointer is None:
        first = name(1)
        begun = Pointer(1, first, "", identity.cluster, identity.topic, {first: msgspec.msgpack.encode(record)})
        roles.point(None, begun)
        pointer = roles.pointer() or begun
    return pointer


def _orphan(roles: Roles, partitions: Collection[int]) -> str | None:
    """A generation that holds something, is shown somewhere, and has no pointer; None where there is no such one.

    What is shown nowhere, or holds nothing, is what a worker began in a store that was emptied a moment before: it was on
    its way when that happened, and perhaps ended, or was refused, before it could set a pointer. That is replaced.
    """
    shown = {
        partition: role.live
        for partition, role in roles.roles(partitions).items()
        if role is not None and role.state != RoleState.BUILDING
    }
    return next((live for partition, live in shown.items() if roles.offsets(live, [partition])[partition]), None)


def _refuse_another_log(pointer: Pointer, identity: LogIdentity) -> None:
    if (pointer.cluster, pointer.topic) != identity:
        raise GenerationRefusedError(
            f"Redis holds the view of another log (cluster {pointer.cluster}, topic {pointer.topic}) than this one "
            f"(cluster {identity.cluster}, topic {identity.topic}): use the Redis that belongs to it, or an empty one."
        )


def _refuse_misfit(pointer: Pointer, identity: LogIdentity, generation: str, record: GenerationRecord | None) -> None:
    _refuse_another_log(pointer, identity)
    known = record_of(pointer, generation)
    made_by = known.fold_version
    if known.state == GenerationState.RETIRED:
        raise GenerationGoneError(f"Generation {generation} was retired: end the workers that were started for it.")
    if record is not None and made_by != record.fold_version:
        raise GenerationRefusedError(
            f"Generation {generation} was made by version {made_by} of the fold, and this is version "
            f"{record.fold_version}: run the release that made it, or replay into a new generation."
        )


def _refuse_beyond(roles: Roles, log: SourceLog, generation: str, ends: Mapping[int, int]) -> None:
    stands = {each: offset or 0 for each, offset in roles.offsets(generation, list(ends)).items()}
    if all(offset <= ends[partition] for partition, offset in stands.items()):
        return
    # Others go on meanwhile: what they have judged since the first look at the log is there at the second.
    ends = log.ends()
    for partition, offset in stands.items():
        if offset > ends[partition]:
            raise GenerationRefusedError(
                f"Generation {generation} has come to offset {offset} of partition {partition}, and the log ends at "
                f"{ends[partition]}: the log lost records, or is another one."
            )


def partitions_to_begin(stand: Mapping[int, Role | None], pointer: Pointer) -> list[int]:
    """Where no role stands, or one that no worker of the live generation can go on with.

    That is one of a generation that nobody knows, which a worker begins that had read the pointer before the store was
    emptied; or one that is being built by another generation than the live one, begun for what was live before a switch.
    """
    return [
        partition
        for partition, role in stand.items()
        if role is None
        or role.live not in pointer.records
        or (role.state == RoleState.BUILDING and role.live != pointer.generation)
    ]


def _begin_missing(
    roles: Roles, log: SourceLog, pointer: Pointer, generation: str, partitions: Collection[int]
) -> bool:
    """Begin where the role of `partitions_to_begin` is missing; tell whether there was such a partition."""
    stand = roles.roles(list(partitions))
    missing = partitions_to_begin(stand, pointer)
    unknown = {each: role.live for each in missing if (role := stand[each]) is not None}
    if not missing:
        return False
    # A worker that was stopped since it read the pointer would take a generation for unknown that was made meanwhile, or
    # begin the one that was live then.
    if roles.pointer() != pointer:
        raise StoreUnavailableError("the generations were changed since the pointer was read: ask again")
    if generation != pointer.generation:
        raise GenerationRefusedError(f"Partition {missing[0]} has no role: start the live generation's workers first.")
    # Asked after it was seen that they are missing: a worker that was stopped in between would take an end that is
    # long past for the one that must be reached before anything is shown.
    ends, relayed = log.ends(), log.relayed()
    _begin(
        roles,
        {
            each: _after_a_loss(
                Beginning(generation, pointer.epoch, ends[each], 0, unknown.get(each, "")), relayed.get(each)
            )
            for each in missing
        },
    )
    return True


def _after_a_loss(begins: Beginning, relayed: RelayProgress | None) -> Beginning:
    """Up to the log's end, effects from what was relayed last, and parked again what is unsent of what lies before that.

    Who judged such a record would leave out its effects, and what follows from it for later ones; a refold sends both.
    """
    if begins.until > 0:  # otherwise there was nothing that anybody can have read
        begins = begins._replace(first_epoch=by_chance())
    if relayed is None:
        return begins
    withheld = {each.offset: each.reason for each in relayed.unsent}
    # What was parked lies in the log, whatever its end was a moment before.
    until = max([begins.until, *(offset + 1 for offset in withheld)])
    return begins._replace(until=until, effects_from=relayed.source_offset, withheld=withheld)


def _point_anew_if_emptied(roles: Roles, pointer: Pointer, generation: str, name: Callable[[int], str]) -> None:
    """Where the store was emptied while a generation was begun in it, have another one begun in its place.

    Roles and pointer do not lie on one node, so they cannot be set in one step. What was begun around the loss may have
    been begun after it, with ends of the log that were asked before: it would be shown before it holds what was lost. A
    pointer with a new name makes it one that nobody knows, and what is missing is begun with ends asked after the loss.
    """
    if roles.pointer() is None:
        first = name(1)
        records = {first: pointer.records[generation]}
        roles.point(None, Pointer(1, first, "", pointer.cluster, pointer.topic, records))


def _begin(roles: Roles, beginnings: Mapping[int, Beginning]) -> None:
    refused = roles.begin(beginnings)
    if refused:
        raise GenerationRefusedError(f"Partition {min(refused)} has a role and no data: restore Redis, or empty it.")


def _number(generation: str) -> int:
    match = NAME.fullmatch(generation)
    return int(match[1]) if match else 0
