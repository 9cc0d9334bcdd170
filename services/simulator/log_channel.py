"""Writes the town's events directly into the log, as the services would: for load, for a backlog, and for simulated years."""

import asyncio
import threading
import time
from typing import Any, Final

from kafka import KafkaProducer
from kafka.errors import KafkaError
from msgspec.structs import replace

from schemas import codec
from schemas.events import (
    ClaimAborted,
    ClaimReleased,
    ClaimRequested,
    DispatchRequested,
    DispatchWithdrawn,
    DispenseReversed,
    Event,
    ListReconciled,
    MedicationDispensed,
    PrescriptionIssued,
    RenewalDeclined,
    RenewalRequested,
    Source,
)
from schemas.framing import PLAIN, Framing
from services.identity.pseudonym import Pseudonymiser
from services.identity.sealing import SealedIdentityContent, Sealer
from services.publishing.kafka_access import KafkaAccess
from services.publishing.kafka_clients import connect
from services.publishing.log import cloud_event_headers
from services.publishing.partitioning import partition_of
from services.simulator.damage import damaged
from services.simulator.diary import Planned
from services.simulator.history import History, Line, ids_of
from services.simulator.population import Town
from services.topics.registry import EVENTS_TOPIC, load

_LINGER_MS: Final = 20
_BATCH_BYTES: Final = 262_144
_MOST_UNDER_WAY: Final = 5_000
"""The producer itself would take everything at once, and hold it in memory."""
_RETRY_S: Final = 0.01
_NO_VERSION: Final = -1
"""Of a list that nothing has moved yet."""
_ANSWER_WITHIN_S: Final = 30
_LEAVE_THE_LIST = (
    ClaimRequested,
    ClaimAborted,
    ClaimReleased,
    DispatchRequested,
    DispatchWithdrawn,
    MedicationDispensed,
    DispenseReversed,
    ListReconciled,
    RenewalRequested,
    RenewalDeclined,
)
"""What does not move the version of the list, as far as a bystander can tell."""


class LogChannel:
    """One producer, batched for load. A patient's events are sent in the order in which they are taken."""

    name = "log"

    def __init__(
        self,
        kafka: KafkaAccess,
        town: Town,
        pseudonymiser: Pseudonymiser,
        sealer: Sealer,
        history: History,
        framing: Framing = PLAIN,
        *,
        closes_within_s: float = _ANSWER_WITHIN_S,
    ) -> None:
        """`closes_within_s`: how long it waits at the end for a log that is away."""
        self._closes_within_s = closes_within_s
        self._town = town
        self._history = history
        self._framing = framing
        self._partitions = load().partitions(EVENTS_TOPIC)
        self._keys = [pseudonymiser.patient_key(patient.national_id) for patient in town.patients]
        self._sealed = [
            sealer.seal(SealedIdentityContent(patient.national_id, patient.name), key)
            for patient, key in zip(town.patients, self._keys, strict=True)
        ]
        self._places = [partition_of(key.encode(), self._partitions) for key in self._keys]
        self._versions: dict[int, Any] = {}
        self._room = threading.Semaphore(_MOST_UNDER_WAY)
        self._producer = connect(
            KafkaProducer,
            kafka,
            client_id="medchain-simulator",
            enable_idempotence=True,
            acks="all",
            allow_auto_create_topics=False,
            linger_ms=_LINGER_MS,
            batch_size=_BATCH_BYTES,
        )

    async def take(self, planned: Planned) -> None:
        """Hand one event to the producer; its answer comes later. Raises KafkaError when the log takes nothing."""
        event = self._event(planned)
        value = codec.encode(event)
        headers = cloud_event_headers(
            event_id=event.event_id,
            event_type=codec.name_of(event),
            source=event.source.system,
            time_ms=event.occurred_at_ms,
        )
        while not self._room.acquire(blocking=False):  # noqa: ASYNC110  the producer's thread makes room
            await asyncio.sleep(_RETRY_S)
        sent_at_ms = time.time_ns() // 1_000_000
        sent = self._producer.send(
            EVENTS_TOPIC,
            value=self._framing.to_topic(damaged(value, planned.damage) if planned.damage else value),
            key=event.patient.encode(),
            headers=headers,
            partition=self._places[planned.patient],
        )
        sent.add_callback(lambda at: self._answered(planned, sent_at_ms, f"{at.partition}-{at.offset}", None))
        sent.add_errback(lambda error: self._answered(planned, sent_at_ms, None, type(error).__name__))
        if not isinstance(planned.body, _LEAVE_THE_LIST):
            self._versions[planned.patient] = sent

    async def close(self) -> None:
        """Wait until the log has everything. Raises KafkaError when that takes too long."""
        self._producer.flush(timeout=self._closes_within_s)
        self._producer.close(timeout=self._closes_within_s)

    def _event(self, planned: Planned) -> Event[Any]:
        actor, body = planned.actor, planned.body
        if isinstance(body, PrescriptionIssued):
            body = replace(body, identity=self._sealed[planned.patient])
        elif isinstance(body, ListReconciled):
            body = replace(body, version=self._version(planned.patient))
        return Event(
            event_id=planned.event_id,
            patient=self._keys[planned.patient],
            occurred_at_ms=planned.occurred_at_ms,
            received_at_ms=planned.received_at_ms,
            source=Source(system=actor.system, organisation=actor.organisation, role=actor.role, person=actor.person),
            body=body,
        )

    def _version(self, patient: int) -> int:
        """The list's version as a reader would most likely have seen it: the offset of what last changed it."""
        last = self._versions.get(patient)
        if last is None:
            return _NO_VERSION
        try:
            return int(last.get(timeout=_ANSWER_WITHIN_S).offset)
        except KafkaError:
            return _NO_VERSION

    def _answered(self, planned: Planned, sent_at_ms: int, position: str | None, error: str | None) -> None:
        self._room.release()
        self._history.write(
            Line(
                channel=self.name,
                event_id=planned.event_id,
                type=type(planned.body).__name__,
                patient=planned.patient,
                organisation=planned.actor.organisation,
                sent_at_ms=sent_at_ms,
                answered_at_ms=time.time_ns() // 1_000_000,
                outcome="failed" if position is None else "in_log",
                ids=ids_of(planned),
                reason=error,
                position=position,
                irregularity=planned.irregularity,
                damage=planned.damage,
            )
        )
