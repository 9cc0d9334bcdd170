"""Appends an operator's own events to the log of medication events."""

import asyncio
from collections.abc import Callable
from typing import Final

from schemas.codec import encode, name_of
from schemas.events import Event, ParkedRecordClosed
from schemas.framing import Framing
from services.publishing.kafka_access import KafkaAccess
from services.publishing.kafka_log import KafkaLog
from services.publishing.log import Log, cloud_event_headers
from services.topics.registry import EVENTS_TOPIC

SYSTEM: Final = "medchain-casework"
"""The system that such an event comes from."""


def kafka_append(
    kafka: KafkaAccess, partitions: Callable[[str], int], framing: Framing, topic: str = EVENTS_TOPIC
) -> Callable[[Event[ParkedRecordClosed]], int]:
    """Appends an event to the log; gives the offset. `partitions`: the declared number for a topic."""

    def append(event: Event[ParkedRecordClosed]) -> int:
        return asyncio.run(_append(KafkaLog(kafka, partitions, client_id=SYSTEM, framing=framing), topic, event))

    return append


async def _append(log: Log, topic: str, event: Event[ParkedRecordClosed]) -> int:
    headers = cloud_event_headers(
        event_id=event.event_id, event_type=name_of(event), source=event.source.system, time_ms=event.received_at_ms
    )
    try:
        return (await log.append(topic, event.patient.encode(), encode(event), headers)).offset
    finally:
        await log.close()
