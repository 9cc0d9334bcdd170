"""Clocks that jump, releases side by side, records that come twice or that nobody can read."""

import contextlib
import random
from collections.abc import Iterator

import redis

from deploy.local.waiting import NeverCameTrueError, wait_until
from tests.chaos import records
from tests.chaos.faults.registry import HOUR_MS, PROCESSOR_MS, REDIS_MS, fault, let_pass
from tests.chaos.stand import Stand


@fault(bound_ms=REDIS_MS)
def clocks_jump(stand: Stand, dice: random.Random) -> Iterator[None]:
    """Clocks of single processes stand still an hour ahead, then an hour behind, then are right again."""
    names = dice.sample(stand.names(), 4)
    try:
        for by_ms in (HOUR_MS, -HOUR_MS):
            for name in names:
                stand.set_clock(name, by_ms)
            let_pass(2.0)
    finally:
        for name in names:
            stand.set_clock(name, None)
    yield


@fault(bound_ms=PROCESSOR_MS, holds_s=(6.0, 6.0))
def two_releases(stand: Stand, _dice: random.Random) -> Iterator[None]:
    """A processor of the next release works beside the others: the same fold, another text of the store's functions."""
    with stand.another_processor("processor-next", release="next"):
        with contextlib.suppress(NeverCameTrueError):  # Redis is away just now, say
            wait_until(lambda: _has_both_texts(stand), within_s=30, what="the next release works")
        yield


def _has_both_texts(stand: Stand) -> bool:
    with contextlib.suppress(redis.RedisError):
        return len(stand.view.function_list()) > 1
    return False


@fault(bound_ms=REDIS_MS)
def another_fold(stand: Stand, _dice: random.Random) -> Iterator[None]:
    """A processor of another version of the fold starts, and must end with a sentence instead of working."""
    stranger = stand.another_processor("processor-another-fold", release="another_fold")
    stranger.start()
    try:
        wait_until(lambda: not stranger.alive, within_s=120, what="a processor of another fold is refused")
        said = stranger.program.log.read_text(errors="replace")
        if "of the fold" not in said:
            raise RuntimeError("a processor of another fold ended without saying why")
    finally:
        stranger.stop()
    yield


@fault(bound_ms=REDIS_MS, weight=2)
def records_doubled(stand: Stand, dice: random.Random) -> Iterator[None]:
    """A producer that believes its appends failed repeats records: the latest, and some far back in the log."""
    records.append_again(stand, dice)
    yield


@fault(bound_ms=REDIS_MS, weight=2)
def records_unreadable(stand: Stand, dice: random.Random) -> Iterator[None]:
    """Unreadable records of every kind, among those of patients in use."""
    records.append_unreadable(stand, dice)
    yield
