"""The relay: takes effects from the outbox, sends them, awaits the acks, notes the progress, deletes; it keeps no cursor.

At least once by the relay, once by the effects' ids.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import msgspec
from msgspec.structs import replace

from schemas.codec import NotInContractError, UndecodableError, encode
from schemas.events import RelayProgress, UnsentRecord
from services.canonical_log import get_logger
from services.clock import Clock
from services.health import Trouble, TroubleReason
from services.identity.sealing import SealBroken, Sealer
from services.medication_list.fold.judgement import Effect, ReceiptDue
from services.medication_list.log.source_log import PROGRESS_TOPIC, SourceLogUnavailableError
from services.medication_list.relay.metrics import RelayMetrics
from services.medication_list.relay.outgoing import outgoing
from services.medication_list.relay.party_topics import PartyTopics
from services.medication_list.relay.refused_topics import RefusedTopics
from services.medication_list.relay.unsent import NOTED_AT_MOST, unsent_records
from services.medication_list.store.port import StoreUnavailableError
from services.medication_list.store.waiting import FIRST, Outbox, Unsent, WaitingEntry
from services.medication_list.stored.effects import effect_id_of, topic_of
from services.medication_list.stored.packing import WaitingEffect, unpack_effect
from services.publishing.kafka_log import DELIVERY_TIMEOUT_MS
from services.publishing.log import (
    Log,
    LogRecord,
    LogUnavailable,
    PartitionCountDiffers,
    RecordTooLarge,
    TopicRefused,
    cloud_event_headers,
)
from services.telemetry import new_registry
from services.topics.registry import UndeclaredTopicError

LEASE_MS: Final = 12_000
# What is sent must have been confirmed or given up before another relay can hold the lease.
_SEND_BEFORE_END_MS: Final = DELIVERY_TIMEOUT_MS + 3_000
_RENEW_BEFORE_END_MS: Final = 10_000
_AT_MOST: Final = 250
_WAIT_MS: Final = 500
_TOPICS_AGAIN_MS: Final = 10_000
_HELD_AGAIN_MS: Final = 300_000
_ALARM_AGAIN_MS: Final = 300_000
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 5.0
_TAKEN_OVER_WITHIN_S: Final = 3.0
"""Another relay asks for every lease each two seconds, when it renews its own."""
_ROUND_EVERY_MS: Final = 100
"""How often rounds begin while they bring little. A round costs about the same for one effect as for ten, 7 ms of CPU with
the broker's part: one by one, 60 effects a second took a fifth of a core. One that comes after a pause leaves at once."""
_LITTLE: Final = 50
"""Effects in one round; after more than that the next one begins at once."""
_FAILURES: Final = (StoreUnavailableError, LogUnavailable, SourceLogUnavailableError)


class UnsendableError(Exception):
    """An effect that cannot be sent at present; `reason` says why, for the log, with our `fault` if it is one."""

    def __init__(self, reason: str, fault: Exception | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.fault = fault


@dataclass(slots=True)
class _Partition:
    """What one relay remembers of a partition that it leases: nothing that matters if it is forgotten.

    `noted`: the progress that is in the log. `after`: the last entry looked at. `held`: topic -> from which entry on its
    effects wait.
    """

    noted: RelayProgress | None
    after: str = FIRST
    held: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Batch:
    """One reading of a partition's outbox: entries in order, what is to be sent of them, and which are done with."""

    partition: int
    here: _Partition
    entries: Sequence[WaitingEntry]
    effects: dict[str, WaitingEffect] = field(default_factory=dict)
    sends: list[tuple[str, LogRecord]] = field(default_factory=list)
    done: set[str] = field(default_factory=set)
    failed: Exception | None = None


class Relay:
    """Relays every partition whose lease it can take; run as many as you like, one of them works on a partition.

    An effect whose topic is missing, or that cannot be opened or sent, is held: it stays in the outbox with all that
    come after it for the same topic, and an alarm names it; the others go on. Missing topics are looked for ten
    seconds after the last look, all by one, and all else that is held is tried again every five minutes; a topic that
    the log did not confirm, after seconds (`RefusedTopics`). A round fails only where nothing tells the topic from the log.
    """

    def __init__(  # noqa: PLR0913 - the ports, and what tests and simulations give instead of chance
        self,
        outbox: Outbox,
        log: Log,
        topics: PartyTopics,
        sealer: Sealer,
        clock: Clock,
        partitions: int,
        relayed: Callable[[], Mapping[int, RelayProgress]],
        *,
        metrics: RelayMetrics | None = None,
        owner: str | None = None,
    ) -> None:
        """`relayed`: the progress that is in the log, asked when a lease is new, and after a failure (blocking).

        `owner`: a name that no other relay has, made by chance unless given.
        """
        self._outbox = outbox
        self._log = log
        self._topics = topics
        self._sealer = sealer
        self._clock = clock
        self._all = range(partitions)
        self._relayed = relayed
        self._metrics = metrics or RelayMetrics(new_registry())
        self._owner = owner or f"relay-{secrets.token_hex(8)}"
        self._leased: dict[int, _Partition] = {}
        self._leased_until_ms = 0
        self._has_failed = False
        self._topics_again_ms = 0
        self._held_again_ms = 0
        self._missing: set[str] = set()
        self._refused = RefusedTopics(clock)
        self._alarmed_ms: dict[str, int] = {}
        self._trouble: Trouble | None = Trouble(TroubleReason.NOT_STARTED, "No round has come through yet.")

    async def run(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Relay until cancelled. Whatever fails is tried again, after a pause that doubles from 0.1 to 5 s.

        After each failure the leases are let go, and where the log takes nothing time and again, for long enough that
        a relay which reaches it takes them.
        """
        failures = 0
        while True:
            began_ms = self._clock.monotonic_ms()
            try:
                relayed = await self.step()
                if not self._refused.is_log_in_doubt:
                    failures = 0
                    self._trouble = None
                self._metrics.stands({partition: each.held for partition, each in self._leased.items()})
                if 0 < relayed <= _LITTLE:
                    await asyncio.sleep(max(0, began_ms + _ROUND_EVERY_MS - self._clock.monotonic_ms()) / 1000)
            except Exception as error:  # noqa: BLE001  the loop must outlive it; an outage is expected, all else is an alarm
                failures += 1
                self._metrics.failed()
                self._trouble = Trouble(
                    TroubleReason.ROUND_FAILED,
                    f"The last {failures} rounds failed, the last one with {type(error).__name__}; what is due waits in order.",
                )
                await self._let_go(error)
                self._topics.look_again()
                pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(failures - 1, 10))
                if isinstance(error, LogUnavailable) and failures > 1:
                    pause_s = max(pause_s, _TAKEN_OVER_WITHIN_S)
                say = get_logger().warning if isinstance(error, _FAILURES) else get_logger().error
                say("relay_failed", error_type=type(error).__name__, attempt=failures, retry_in_ms=int(pause_s * 1000))
                await sleep(pause_s)

    async def check(self) -> Sequence[Trouble]:
        """Whether the last round came through: outbox and log answered (see `services.health`)."""
        return () if self._trouble is None else (self._trouble,)

    async def step(self) -> int:
        """One round over all leased partitions; returns how many effects were relayed.

        Raises StoreUnavailableError, LogUnavailable, SourceLogUnavailableError: what was sent may be sent again.
        """
        if await self._keep_leases():
            await self._note_unsent()
        await self._look_at_held_again()
        self._try_again(self._refused.rested())
        # Where nothing is held, nothing waits before `after`, unless another file of Redis brought it back: that goes first.
        after = {partition: each.after if each.held else FIRST for partition, each in self._leased.items()}
        found = await asyncio.to_thread(self._outbox.waiting, after, _AT_MOST, _WAIT_MS)
        if not after:
            await asyncio.sleep(_WAIT_MS / 1000)  # another relay has them all
        batches = [_Batch(each, self._leased[each], entries) for each, entries in found.items()]
        await self._prepare(batches)
        if self._clock.monotonic_ms() > self._leased_until_ms - _SEND_BEFORE_END_MS:
            return 0  # nothing is sent that another could send too; the next step renews first
        # A reading that is not full has come to the end.
        is_all_tried = all(not each.sends and len(each.entries) < _AT_MOST for each in batches)
        if batches:
            await self._send(batches)
            await self._note_progress(batches)
        gone = sum([await self._delete(batch) for batch in batches])
        if is_all_tried:
            self._try_again(self._refused.all_else_was_tried())
        for batch in batches:
            if batch.failed is not None:
                raise batch.failed
        return gone

    async def _let_go(self, error: Exception) -> None:
        """Give the leases up to other relays. Everything sent has been confirmed or given up."""
        self._has_failed = True
        self._leased.clear()
        self._leased_until_ms = 0
        if not isinstance(error, StoreUnavailableError):
            with suppress(StoreUnavailableError):
                await self.hand_over()

    async def hand_over(self) -> None:
        """Let the leases run out at once, so that another relay need not wait for it."""
        self._leased.clear()
        self._leased_until_ms = 0
        await asyncio.to_thread(self._outbox.lease, self._all, self._owner, 1)

    # --- Leases ---------------------------------------------------------------------------------------------------

    async def _keep_leases(self) -> bool:
        """Renew in time, and tell whether it was time; what is new is read from its beginning, its progress from the log."""
        now_ms = self._clock.monotonic_ms()
        if self._leased_until_ms - now_ms > _RENEW_BEFORE_END_MS:
            return False
        if self._has_failed:
            await asyncio.to_thread(self._relayed)  # no lease for one that does not reach the log
            self._has_failed = False
        owned = await self._lease()
        progress: Mapping[int, RelayProgress] = {}
        if not self._leased.keys() >= set(owned):
            progress = await asyncio.to_thread(self._relayed)
            owned = await self._lease()  # the reading can have taken longer than a lease lasts
        kept = {partition: self._leased[partition] for partition in owned if partition in self._leased}
        new = [partition for partition in owned if partition not in kept]
        self._leased = kept | {partition: _Partition(progress.get(partition)) for partition in new}
        return True

    async def _lease(self) -> Collection[int]:
        """Take or keep the leases that can be had; for those that expired, what was known may be outdated."""
        now_ms = self._clock.monotonic_ms()
        if self._leased_until_ms <= now_ms:
            self._leased.clear()
        owned = await asyncio.to_thread(self._outbox.lease, self._all, self._owner, LEASE_MS)
        self._leased_until_ms = now_ms + LEASE_MS
        return owned

    async def _look_at_held_again(self) -> None:
        """Read a partition from its beginning again when what it holds may go: its topic has come, or time has passed."""
        now_ms = self._clock.monotonic_ms()
        if now_ms < self._topics_again_ms:
            return
        all_again = now_ms >= self._held_again_ms
        if all_again:
            self._held_again_ms = now_ms + _HELD_AGAIN_MS
        self._topics.look_again()
        come = set(await self._topics.existing(self._missing)) if self._missing else set()
        self._missing -= come
        # From the end of the look: one that takes long is not due again before anything was sent.
        self._topics_again_ms = self._clock.monotonic_ms() + _TOPICS_AGAIN_MS
        for each in self._leased.values():
            each.after = FIRST
            if all_again or not come.isdisjoint(each.held):
                each.held.clear()

    def _try_again(self, topics: Collection[str]) -> None:
        """Read those partitions from their beginning again that hold effects for one of these topics."""
        for each in self._leased.values():
            for topic in each.held.keys() & set(topics):
                del each.held[topic]
                each.after = FIRST

    # --- One round ------------------------------------------------------------------------------------------------

    async def _prepare(self, batches: Sequence[_Batch]) -> None:
        """Decide what becomes of each entry: sent, dropped by rule, or held."""
        for batch in batches:
            self._unpack(batch)
        effects = (effect for batch in batches for effect in batch.effects.values())
        # Asked after the entries were read: whose topic was made before his effect came is seen.
        existing = await self._topics.existing({topic_of(effect.due) for effect in effects})
        for batch in batches:
            for entry_id, effect in batch.effects.items():
                topic = topic_of(effect.due)
                if topic in batch.here.held:
                    continue
                if self._refused.passes_over(topic):
                    batch.here.held[topic] = entry_id
                    continue
                try:
                    if topic in existing or self._has_receiver(topic, effect.due):
                        batch.sends.append((entry_id, self._record(topic, effect, batch.partition)))
                    else:
                        batch.done.add(entry_id)
                except UnsendableError as error:
                    self._hold(batch.here, topic, entry_id, error.reason, error.fault)

    def _unpack(self, batch: _Batch) -> None:
        for entry in batch.entries:
            try:
                batch.effects[entry.entry_id] = _unpacked(entry)
            except UnsendableError as error:
                self._hold(batch.here, "", entry.entry_id, error.reason)

    def _has_receiver(self, topic: str, due: Effect) -> bool:
        """False for a receipt to a system without topics: it wrote over HTTP, and had its outcome as the answer."""
        if isinstance(due, ReceiptDue) and not self._topics.is_listed(due.system):
            return False
        self._missing.add(topic)
        raise UnsendableError("topic_missing")

    def _hold(self, here: _Partition, topic: str, entry_id: str, reason: str, fault: Exception | None = None) -> None:
        here.held.setdefault(topic, entry_id)
        self._metrics.held(reason)
        of_type = {} if fault is None else {"error_type": type(fault).__name__}
        self._alarm(topic, "effect_held", reason=reason, topic=topic, **of_type)

    def _alarm(self, about: str, event: str, **told: str | int) -> None:
        """Say it once in a while."""
        now_ms = self._clock.monotonic_ms()
        if now_ms >= self._alarmed_ms.get(about, 0):
            self._alarmed_ms[about] = now_ms + _ALARM_AGAIN_MS
            get_logger().error(event, **told)

    def _record(self, topic: str, effect: WaitingEffect, partition: int) -> LogRecord:
        try:
            made = outgoing(effect, partition, self._sealer)
        except SealBroken as error:
            raise UnsendableError("seal_broken") from error
        except UndecodableError as error:
            raise UnsendableError("unreadable_prescription") from error
        except NotInContractError as error:
            raise UnsendableError("not_in_contract") from error
        except Exception as error:  # one effect must not stop the others: it is held with an alarm
            raise UnsendableError("not_made", error) from error
        headers = cloud_event_headers(
            event_id=made.effect_id,
            event_type=made.event_type,
            source="relay",
            time_ms=self._clock.now_ms(),
            traceparent=None if effect.traceparent is None else effect.traceparent.decode("ascii", "replace"),
        )
        return LogRecord(topic, made.key.encode(), made.value, headers)

    async def _send(self, batches: Sequence[_Batch]) -> None:
        """Send all at once, which keeps their order; after one that failed, its topic's later ones do not count."""
        sends = [(batch, entry_id, record) for batch in batches for entry_id, record in batch.sends]
        with self._metrics.sending():
            answers = await self._log.append_many([record for _, _, record in sends])
        broken: set[tuple[int, str]] = set()
        confirmed: set[str] = set()
        unconfirmed: dict[str, Exception] = {}
        for (batch, entry_id, record), answer in zip(sends, answers, strict=True):
            if isinstance(answer, RecordTooLarge | UndeclaredTopicError | PartitionCountDiffers):
                self._hold(batch.here, record.topic, entry_id, "not_taken")
            elif isinstance(answer, Exception):
                batch.here.held.setdefault(record.topic, entry_id)
                unconfirmed.setdefault(record.topic, answer)
            else:
                confirmed.add(record.topic)
                if (batch.partition, record.topic) not in broken:
                    batch.done.add(entry_id)
                    continue
            broken.add((batch.partition, record.topic))
        if unconfirmed or confirmed:
            self._judge(batches, confirmed, unconfirmed)

    def _judge(self, batches: Sequence[_Batch], confirmed: set[str], unconfirmed: Mapping[str, Exception]) -> None:
        """Let the topics rest that the log does not take, or the whole round fail."""
        verdict = self._refused.judge(confirmed, unconfirmed)
        batches[0].failed = verdict.failure
        for topic, (error, is_certain) in verdict.refused.items():
            reason = "topic_refused" if isinstance(error, TopicRefused) else "not_confirmed"
            self._metrics.held(reason)
            if is_certain:  # what failed once may have met a moment in which the log was away
                error_type = type(error.__cause__ or error).__name__
                self._alarm(topic, "effect_held", reason=reason, topic=topic, error_type=error_type)

    async def _note_progress(self, batches: Sequence[_Batch]) -> None:
        """Note for each partition the last effect before which nothing waits any more, and what is unsent all the same.

        The latter is asked for after the former was read: what lay parked before that effect came still does, or was
        released. Where the entry is gone it is another outbox that was asked: nothing is known of this one any more.
        """
        reached = {batch.partition: each for batch in batches if (each := _reached(batch)) is not None}
        if not reached:
            return
        asked = {partition: entry_id for partition, (entry_id, _) in reached.items()}
        found = await asyncio.to_thread(self._outbox.unsent, asked, NOTED_AT_MOST)
        await self._note(
            [
                RelayProgress(
                    partition=partition,
                    source_offset=effect.source_offset,
                    effect_id=effect_id_of(effect.due),
                    unsent=self._records_of(partition, found[partition]),
                )
                for partition, (_, effect) in reached.items()
                if partition in found and found[partition].waits
            ]
        )

    async def _note_unsent(self) -> None:
        """Note anew what is unsent where it has changed since: what was parked, and what was refolded and is sent by now.

        Only where nothing waits and the view has come beyond the progress: where it came from an older copy, or is being
        made anew, what lies before the progress may have yet to be parked again, or to be sent.
        """
        noted = {partition: here.noted for partition, here in self._leased.items() if here.noted is not None}
        if not noted:
            return
        found = await asyncio.to_thread(self._outbox.unsent, dict.fromkeys(noted), NOTED_AT_MOST)
        anew = [
            replace(noted[partition], unsent=self._records_of(partition, each))
            for partition, each in found.items()
            if not each.waits and each.offset > noted[partition].source_offset
        ]
        await self._note([each for each in anew if each != noted[each.partition]])

    def _records_of(self, partition: int, found: Unsent) -> tuple[UnsentRecord, ...]:
        if found.in_all > NOTED_AT_MOST:
            self._alarm(f"unsent of {partition}", "unsent_not_noted", partition=partition, parked=found.in_all)
        return unsent_records(found)

    async def _note(self, progress: Sequence[RelayProgress]) -> None:
        if not progress:
            return
        answers = await self._log.append_many(
            [LogRecord(PROGRESS_TOPIC, str(each.partition).encode(), encode(each)) for each in progress]
        )
        for each, answer in zip(progress, answers, strict=True):
            if isinstance(answer, Exception):
                raise answer
            self._leased[each.partition].noted = each

    async def _delete(self, batch: _Batch) -> int:
        """Delete what is done with; returns how many."""
        gone = [entry.entry_id for entry in batch.entries if entry.entry_id in batch.done]
        if gone and not await asyncio.to_thread(self._outbox.relayed, batch.partition, self._owner, gone):
            del self._leased[batch.partition]
            return 0
        batch.here.after = batch.entries[-1].entry_id
        if gone:
            self._metrics.relayed(len(gone))
            get_logger().info("effects_relayed", partition=batch.partition, effects=len(gone))
        return len(gone)


def _unpacked(entry: WaitingEntry) -> WaitingEffect:
    try:
        return unpack_effect(entry.effect)
    except msgspec.DecodeError as error:
        raise UnsendableError("unreadable_effect") from error


def _reached(batch: _Batch) -> tuple[str, WaitingEffect] | None:
    """How far the progress moves: an entry, and its effect. While something is held, it stands still."""
    held = batch.here.held
    if held and min(map(_place, held.values())) < _place(batch.entries[0].entry_id):
        return None
    reached: tuple[str, WaitingEffect] | None = None
    for entry in batch.entries:
        if entry.entry_id not in batch.done:
            break
        reached = entry.entry_id, batch.effects[entry.entry_id]
    # A correction after a refold names an old record: progress does not go back for it.
    return None if reached is None or _is_before(reached[1], batch.here.noted) else reached


def _is_before(effect: WaitingEffect, noted: RelayProgress | None) -> bool:
    return noted is not None and effect.source_offset < noted.source_offset


def _place(entry_id: str) -> tuple[int, int]:
    time_ms, _, number = entry_id.partition("-")
    return int(time_ms), int(number)
