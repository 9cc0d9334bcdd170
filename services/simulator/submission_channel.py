"""Submits the town's events over Kafka, each system on its own topic, and waits for the receipts."""

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from schemas import codec
from schemas.events import PatientIdentity, Submission, SubmissionReceipt
from schemas.framing import PLAIN, Framing
from services.admission.completion import event_id_of
from services.publishing.kafka_access import KafkaAccess
from services.publishing.kafka_clients import connect
from services.simulator import timeshift
from services.simulator.damage import damaged
from services.simulator.diary import Planned
from services.simulator.history import History, Line, ids_of
from services.simulator.http_channel import RESOURCES
from services.simulator.population import Patient, Town
from services.topics.registry import load

_LINGER_MS: Final = 5
_POLL_MS: Final = 200
_ANSWERS_WITHIN_MS: Final = 30_000
_ANSWER_WITHIN_S: Final = 60.0
_REMEMBERED: Final = 20_000
_BROKER_AWAY_AT_MOST_MS: Final = 180_000
"""The library gives up after a minute, and the town would end with it: it is to outlast a broker that is started again."""


class SubmissionChannel:
    """One producer for all systems of the town, one reader of their receipts, and a number of workers.

    A worker has the patients with its number, and waits for the receipt of one action before it submits the next: a
    pharmacy cannot know a prescription before the chain does.
    """

    name = "submissions"

    def __init__(
        self, kafka: KafkaAccess, town: Town, history: History, *, concurrency: int = 64, framing: Framing = PLAIN
    ) -> None:
        """Make it where the loop runs."""
        self._town = town
        self._history = history
        self._framing = framing
        self._loop = asyncio.get_running_loop()
        self._queues: list[asyncio.Queue[Planned | None]] = [asyncio.Queue(8) for _ in range(concurrency)]
        self._workers = [self._loop.create_task(self._work(queue)) for queue in self._queues]
        self._waiting: dict[str, asyncio.Future[SubmissionReceipt]] = {}
        self._repeats: OrderedDict[str, Submission[Any]] = OrderedDict()
        self._closing = threading.Event()
        self._producer = connect(
            KafkaProducer,
            kafka,
            client_id="medchain-simulator-submissions",
            enable_idempotence=True,
            acks="all",
            allow_auto_create_topics=False,
            linger_ms=_LINGER_MS,
            max_block_ms=_BROKER_AWAY_AT_MOST_MS,
        )
        self._receipts = _receipts_from_now(kafka, town.parties.systems)
        self._reader = threading.Thread(target=self._read, name="receipts", daemon=True)
        self._reader.start()

    async def take(self, planned: Planned) -> None:
        """Queue one action behind the patient's earlier ones; waits while too much is queued."""
        done = next((worker for worker in self._workers if worker.done()), None)
        if done is not None:
            done.result()
        await self._queues[planned.patient % len(self._queues)].put(planned)

    async def close(self) -> None:
        """Wait for the receipts of all that was submitted; what has none after a minute is written as failed."""
        try:
            await asyncio.gather(*(queue.put(None) for queue in self._queues), *self._workers)
        finally:
            self._closing.set()
            await asyncio.to_thread(self._reader.join)
            self._receipts.close()
            self._producer.close()

    async def _work(self, queue: asyncio.Queue[Planned | None]) -> None:
        while (planned := await queue.get()) is not None:
            await self._submit(planned)

    async def _submit(self, planned: Planned) -> None:
        submission = self._submission(planned)
        value = codec.encode(submission)
        sent_at_ms = time.time_ns() // 1_000_000
        # A receipt cannot name the message id of what nobody can read, and of a repetition it says nothing new.
        waits = not planned.damage and planned.irregularity != "duplicate"
        receipt = self._waiting.setdefault(submission.message_id, self._loop.create_future()) if waits else None
        self._producer.send(
            topic_of(planned),
            key=order_key(planned).encode(),
            value=self._framing.to_topic(damaged(value, planned.damage) if planned.damage else value),
        )
        if receipt is None:
            self._write(planned, sent_at_ms, None, "in_log")
            return
        try:
            answer = await asyncio.wait_for(receipt, _ANSWER_WITHIN_S)
        except TimeoutError:
            self._write(planned, sent_at_ms, None, "failed")
        else:
            self._write(planned, sent_at_ms, answer, answer.outcome)

    def _submission(self, planned: Planned) -> Submission[Any]:
        """The submission, or the same one again if it is a duplicate."""
        again = self._repeats.get(planned.event_id) if planned.irregularity == "duplicate" else None
        if again is not None:
            return again
        submission = submission_of(planned, self._town.patients[planned.patient], time.time_ns() // 1_000_000)
        self._repeats[planned.event_id] = submission
        if len(self._repeats) > _REMEMBERED:
            self._repeats.popitem(last=False)
        return submission

    def _answered(self, receipt: SubmissionReceipt) -> None:
        """In the loop: wakes the worker that waits for this receipt."""
        waiting = self._waiting.pop(receipt.message_id or "", None)
        if waiting is not None and not waiting.done():
            waiting.set_result(receipt)

    # In the reader's thread.

    def _read(self) -> None:
        while not self._closing.is_set():
            for records in self._receipts.poll(timeout_ms=_POLL_MS).values():
                for record in records:
                    receipt = codec.decode(self._framing.from_topic(record.value))
                    if isinstance(receipt, SubmissionReceipt):
                        self._loop.call_soon_threadsafe(self._answered, receipt)

    def _write(self, planned: Planned, sent_at_ms: int, receipt: SubmissionReceipt | None, outcome: str) -> None:
        self._history.write(
            Line(
                channel=self.name,
                event_id=event_id_of(planned.actor.system, planned.event_id),
                type=type(planned.body).__name__,
                patient=planned.patient,
                organisation=planned.actor.organisation,
                sent_at_ms=sent_at_ms,
                answered_at_ms=time.time_ns() // 1_000_000,
                outcome=outcome,
                ids=ids_of(planned),
                reason=_reason(receipt),
                flags=() if receipt is None else receipt.flags,
                irregularity=planned.irregularity,
                damage=planned.damage,
            )
        )


def submission_of(planned: Planned, patient: Patient, now_ms: int) -> Submission[Any]:
    """The submission that reports an action as if it arrived now."""
    happened_ms = timeshift.happened_ms(planned, now_ms)
    number, actor = patient.national_id, planned.actor
    return Submission(
        message_id=planned.event_id,
        patient=PatientIdentity(national_id=number.digits, kind=number.kind.value, name=patient.name),
        occurred_at_ms=happened_ms,
        organisation=actor.organisation,
        role=actor.role,
        person=actor.person,
        bodies=(timeshift.moved(planned.body, happened_ms - planned.occurred_at_ms),),
    )


def topic_of(planned: Planned) -> str:
    """The topic on which the actor's system submits such an event."""
    kind = (
        "dispense"
        if planned.actor.system == "pharmacy-desk" or RESOURCES[type(planned.body)].service == "pharmacy"
        else "prescription"
    )
    return f"{kind}-submissions.{planned.actor.system}"


def order_key(planned: Planned) -> str:
    """What keeps a patient's submissions in order: the sender's own number for the patient, never the national id."""
    return str(uuid5(NAMESPACE_URL, f"{planned.actor.system}/{planned.patient}"))


def _reason(receipt: SubmissionReceipt | None) -> str | None:
    if receipt is None:
        return None
    return receipt.reason or (receipt.errors[0].reason if receipt.errors else None)


def _receipts_from_now(kafka: KafkaAccess, systems: Iterable[str]) -> KafkaConsumer:
    """A reader of these systems' receipts, from what comes next on."""
    topics = [f"submission-receipts.{system}" for system in systems]
    places = [TopicPartition(topic, partition) for topic in topics for partition in range(load().partitions(topic))]
    consumer = connect(KafkaConsumer, kafka, enable_auto_commit=False, group_id=None)
    consumer.assign(places)
    consumer.seek_to_end(*places)
    for place in places:
        consumer.position(place, timeout_ms=_ANSWERS_WITHIN_MS)
    return consumer
