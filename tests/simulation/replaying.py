"""Replays in the simulation: the production start, crew, watch and bulk readers; each reader a process of its own.

`run_replayer` is an operator who starts a replay amid traffic, and again whenever it ended; `run_reviewer` is another
one, who compares what was made with the live view, switches to it and back, and retires what is left over.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import msgspec

from schemas.framing import PLAIN
from services.medication_list.driver.batches import Fetch, Verdict
from services.medication_list.generations import GenerationRecord, GenerationRefusedError, GenerationState, record_of
from services.medication_list.log.source_log import SourceLogUnavailableError
from services.medication_list.processor.worker import Worker
from services.medication_list.store.keys import LIVE, GenerationKeys
from services.medication_list.store.port import StoreUnavailableError
from services.medication_list.switch_protocol import left_last
from services.replay.bulk import CHASING, Bounded, ReplayWorker, code_of, replay
from services.replay.compare import compare
from services.replay.crew import Crew
from services.replay.order import DONE, Order, Pacing, Told
from services.replay.pace import Pace
from services.replay.place import Place
from services.replay.retiring import retire
from services.replay.starting import Doing, begin, plan, to_follow
from services.replay.switching import switch, way_back
from services.replay.watching import Phase, Watch
from tests.simulation.loop import Process, current_process
from tests.simulation.ports import (
    SimulatedInventory,
    SimulatedRoles,
    SimulatedSourceLog,
    SimulatedStore,
    StoreLink,
)
from tests.simulation.worker import SimulatedConsumer
from tests.simulation.world import World

if TYPE_CHECKING:
    from tests.simulation.schedule import Schedule

KILLED: Final = -9
CRASHED: Final = 1
_HEARS_EVERY_S: Final = 0.05
_STARTS_EVERY_S: Final = 0.5
_FETCH_COSTS_S: Final = 0.002
_REFUSALS: Final = (GenerationRefusedError, StoreUnavailableError, SourceLogUnavailableError)


def place_of(world: World, process: Process) -> Place:
    """The platform as an operator's command reaches it."""
    link = StoreLink(world, process)
    return Place(
        roles=SimulatedRoles(link),
        log=SimulatedSourceLog(world),
        inventory=SimulatedInventory(link),
        store_of=lambda generation: SimulatedStore(link, generation),
        partitions=world.partitions,
        clock=world.clocks[process.name],
    )


async def run_replayer(schedule: "Schedule", process: Process) -> None:
    """`replay start`, and where one is whole already `replay follow`, again and again."""
    world = schedule.world
    place = place_of(world, process)
    while True:
        # Who starts a replay at a full half second does it in the same moment as another one who does.
        await asyncio.sleep(_STARTS_EVERY_S - world.loop.time() % _STARTS_EVERY_S + 0.02 * world.dice.random())
        try:
            await asyncio.to_thread(_start, schedule, process, place)
        except _REFUSALS as error:
            world.note(f"no replay: {type(error).__name__}: {error}"[:110])


def _start(schedule: "Schedule", process: Process, place: Place) -> None:
    world = schedule.world
    until: Mapping[int, int] = {}
    try:
        planned = plan(place, 0.1)
        generation = begin(place, planned)
        world.note(f"replay {planned.doing.value} {generation}")
        if planned.doing is not Doing.REBUILD and not schedule.is_peace and world.dice.random() < 0.5:
            ends = place.log.ends()
            until = {each: world.dice.randint(0, end) for each, end in ends.items()}
    except GenerationRefusedError:
        generation = to_follow(place)
        world.note(f"replay follow {generation}")
    schedule.replays.begun(process, generation, until)
    workers = world.dice.choice((1, 1, 2))

    def started(number: int, order: Order) -> SimulatedReader:
        return SimulatedReader(schedule, process, number, order)

    try:
        with Crew(generation, world.partitions, workers, until, place.clock, started) as crew:
            crew.start(1.0)
            watch = Watch(place, place.log, crew, generation, 1.0, 0, until, world.loop.pause)
            phase = Phase.FILLING
            for look in watch.looks(follow=True):
                if look.phase is not phase:
                    phase = look.phase
                    world.note(f"{generation} is {phase.value}")
                    schedule.checks.counts[f"replays_{phase.value}"] += 1
    finally:
        schedule.replays.ended(process)
    world.note(f"replay of {generation} ends")


async def run_reviewer(schedule: "Schedule", process: Process) -> None:
    """Compares what a replay made, switches to it and back, and retires what stands beside the live one."""
    world = schedule.world
    place = place_of(world, process)
    every_s = world.dice.choice((0.1, 0.3))
    while True:
        await asyncio.sleep(every_s * (0.3 + 1.4 * world.dice.random()))
        if schedule.is_peace:
            continue
        try:
            await asyncio.to_thread(_review, schedule, place)
        except _REFUSALS as error:
            world.note(f"not done: {type(error).__name__}: {error}"[:110])


def _review(schedule: "Schedule", place: Place) -> None:
    world = schedule.world
    pointer = place.pointer()
    beside = [
        name
        for name in pointer.records
        if name != pointer.generation and record_of(pointer, name).state == GenerationState.WHOLE
    ]
    if not beside:
        return
    roll = world.dice.random()
    if roll < 0.15:
        world.note(f"retire {beside[-1]}")
        retire(place, beside[-1], sleep=world.loop.pause)
        return
    if roll < 0.5:
        _compare(schedule, place, pointer.generation, beside[-1])
        return
    goal = way_back(place) if left_last(pointer) and world.dice.random() < 0.5 else beside[-1]
    switched = switch(place, goal, 0.8, world.loop.pause, world.loop.time)
    world.note(f"switched from {switched.before} to {switched.live}")
    schedule.checks.counts["switches"] += 1


def _compare(schedule: "Schedule", place: Place, live: str, other: str) -> None:
    """I9: where every record is read alike, a comparison finds no difference, whatever goes on meanwhile."""
    world, era = schedule.world, schedule.world.era
    found = compare(place, live, other, sleep=world.loop.pause, monotonic=world.loop.time)
    world.note(f"compared {found.compared}, differing {found.differing}, behind {found.behind}, notes {found.notes}")
    schedule.checks.counts["compared_by_operators"] += found.compared
    if era == world.era and not schedule.has_older_release and found.differing:
        world.history.broken("I9", f"{live} and {other} differ in {sorted(found.kinds)[:3]}")


def is_filling(pointer: Mapping[bytes, bytes], generation: str) -> bool:
    """Whether a generation is known and not whole yet; `pointer`: as it lies in the store."""
    encoded = pointer.get(f"g:{generation}".encode())
    return encoded is not None and decoded(encoded).state == GenerationState.FILLING


def decoded(encoded: bytes) -> GenerationRecord:
    """What is known of a generation, as it lies in the store."""
    return msgspec.msgpack.decode(encoded, type=GenerationRecord)


class Replays:
    """Which replays run, and what each may do; the checks ask it."""

    def __init__(self, world: World) -> None:
        self._world = world
        world.on_whole = self.marked_whole
        self.framing = PLAIN
        """What the release that replays can read."""
        self._of: dict[str, tuple[str, Process]] = {}
        self._readers: list[tuple[str, Process]] = []
        self._live_at: dict[str, tuple[int, Mapping[int, int]]] = {}
        self.bounds: dict[str, Mapping[int, int]] = {}
        """Of generations that are made up to some offsets only."""

    def begun(self, operator: Process, generation: str, until: Mapping[int, int]) -> None:
        """I10: no two replays make two generations at once; a replay that was told where to stop goes no further."""
        self._of[operator.name] = generation, operator
        pointer = self._world.server.content_now.hashes.get(LIVE, {})
        self._live_at[operator.name] = self._world.era, self._stands(pointer.get(b"generation", b"").decode())
        filling = {each for each, process in self._of.values() if not process.is_dead and is_filling(pointer, each)}
        if len(filling) > 1:
            self._world.history.broken("I10", f"replays into {sorted(filling)} run at once")
        others = {each for who, (each, process) in self._of.items() if who != operator.name and not process.is_dead}
        self.bounds.pop(generation, None)
        if until and generation not in others and not self.readers_of(generation):
            stands = self._stands(generation)
            self.bounds[generation] = {each: max(offset, stands.get(each, 0)) for each, offset in until.items()}

    def set_back(self) -> None:
        """The store came back with an older copy: it may hold more of a generation than that is to be made up to now."""
        for generation, until in list(self.bounds.items()):
            stands = self._stands(generation)
            self.bounds[generation] = {each: max(offset, stands.get(each, 0)) for each, offset in until.items()}

    def marked_whole(self, generation: str) -> None:
        """I9: a generation is called whole only when it has come to where the live one was when the command was started."""
        marking = current_process()
        assert marking is not None, "an operator's command marks it"
        era, live = self._live_at[marking.name]
        stands = self._stands(generation)
        lacks = [each for each, offset in live.items() if stands.get(each, 0) < offset]
        if era == self._world.era and lacks:
            self._world.history.broken("I9", f"{generation} is called whole, and lacks what was live of p{lacks[0]}")

    def _stands(self, generation: str) -> Mapping[int, int]:
        hashes = self._world.server.content_now.hashes
        held = {each: hashes.get(GenerationKeys(generation, each).offset) for each in range(self._world.partitions)}
        return {each: int(stands[b"offset"]) for each, stands in held.items() if stands is not None}

    def under_way(self) -> set[str]:
        """The generations that somebody's command makes, or feeds."""
        return {generation for generation, process in self._of.values() if not process.is_dead}

    def ended(self, operator: Process) -> None:
        """The command ended."""
        self._of.pop(operator.name, None)

    def reader(self, generation: str, process: Process) -> None:
        """A bulk reader was started."""
        self._readers.append((generation, process))

    def readers_of(self, generation: str) -> list[Process]:
        """Those that live."""
        return [process for made, process in self._readers if made == generation and not process.is_dead]

    def names(self) -> list[str]:
        """The bulk readers that live."""
        return [process.name for _, process in self._readers if not process.is_dead]


class SimulatedReader:
    """A bulk reader as a process of the simulation: the production loop over simulated log and store. See `crew.Reader`."""

    def __init__(self, schedule: "Schedule", parent: Process, number: int, order: Order) -> None:
        world = schedule.world
        self._world, self._parent, self._order = world, parent, order
        self._framing = schedule.replays.framing
        self._code: int | None = None
        self._words = ""
        self._has_input = True
        self._process = world.process(f"bulk-{order.generation}-{number}.{len(world.processes)}")
        self._bounded: Seen | None = None
        self._pace = Pace(order.share, self._cpu_s, asyncio.sleep)
        schedule.replays.reader(order.generation, self._process)
        world.history.note(self._process.name, "starts")
        schedule.spawn(self._process, self._work())

    @property
    def told(self) -> Told:
        """See `Reader.told`."""
        return Told() if self._bounded is None else Told(self._bounded.records, self._cpu_s())

    def code(self) -> int | None:
        """See `Reader.code`."""
        return KILLED if self._code is None and self._process.is_dead else self._code

    def tell(self, pacing: Pacing) -> None:
        """See `Reader.tell`."""
        self._pace.share, self._pace.is_paused = pacing.share, pacing.is_paused

    def leave(self) -> None:
        """See `Reader.leave`. What a dead process does has no effect; that it is dead is noticed."""
        if not self._parent.is_dead:
            self._has_input = False

    def end(self, within_ms: int) -> None:
        """See `Reader.end`."""
        until_s = self._world.loop.time() + within_ms / 1000
        while self.code() is None and self._world.loop.time() < until_s:
            self._world.loop.pause(_HEARS_EVERY_S)
        self._world.loop.kill(self._process)

    def last_words(self) -> str:
        """See `Reader.last_words`."""
        return self._words

    def _cpu_s(self) -> float:
        return 0.0 if self._bounded is None else _FETCH_COSTS_S * self._bounded.fetches

    async def _work(self) -> None:
        """What `services.replay.bulk.main` does, with the ports of this process."""
        world, order = self._world, self._order
        link = StoreLink(world, self._process)
        worker = ReplayWorker(
            SimulatedRoles(link),
            SimulatedSourceLog(world),
            lambda generation: SimulatedStore(link, generation),
            world.partitions,
            order.generation,
            self._framing,
            replace(CHASING, sleep=world.loop.pause, monotonic=world.loop.time),
        )
        self._bounded = Seen(world, self._process, worker, order)
        world.loop.spawn(self._process, self._hear(worker), f"{self._process.name} hears")
        consumer, clock = SimulatedConsumer(world, self._process), world.clocks[self._process.name]
        consumer.brings_at_most = world.dice.choice((1, 2, 5))
        try:
            await replay(consumer, worker, self._bounded, order.partitions, world.partitions, self._pace, clock)
        except GenerationRefusedError as refusal:
            self._words = str(refusal)
            self._end(code_of(refusal))
        except (StoreUnavailableError, SourceLogUnavailableError):
            self._end(CRASHED)

    async def _hear(self, worker: Worker) -> None:
        """The end of its input is its end; whoever was killed has no pipes any more."""
        while self._has_input and not self._parent.is_dead:  # noqa: ASYNC110  nobody tells that a process died
            await asyncio.sleep(_HEARS_EVERY_S)
        await asyncio.to_thread(worker.leave)
        self._end(DONE)

    def _end(self, code: int) -> None:
        self._code = code
        self._world.note(f"ends with {code}")
        self._world.loop.kill(self._process)


class Seen(Bounded):
    """As the checks see it: I9, whoever starts again goes on exactly where the generation stands."""

    def __init__(self, world: World, process: Process, worker: Worker, order: Order) -> None:
        super().__init__(worker, order.until)
        self._world, self._process, self._watched, self._order = world, process, worker, order
        self._era = world.era
        self._began = {each: self._stands(each) for each in order.partitions}
        self.fetches = 0

    def process(self, fetch: Fetch) -> Mapping[int, Verdict]:
        """See `Bounded.process`."""
        self.fetches += 1
        for each in fetch.batches:
            began = self._began.pop(each.partition, None)
            now = self._stands(each.partition)
            is_ours = self._watched.generation == self._order.generation and self._era == self._world.era
            if is_ours and began is not None and now is not None and not began <= each.first_offset <= now:
                self._world.history.broken(
                    "I9",
                    f"{self._process.name} begins p{each.partition} at {each.first_offset}, and it stood at {began}..{now}",
                )
        return super().process(fetch)

    def _stands(self, partition: int) -> int | None:
        held = self._world.server.content_now.hashes.get(GenerationKeys(self._order.generation, partition).offset)
        return None if held is None else int(held[b"offset"])
