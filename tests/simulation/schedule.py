"""One schedule: a world made by a seed, traffic and faults for a while, then peace, in which all must come to rest.

`run(seed)` is the entry. Each seed enables some of the actors and faults only, so that rare combinations come about.
"""

import asyncio
import gc
import logging
import random
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

import structlog

from schemas.framing import PLAIN
from services.medication_list.generations import GenerationState
from services.medication_list.store.keys import LIVE, GenerationKeys, PartitionKeys
from services.medication_list.store.memory_server import Content
from services.topics.registry import EVENTS_TOPIC
from tests.simulation.actors import Acknowledged, EveryTopic, run_caseworker, run_client, run_reader, run_relay
from tests.simulation.checks import Checks
from tests.simulation.faults import FAULTS, SELDOM, Images
from tests.simulation.history import History, Violation
from tests.simulation.loop import Process, Scheduler, running
from tests.simulation.mutants import applied, kind_of
from tests.simulation.operator import run_operator
from tests.simulation.replaying import Replays, decoded, run_replayer, run_reviewer
from tests.simulation.stories import LONGEST, POOL, OlderRelease, Told, pseudonym, story
from tests.simulation.worker import Release, run_worker
from tests.simulation.world import World


@dataclass(frozen=True)
class Profile:
    """What a schedule is inclined to: shares of all schedules of its kind, or what one of them is drawn from."""

    faults: float = 0.45
    """How many of all kinds of faults."""
    always: tuple[str, ...] = ()
    fails: tuple[float, ...] = (0.0, 0.0, 0.01, 0.05)
    """Calls of store and log that fail before or after they took effect."""
    lingers: tuple[float, ...] = (0.0, 0.0, 0.1)
    older_release: float = 0.35
    older_workers: float = 0.3
    """Where there is an older release: how many of the workers are of it, besides the first one."""
    refolds: float = 0.5
    refolds_beside: float = 0.3
    """How many refolds are of a generation beside the live one, where one stands."""
    workers: tuple[int, ...] = (1, 2, 2, 3)
    at_once: tuple[int, ...] = (1, 3, 8)
    readers: tuple[int, ...] = (1, 2)
    operator: float = 0.25
    """How many have somebody who switches generations."""
    replays: float = 0.1
    """How many have somebody who replays, and somebody who reviews what was made."""
    replays_by_older: float = 0.5
    """Where there are replays and an older release: how many are made by that one."""
    switches_every_s: tuple[float, ...] = (1.5,)
    every_s: tuple[float, ...] = (0.05, 0.2, 0.5, 1.0, 1.0)
    """How often something goes wrong."""
    pace_s: tuple[float, ...] = (0.02, 0.1, 0.2, 0.3)
    """How often a patient has an event."""
    events: tuple[int, int] = (6, 20)
    """How many of them, at least and at most."""


ANYTHING: Final = Profile()
REFOLDED: Final = Profile(
    faults=0.1,
    always=("shared_partitions", "rebalance"),
    lingers=(0.2, 0.4),
    older_release=1.0,
    older_workers=0.6,
    refolds=1.0,
    workers=(2, 3, 4),
    every_s=(0.5, 1.0),
    pace_s=(0.2, 0.3),
    events=(16, LONGEST),
)
"""An operator refolds while two releases write: patients whose records were parked, between somebody's read and write."""
SHARED: Final = Profile(
    faults=0.15,
    always=("shared_partitions", "shared_partitions", "stop"),
    lingers=(0.1, 0.3),
    workers=(2, 3),
    every_s=(0.2, 0.5),
    pace_s=(0.05, 0.1),
    events=(12, LONGEST),
)
"""Two workers on one partition, one of them held up after its read."""
EMPTIED: Final = Profile(
    faults=0.1,
    always=("store_emptied",),
    lingers=(0.0, 0.1),
    older_release=0.0,
    refolds=0.0,
    at_once=(1,),
    readers=(2, 3),
    every_s=(0.5, 1.0),
    pace_s=(0.1, 0.2),
    events=(12, LONGEST),
)
"""The store is emptied again and again while slow workers build the view anew, and several read."""
SWITCHED: Final = Profile(
    faults=0.15,
    always=("topic_missing", "stop", "stop"),
    lingers=(0.0, 0.1),
    older_release=0.1,
    workers=(2, 3),
    operator=1.0,
    switches_every_s=(0.3,),
    every_s=(0.3, 0.6),
    pace_s=(0.3, 0.5),
    events=(16, LONGEST),
)
"""An operator makes generations and switches to and fro while everybody writes and reads."""
RELAYED: Final = Profile(
    faults=0.1,
    always=("log_away", "kill"),
    fails=(0.05, 0.15),
    older_release=0.1,
    refolds=0.1,
    operator=0.1,
    every_s=(0.2, 0.5),
    pace_s=(0.05, 0.1),
    events=(16, LONGEST),
)
"""Nearly everything that is sent may fail, or be killed, on its way."""
REPLAYED: Final = Profile(
    faults=0.15,
    always=("kill", "kill", "store_rolled_back", "stop"),
    fails=(0.0, 0.01, 0.03),
    lingers=(0.1, 0.3),
    older_release=0.4,
    refolds=0.7,
    readers=(1,),
    operator=0.0,
    replays=1.0,
    every_s=(0.3, 0.6, 1.0),
    pace_s=(0.2, 0.3, 0.5),
    events=(16, LONGEST),
)
"""Operators replay in the midst of traffic, compare, switch and retire, while their readers are killed and the store goes back."""
MENDED_BESIDE: Final = Profile(
    faults=0.1,
    always=("kill",),
    fails=(0.0, 0.01),
    lingers=(0.3, 0.5),
    older_release=1.0,
    refolds=1.0,
    readers=(1,),
    operator=0.0,
    replays=1.0,
    replays_by_older=1.0,
    refolds_beside=0.8,
    every_s=(1.0,),
    pace_s=(0.1, 0.2),
    events=(16, LONGEST),
)
"""A replay by a release that cannot read everything, while patients of what it makes are folded anew by one that can."""
PARKED: Final = Profile(
    faults=0.1,
    always=("store_emptied", "shared_partitions", "rebalance"),
    fails=(0.0, 0.01),
    lingers=(0.0, 0.1),
    older_release=1.0,
    older_workers=0.6,
    refolds=0.1,
    workers=(2, 3),
    readers=(1,),
    operator=0.0,
    replays=0.0,
    every_s=(1.0, 1.5),
    pace_s=(0.2, 0.3),
    events=(16, LONGEST),
)
"""The store is emptied while records lie parked that only some of the workers can read, and while they are refolded."""
PROFILES: Final = (
    ANYTHING,
    REFOLDED,
    REFOLDED,
    SHARED,
    EMPTIED,
    EMPTIED,
    SWITCHED,
    RELAYED,
    REPLAYED,
    REPLAYED,
    MENDED_BESIDE,
    PARKED,
)

SET_BACK: Final = replace(
    REPLAYED,
    faults=0.0,
    always=("store_rolled_back",),
    fails=(0.0,),
    older_release=0.0,
    refolds=0.0,
    every_s=(0.6, 1.0),
)
"""Nothing goes wrong but that the store goes back, also when nobody writes any more."""
RELEASED: Final = replace(
    PARKED,
    faults=0.0,
    always=("store_emptied", "store_emptied", "topic_missing", "topic_missing", "rebalance"),
    lingers=(0.0,),
    older_workers=0.5,
    refolds=1.0,
    every_s=(0.4,),
)
"""Patients are refolded, and the store is emptied before what that sends could be sent."""
KINDS: Final[Mapping[str, Profile]] = {
    "replayed": REPLAYED,
    "mended_beside": MENDED_BESIDE,
    "set_back": SET_BACK,
    "parked": PARKED,
    "released": RELEASED,
    "switched": SWITCHED,
}
"""Those that can be asked for by name."""

CALM_WITHIN_S: Final = 120.0
"""I17: how long after the last fault everything has come to rest, by virtual time."""
_LOOKS_EVERY_S: Final = 0.5


@dataclass
class Result:
    """What came of a schedule."""

    seed: int
    mutant: str | None
    violations: Sequence[Violation]
    history: History
    counts: Mapping[str, int]
    calm_after_s: float
    faults: Mapping[str, int]

    @property
    def again(self) -> str:
        """The command that plays it once more."""
        return command_for(self.seed, self.mutant)


def command_for(seed: int, mutant: str | None = None) -> str:
    """The command that plays one schedule, and prints its history and that one's digest."""
    without = "" if mutant is None else f" --mutant {mutant}"
    return f"build/venv/bin/python -m tests.simulation --seed {seed} --schedules 1 --trace{without}"


def run(seed: int, mutant: str | None = None) -> Result:
    """Run one schedule; `mutant`: without this protection, and of the kind that must catch it, where there is one.

    The same seed gives the same history in every process, whatever ran there before.
    """
    dice = random.Random(seed)
    kind = None if mutant is None else kind_of(mutant)
    with applied(mutant), silence(), seeded_chance(dice), uncollected(), running(dice) as loop:
        schedule = Schedule(seed, loop, dice, mutant, None if kind is None else KINDS[kind])
        try:
            loop.run_until_complete(schedule.go())
        except Exception as error:
            error.add_note(f"again: {command_for(seed, mutant)}")
            raise
        return schedule.result()


@contextmanager
def uncollected() -> Iterator[None]:
    """No cyclic garbage is collected meanwhile: when it is depends on all that this process ever allocated.

    What a killed process leaves behind is such garbage, and some of it comes back to the loop when it is collected: an
    asynchronous generator that was left in its midst is closed by a task of its own, which takes a turn of the dice.
    """
    was_on = gc.isenabled()
    gc.collect(1)  # the world of the schedule before this one
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def silence() -> Iterator[None]:
    """Processes log nothing: the history says what happens."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)


@contextmanager
def seeded_chance(dice: random.Random) -> Iterator[None]:
    """Whatever production code draws by chance comes from the dice: names of generations, tokens of switches."""
    drawn = secrets.token_hex
    secrets.token_hex = lambda nbytes=None: dice.randbytes(nbytes or 16).hex()
    try:
        yield
    finally:
        secrets.token_hex = drawn


@dataclass
class Schedule:
    """The world, and what is in it."""

    seed: int
    loop: Scheduler
    dice: random.Random
    mutant: str | None = None
    wanted: Profile | None = None
    images: Images = field(default_factory=Images)

    def __post_init__(self) -> None:
        dice = self.dice
        self.world = World(self.loop, dice, partitions=dice.choice((1, 2, 2, 3)))
        self.checks = Checks(self.world)
        self.topics = EveryTopic()
        self.acknowledged = Acknowledged(self.world)
        self.patients = [pseudonym(each) for each in sorted(dice.sample(range(POOL), dice.randint(2, 4)))]
        self.starting: dict[str, Callable[[Process], Coroutine[Any, Any, None]]] = {}
        self.counted: dict[str, int] = {}
        self.calm_after_s = 0.0
        self._clients: list[asyncio.Task[None]] = []
        self.profile = self.wanted or dice.choice(PROFILES)
        enabled = [name for name in FAULTS if dice.random() < self.profile.faults]
        self.faults = [name for name in enabled if dice.random() < SELDOM.get(name, 1.0)]
        self.faults += self.profile.always
        for mishaps in (self.world.store, self.world.log):
            mishaps.fails_before = dice.choice(self.profile.fails)
            mishaps.fails_after = dice.choice(self.profile.fails)
            mishaps.is_slow = dice.choice((0.0, 0.01, 0.1, 0.3))
            mishaps.lingers = dice.choice(self.profile.lingers)
        self.pace_s = dice.choice(self.profile.pace_s)
        self.image_every_s = dice.choice((0.05, 0.2, 1.0))
        self.has_older_release = dice.random() < self.profile.older_release
        self.releases: dict[str, Release] = {}
        self.replays = Replays(self.world)
        self.checks.bounds = self.replays.bounds
        self.is_peace = False
        """Operators change nothing any more; a replay that was begun is carried to its end."""
        self.has_replays = False
        self._plan_actors()

    # --- Who there is --------------------------------------------------------------------------------------------

    def _plan_actors(self) -> None:
        dice, world = self.dice, self.world
        group = world.group("medication-list", world.partitions)
        for number in range(dice.choice(self.profile.workers)):
            older = self.has_older_release and (number == 0 or dice.random() < self.profile.older_workers)
            release = Release(OlderRelease() if older else PLAIN, dice.choice(self.profile.at_once))
            self.releases[f"worker-{number}"] = release
            self.starting[f"worker-{number}"] = lambda p, release=release: run_worker(world, p, release, group)  # type: ignore[misc]
        for number in range(dice.choice((1, 1, 2))):
            self.starting[f"relay-{number}"] = lambda p: run_relay(world, p, self.topics)
        for number in range(dice.choice(self.profile.readers)):
            pace_s = dice.choice((0.1, 0.4, 1.5))
            self.starting[f"reader-{number}"] = lambda p, pace_s=pace_s: run_reader(
                world, p, self.checks, self.patients, pace_s
            )  # type: ignore[misc]

        if dice.random() < self.profile.refolds:
            pace, beside = dice.choice((0.02, 0.05, 0.3)), self.profile.refolds_beside
            for number in range(dice.choice((1, 2))):
                self.starting[f"caseworker-{number}"] = lambda p: run_caseworker(world, p, self.patients, pace, beside)
        if dice.random() < self.profile.operator:
            self.starting["operator"] = lambda p: run_operator(self, p)
        elif dice.random() < self.profile.replays:
            self.has_replays = True
            if self.has_older_release and dice.random() < self.profile.replays_by_older:
                self.replays.framing = OlderRelease()
            for number in range(dice.choice((1, 1, 2))):
                self.starting[f"replayer-{number}"] = lambda p: run_replayer(self, p)
            self.starting["reviewer"] = lambda p: run_reviewer(self, p)

    def feed(self, generation: str) -> None:
        """Start a worker that was told which generation to feed, as `replay follow` is."""
        group = self.world.group(f"medication-list.{generation}", self.world.partitions)
        release = Release(PLAIN, 8, generation)
        name = f"worker-of-{len(self.starting)}"
        self.starting[name] = lambda p: run_worker(self.world, p, release, group)
        self.start(name)

    def start(self, name: str) -> None:
        """Start a process, in the place of one that has ended; who belongs to another process is started by that."""
        if name not in self.starting:
            return
        before = self.world.processes.get(name)
        if before is not None and not before.is_dead and before.tasks:
            return
        process = self.world.process(name)
        self.world.history.note(name, "starts")
        self.spawn(process, self.starting[name](process))

    def spawn(self, process: Process, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a process; one that ends with an error that nobody foresaw breaks the schedule."""
        self.loop.spawn(process, coroutine, process.name).add_done_callback(self._tell_crash)

    def _tell_crash(self, ended: "asyncio.Task[Any]") -> None:
        if not ended.cancelled() and ended.exception() is not None:
            self.world.history.broken("crash", f"{ended.get_name()} ended with {ended.exception()!r}")

    def start_all(self) -> None:
        """Start whatever does not run."""
        for name in self.starting:
            self.start(name)

    def kill(self, name: str) -> None:
        """End a process at once."""
        self.loop.kill(self.world.processes[name])
        self.world.seats.pop(name, None)

    def some_process(self) -> str:
        """One of those that run; a worker, rather often."""
        bulk = self.replays.names()
        workers = [name for name in self.starting if name.startswith("worker")] + bulk
        return self.dice.choice(workers if self.dice.random() < 0.5 else [*self.starting, *bulk])

    def lose(self, what: str, partition: int | None = None, *, is_set_back: bool = False) -> None:
        """Something that stood is gone: what is shown of it from now on has come at least as far as what was lost."""
        world = self.world
        world.note(what)
        world.era += 1
        content = world.server.content_now
        for each in range(world.partitions) if partition is None else (partition,):
            role = content.hashes.get(PartitionKeys(each).role, {})
            live = role.get(b"live", b"").decode()
            stood = content.hashes.get(GenerationKeys(live, each).offset, {b"offset": b"0"})
            world.lost_at[each] = max(world.lost_at[each], int(stood[b"offset"]))
            self.checks.forget(each, live, is_set_back=is_set_back)

    # --- What happens --------------------------------------------------------------------------------------------

    async def go(self) -> None:
        """Traffic and faults, then peace."""
        self.start_all()
        await asyncio.sleep(self.dice.choice((0.0, 0.5, 2.0)))
        traffic = self._start_clients()
        disturbing = asyncio.create_task(self._disturb())
        imaging = asyncio.create_task(self._keep_images())
        await asyncio.wait(traffic, timeout=30.0)
        disturbing.cancel()
        imaging.cancel()
        self._make_peace()
        began_s = self.loop.time()
        while not self._is_calm() and not self.world.history.violations:
            if self.loop.time() - began_s > CALM_WITHIN_S:
                self.world.history.broken("I17", self._what_is_not_calm())
                break
            await asyncio.sleep(_LOOKS_EVERY_S)
            self.start_all()
        self.calm_after_s = self.loop.time() - began_s
        if not self.world.history.violations:
            self._check_end()

    def _start_clients(self) -> list[asyncio.Task[None]]:
        dice, world = self.dice, self.world
        scripts: dict[str, list[Told]] = {}
        for each in self.patients:
            number = next(n for n in range(POOL) if pseudonym(n) == each)
            told = list(story(number)[: dice.randint(*self.profile.events)])
            if not self.has_older_release and dice.random() < 0.3:
                # Two senders, who know nothing of each other.
                scripts[f"client-{number}a"], scripts[f"client-{number}b"] = told[::2], told[1::2]
            else:
                scripts[f"client-{number}"] = told
        tasks = []
        for name, script in scripts.items():
            process = world.process(name)
            coroutine = run_client(world, process, self.acknowledged, script, self.pace_s)
            tasks.append(self.loop.spawn(process, coroutine, name))
        return tasks

    async def _disturb(self) -> None:
        every_s = self.dice.choice(self.profile.every_s)
        under_way: set[asyncio.Task[None]] = set()
        self._under_way = under_way
        while self.faults:
            await asyncio.sleep(every_s * 2 * self.dice.random())
            name = self.dice.choice(self.faults)
            self.counted[name] = self.counted.get(name, 0) + 1
            task: asyncio.Task[None] = asyncio.create_task(_awaited(FAULTS[name](self)))
            under_way.add(task)
            task.add_done_callback(under_way.discard)

    async def _keep_images(self) -> None:
        while True:
            await asyncio.sleep(self.image_every_s * (0.5 + self.dice.random()))
            self.images.kept.append((self.world.server.save(), dict(self.world.server.leases)))

    def _make_peace(self) -> None:
        """Nothing goes wrong any more; what was killed is started, what was stopped goes on."""
        world = self.world
        world.note("peace")
        self.is_peace = True
        for mishaps in (world.store, world.log):
            mishaps.are_over = True
        world.server.is_available = world.broker.is_available = True
        world.server.is_full = False
        world.broker.starts.clear()
        self.topics.missing.clear()
        for process in world.processes.values():
            if process.is_stopped:
                self.loop.go_on(process)
        content = world.server.content_now
        if LIVE not in content.hashes and content.hashes:
            self.lose("an operator empties a store without pointer")
            world.server.flush_all()
        if self.replays.framing is not PLAIN:
            self.replays.framing = PLAIN
            for name in self.replays.names():
                self.kill(name)
        for name, release in self.releases.items():
            if release.framing is not PLAIN:
                # The older release is replaced.
                release.framing = PLAIN
                self.kill(name)

    # --- How it ends ---------------------------------------------------------------------------------------------

    def _is_calm(self) -> bool:
        return not self._what_is_not_calm()

    def _what_is_not_calm(self) -> str:
        """What has not come to rest yet; nothing when all has."""
        world = self.world
        content = world.server.content_now
        for partition in range(world.partitions):
            end = world.broker.ends[EVENTS_TOPIC, partition]
            role = content.hashes.get(PartitionKeys(partition).role)
            if role is None or role[b"state"] != b"live":
                return f"p{partition} is not live"
            live = role[b"live"].decode()
            for generation in self.checks.generations(content):
                stands = content.hashes.get(GenerationKeys(generation, partition).offset)
                records = world.broker.records[EVENTS_TOPIC, partition]
                last = records[-1].offset + 1 if records else 0
                if generation == live and (stands is None or int(stands[b"offset"]) < last):
                    return f"{generation} of p{partition} has not come to {end}"
                if generation == live and self.checks.aside(content, generation, partition):
                    return f"{generation} of p{partition} holds parked what can be read"
            if content.outboxes.get(PartitionKeys(partition).outbox):
                return f"effects of p{partition} wait"
        return self._what_replay_is_not_calm(content) if self.has_replays else ""

    def _what_replay_is_not_calm(self, content: Content) -> str:
        """A replay ends with a whole generation beside the live one, which stands where that stands."""
        standing, under_way = self._standing(), self.replays.under_way()
        if not under_way <= standing.keys():
            return "somebody replays into what is gone"
        # One that an older copy of the store brought back stays half made until somebody starts a replay again.
        half_made = [name for name in sorted(under_way) if standing[name] == GenerationState.FILLING]
        if half_made:
            return f"the replay of {half_made[0]} is not whole"
        # One of two is fed, where an older copy brought back a second one.
        beside, level = self._beside(content)
        return "" if level else f"of {beside} none has come as far as the live generation"

    def _beside(self, content: Content) -> tuple[list[str], list[str]]:
        """The whole generations beside the live one, and those of them that have come as far in every partition."""
        live = content.hashes[LIVE][b"generation"].decode()
        whole = [name for name, state in self._standing().items() if state == GenerationState.WHOLE and name != live]

        def offsets(name: str) -> list[bytes | None]:
            keys = [GenerationKeys(name, each).offset for each in range(self.world.partitions)]
            return [content.hashes.get(key, {}).get(b"offset") for key in keys]

        return whole, [name for name in whole if offsets(name) == offsets(live)]

    def _standing(self) -> dict[str, GenerationState]:
        """The generations that are known and not retired."""
        pointer = self.world.server.content_now.hashes[LIVE]
        states = {name[2:].decode(): decoded(held).state for name, held in pointer.items() if name.startswith(b"g:")}
        return {name: state for name, state in states.items() if state != GenerationState.RETIRED}

    def _check_end(self) -> None:
        self.acknowledged.check()
        self.checks.check_end()
        if self.has_replays:
            self.checks.check_equal(self._beside(self.world.server.content_now)[1])

    def result(self) -> Result:
        """What came of it; the last step tells how many turns there were and how the dice stand, which lines may hide."""
        history = self.world.history
        history.end(f"ends after {self.loop.steps} turns; the dice say {self.dice.random()}")
        return Result(
            self.seed,
            self.mutant,
            history.violations,
            history,
            dict(self.checks.counts),
            self.calm_after_s,
            self.counted,
        )


async def _awaited(fault: Awaitable[None]) -> None:
    await fault
