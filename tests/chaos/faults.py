"""Every fault that a round can inject, by name: what it does to the platform, and until when.

A fault is a context: entered it stands, left it is over (a kill is over at once). Register one with `@fault`; the
schedule and the report find it by its name. `bound_ms`: within what time partitions must move and reads answer again once
it is over; None where that depends on how much is to be made anew. `measured_inside`: it is survived while it stands, so
the time counts from its beginning.
"""

import contextlib
import functools
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import redis

from deploy.local.waiting import NeverCameTrueError, wait_until
from tests.chaos import records
from tests.chaos.proxy import SOUND, Condition
from tests.chaos.stand import LINKS, Stand
from tests.chaos.under_test import POINTS

PROCESSOR_MS: Final = 8_000
"""A session of six seconds, and a rebalance."""
REDIS_MS: Final = 3_000
BROKER_MS: Final = 10_000
RELAY_MS: Final = 20_000
"""A lease of twelve seconds; partitions and reads do not wait for it."""
PAST_THE_SESSION_S: Final = 8.5
HOUR_MS: Final = 3_600_000


class NotPossibleHereError(Exception):
    """This machine does not allow the fault; the text says why."""


class Inject(Protocol):
    """What a fault does: a generator that yields once, while the fault stands."""

    def __call__(self, stand: Stand, dice: random.Random) -> Iterator[None]:
        """Raises NotPossibleHereError."""
        ...


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `weight`: how often it is drawn beside others; 0: only when it is asked for by name."""

    name: str
    inject: Callable[[Stand, random.Random], AbstractContextManager[None]]
    bound_ms: int | None
    weight: int
    measured_inside: bool
    about: str


FAULTS: dict[str, Fault] = {}
"""Every fault by its name."""


def fault(*, bound_ms: int | None, weight: int = 1, measured_inside: bool = False) -> Callable[[Inject], Inject]:
    """Register a fault under the name of its function."""

    def register(inject: Any) -> Any:
        name = inject.__name__
        about = (inject.__doc__ or "").strip().splitlines()[0]
        FAULTS[name] = Fault(name, contextmanager(inject), bound_ms, weight, measured_inside, about)
        return inject

    return register


# --- Killed and stopped processes -------------------------------------------------------------------------------------


@fault(bound_ms=PROCESSOR_MS, weight=3)
def processor_sigkill(stand: Stand, dice: random.Random) -> Iterator[None]:
    """SIGKILL of one processor, at any moment."""
    stand.signal(dice.choice(stand.names("processor")), signal.SIGKILL)
    yield


@fault(bound_ms=PROCESSOR_MS)
def all_processors_sigkill(stand: Stand, dice: random.Random) -> Iterator[None]:
    """SIGKILL of every processor at once."""
    for name in stand.names("processor"):
        stand.signal(name, signal.SIGKILL)
    yield


@fault(bound_ms=PROCESSOR_MS, weight=4)
def processor_crash_point(stand: Stand, dice: random.Random) -> Iterator[None]:
    """SIGKILL of a processor before or after its read or write of Redis, or before it publishes its offsets."""
    yield from _at_a_point(stand, dice, stand.names("processor"), "processor")


@fault(bound_ms=PROCESSOR_MS, weight=3)
def relay_crash_point(stand: Stand, dice: random.Random) -> Iterator[None]:
    """SIGKILL of a relay before or after it sends, notes its progress, or deletes."""
    yield from _at_a_point(stand, dice, stand.names("relay"), "relay")


@fault(bound_ms=PROCESSOR_MS, weight=2)
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
        stand.order_death(name, point)
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
    stand.signal(dice.choice(stand.names("relay")), signal.SIGKILL)
    yield


@fault(bound_ms=PROCESSOR_MS, weight=2)
def service_sigkill(stand: Stand, dice: random.Random) -> Iterator[None]:
    """SIGKILL of a service or an inbox, at any moment."""
    names = stand.names("prescriber", "pharmacy", "prescriber-inbox", "pharmacy-inbox", "medication-list")
    stand.signal(dice.choice(names), signal.SIGKILL)
    yield


@fault(bound_ms=PROCESSOR_MS, weight=3, measured_inside=True)
def processor_sigstop(stand: Stand, dice: random.Random) -> Iterator[None]:
    """SIGSTOP of a processor past its session, then SIGCONT: a worker that does not know that it is none any more."""
    yield from _stopped(stand, dice.choice(stand.names("processor")), PAST_THE_SESSION_S)


@fault(bound_ms=PROCESSOR_MS, measured_inside=True)
def relay_sigstop(stand: Stand, dice: random.Random) -> Iterator[None]:
    """SIGSTOP of a relay past its lease, then SIGCONT."""
    yield from _stopped(stand, dice.choice(stand.names("relay")), 13.0)


@fault(bound_ms=PROCESSOR_MS)
def inbox_sigstop(stand: Stand, dice: random.Random) -> Iterator[None]:
    """SIGSTOP of an inbox past its session of ten seconds, then SIGCONT."""
    yield from _stopped(stand, dice.choice(stand.names("prescriber-inbox", "pharmacy-inbox")), 11.0)


def _stopped(stand: Stand, name: str, for_s: float) -> Iterator[None]:
    stand.signal(name, signal.SIGSTOP)
    until = time.monotonic() + for_s
    try:
        yield
        _let_pass(until - time.monotonic())
    finally:
        stand.signal(name, signal.SIGCONT)


@fault(bound_ms=PROCESSOR_MS, weight=2)
def workers_join_and_leave(stand: Stand, dice: random.Random) -> Iterator[None]:
    """A third processor joins and leaves every two seconds, cleanly or killed."""
    for number in range(4):
        more = stand.extra(f"processor-extra-{number}")
        more.start()
        try:
            _let_pass(2.0)
            if dice.random() < 0.5:
                more.kill()
        finally:
            more.stop()
    yield


# --- The broker -------------------------------------------------------------------------------------------------------


@fault(bound_ms=BROKER_MS, weight=2)
def broker_sigkill(stand: Stand, dice: random.Random) -> Iterator[None]:
    """SIGKILL of the broker; it is back after a while."""
    stand.broker.kill()
    _let_pass(dice.uniform(0, 5))
    stand.broker.start()
    yield


@fault(bound_ms=BROKER_MS)
def broker_sigterm(stand: Stand, dice: random.Random) -> Iterator[None]:
    """The broker is ended cleanly and started again."""
    stand.broker.stop()
    _let_pass(dice.uniform(0, 3))
    stand.broker.start()
    yield


@fault(bound_ms=BROKER_MS)
def started_without_broker(stand: Stand, dice: random.Random) -> Iterator[None]:
    """Every process is killed and starts again while the broker is away."""
    stand.broker.kill()
    for name in stand.names():
        stand.signal(name, signal.SIGKILL)
    _let_pass(6.0)
    stand.broker.start()
    yield


@fault(bound_ms=BROKER_MS, weight=0)
def broker_away_70_s(stand: Stand, dice: random.Random) -> Iterator[None]:
    """The broker is away for longer than any session, delivery or connection waits."""
    stand.broker.kill()
    _let_pass(70.0)
    stand.broker.start()
    yield


# --- Redis ------------------------------------------------------------------------------------------------------------


@fault(bound_ms=REDIS_MS, weight=3)
def redis_sigkill(stand: Stand, dice: random.Random) -> Iterator[None]:
    """SIGKILL of Redis, which reads its append-only file when it starts again."""
    stand.redis.kill()
    _let_pass(dice.uniform(0, 4))
    stand.redis.start()
    yield


@fault(bound_ms=None)
def redis_aof_truncated(stand: Stand, dice: random.Random) -> Iterator[None]:
    """SIGKILL of Redis, and the end of its append-only file is gone: offset and state go back together."""
    stand.redis.kill()
    file = max((stand.redis.directory / "appendonlydir").glob("*.incr.aof"), key=lambda path: path.stat().st_mtime)
    with file.open("r+b") as open_file:
        open_file.truncate(max(0, file.stat().st_size - dice.randrange(1, 400_000)))
    stand.redis.start()
    yield


@fault(bound_ms=None, weight=2)
def redis_flushed(stand: Stand, dice: random.Random) -> Iterator[None]:
    """FLUSHALL, now and then with the functions."""
    stand.view.flushall()
    if dice.random() < 0.5:
        stand.view.execute_command("FUNCTION", "FLUSH")
    yield


@fault(bound_ms=REDIS_MS)
def redis_functions_flushed(stand: Stand, dice: random.Random) -> Iterator[None]:
    """The store's functions are gone, its data are not."""
    stand.view.execute_command("FUNCTION", "FLUSH")
    yield


@fault(bound_ms=None, weight=2)
def redis_restored_older(stand: Stand, dice: random.Random) -> Iterator[None]:
    """Redis comes back with a copy of some seconds ago, older than what Kafka's committed offsets say."""
    data, copy = stand.redis.directory / "appendonlydir", stand.folder / "redis-copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(data, copy)
    _let_pass(dice.uniform(2, 6))
    stand.redis.kill()
    shutil.rmtree(data)
    shutil.move(copy, data)
    stand.redis.start()
    yield


@fault(bound_ms=REDIS_MS)
def redis_read_only(stand: Stand, dice: random.Random) -> Iterator[None]:
    """Redis is the replica of nobody: it answers reads and refuses writes."""
    stand.view.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        _let_pass(dice.uniform(2, 5))
        yield
    finally:
        stand.view.execute_command("REPLICAOF", "NO", "ONE")


@fault(bound_ms=REDIS_MS)
def redis_out_of_memory(stand: Stand, dice: random.Random) -> Iterator[None]:
    """Redis is at its limit and, as it must, refuses writes instead of evicting."""
    used = int(stand.view.info("memory")["used_memory"])
    stand.view.config_set("maxmemory", used // 2)
    try:
        _let_pass(dice.uniform(2, 5))
    finally:
        stand.view.config_set("maxmemory", 0)
    yield


@fault(bound_ms=REDIS_MS)
def redis_slow(stand: Stand, dice: random.Random) -> Iterator[None]:
    """Redis answers nobody for longer than anybody waits."""
    for _ in range(3):
        with contextlib.suppress(redis.RedisError):
            stand.view.execute_command("CLIENT", "PAUSE", "2500", "ALL")
        _let_pass(2.6)
    yield


@fault(bound_ms=REDIS_MS)
def redis_loading(stand: Stand, dice: random.Random) -> Iterator[None]:
    """Redis reads its file slowly: connections stand and every command is told that it loads."""
    stand.redis.kill()
    stand.redis_settings.write_text("key-load-delay 100\nloading-process-events-interval-bytes 1024\n")
    try:
        stand.redis.start()
    finally:
        stand.redis_settings.write_text("")
    yield


# --- Links ------------------------------------------------------------------------------------------------------------


@fault(bound_ms=PROCESSOR_MS, weight=3)
def link_cut(stand: Stand, dice: random.Random) -> Iterator[None]:
    """A process cannot reach Redis or the broker: what stands is reset, what is new is refused."""
    yield from _link_is(stand, dice, Condition(refuses=True))


@fault(bound_ms=PROCESSOR_MS, weight=2)
def link_silent(stand: Stand, dice: random.Random) -> Iterator[None]:
    """Nothing passes between a process and Redis or the broker, and nobody is told."""
    yield from _link_is(stand, dice, Condition(silent=True))


@fault(bound_ms=PROCESSOR_MS, weight=3)
def link_loses_answers(stand: Stand, dice: random.Random) -> Iterator[None]:
    """What a process sends arrives, and what it is answered does not: writes happen that it takes for failed."""
    yield from _link_is(stand, dice, Condition(loses_answers=True))


@fault(bound_ms=PROCESSOR_MS, weight=2)
def link_slow(stand: Stand, dice: random.Random) -> Iterator[None]:
    """The link is late and narrow."""
    yield from _link_is(stand, dice, Condition(delay_ms=150, bytes_per_s=200_000))


@fault(bound_ms=PROCESSOR_MS, weight=2)
def link_breaks(stand: Stand, dice: random.Random) -> Iterator[None]:
    """Every connection breaks in the middle of a message after some bytes."""
    yield from _link_is(stand, dice, Condition(breaks_after_bytes=dice.choice((2_000, 20_000, 100_000))))


def _link_is(stand: Stand, dice: random.Random, condition: Condition) -> Iterator[None]:
    name, to = dice.choice([(name, to) for name, links in LINKS.items() for to in links])
    stand.proxies.set(f"{name}.{to}", condition)
    try:
        _let_pass(dice.choice((3.0, 8.0)))
    finally:
        stand.proxies.set(f"{name}.{to}", SOUND)
    yield


# --- Time, versions, records, disk ------------------------------------------------------------------------------------


@fault(bound_ms=REDIS_MS, measured_inside=True)
def clocks_jump(stand: Stand, dice: random.Random) -> Iterator[None]:
    """Clocks of single processes stand still an hour ahead, then an hour behind, then go right again."""
    names = dice.sample(stand.names(), 4)
    try:
        for by_ms in (HOUR_MS, -HOUR_MS):
            for name in names:
                stand.set_clock(name, by_ms)
            _let_pass(2.0)
        yield
    finally:
        for name in names:
            stand.set_clock(name, None)


@fault(bound_ms=PROCESSOR_MS)
def two_releases(stand: Stand, dice: random.Random) -> Iterator[None]:
    """A processor of the next release works beside the others: the same fold, another text of the store's functions."""
    with stand.extra("processor-next", release="next"):
        _let_pass(6.0)
    yield


@fault(bound_ms=REDIS_MS)
def another_fold(stand: Stand, dice: random.Random) -> Iterator[None]:
    """A processor of another version of the fold starts, and must end with a sentence instead of working."""
    stranger = stand.extra("processor-another-fold", release="another_fold")
    stranger.start()
    try:
        wait_until(lambda: not stranger.alive, within_s=30, what="a processor of another fold is refused")
        said = stranger.program.log.read_text(errors="replace")
        if "of the fold" not in said:
            raise RuntimeError("a processor of another fold ended without saying why")
    finally:
        stranger.stop()
    yield


@fault(bound_ms=REDIS_MS, weight=2)
def records_doubled(stand: Stand, dice: random.Random) -> Iterator[None]:
    """A producer that believes itself unheard appends again what is in the log: the latest, and what lies far back."""
    records.append_again(stand, dice)
    yield


@fault(bound_ms=REDIS_MS, weight=2)
def records_unreadable(stand: Stand, dice: random.Random) -> Iterator[None]:
    """Records that nobody can read, of every kind, among those of living patients."""
    records.append_unreadable(stand, dice)
    yield


@fault(bound_ms=PROCESSOR_MS)
def redis_disk_full(stand: Stand, dice: random.Random) -> Iterator[None]:
    """The disk of Redis' file is full for a while: Redis refuses writes."""
    with _full(stand.redis.directory):
        _let_pass(5.0)
    yield


@fault(bound_ms=BROKER_MS)
def broker_disk_full(stand: Stand, dice: random.Random) -> Iterator[None]:
    """The disk of the log is full: the broker gives up; there is room again, and it is started."""
    with _full(stand.broker.directory):
        _let_pass(5.0)
    stand.broker.stop()
    stand.broker.start()
    yield


@contextmanager
def _full(directory: Path) -> Iterator[None]:
    """Fill the file system of a folder, which must be one of its own."""
    if not directory.is_mount():
        raise NotPossibleHereError("no small file system could be mounted here: that takes root")
    balloon = directory / "balloon"
    try:
        with balloon.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"\0" * 4096):
                pass
        yield
    finally:
        balloon.unlink(missing_ok=True)


def mount_small(directory: Path, megabytes: int) -> bool:
    """Mount a file system of its own for a folder; False where this machine does not allow it."""
    directory.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(  # noqa: S603  our own command line
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(directory)],  # noqa: S607  as root's PATH has it
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def _let_pass(seconds: float) -> None:
    """How long a fault stands is part of the fault, not a wait for something."""
    if seconds > 0:
        time.sleep(seconds)
