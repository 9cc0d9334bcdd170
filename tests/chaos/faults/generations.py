"""A second generation beside the live one, and switches to it and back while clients write and read."""

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from deploy.local.program import Child
from deploy.local.waiting import NeverCameTrueError, wait_until
from services.medication_list.fold import VERSION
from services.medication_list.generations import RELEASE, GenerationRecord, GenerationState, begin_beside, record_of
from services.medication_list.log.source_log import KafkaSourceLog
from services.medication_list.store.link import Link
from services.medication_list.store.redis_roles import RedisRoles
from services.medication_list.store.roles import Pointer, Roles
from services.medication_list.switch_protocol import flip, freeze, give_up, has_reached
from services.publishing.kafka_access import KafkaAccess
from tests.chaos.faults.registry import PROCESSOR_MS, fault, let_pass
from tests.chaos.stand import Stand

_BUILT_WITHIN_S: Final = 180.0
_FROZEN_AT_MOST_S: Final = 60.0


@fault(bound_ms=PROCESSOR_MS, weight=2)
def switched_under_load(stand: Stand, dice: random.Random) -> Iterator[None]:
    """A second generation is built and made live, and now and then the first one again, while all clients write and read."""
    with _roles(stand) as roles:
        before = _pointer(roles)
        record = GenerationRecord(VERSION, RELEASE, time.time_ns() // 1_000_000)
        made = begin_beside(roles, KafkaSourceLog(KafkaAccess(stand.broker.address)), record)
        # Both have workers of their own: the others feed whichever is live, and the way back needs the first one fed too.
        stand.supervisor.start(
            *(
                stand.program(f"processor-{each}-for-{made}", "processor", {"MEDCHAIN_GENERATION": each})
                for each in (made, before.generation)
            )
        )
        wait_until(
            partial(_has_come_near, stand, roles, made), within_s=_BUILT_WITHIN_S, what="the second generation is built"
        )
        _switch(stand, roles, made)
        if dice.random() < 0.5:
            let_pass(2.0)
            _switch(stand, roles, before.generation)
    yield


@fault(bound_ms=PROCESSOR_MS, weight=2)
def replayed_under_load(stand: Stand, dice: random.Random) -> Iterator[None]:
    """An operator replays under load; a bulk reader, or the command, is killed; the new view is switched to, and now and then back."""
    with _roles(stand) as roles:
        before = _pointer(roles)
        stand.supervisor.start(stand.operator("replay", "replay"))
        wait_until(lambda: bool(_beside(roles)), within_s=_BUILT_WITHIN_S, what="a replay has begun")
        made = _beside(roles)[-1]
        wait_until(lambda: bool(roles.attending(made)), within_s=_BUILT_WITHIN_S, what="somebody works on it")
        _kill_part_of(stand, dice)
        wait_until(lambda: _is_whole(roles, made), within_s=_BUILT_WITHIN_S, what="the replay has made a whole view")
        _switch_by_command(stand, roles, made)
        if dice.random() < 0.5:
            _switch_by_command(stand, roles, before.generation)
    yield


@fault(bound_ms=PROCESSOR_MS)
def switch_abandoned(stand: Stand, _dice: random.Random) -> Iterator[None]:
    """A switch freezes the partitions and is abandoned; somebody else gives it up."""
    with _roles(stand) as roles:
        announced = freeze(roles, stand.partitions)
        let_pass(2.0)
        give_up(roles, stand.partitions, announced)
    yield


def _kill_part_of(stand: Stand, dice: random.Random) -> None:
    """SIGKILL of the command, or of a bulk reader of it; each is started again."""
    command = stand.pid("replay")
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        told = Path(f"/proc/{command}/task/{command}/children").read_text(encoding="ascii")
        os.kill(dice.choice([command, *map(int, told.split())]), signal.SIGKILL)


def _switch_by_command(stand: Stand, roles: Roles, generation: str) -> None:
    """As an operator does it, who is told why not and tries again."""

    def is_live() -> bool:
        command = Child(stand.operator("switch", "switch", generation))
        command.start()
        try:
            wait_until(lambda: not command.alive, within_s=_FROZEN_AT_MOST_S, what="the switch has ended")
        finally:
            command.stop()
        return _pointer(roles).generation == generation

    wait_until(is_live, within_s=_BUILT_WITHIN_S, what=f"{generation} is live")


def _pointer(roles: Roles) -> Pointer:
    pointer = roles.pointer()
    assert pointer is not None, "a platform that answers has a live generation"
    return pointer


def _beside(roles: Roles) -> list[str]:
    """The generations that stand beside the live one."""
    pointer = _pointer(roles)
    return [each for each in pointer.records if each != pointer.generation]


def _is_whole(roles: Roles, generation: str) -> bool:
    return record_of(_pointer(roles), generation).state == GenerationState.WHOLE


def _switch(stand: Stand, roles: Roles, generation: str) -> None:
    announced: Pointer = freeze(roles, stand.partitions)
    try:
        wait_until(
            lambda: has_reached(roles, stand.partitions, announced, generation),
            within_s=_FROZEN_AT_MOST_S,
            what=f"{generation} stands where {announced.generation} was frozen",
        )
        flip(roles, stand.partitions, announced, generation)
    except NeverCameTrueError:
        give_up(roles, stand.partitions, announced)
        raise


def _has_come_near(stand: Stand, roles: Roles, generation: str) -> bool:
    """Whether it has all that the live one has at this moment, give or take what is under way."""
    theirs, ours = stand.offsets(), roles.offsets(generation, range(stand.partitions))
    return all((ours[partition] or 0) + 200 >= offset for partition, offset in theirs.items())


@contextmanager
def _roles(stand: Stand) -> Iterator[RedisRoles]:
    with contextlib.closing(Link(stand.redis.address)) as link:
        yield RedisRoles(link)
