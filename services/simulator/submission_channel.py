"""Submits the town's events over Kafka, each system on its own topic, and waits for the receipts."""

import asyncio
import threading
import time
from collections.abc import Iterable
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from schemas import codec
from schemas.events import PatientIdentity, Submission, SubmissionReceipt
from services.admission.completion import event_id_of
from services.simulator import timeshift
from services.simulator.damage import damaged
from services.simulator.diary import Planned
from services.simulator.history import History, Line, ids_of
from services.simulator.http_channel import RESOURCES
from services.simulator.population import Patient, Town
from services.topics.registry import load

_LINGER_MS: Final = 5
_POLL_MS: Final = 200
_ANSWER_WITHIN_S: Final = 60.0
_MOST_UNANSWERED: Final = 2_000
_ROWS: Final = 500


class _Sent:
    """A submission that has not been answered yet."""

    __slots__ = ("planned", "sent_at_ms")

    def __init__(self, planned: Planned, sent_at_ms: int) -> None:
        self.planned = planned
        self.sent_at_ms = sent_at_ms


class SubmissionChannel:
    """One producer for all systems of the town, and one reader of their receipts."""

    name = "submissions"

    def __init__(self, bootstrap: str, town: Town, history: History) -> None:
        self._town = town
        self._history = history
        self._unanswered: dict[str, _Sent] = {}
        self._repeats: dict[str, Submission[Any]] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._producer = KafkaProducer(
            bootstrap_servers=bootstrap.split(","),
            client_id="medchain-simulator-submissions",
            enable_idempotence=True,
            acks="all",
            allow_auto_create_topics=False,
            linger_ms=_LINGER_MS,
        )
        self._receipts = _receipts_from_now(bootstrap, town.parties.systems)
        self._reader = threading.Thread(target=self._read, name="receipts", daemon=True)
        self._reader.start()

    async def take(self, planned: Planned) -> None:
        """Submit one action; waits while too many are unanswered. Raises KafkaError when the log takes nothing."""
        deadline = time.monotonic() + _ANSWER_WITHIN_S
        while len(self._unanswered) >= _MOST_UNANSWERED and time.monotonic() < deadline:  # noqa: ASYNC110  another thread ends it
            await asyncio.sleep(_POLL_MS / 1000)
        submission = self._submission(planned)
        value = codec.encode(submission)
        waits = not planned.damage and planned.irregularity != "duplicate"
        if waits:
            with self._lock:
                self._unanswered[submission.message_id] = _Sent(planned, time.time_ns() // 1_000_000)
        self._producer.send(
            topic_of(planned),
            key=order_key(planned).encode(),
            value=damaged(value, planned.damage) if planned.damage else value,
        )
        if not waits:
            # A receipt cannot name the message id of what nobody can read, and of a repetition it says nothing new.
            self._write(planned, time.time_ns() // 1_000_000, None, "in_log")

    async def close(self) -> None:
        """Wait for the receipts of what was submitted; what has none after a minute is written as failed."""
        self._producer.flush()
        deadline = time.monotonic() + _ANSWER_WITHIN_S
        while self._unanswered and time.monotonic() < deadline:  # noqa: ASYNC110  another thread ends it
            await asyncio.sleep(_POLL_MS / 1000)
        self._closing.set()
        await asyncio.to_thread(self._reader.join)
        self._receipts.close()
        self._producer.close()
        for sent in self._unanswered.values():
            self._write(sent.planned, sent.sent_at_ms, None, "failed")

    def _submission(self, planned: Planned) -> Submission[Any]:
        """The submission, or the very same once more when it is a duplicate."""
        again = self._repeats.get(planned.event_id) if planned.irregularity == "duplicate" else None
        if again is not None:
            return again
        submission = submission_of(planned, self._town.patients[planned.patient], time.time_ns() // 1_000_000)
        self._repeats[planned.event_id] = submission
        return submission

    # In the reader's thread.

    def _read(self) -> None:
        while not self._closing.is_set():
            for records in self._receipts.poll(timeout_ms=_POLL_MS, max_records=_ROWS).values():
                for record in records:
                    receipt = codec.decode(record.value)
                    if isinstance(receipt, SubmissionReceipt) and receipt.message_id is not None:
                        self._answered(receipt.message_id, receipt)

    def _answered(self, message_id: str, receipt: SubmissionReceipt) -> None:
        with self._lock:
            sent = self._unanswered.pop(message_id, None)
        if sent is not None:
            self._write(sent.planned, sent.sent_at_ms, receipt, receipt.outcome)

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


def _receipts_from_now(bootstrap: str, systems: Iterable[str]) -> KafkaConsumer:
    """A reader of these systems' receipts, from what comes next on."""
    topics = [f"submission-receipts.{system}" for system in systems]
    places = [TopicPartition(topic, partition) for topic in topics for partition in range(load().partitions(topic))]
    consumer = KafkaConsumer(bootstrap_servers=bootstrap.split(","), enable_auto_commit=False, group_id=None)
    consumer.assign(places)
    consumer.seek_to_end(*places)
    for place in places:
        consumer.position(place)
    return consumer
