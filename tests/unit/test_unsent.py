"""What is parked when Redis is lost still sends what it owes: noted beside the relay's progress, and parked once more."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from schemas.codec import decode
from schemas.events import DispenseOrder, Notice, RelayProgress, UnsentRecord
from schemas.reasons import ParkReason
from services.clock import ManualClock
from services.identity.sealing import Sealer
from services.medication_list.fold import VERSION
from services.medication_list.generations import GenerationRecord, enter
from services.medication_list.log.source_log import MemorySourceLog
from services.medication_list.refolding.mending import Mender
from services.medication_list.relay.party_topics import MemoryPartyTopics
from services.medication_list.relay.relay import Relay
from services.medication_list.relay.unsent import NOTED_AT_MOST, unsent_records
from services.medication_list.store.keys import GenerationKeys
from services.medication_list.store.memory_outbox import MemoryOutbox
from services.medication_list.store.memory_roles import MemoryRoles
from services.medication_list.store.roles import Beginning
from services.medication_list.store.waiting import Unsent, WaitingEntry
from services.medication_list.stored.parked_note import ParkedNote, pack_note, unpack_note
from services.publishing.memory_log import MemoryLog
from services.topics.registry import load
from tests.unit.fold_world import PATIENT, claimed, dispatched, issued, organisation, recalled
from tests.unit.refold_world import GENERATION, Story

ORDERS = f"dispense-orders.{organisation('P')}"
NOTICES = {who: f"notices.{organisation(who)}" for who in "APQ"}
LEASES_MS = 2_000
"""How often a relay renews its leases, and looks at what is unsent."""


class HookedOutbox(MemoryOutbox):
    """Something happens, once, right after the outbox was read."""

    hook: Callable[[], object] | None = None

    def waiting(self, *args: Any) -> Mapping[int, Sequence[WaitingEntry]]:
        """See `Outbox.waiting`."""
        found = super().waiting(*args)
        hook, self.hook = self.hook, None
        if hook is not None and found:
            hook()
        return found


class Platform:
    """A partition with its relay: a dispatch to P is parked for want of a schema, and the relay has gone beyond it.

    Q has claimed what the dispatch ties to P: that is refused once the dispatch is judged.
    """

    def __init__(self) -> None:
        self.story = Story()
        self.world = self.story.world
        self.log = MemoryLog(load().partitions, ManualClock(0))
        self.clock = ManualClock(1_700_000_000_000)
        self.outbox = HookedOutbox(self.world.server)
        topics = MemoryPartyTopics({ORDERS, *NOTICES.values()})
        self.relay = Relay(self.outbox, self.log, topics, Sealer(b"k" * 32), self.clock, 1, self.relayed)
        self.story.say(issued("R1"))
        self.parked = self.story.say(dispatched("R1"), damaged=True)
        self.claim = self.story.say(claimed("R1", "C1", by="Q"))
        self.story.say(issued("R2", "T2"))
        self.story.say(claimed("R2", "C2"))
        self.recall = self.story.say(recalled("R2"))

    def progress(self) -> list[RelayProgress]:
        """Every progress record, oldest first."""
        return [decode(record.value) for record in self.log.records("relay-progress")]

    def relayed(self) -> Mapping[int, RelayProgress]:
        """The progress that is in the log."""
        return {each.partition: each for each in self.progress()}

    async def relay_all(self) -> None:
        """Rounds, a while apart, until nothing waits."""
        for _ in range(3):
            await self.relay.step()
            self.clock.advance(LEASES_MS)
        await self.relay.step()

    def lose_redis(self) -> None:
        """Everything in Redis is gone, and a worker enters and begins anew; nothing is judged yet."""
        self.world.server.flush()
        log = MemorySourceLog(log_ends={0: len(self.world.records)}, log_relayed=dict(self.relayed()))
        record = GenerationRecord(VERSION, "next", 0)
        assert enter(MemoryRoles(self.world.server), log, record, name=lambda _: GENERATION) == GENERATION

    def rebuild(self, fetch: int = 100) -> None:
        """Judge the log again, so many records at once, with a release that can read all of it."""
        self.world.mend(list(self.world.good))
        records = list(self.world.records.values())
        for start in range(0, len(records), fetch):
            self.world.judge(records[start : start + fetch])

    def mend(self) -> int:
        """Refold what can be read now, as a processor does by itself."""
        store, log = self.world.store, self.world.log
        return Mender(self.world.refolder, store, log, 1, sleep=lambda _: None).mend(0)

    def orders(self) -> list[DispenseOrder]:
        """What the pharmacy was sent."""
        return [decode(record.value) for record in self.log.records(ORDERS)]

    def corrections(self) -> list[tuple[int, str | None]]:
        """What was told to whoever had claimed: of which record, and its outcome now."""
        sent: list[Notice] = [decode(record.value) for record in self.log.records(NOTICES["Q"])]
        return [(each.source_offset, each.outcome) for each in sent if each.kind == "outcome_changed"]

    def unsent(self) -> tuple[UnsentRecord, ...]:
        """What was noted last."""
        return self.progress()[-1].unsent

    def note(self) -> ParkedNote:
        """What the dispatch is listed by."""
        return unpack_note(self.world.store.parked(0)[self.parked])

    def has_parked(self) -> bool:
        """Whether the dispatch is."""
        return self.parked in self.world.store.parked(0)


@pytest.fixture
def platform() -> Platform:
    return Platform()


async def test_what_lay_parked_when_redis_was_lost_is_sent_once_it_was_mended(platform: Platform) -> None:
    await platform.relay_all()
    assert platform.progress()[-1].source_offset > platform.parked
    assert platform.unsent() == (UnsentRecord(offset=platform.parked, reason="unknown_schema"),)
    platform.lose_redis()
    platform.rebuild()
    assert platform.has_parked(), "though it can be read"
    assert platform.mend() == 1
    assert not platform.has_parked()
    await platform.relay_all()
    assert [each.source_offset for each in platform.orders()] == [platform.parked]
    assert platform.corrections() == [(platform.claim, "refused")]


@pytest.mark.parametrize("fetch", [1, 2, 100])
async def test_a_view_made_anew_is_the_one_that_was_lost(platform: Platform, fetch: int) -> None:
    await platform.relay_all()
    view, note = platform.world.view(PATIENT), platform.note()
    platform.lose_redis()
    platform.rebuild(fetch)
    made, again = platform.world.view(PATIENT), platform.note()
    parked = GenerationKeys(GENERATION, 0).parked
    assert made | {parked: None} == view | {parked: None}
    assert again == msgspec.structs.replace(note, schema=None), "which schema it was is no riddle any more"


async def test_what_was_refolded_and_not_sent_when_redis_was_lost_is_sent(platform: Platform) -> None:
    await platform.relay_all()
    platform.story.refold()
    assert not platform.has_parked()
    assert platform.orders() == []
    platform.lose_redis()
    platform.rebuild()
    assert platform.mend() == 1
    await platform.relay_all()
    assert [each.source_offset for each in platform.orders()] == [platform.parked]
    assert platform.corrections() == [(platform.claim, "refused")]


async def test_what_is_refolded_while_the_relay_sends_is_noted_until_its_effects_are_sent(platform: Platform) -> None:
    platform.outbox.hook = platform.story.refold
    await platform.relay.step()
    assert platform.orders() == []
    assert platform.unsent() == (UnsentRecord(offset=platform.parked, reason="unknown_schema"),)
    assert await platform.relay.step() > 0
    assert len(platform.orders()) == 1
    platform.clock.advance(LEASES_MS)
    await platform.relay.step()
    assert platform.unsent() == ()
    assert "{0}:released" not in platform.world.server.content()


async def test_what_was_mended_and_sent_is_not_parked_once_more(platform: Platform) -> None:
    await platform.relay_all()
    platform.story.refold()
    await platform.relay_all()
    assert platform.unsent() == ()
    platform.lose_redis()
    platform.rebuild()
    assert not platform.has_parked()
    await platform.relay_all()
    assert len(platform.orders()) == 1


async def test_what_is_parked_after_the_last_effect_is_noted_too(platform: Platform) -> None:
    await platform.relay_all()
    late = platform.story.say(dispatched("R2", dispatch="another"), damaged=True)
    await platform.relay_all()
    assert [each.offset for each in platform.unsent()] == [platform.parked, late]


async def test_nothing_is_noted_anew_while_a_view_is_made_again(platform: Platform) -> None:
    await platform.relay_all()
    noted = platform.progress()
    platform.lose_redis()
    for _ in range(2):
        await platform.relay.step()
        platform.clock.advance(LEASES_MS)
    platform.world.judge(list(platform.world.records.values())[:1])
    await platform.relay.step()
    assert platform.progress() == noted
    platform.lose_redis()
    platform.rebuild()
    assert platform.has_parked(), "a second loss, and it is known all the same"


async def test_an_outbox_that_was_lost_while_its_effects_were_sent_notes_nothing(platform: Platform) -> None:
    def lose() -> None:
        platform.lose_redis()
        platform.rebuild()

    platform.outbox.hook = lose
    await platform.relay.step()
    assert platform.progress() == [], "what is unsent of it is not known any more"


async def test_the_effects_of_a_view_that_was_replaced_while_they_were_sent_note_nothing(platform: Platform) -> None:
    """What they would be noted with is what the new view has parked, which has come nowhere yet."""
    end = len(platform.world.records)
    anew = Beginning("g1-0ddba1", epoch=1, until=end, effects_from=0, instead_of=GENERATION)
    platform.outbox.hook = lambda: MemoryRoles(platform.world.server).begin({0: anew})
    await platform.relay.step()
    assert platform.progress() == []


def a_note(patient: str | None, reason: str = "not_judged") -> bytes:
    return msgspec.msgpack.encode((reason, patient, 0, None, None, "what a later release adds"))


def found(notes: Mapping[int, bytes], withheld: Mapping[int, str] | None = None) -> Unsent:
    return Unsent(0, waits=False, notes=notes, withheld=withheld or {}, in_all=len(notes))


def test_what_belongs_to_nobody_is_not_noted_and_all_else_is() -> None:
    notes = {
        9: a_note("p"),
        7: a_note("p", "a_reason_of_tomorrow"),
        8: a_note(None, "no_key"),
        3: b"no note at all",
        4: pack_note(ParkedNote(ParkReason.UNKNOWN_SCHEMA, "p", 0)),
    }
    assert [(each.offset, each.reason) for each in unsent_records(found(notes, {12: "unreadable"}))] == [
        (3, "not_judged"),
        (4, "unknown_schema"),
        (7, "a_reason_of_tomorrow"),
        (9, "not_judged"),
        (12, "unreadable"),
    ]


def test_of_very_many_the_first_are_noted() -> None:
    records = unsent_records(found({offset: a_note("p") for offset in reversed(range(NOTED_AT_MOST + 5))}))
    assert [each.offset for each in records] == list(range(NOTED_AT_MOST))


async def test_so_many_parked_that_they_are_not_all_noted_are_told_once_in_a_while(platform: Platform) -> None:
    with platform.world.server.call() as held:
        held.hashes[f"{GENERATION}:{{0}}:parked"] = {
            str(offset).encode(): a_note("p") for offset in range(NOTED_AT_MOST + 1)
        }
    with capture_logs() as lines:
        await platform.relay_all()
    assert len(platform.unsent()) == NOTED_AT_MOST
    assert [each["parked"] for each in lines if each["event"] == "unsent_not_noted"] == [NOTED_AT_MOST + 1]
