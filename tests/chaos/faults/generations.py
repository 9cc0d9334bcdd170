"""A second generation beside the live one, and switches to it and back while clients write and read."""

import contextlib
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

from deploy.local.waiting import NeverCameTrueError, wait_until
from services.medication_list.fold import VERSION
from services.medication_list.generations import (
    GenerationRecord,
    begin_beside,
    flip,
    freeze,
    give_up,
    has_reached,
)
from services.medication_list.processor import RELEASE
from services.medication_list.source_log import KafkaSourceLog
from services.medication_list.store.link import Link
from services.medication_list.store.redis_roles import RedisRoles
from services.medication_list.store.roles import Pointer, Roles
from tests.chaos.faults.registry import PROCESSOR_MS, fault, let_pass
from tests.chaos.stand import Stand

_BUILT_WITHIN_S: Final = 180.0
_FROZEN_AT_MOST_S: Final = 60.0


@fault(bound_ms=PROCESSOR_MS, weight=2)
def switched_under_load(stand: Stand, dice: random.Random) -> Iterator[None]:
    """A second generation is built, made live, and now and then the first one again, while everybody writes and reads."""
    with _roles(stand) as roles:
        before = roles.pointer()
        assert before is not None, "a platform that answers has a live generation"
        record = GenerationRecord(VERSION, RELEASE, time.time_ns() // 1_000_000)
        made = begin_beside(roles, KafkaSourceLog(stand.broker.address), record)
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


@fault(bound_ms=PROCESSOR_MS)
def switch_abandoned(stand: Stand, _dice: random.Random) -> Iterator[None]:
    """Somebody freezes the partitions and goes away; somebody else gives the switch up."""
    with _roles(stand) as roles:
        announced = freeze(roles, stand.partitions)
        let_pass(2.0)
        give_up(roles, stand.partitions, announced)
    yield


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
