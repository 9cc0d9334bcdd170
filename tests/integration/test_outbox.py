"""The relay: nothing lost, nothing out of order for a receiver, nothing opened for anyone but the pharmacy."""

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
from kafka import KafkaConsumer, TopicPartition
from structlog.testing import capture_logs

from schemas.codec import decode, encode
from schemas.events import DispenseOrder, Event, Notice, PrescriptionIssued, RelayProgress
from schemas.reasons import NoticeKind
from services.clock import ManualClock, SystemClock
from services.identity.national_id import NationalId
from services.identity.sealing import SealedIdentityContent, Sealer
from services.medication_list.fold.judgement import NoticeDue, OrderDue, ReceiptDue
from services.medication_list.fold.state import Allergies
from services.medication_list.log.source_log import KafkaSourceLog, SourceLogUnavailableError
from services.medication_list.relay.party_topics import KafkaPartyTopics, MemoryPartyTopics
from services.medication_list.relay.relay import LEASE_MS, Relay
from services.medication_list.store.link import Link
from services.medication_list.store.memory_outbox import MemoryOutbox
from services.medication_list.store.memory_roles import MemoryRoles
from services.medication_list.store.memory_server import MemoryServer
from services.medication_list.store.memory_store import MemoryStore
from services.medication_list.store.port import PartitionWrite, StoreUnavailableError
from services.medication_list.store.redis_outbox import RedisOutbox
from services.medication_list.store.redis_roles import RedisRoles
from services.medication_list.store.redis_store import RedisStore
from services.medication_list.store.roles import Beginning
from services.medication_list.stored.effects import effect_id_of
from services.medication_list.stored.packing import pack_effect
from services.publishing.kafka_access import KafkaAccess
from services.publishing.kafka_log import KafkaLog
from services.publishing.log import Headers, LogUnavailable, Position, RecordTooLarge, TopicRefused
from services.publishing.memory_log import MemoryLog
from services.topics.registry import load

G1 = "g1-aaaaaa"
PHARMACY, CLINIC, DEAD = "313000028", "313000044", "313000052"
ORDERS, NOTICES, TO_DEAD = f"dispense-orders.{PHARMACY}", f"notices.{CLINIC}", f"notices.{DEAD}"
ANNA = "a" * 32
SEALER = Sealer(b"k" * 32)
GOLDEN = Path(__file__).parents[2] / "schemas" / "golden"


class FickleLog(MemoryLog):
    """A log that takes nothing for some topics, loses some acks, and remembers in which order it was asked."""

    def __init__(self) -> None:
        super().__init__(load().partitions, ManualClock(0))
        self.refuses: dict[str, Exception] = {}
        self.loses_acks: set[bytes] = set()

    async def append(self, topic: str, key: bytes, value: bytes, headers: Headers = ()) -> Position:
        """Append, unless this topic refuses. `append_many` comes by here too."""
        if topic in self.refuses:
            raise self.refuses[topic]
        position = await super().append(topic, key, value, headers)
        if key in self.loses_acks:
            raise LogUnavailable("the ack was lost")
        return position

    def keys(self, topic: str) -> list[str]:
        """The keys in a topic, by partition and offset."""
        return [record.key.decode() for record in self.records(topic)]


class Place:
    """A store in memory with one partition, its outbox, and relays on it."""

    def __init__(self) -> None:
        self.server = MemoryServer()
        MemoryRoles(self.server).begin({0: Beginning(G1, 1, 0, 0)})
        self.store = MemoryStore(self.server, G1)
        self.outbox = MemoryOutbox(self.server)
        self.log = FickleLog()
        self.topics = MemoryPartyTopics({ORDERS, NOTICES, TO_DEAD}, systems={"journal"})
        self.clock = ManualClock(1_700_000_000_000)

    def relay(self) -> Relay:
        """Another relay on the same outbox."""
        return Relay(self.outbox, self.log, self.topics, SEALER, self.clock, 1, self.relayed)

    def relayed(self) -> Mapping[int, RelayProgress]:
        """The progress that is in the log."""
        return {each.partition: each for each in self.progress()}

    def wait(self, *effects: bytes) -> None:
        """Put effects into the outbox."""
        start = self.store.next_offsets([0])[0]
        self.store.write([PartitionWrite(0, start, 0, start + 1, [], effects)])

    async def relay_until(self, is_so: Callable[[], bool], relay: Relay, within_ms: int) -> None:
        """Rounds of that relay, by the place's clock."""
        deadline_ms = self.clock.monotonic_ms() + within_ms
        while not is_so():
            assert self.clock.monotonic_ms() < deadline_ms
            await relay.step()
            self.clock.advance(10)

    def progress(self) -> list[RelayProgress]:
        """Every progress record, oldest first."""
        return [decode(record.value) for record in self.log.records("relay-progress")]

    def left(self) -> int:
        """How many effects wait."""
        return len(self.server.content().get("{0}:outbox", []))


def notice(source_offset: int, name: str, recipient: str = CLINIC) -> bytes:
    """A notice about the prescription of that name, which is the key of its record."""
    return pack_effect(source_offset, ANNA, void(name, recipient))


def void(name: str, recipient: str = CLINIC) -> NoticeDue:
    return NoticeDue(NoticeKind.ORDER_VOID, recipient, f"event-{name}", 1_700_000_000_000, name)


def receipt(source_offset: int, message_id: str, system: str) -> bytes:
    return pack_effect(source_offset, ANNA, ReceiptDue(system, message_id, f"event-{message_id}", "applied"))


def order(whose: str = ANNA, **other: Any) -> bytes:
    """An order of a prescription that was signed with Anna's identity sealed."""
    return pack_effect(3, whose, msgspec.structs.replace(order_due(), **other))


def order_due() -> OrderDue:
    golden: Event[PrescriptionIssued] = decode(min(GOLDEN.glob("PrescriptionIssued/1/*.bin")).read_bytes())
    inside = SealedIdentityContent(NationalId.parse("13926900018"), "Åse Nordmann")
    body = msgspec.structs.replace(golden.body, identity=SEALER.seal(inside, ANNA))
    signed = encode(msgspec.structs.replace(golden, body=body))
    return OrderDue(
        "dispatch", body.prescription, PHARMACY, "pick_up", "event", 1_700_000_000_000, signed, None, Allergies()
    )


async def test_what_waits_is_sent_noted_and_deleted_in_order() -> None:
    place = Place()
    place.wait(notice(5, "a"), notice(5, "b"))
    place.wait(notice(9, "c"))
    assert await place.relay().step() == 3
    assert place.log.keys(NOTICES) == ["a", "b", "c"]
    assert place.progress() == [RelayProgress(partition=0, source_offset=9, effect_id=effect_id_of(void("c")))]
    assert place.left() == 0
    first = place.log.records(NOTICES)[0]
    sent: Notice = decode(first.value)
    assert (sent.effect_id, sent.source_event, sent.source_offset) == (effect_id_of(void("a")), "event-a", 5)
    headers = dict(first.headers)
    assert (headers["ce_id"], headers["ce_type"]) == (sent.effect_id.encode(), b"Notice")


async def test_an_order_is_opened_for_its_own_pharmacy_alone() -> None:
    place = Place()
    place.wait(order())
    await place.relay().step()
    sent: DispenseOrder = decode(place.log.records(ORDERS)[0].value)
    assert sent.identity is not None
    assert json.loads(sent.identity) == {"national_id": "13926900018", "name": "Åse Nordmann"}
    assert sent.issued.identity is None


class FaultySealer(Sealer):
    """One with a fault of ours."""

    def open(self, sealed: bytes, patient: str) -> SealedIdentityContent:  # noqa: ARG002  it comes to nothing
        """Fails, in words that must reach no log."""
        raise KeyError(f"{patient}: 13926900018")


@pytest.mark.parametrize(
    ("wrong", "sealer", "told"),
    [
        pytest.param(order(whose="b" * 32), SEALER, ("seal_broken",), id="sealed for another patient"),
        pytest.param(
            order(signed=b"no prescription"),
            SEALER,
            ("unreadable_prescription",),
            id="a prescription that cannot be read",
        ),
        pytest.param(
            order(bound_at_ms=2**63), SEALER, ("not_in_contract",), id="an instant that the contract cannot hold"
        ),
        pytest.param(order(), FaultySealer(b"k" * 32), ("not_made", "KeyError"), id="a fault of ours"),
    ],
)
async def test_an_order_that_cannot_be_made_is_held_the_alarm_says_why_and_the_others_go(
    wrong: bytes, sealer: Sealer, told: tuple[str, ...]
) -> None:
    place = Place()
    place.wait(wrong, notice(4, "next"))
    relay = Relay(place.outbox, place.log, place.topics, sealer, place.clock, 1, place.relayed)
    with capture_logs() as lines:
        await relay.step()
    assert place.log.keys(ORDERS) == []
    assert place.log.keys(NOTICES) == ["next"]
    assert place.left() == 1
    (line,) = (each for each in lines if each["event"] == "effect_held")
    assert (line["reason"], *([line["error_type"]] if "error_type" in line else [])) == told
    assert "13926900018" not in str(line)


def test_the_outbox_names_the_patient_only_where_an_identity_is_to_be_opened() -> None:
    assert ANNA.encode() in order()
    assert ANNA.encode() not in notice(1, "a")
    assert ANNA.encode() not in receipt(1, "a", "journal")


async def test_a_missing_topic_holds_up_its_own_effects_only_and_in_order() -> None:
    place = Place()
    missing = "notices.313000036"
    place.wait(notice(1, "a"), notice(2, "x", "313000036"), notice(3, "b"), notice(4, "y", "313000036"))
    relay = place.relay()
    assert await relay.step() == 2
    assert place.log.keys(NOTICES) == ["a", "b"]
    # After a loss everything from here on would be sent again: what waits must not be forgotten.
    assert [each.source_offset for each in place.progress()] == [1]
    place.wait(notice(5, "c"))
    assert await relay.step() == 1
    assert [each.source_offset for each in place.progress()] == [1]
    place.topics.there.add(missing)
    place.wait(notice(6, "z", "313000036"))
    place.clock.advance(10_000)
    assert await relay.step() == 3
    assert place.log.keys(missing) == ["x", "y", "z"]
    assert place.progress()[-1].source_offset == 6
    assert place.left() == 0


class SlowCluster(KafkaPartyTopics):
    """A cluster that takes its time to name its topics."""

    def __init__(self, clock: ManualClock, takes_ms: int, there: set[str]) -> None:
        super().__init__(KafkaAccess("127.0.0.1:1"), load(), create_missing=False)
        self.clock, self.takes_ms, self.there, self.lists = clock, takes_ms, there, 0

    def _list(self) -> set[str]:
        self.lists += 1
        self.clock.advance(self.takes_ms)
        return set(self.there)


@pytest.mark.parametrize("takes_ms", [50, 11_000])
async def test_however_many_topics_are_missing_one_list_tells_and_what_can_be_sent_goes_out(takes_ms: int) -> None:
    place = Place()
    place.server.now_ms = place.clock.monotonic_ms
    topics = SlowCluster(place.clock, takes_ms, {NOTICES})
    relay = Relay(place.outbox, place.log, topics, SEALER, place.clock, 1, place.relayed)
    place.wait(*(notice(each, f"{each}", f"{400_000_000 + each}") for each in range(240)))
    for each in range(10):
        place.wait(notice(300 + each, f"{each}"))
        await place.relay_until(lambda: place.left() == 240, relay, within_ms=2 * takes_ms + 100)
        place.clock.advance(5_000)
    assert sorted(place.log.keys(NOTICES)) == [f"{each}" for each in range(10)]
    assert topics.lists <= 10
    came = "notices.400000007"
    topics.there.add(came)
    await place.relay_until(lambda: place.log.keys(came) == ["7"], relay, within_ms=10_000 + takes_ms + 100)


async def test_a_topic_that_nobody_asked_for_before_is_looked_for_at_once() -> None:
    place = Place()
    topics = SlowCluster(place.clock, 100, {NOTICES})
    relay = Relay(place.outbox, place.log, topics, SEALER, place.clock, 1, place.relayed)
    place.wait(notice(1, "a"))
    assert await relay.step() == 1
    topics.there.add("submission-receipts.new-journal")
    place.wait(receipt(2, "first", "new-journal"), notice(3, "b", "313000036"))
    assert await relay.step() == 1
    assert place.log.keys("submission-receipts.new-journal") == ["first"]
    assert topics.lists == 2


async def test_what_was_held_for_another_reason_is_tried_again_later() -> None:
    place = Place()
    place.log.refuses = {NOTICES: RecordTooLarge("too large")}
    place.wait(notice(1, "a"))
    relay = place.relay()
    assert await relay.step() == 0
    place.log.refuses = {}
    for _ in range(149):
        place.clock.advance(2_000)
        assert await relay.step() == 0
    place.clock.advance(2_000)
    assert await relay.step() == 1


async def test_receipts_go_to_listed_systems_and_wait_for_their_topic() -> None:
    place = Place()
    place.wait(receipt(1, "http", "web-only"), receipt(2, "waits", "journal"))
    await place.relay().step()
    assert place.left() == 1
    assert place.log.keys("submission-receipts.web-only") == []
    place.topics.there.add("submission-receipts.journal")
    await place.relay().step()  # another relay does not get the lease
    assert place.left() == 1
    place.outbox.release()
    await place.relay().step()
    assert place.log.keys("submission-receipts.journal") == ["waits"]


async def test_a_lost_ack_sends_again_and_nothing_later_is_left_without_what_came_before() -> None:
    place = Place()
    place.wait(notice(1, "a"), notice(2, "b"), notice(3, "c"))
    place.log.loses_acks = {b"b"}
    assert await place.relay().step() == 1
    assert place.left() == 2
    assert [each.source_offset for each in place.progress()] == [1]
    place.log.loses_acks = set()
    place.outbox.release()
    assert await place.relay().step() == 2
    assert place.log.keys(NOTICES) == ["a", "b", "c", "b", "c"]


async def test_an_effect_that_the_log_never_takes_is_held_and_the_others_go() -> None:
    place = Place()
    place.log.refuses = {ORDERS: RecordTooLarge("too large")}
    place.wait(order(), notice(4, "a"))
    relay = place.relay()
    await relay.step()
    await relay.step()
    assert place.log.keys(NOTICES) == ["a"]
    assert place.left() == 1


async def test_a_topic_that_is_not_confirmed_rests_with_all_behind_it_while_the_others_go_and_no_lease_is_lost() -> (
    None
):
    place = Place()
    place.server.now_ms = place.clock.monotonic_ms
    place.log.refuses = {TO_DEAD: LogUnavailable("no leader")}
    place.wait(notice(1, "a"), notice(2, "x", DEAD), notice(3, "b"), notice(4, "y", DEAD))
    relay = place.relay()
    assert await relay.step() == 2
    place.log.refuses = {}
    place.wait(notice(5, "z", DEAD), notice(6, "c"))
    assert await relay.step() == 1
    assert (place.log.keys(NOTICES), place.log.keys(TO_DEAD)) == (["a", "b", "c"], [])
    assert [each.source_offset for each in place.progress()] == [1]
    assert place.outbox.lease([0], "another", 1) == []
    place.clock.advance(2_000)
    assert await relay.step() == 3
    assert sorted(place.log.keys(TO_DEAD)) == ["x", "y", "z"]
    assert place.left() == 0


async def test_hundreds_for_a_dead_topic_at_the_head_of_the_outbox_stop_nobody_behind_them() -> None:
    place = Place()
    place.server.now_ms = place.clock.monotonic_ms
    place.log.refuses = {TO_DEAD: LogUnavailable("no leader")}
    place.wait(*(notice(1, f"x{each}", DEAD) for each in range(600)), notice(2, "a"))
    relay, pauses = place.relay(), 0

    async def sleep(seconds: float) -> None:
        nonlocal pauses
        pauses += 1
        place.clock.advance(round(seconds * 1000))
        await asyncio.sleep(0)

    running = asyncio.create_task(relay.run(sleep))
    async with asyncio.timeout(20):
        for number in range(20):
            place.wait(notice(3 + number, f"b{number}"))
            while len(place.log.keys(NOTICES)) < number + 2:  # noqa: ASYNC110  the relay has no event to wait for
                await asyncio.sleep(0.001)
            place.clock.advance(1_000)
        assert await relay.check() == ()
        place.log.refuses = {}
        while place.left():
            place.clock.advance(1_000)
            await asyncio.sleep(0.001)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert pauses == 1  # the round in which nothing else told the topic from the log
    assert sorted(place.log.keys(NOTICES)) == sorted(["a", *(f"b{number}" for number in range(20))])
    sent = [[int(each.key[1:]) for each in place.log.records(TO_DEAD, at)] for at in range(load().partitions(TO_DEAD))]
    assert all(each == sorted(each) for each in sent)
    assert sorted(number for each in sent for number in each) == list(range(600))


async def test_a_topic_that_the_log_refuses_by_name_is_held_with_an_alarm_though_nothing_else_waits() -> None:
    place = Place()
    refused = TopicRefused("no right")
    refused.__cause__ = PermissionError()
    place.log.refuses = {NOTICES: refused}
    place.wait(notice(1, "a"))
    relay = place.relay()
    with capture_logs() as lines:
        assert await relay.step() == 0
    (line,) = (each for each in lines if each["event"] == "effect_held")
    assert (line["topic"], line["reason"], line["error_type"]) == (NOTICES, "topic_refused", "PermissionError")
    place.log.refuses = {}
    place.clock.advance(2_000)
    assert await relay.step() == 1


async def test_after_an_outage_of_the_log_everything_goes_at_once() -> None:
    place = Place()
    place.wait(notice(1, "a"), notice(2, "x", DEAD))
    relay = place.relay()
    place.log.is_available = False
    for _ in range(3):
        with pytest.raises(LogUnavailable):
            await rounds_until_it_fails(relay)
    place.log.is_available = True
    await place.relay_until(lambda: place.left() == 0, relay, within_ms=100)
    assert (place.log.keys(NOTICES), place.log.keys(TO_DEAD)) == (["a"], ["x"])


async def rounds_until_it_fails(relay: Relay) -> None:
    """At most three: one that passes over what failed before, and finds that nothing else is there."""
    for _ in range(3):
        await relay.step()


async def test_an_unreadable_entry_stops_nobody() -> None:
    place = Place()
    with place.server.call() as content:
        unknown_kind = msgspec.msgpack.encode([2, None, ["no-such-kind", "x"]])
        entries = [b"not an effect", unknown_kind, notice(2, "a")]
        content.outboxes["{0}:outbox"] = list(enumerate(entries, start=1))
    assert await place.relay().step() == 1
    assert place.log.keys(NOTICES) == ["a"]
    assert place.left() == 2


async def test_progress_does_not_go_back_for_a_correction_of_an_old_event() -> None:
    place = Place()
    place.wait(notice(9, "a"))
    relay = place.relay()
    await relay.step()
    place.wait(notice(2, "correction"))
    await relay.step()
    assert [each.source_offset for each in place.progress()] == [9]
    assert place.left() == 0


async def test_what_another_copy_of_the_store_brings_back_goes_before_what_comes_then() -> None:
    place = Place()
    relay = place.relay()
    place.wait(notice(4, "first"), notice(5, "second"))
    copied = place.server.save()
    await relay.step()
    place.server.roll_back(copied)
    place.wait(notice(6, "third"))
    await relay.step()
    assert place.log.keys(NOTICES) == ["first", "second", "first", "second", "third"]
    assert place.left() == 0


async def test_only_the_holder_of_the_lease_relays_and_another_takes_over() -> None:
    place = Place()
    place.wait(notice(1, "a"))
    first, second = place.relay(), place.relay()
    assert await first.step() == 1
    place.wait(notice(2, "b"))
    assert await second.step() == 0
    place.outbox.release()
    place.clock.advance(LEASE_MS)
    assert await second.step() == 1
    place.wait(notice(3, "c"))
    assert await first.step() == 0
    assert place.log.keys(NOTICES) == ["a", "b"]


async def test_a_relay_that_reaches_the_store_and_not_the_log_leaves_its_leases_to_another() -> None:
    place = Place()
    place.server.now_ms = place.clock.monotonic_ms
    cut_off = FickleLog()
    first = Relay(place.outbox, cut_off, place.topics, SEALER, place.clock, 1, place.relayed)
    second = place.relay()
    assert await first.step() == 0  # nothing waits; it has the lease
    place.wait(notice(1, "a"))
    assert await second.step() == 0
    cut_off.is_available = False
    await run_until_it_pauses(first)
    place.clock.advance(2_001)  # the second one asks for leases each two seconds; the first one's was for twelve
    assert await second.step() == 1
    assert place.log.keys(NOTICES) == ["a"]
    assert cut_off.keys(NOTICES) == []


async def test_a_relay_takes_no_lease_again_before_it_reaches_the_log() -> None:
    place = Place()
    place.server.now_ms = place.clock.monotonic_ms
    place.wait(notice(1, "a"))
    answers: list[Exception] = [SourceLogUnavailableError("the broker does not answer")] * 3

    def relayed() -> Mapping[int, RelayProgress]:
        if answers:
            raise answers.pop()
        return place.relayed()

    relay = Relay(place.outbox, place.log, place.topics, SEALER, place.clock, 1, relayed)
    await run_until_it_pauses(relay)
    place.clock.advance(2)
    for _ in range(2):
        with pytest.raises(SourceLogUnavailableError):
            await relay.step()
        assert place.outbox.lease([0], "another", 1) == [0]
        place.clock.advance(2)
    assert await relay.step() == 1


async def test_a_progress_that_takes_longer_to_read_than_a_lease_lasts_holds_nothing_up() -> None:
    place = Place()
    place.server.now_ms = place.clock.monotonic_ms
    place.wait(notice(1, "a"))

    def relayed() -> Mapping[int, RelayProgress]:
        place.clock.advance(2 * LEASE_MS)
        return place.relayed()

    relay = Relay(place.outbox, place.log, place.topics, SEALER, place.clock, 1, relayed)
    assert await relay.step() == 1
    place.wait(notice(2, "b"))
    assert await relay.step() == 1
    assert place.log.keys(NOTICES) == ["a", "b"]


async def run_until_it_pauses(relay: Relay) -> None:
    """Run a relay until a round has failed."""

    async def end(_: float) -> None:
        raise asyncio.CancelledError

    async with asyncio.timeout(20):
        with pytest.raises(asyncio.CancelledError):
            await relay.run(end)


async def test_nothing_is_sent_when_the_lease_is_about_to_end() -> None:
    place = Place()
    place.wait(notice(1, "a"))
    relay = place.relay()

    class SlowOutbox(MemoryOutbox):
        """One whose reading takes as long as a stopped process."""

        def waiting(self, *args: Any) -> Any:
            place.clock.advance(LEASE_MS - 1_000)
            return super().waiting(*args)

    slow = SlowOutbox(place.server)
    stopped = Relay(slow, place.log, place.topics, SEALER, place.clock, 1, place.relayed)
    assert await stopped.step() == 0
    assert place.log.keys(NOTICES) == []
    assert await relay.step() == 1


async def test_the_loop_outlives_outages_and_says_whether_it_is_ready() -> None:
    place = Place()
    place.wait(notice(1, "a"))
    relay = place.relay()
    pauses: list[float] = []
    place.server.is_available = False

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        assert await relay.check()
        place.server.is_available = len(pauses) >= 3
        place.log.is_available = len(pauses) >= 6
        await asyncio.sleep(0)

    place.log.is_available = False
    running = asyncio.create_task(relay.run(sleep))
    async with asyncio.timeout(20):
        while await relay.check() or place.left():  # noqa: ASYNC110  the relay has no event to wait for
            await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert pauses == [0.1, 0.2, 0.4, 3.0, 3.0, 3.2]
    assert place.log.keys(NOTICES) == ["a"]


@pytest.mark.integration
async def test_on_real_servers_every_effect_arrives_once_in_order_and_progress_is_found_again(
    kafka: str, redis_url: str
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    link, topics = Link(redis_url), load()
    RedisRoles(link).begin({each: Beginning(G1, 1, 0, 0) for each in range(2)})
    store = RedisStore(link, G1)
    log = KafkaLog(KafkaAccess(kafka), topics.partitions)
    source_log = KafkaSourceLog(KafkaAccess(kafka))
    party_topics = KafkaPartyTopics(KafkaAccess(kafka), topics, create_missing=True)
    new = "313000052"
    relay = Relay(RedisOutbox(link), log, party_topics, SEALER, SystemClock(), 2, source_log.relayed)
    encoded = [notice(each, f"{each}", CLINIC if each % 2 else new) for each in range(600)]
    store.write([PartitionWrite(each, 0, 0, 600, [], encoded[each * 300 :][:300]) for each in (0, 1)])
    relayed = 0
    async with asyncio.timeout(60):
        while relayed < 600:
            relayed += await relay.step()
    assert {each: noted.source_offset for each, noted in source_log.relayed().items()} == {0: 299, 1: 599}
    await relay.hand_over()
    await log.close()
    link.close()
    for first, party in ((1, CLINIC), (0, new)):
        found = await asyncio.to_thread(_records, kafka, f"notices.{party}")
        assert sorted(found, key=int) == [f"{each}" for each in range(first, 600, 2)]


def _records(kafka: str, topic: str) -> list[str]:
    consumer: Any = KafkaConsumer(
        bootstrap_servers=kafka.split(","), group_id=None, auto_offset_reset="earliest", enable_auto_commit=False
    )
    try:
        places = [TopicPartition(topic, each) for each in consumer.partitions_for_topic(topic)]
        consumer.assign(places)
        ends = consumer.end_offsets(places)
        keys: list[str] = []
        while any(consumer.position(place) < ends[place] for place in places):
            for records in consumer.poll(timeout_ms=500).values():
                keys += [record.key.decode() for record in records]
        return keys
    finally:
        consumer.close()


@pytest.mark.integration
async def test_a_relay_without_redis_fails_and_says_so() -> None:
    relay = Relay(
        RedisOutbox(Link("redis://127.0.0.1:1/0")), FickleLog(), MemoryPartyTopics(()), SEALER, SystemClock(), 1, dict
    )
    with pytest.raises(StoreUnavailableError):
        await relay.step()
