"""Makes events from what the door admitted, and appends them to the log: the same for HTTP and for submissions."""

from __future__ import annotations

import msgspec

from schemas import codec
from schemas.codec import Written
from schemas.events import Event, PrescriptionIssued, Source
from services.admission.completion import event_id_of
from services.admission.door import Admitted
from services.identity.sealing import SealedIdentityContent, Sealer
from services.publishing.log import SUBMISSION_HEADER, Log, Position, cloud_event_headers
from services.topics.registry import EVENTS_TOPIC


def events_of(
    admitted: Admitted, *, source: Source, key: str, occurred_at_ms: int, received_at_ms: int, sealer: Sealer
) -> list[Written]:
    """One event for each body, in order. `key` is the sender's own, so that a repetition makes the same events."""
    events: list[Written] = []
    for index, part in enumerate(admitted.parts):
        event_id = event_id_of(source.system, key, index)
        body = part.body(event_id, admitted.patient, occurred_at_ms)
        if isinstance(body, PrescriptionIssued):
            identity = SealedIdentityContent(admitted.national_id, admitted.name or "")
            body = msgspec.structs.replace(body, identity=sealer.seal(identity, admitted.patient))
        event = Event(
            event_id=event_id,
            patient=admitted.patient,
            occurred_at_ms=occurred_at_ms,
            received_at_ms=received_at_ms,
            source=source,
            body=body,
        )
        events.append(codec.written(event))
    return events


async def append(log: Log, written: Written, traceparent: str | None = None, submission: str | None = None) -> Position:
    """Append one event; returns when it is safe. `submission`: the message id that it came by, if it did.

    Raises LogUnavailable, RecordTooLarge.
    """
    event = written.event
    headers = cloud_event_headers(
        event_id=event.event_id,
        event_type=codec.name_of(event),
        source=event.source.system,
        time_ms=event.occurred_at_ms,
        traceparent=traceparent,
    )
    if submission is not None:
        headers.append((SUBMISSION_HEADER, submission.encode("utf-8")))
    return await log.append(EVENTS_TOPIC, event.patient.encode("utf-8"), written.record, headers)
