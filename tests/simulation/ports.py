"""The ports as a process has them: each call takes time, may fail before or after it took effect, and ends with its process."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Final, TypeVar

from schemas.codec import decode
from schemas.events import RelayProgress
from services.medication_list.generations import GenerationState, record_of
from services.medication_list.log.record import Record
from services.medication_list.log.record_log import LogLookupError
from services.medication_list.log.source_log import PROGRESS_TOPIC, LogIdentity, SourceLogUnavailableError
from services.medication_list.store.inventory import Compared, Memory, PatientPlace
from services.medication_list.store.keys import GenerationKeys, PartitionKeys
from services.medication_list.store.memory_inventory import MemoryInventory
from services.medication_list.store.memory_outbox import MemoryOutbox
from services.medication_list.store.memory_roles import MemoryRoles
from services.medication_list.store.memory_store import MemoryStore
from services.medication_list.store.memory_views import MemoryViews
from services.medication_list.store.port import (
    PartitionWrite,
    PatientRewrite,
    Refused,
    Snapshot,
    Standing,
    StoreUnavailableError,
    ViewLostError,
    Wanted,
    WholePatient,
    Written,
)
from services.medication_list.store.reading import Asked, Looked
from services.medication_list.store.roles import Attending, Beginning, Pointer, Role
from services.medication_list.store.waiting import Unsent, WaitingEntry
from services.publishing.log import LogRecord, LogUnavailable, Position
from services.topics.registry import EVENTS_TOPIC
from tests.simulation.broker import IDENTITY
from tests.simulation.loop import Process
from tests.simulation.world import Server, World

T = TypeVar("T")
STORE_TIMEOUT_S: Final = 2.0


class StoreLink:
    """One process's connection to the store's server."""

    def __init__(self, world: World, process: Process) -> None:
        self.world = world
        self.server: Server = world.server
        self._process = process

    def call(self, name: str, carry_out: Callable[[], T], *, writes: bool = False, partition: int | None = None) -> T:
        """One call: on its way, carried out at one moment, and answered."""
        world, mishaps = self.world, self.world.store
        world.loop.pause(world.delay_s(mishaps))
        self.refuse(name, writes=writes)
        if self._roll(mishaps.fails_before):
            world.note(f"store.{name} fails before")
            raise StoreUnavailableError("the store did not hear")
        answer = carry_out()
        if writes:
            for check in world.after_store:
                check(name, partition)
        is_lost = self._roll(mishaps.fails_after)
        world.loop.pause(world.delay_s(mishaps))
        if is_lost or not self.server.is_available:
            world.note(f"store.{name} reply lost")
            raise StoreUnavailableError("the reply was lost")
        return answer

    def refuse(self, name: str, *, writes: bool) -> None:
        """Raise what a server that is away, or full, gives cause for."""
        if not self.server.is_available:
            self.world.loop.pause(0.05 if self.world.dice.random() < 0.5 else STORE_TIMEOUT_S)
            raise StoreUnavailableError("the store is away")
        if writes and self.server.is_full:
            raise StoreUnavailableError(f"the store is full: {name}")

    def _roll(self, share: float) -> bool:
        return not self.world.store.are_over and self.world.dice.random() < share


class SimulatedStore:
    """A generation through a link: the partitions of one call are asked one after the other, as in a pipeline."""

    def __init__(self, link: StoreLink, generation: str) -> None:
        self._link = link
        self.generation = generation
        self.inner = MemoryStore(link.server, generation)

    def next_offsets(self, partitions: Collection[int]) -> Mapping[int, int]:
        """See `Store.next_offsets`."""
        found: dict[int, int] = {}
        for each in partitions:
            found |= self._link.call("next_offsets", lambda each=each: self.inner.next_offsets([each]))  # type: ignore[misc]
        return found

    def standing(self, partitions: Collection[int]) -> Mapping[int, Standing]:
        """See `Store.standing`."""
        found: dict[int, Standing] = {}
        for each in partitions:
            found |= self._link.call("standing", lambda each=each: self.inner.standing([each]))  # type: ignore[misc]
        return found

    def read(self, requests: Mapping[int, Sequence[Wanted]]) -> Mapping[int, Snapshot]:
        """See `Store.read`. A store that is full begins no transaction."""
        found: dict[int, Snapshot] = {}
        for each, wanted in requests.items():
            self._link.refuse("read", writes=True)
            found |= self._link.call("read", lambda each=each, wanted=wanted: self.inner.read({each: wanted}))  # type: ignore[misc]
            self._link.world.read_now[:] = [each.patient for each in wanted]
        self._link.world.linger()
        return found

    def read_whole(self, partition: int, patient: str, *, with_index: bool = False) -> WholePatient:
        """See `Store.read_whole`."""
        whole = self._link.call("read_whole", lambda: self.inner.read_whole(partition, patient, with_index=with_index))
        self._link.world.linger()
        return whole

    def parked(self, partition: int) -> Mapping[int, bytes]:
        """See `Store.parked`."""
        return self._link.call("parked", lambda: self.inner.parked(partition))

    def rewrite(self, rewrite: PatientRewrite) -> Written | Refused:
        """See `Store.rewrite`."""
        answer = self._link.call("rewrite", partial(self._rewritten, rewrite), writes=True, partition=rewrite.partition)
        self._link.world.note(f"rewrite p{rewrite.partition} {_told(answer)}")
        return answer

    def _rewritten(self, rewrite: PatientRewrite) -> Written | Refused:
        keys = GenerationKeys(self.generation, rewrite.partition)
        before = dict(self._link.server.content_now.hashes.get(keys.events_key(rewrite.patient), {}))
        answer = self.inner.rewrite(rewrite)
        if isinstance(answer, Written):
            self._link.world.on_rewrite(self.generation, rewrite.partition, rewrite.patient, before)
        return answer

    def note_parked(self, partition: int, epoch: int, notes: Mapping[int, bytes]) -> Written | Refused:
        """See `Store.note_parked`."""
        return self._link.call(
            "note_parked", lambda: self.inner.note_parked(partition, epoch, notes), writes=True, partition=partition
        )

    def write(self, writes: Sequence[PartitionWrite]) -> Mapping[int, Written | Refused]:
        """See `Store.write`: one partition's write may stand where the next one's is lost."""
        answers: dict[int, Written | Refused] = {}
        lost: ViewLostError | None = None
        for each in writes:
            try:
                alone = partial(self._written, each)
                answers |= self._link.call("write", alone, writes=True, partition=each.partition)
            except ViewLostError as error:
                lost = error
                continue
            span = f"{each.expected_offset}->{each.next_offset}"
            self._link.world.note(f"write p{each.partition} {span} {_told(answers[each.partition])}")
        if lost is not None:
            raise lost
        return answers

    def _written(self, write: PartitionWrite) -> Mapping[int, Written | Refused]:
        """I10: what is not live sends nothing out."""
        content, keys = self._link.server.content_now, PartitionKeys(write.partition)
        live = content.hashes.get(keys.role, {}).get(b"live", b"").decode()
        waiting = len(content.outboxes.get(keys.outbox, ()))
        answer = self.inner.write([write])
        if self.generation != live and len(content.outboxes.get(keys.outbox, ())) != waiting:
            self._link.world.history.broken("I10", f"{self.generation} sent effects, and {live} is live")
        return answer


def _told(answer: Written | Refused) -> str:
    if isinstance(answer, Written):
        return "ok"
    return f"refused({answer.why.value}, stands at {answer.offset}/{answer.epoch})"


class SimulatedRoles:
    """Roles and pointer through a link."""

    def __init__(self, link: StoreLink) -> None:
        self._link = link
        self._inner = MemoryRoles(link.server)

    def roles(self, partitions: Collection[int]) -> Mapping[int, Role | None]:
        """See `Roles.roles`."""
        found: dict[int, Role | None] = {}
        for each in partitions:
            found |= self._link.call("roles", lambda each=each: self._inner.roles([each]))  # type: ignore[misc]
        return found

    def offsets(self, generation: str, partitions: Collection[int]) -> Mapping[int, int | None]:
        """See `Roles.offsets`."""
        found: dict[int, int | None] = {}
        for each in partitions:
            found |= self._link.call("offsets", lambda each=each: self._inner.offsets(generation, [each]))  # type: ignore[misc]
        return found

    def begin(self, beginnings: Mapping[int, Beginning]) -> Collection[int]:
        """See `Roles.begin`."""
        refused: list[int] = []
        for each, beginning in beginnings.items():
            alone = partial(self._inner.begin, {each: beginning})
            refused += self._link.call("begin", alone, writes=True, partition=each)
        return refused

    def turn(self, partition: int, seen: Role, shall: Role) -> bool:
        """See `Roles.turn`."""
        turned = self._link.call(
            "turn", lambda: self._inner.turn(partition, seen, shall), writes=True, partition=partition
        )
        self._link.world.note(f"turn p{partition} {seen.state.value}->{shall.state.value} {turned}")
        return turned

    def pointer(self) -> Pointer | None:
        """See `Roles.pointer`."""
        return self._link.call("pointer", self._inner.pointer)

    def point(self, seen: Pointer | None, shall: Pointer) -> bool:
        """See `Roles.point`."""
        pointed = self._link.call("point", lambda: self._pointed(seen, shall), writes=True)
        self._link.world.note(f"point {shall.generation}/{shall.epoch} {shall.token[:9]} {pointed}")
        return pointed

    def _pointed(self, seen: Pointer | None, shall: Pointer) -> bool:
        before = self._inner.pointer()
        pointed = self._inner.point(seen, shall)
        if pointed and before is not None:
            for name in sorted(before.records.keys() & shall.records.keys()):
                states = record_of(before, name).state, record_of(shall, name).state
                if states == (GenerationState.FILLING, GenerationState.WHOLE):
                    self._link.world.on_whole(name)
        return pointed

    def attend(self, generation: str, worker: Attending, for_ms: int) -> None:
        """See `Roles.attend`."""
        self._link.call("attend", lambda: self._inner.attend(generation, worker, for_ms), writes=True)

    def attending(self, generation: str) -> Collection[Attending]:
        """See `Roles.attending`."""
        return self._link.call("attending", lambda: self._inner.attending(generation))

    def keeps_everything(self) -> bool:
        """See `Roles.keeps_everything`."""
        return self._link.call("keeps_everything", self._inner.keeps_everything)


class SimulatedInventory:
    """What operators ask of generations, through a link."""

    def __init__(self, link: StoreLink) -> None:
        self._link = link
        self._inner = MemoryInventory(link.server)

    def memory(self) -> Memory:
        """See `Inventory.memory`."""
        return self._link.call("memory", self._inner.memory)

    def sizes(self, sample: int) -> Mapping[str, int]:
        """See `Inventory.sizes`."""
        return self._link.call("sizes", lambda: self._inner.sizes(sample))

    def patients(self, cursor: int, at_most: int) -> tuple[int, Collection[PatientPlace]]:
        """See `Inventory.patients`."""
        return self._link.call("patients", lambda: self._inner.patients(cursor, at_most))

    def strangers(self, partition: int, generation: str, patients: Sequence[str]) -> Collection[str]:
        """See `Inventory.strangers`."""
        return self._link.call("strangers", lambda: self._inner.strangers(partition, generation, patients))

    def compare(self, partition: int, one: str, other: str, patients: Sequence[str]) -> Compared:
        """See `Inventory.compare`."""
        return self._link.call("compare", lambda: self._inner.compare(partition, one, other, patients))

    def differing_notes(self, partition: int, one: str, other: str) -> Collection[tuple[str, str]]:
        """See `Inventory.differing_notes`."""
        return self._link.call("differing_notes", lambda: self._inner.differing_notes(partition, one, other))

    def forget(self, partition: int, generation: str) -> bool:
        """See `Inventory.forget`."""
        gone = lambda: self._inner.forget(partition, generation)  # noqa: E731 - named for the line
        return self._link.call("forget", gone, writes=True, partition=partition)

    def sweep(self, generation: str, cursor: int, at_most: int) -> tuple[int, int]:
        """See `Inventory.sweep`."""
        return self._link.call("sweep", lambda: self._inner.sweep(generation, cursor, at_most), writes=True)


class SimulatedOutbox:
    """The outboxes through a link, with leases that run out."""

    def __init__(self, link: StoreLink) -> None:
        self._link = link
        self._inner = MemoryOutbox(link.server)

    def lease(self, partitions: Collection[int], owner: str, for_ms: int) -> Collection[int]:
        """See `Outbox.lease`."""
        return [
            each
            for each in partitions
            if self._link.call("lease", partial(self._leased, each, owner, for_ms), writes=True)
        ]

    def _leased(self, partition: int, owner: str, for_ms: int) -> bool:
        server = self._link.server
        if self._owner(partition) not in (None, owner):
            return False
        server.leases[partition] = owner, server.now_s() + for_ms / 1000
        return True

    def _owner(self, partition: int) -> str | None:
        owner, until_s = self._link.server.leases.get(partition, (None, 0.0))
        return owner if until_s > self._link.server.now_s() else None

    def waiting(self, after: Mapping[int, str], at_most: int, wait_ms: int) -> Mapping[int, Sequence[WaitingEntry]]:
        """See `Outbox.waiting`."""
        look = lambda: self._inner.waiting(after, at_most, 0)  # noqa: E731 - said twice
        found = self._link.call("waiting", look)
        if found or not after:
            return found
        self._link.world.loop.pause(wait_ms / 1000)
        return self._link.call("waiting", look)

    def relayed(self, partition: int, owner: str, entry_ids: Sequence[str]) -> bool:
        """See `Outbox.relayed`."""

        def delete() -> bool:
            if self._owner(partition) != owner:
                return False
            self._inner.lease([partition], "whoever", 1)
            return self._inner.relayed(partition, "whoever", entry_ids)

        gone = self._link.call("relayed", delete, writes=True)
        self._link.world.note(f"relayed p{partition} {len(entry_ids)} {gone}")
        return gone

    def unsent(self, asked: Mapping[int, str | None], at_most: int) -> Mapping[int, Unsent]:
        """See `Outbox.unsent`."""
        found: dict[int, Unsent] = {}
        for each, entry_id in asked.items():
            alone = partial(self._inner.unsent, {each: entry_id}, at_most)
            found |= self._link.call("unsent", alone)
        return found


class SimulatedViews:
    """Where readers look, through a link: they await instead of blocking."""

    def __init__(self, link: StoreLink) -> None:
        self._link = link
        self._inner = MemoryViews(link.server)

    async def look(self, asked: Sequence[Asked]) -> list[Looked]:
        """See `Views.look`."""
        world, mishaps = self._link.world, self._link.world.store
        await asyncio.sleep(world.delay_s(mishaps))
        looked: list[Looked] = []
        for each in asked:
            is_lost = not mishaps.are_over and world.dice.random() < mishaps.fails_before
            if is_lost or not self._link.server.is_available:
                raise StoreUnavailableError("the store is away")
            looked += await self._inner.look([each])
            if len(asked) > 1:
                await asyncio.sleep(0.0005 * world.dice.random())
        await asyncio.sleep(world.delay_s(mishaps))
        return looked

    async def announcements(self, partitions: Collection[int]) -> AsyncGenerator[tuple[int, int] | None, None]:
        """See `Views.announcements`. A connection breaks now and then, and what is announced meanwhile is not heard."""
        world = self._link.world
        async for heard in self._inner.announcements(partitions):
            if not world.store.are_over and world.dice.random() < world.store.fails_after:
                raise StoreUnavailableError("the connection broke")
            yield heard

    async def close(self) -> None:
        """See `Views.close`."""


class SimulatedLog:
    """The log to a writer: a record may lie there though its ack was lost."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def append(self, topic: str, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> Position:
        """See `Log.append`."""
        (answer,) = await self.append_many([LogRecord(topic, key, value, headers)])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def append_many(self, records: Sequence[LogRecord]) -> Sequence[Position | Exception]:
        """See `Log.append_many`. After a record that did not get through, none of its partition does: they are numbered."""
        world, mishaps = self._world, self._world.log
        await asyncio.sleep(world.delay_s(mishaps))
        answers: list[Position | Exception] = []
        broken: set[str] = set()
        for topic, key, value, headers in records:
            if not world.broker.is_available:
                await asyncio.sleep(0.1 + 0.4 * world.dice.random())
            if topic in broken or not world.broker.is_available or self._roll(mishaps.fails_before):
                broken.add(topic)
                answers.append(LogUnavailable("the log did not take the record"))
                continue
            stored = world.broker.append(topic, key, value, headers)
            await asyncio.sleep(world.delay_s(mishaps) / 4)
            if self._roll(mishaps.fails_after):
                world.note(f"ack of {topic}/{stored.partition}/{stored.offset} lost")
                answers.append(LogUnavailable("the ack was lost"))
            else:
                answers.append(Position(stored.partition, stored.offset, stored.timestamp))
        await asyncio.sleep(world.delay_s(mishaps))
        return answers

    async def close(self) -> None:
        """See `Log.close`."""

    def _roll(self, share: float) -> bool:
        return not self._world.log.are_over and self._world.dice.random() < share


class SimulatedSourceLog:
    """The log as those see it who begin or switch a generation."""

    def __init__(self, world: World) -> None:
        self._world = world

    def identity(self) -> LogIdentity:
        """See `SourceLog.identity`."""
        self._ask()
        return IDENTITY

    def ends(self) -> Mapping[int, int]:
        """See `SourceLog.ends`."""
        self._ask()
        ends = self._world.broker.ends
        return {each: ends[EVENTS_TOPIC, each] for each in range(self._world.partitions)}

    def relayed(self) -> Mapping[int, RelayProgress]:
        """See `SourceLog.relayed`."""
        self._ask()
        found: dict[int, RelayProgress] = {}
        for place in range(self._world.partitions):
            for record in self._world.broker.records[PROGRESS_TOPIC, place]:
                assert record.value is not None
                progress = decode(record.value)
                assert isinstance(progress, RelayProgress)
                found[progress.partition] = progress
        return found

    def _ask(self) -> None:
        ask_broker(self._world, SourceLogUnavailableError)


class SimulatedRecordLog:
    """Single records of the log."""

    def __init__(self, world: World) -> None:
        self._world = world

    def read(self, partition: int, offsets: Collection[int]) -> Mapping[int, Record]:
        """See `RecordLog.read`."""
        ask_broker(self._world, LogLookupError)
        wanted = set(offsets)
        return {r.offset: r for r in self._world.broker.records[EVENTS_TOPIC, partition] if r.offset in wanted}

    def close(self) -> None:
        """See `RecordLog.close`."""


def ask_broker(world: World, error: type[Exception]) -> None:
    """A question to the broker that blocks; raises the error when it does not answer."""
    world.loop.pause(world.delay_s(world.log))
    if not world.broker.is_available or (not world.log.are_over and world.dice.random() < world.log.fails_before):
        raise error("the broker does not answer")


async def log_ends(world: World) -> Mapping[int, int]:
    """Where the log ends, for a reader. Raises SourceLogUnavailableError."""
    return await asyncio.to_thread(SimulatedSourceLog(world).ends)
