"""Processes killed at any moment or at a named one, stopped past their sessions, joining and leaving."""

import contextlib
import functools
import random
import signal
from collections.abc import Iterator, Mapping

from deploy.local.waiting import NeverCameTrueError, wait_until
from tests.chaos.faults.registry import (
    ALL_MS,
    PAST_THE_SESSION,
    PROCESSOR_MS,
    RELAY_MS,
    SERVICE_MS,
    fault,
    let_pass,
)
from tests.chaos.stand import Stand
from tests.chaos.under_test import POINTS


@fault(bound_ms=PROCESSOR_MS, weight=3)
def processor_sigkill(stand: Stand, dice: random.Random) -> Iterator[None]:
    """SIGKILL of one processor, at any moment."""
    stand.send_signal(dice.choice(stand.names("processor")), signal.SIGKILL)
    yield


@fault(bound_ms=ALL_MS)
def all_processors_sigkill(stand: Stand, _dice: random.Random) -> Iterator[None]:
    """SIGKILL of every processor at once."""
    for name in stand.names("processor"):
        stand.send_signal(name, signal.SIGKILL)
    yield


@fault(bound_ms=PROCESSOR_MS, weight=4)
def processor_crash_point(stand: Stand, dice: random.Random) -> Iterator[None]:
    """SIGKILL of a processor before or after its read or write of Redis, or before it publishes its offsets."""
    yield from _at_a_point(stand, dice, [dice.choice(stand.names("processor"))], "processor")


@fault(bound_ms=PROCESSOR_MS, weight=3)
def relay_crash_point(stand: Stand, dice: random.Random) -> Iterator[None]:
    """SIGKILL of a relay before or after it sends, notes its progress, or deletes."""
    yield from _at_a_point(stand, dice, stand.names("relay"), "relay")


@fault(bound_ms=SERVICE_MS, weight=2)
def recorder_crash_point(stand: Stand, dice: random.Random) -> Iterator[None]:
    """SIGKILL of a service before it appends, or after, before it answers."""
    yield from _at_a_point(stand, dice, stand.names("prescriber", "pharmacy"), "recorder")


@fault(bound_ms=PROCESSOR_MS, weight=2)
def inbox_crash_point(stand: Stand, dice: random.Random) -> Iterator[None]:
    """SIGKILL of an inbox before it appends, or after, before it commits, or after that."""
    yield from _at_a_point(stand, dice, stand.names("prescriber-inbox", "pharmacy-inbox"), "inbox")


def _at_a_point(stand: Stand, dice: random.Random, names: list[str], kind: str) -> Iterator[None]:
    """Order the death of all of them at one point; whoever comes by it first dies, the others are spared."""
    point = dice.choice(sorted(POINTS[kind]))
    for name in names:
        stand.order(name, point)
    before = stand.supervisor.restarts
    died = functools.partial(_has_restarted, stand, names, before)
    with contextlib.suppress(NeverCameTrueError):  # nobody came by: an idle relay, say
        wait_until(died, within_s=10, what=f"{kind} dies {point}")
    for name in names:
        stand.withdraw_order(name, point)
    yield


def _has_restarted(stand: Stand, names: list[str], before: Mapping[str, int]) -> bool:
    now = stand.supervisor.restarts
    return any(now[name] > before[name] for name in names)


@fault(bound_ms=RELAY_MS, weight=2)
def relay_sigkill(stand: Stand, dice: random.Random) -> Iterator[None]:
    """SIGKILL of one relay, at any moment."""
    stand.send_signal(dice.choice(stand.names("relay")), signal.SIGKILL)
    yield


@fault(bound_ms=SERVICE_MS, weight=2)
def service_sigkill(stand: Stand, dice: random.Random) -> Iterator[None]:
    """SIGKILL of a service or an inbox, at any moment."""
    names = stand.names("prescriber", "pharmacy", "prescriber-inbox", "pharmacy-inbox", "medication-list")
    stand.send_signal(dice.choice(names), signal.SIGKILL)
    yield


@fault(bound_ms=PROCESSOR_MS, weight=3, holds_s=PAST_THE_SESSION, measured_inside=True)
def processor_sigstop(stand: Stand, dice: random.Random) -> Iterator[None]:
    """SIGSTOP of a processor past its session, then SIGCONT: a worker that does not know that it has lost its partitions."""
    yield from _stopped(stand, dice.choice(stand.names("processor")))


@fault(bound_ms=PROCESSOR_MS, weight=4, holds_s=PAST_THE_SESSION, measured_inside=True)
def processor_sigstop_at_a_point(stand: Stand, dice: random.Random) -> Iterator[None]:
    """SIGSTOP of a processor past its session between its read and its write of Redis, or after that; then SIGCONT."""
    name = dice.choice(stand.names("processor"))
    point = dice.choice(("after_store_read", "before_store_write", "before_store_write", "after_store_write"))
    stand.order(name, point, signal.SIGSTOP)
    try:
        wait_until(lambda: stand.is_stopped(name), within_s=10, what="a processor stops")
    except NeverCameTrueError:  # it has no partition just now
        stand.withdraw_order(name, point)
    yield from _stopped(stand, name)


@fault(bound_ms=PROCESSOR_MS, holds_s=(13.0, 13.0), measured_inside=True)
def relay_sigstop(stand: Stand, dice: random.Random) -> Iterator[None]:
    """SIGSTOP of a relay past its lease, then SIGCONT."""
    yield from _stopped(stand, dice.choice(stand.names("relay")))


@fault(bound_ms=PROCESSOR_MS, holds_s=(11.0, 11.0))
def inbox_sigstop(stand: Stand, dice: random.Random) -> Iterator[None]:
    """SIGSTOP of an inbox past its session of ten seconds, then SIGCONT."""
    yield from _stopped(stand, dice.choice(stand.names("prescriber-inbox", "pharmacy-inbox")))


def _stopped(stand: Stand, name: str) -> Iterator[None]:
    stand.send_signal(name, signal.SIGSTOP)
    try:
        yield
    finally:
        stand.send_signal(name, signal.SIGCONT)


@fault(bound_ms=PROCESSOR_MS, weight=2)
def workers_join_and_leave(stand: Stand, dice: random.Random) -> Iterator[None]:
    """A third processor joins and leaves every two seconds, cleanly or killed."""
    for number in range(4):
        more = stand.another_processor(f"processor-extra-{number}")
        more.start()
        try:
            let_pass(2.0)
            if dice.random() < 0.5:
                more.kill()
        finally:
            more.stop()
    yield
