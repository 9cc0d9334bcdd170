"""One submission from bytes to events in the log, or to a receipt that says everything that is wrong with it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid5

from schemas import codec
from schemas.events import ReceiptError, Source, Submission, SubmissionReceipt
from schemas.framing import PLAIN, Framing, RegistryUnavailableError
from schemas.reasons import DoorReason, ParkReason
from services.admission.completion import EVENTS
from services.admission.door import Door
from services.admission.errors import Finding, TurnedAway
from services.admission.plain import plain_of
from services.canonical_log import get_logger
from services.clock import Clock
from services.identity.sealing import Sealer
from services.publishing.log import Log, LogUnavailable, RecordTooLarge, cloud_event_headers
from services.recording.composition import append, events_of
from services.recording.lateness import turn_away_late
from services.recording.outcomes import ListUnreachable, MedicationListClient
from services.recording.ownership import turn_away_anothers
from services.submissions.inbox_metrics import InboxMetrics
from services.telemetry import new_registry
from services.topics.registry import load

_RECEIPTS: Final = "submission-receipts"
_UNREADABLE: Final = {ParkReason.UNKNOWN_SCHEMA: DoorReason.UNKNOWN_SCHEMA}


class Received(NamedTuple):
    """One record of a submissions topic. `sent_at_ms`: when the broker took it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    sent_at_ms: int = 0
    traceparent: str | None = None

    @property
    def system(self) -> str:
        """Who sent it: the topic says so, never the content, since only that system may write there."""
        return self.topic.split(".", 1)[1]

    @property
    def place(self) -> str:
        """What identifies an unreadable record."""
        return f"{self.topic}/{self.partition}/{self.offset}"


class Rejected(Exception):  # noqa: N818 - named for what happened
    """A submission that the door rejects: why as a whole, and every error."""

    def __init__(self, reason: DoorReason, errors: Iterable[ReceiptError] = ()) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.errors = tuple(errors)


class Reception:
    """Receives submissions. One received again makes the same events, which the fold recognises as duplicates."""

    def __init__(
        self,
        *,
        log: Log,
        medication_list: MedicationListClient,
        door: Door,
        sealer: Sealer,
        clock: Clock,
        framing: Framing = PLAIN,
        metrics: InboxMetrics | None = None,
    ) -> None:
        self._metrics = metrics or InboxMetrics(new_registry())
        self._log = log
        self._medication_list = medication_list
        self._door = door
        self._sealer = sealer
        self._clock = clock
        self._framing = framing

    async def receive(self, received: Received) -> None:
        """Returns once its events, or the receipt of its rejection, are safe. Raises LogUnavailable."""
        submission = None
        try:
            submission = await self._read(received)
            _check_that_it_belongs(submission, received.topic)
            await self._record(submission, received)
        except Rejected as rejection:
            await self._answer(rejection, submission, received)

    async def _read(self, received: Received) -> Submission[Any]:
        """The submission in a record. Raises Rejected, and LogUnavailable if that cannot be decided now."""
        if not self._framing.must_ask(received.value):
            return _read(received, self._framing)
        try:
            return await asyncio.to_thread(_read, received, self._framing)
        except RegistryUnavailableError as error:
            raise LogUnavailable("a submission cannot be read while the schema registry is away") from error

    async def _record(self, submission: Submission[Any], received: Received) -> None:
        """Into the log, one event after the other. Raises Rejected, and LogUnavailable where it must be received again."""
        now_ms = self._clock.now_ms()
        try:
            admitted = self._door.admit_submission(
                type(submission.bodies[0]), plain_of(submission), received_at_ms=now_ms
            )
            await turn_away_anothers(admitted, self._medication_list)
            message_id = submission.message_id.lower()
            await turn_away_late(admitted, received.system, message_id, self._medication_list)
        except TurnedAway as error:
            raise Rejected(DoorReason.INVALID, _errors(error)) from None
        except ListUnreachable as error:
            raise LogUnavailable("nobody can tell whether a late claim came in time before") from error
        source = Source(
            system=received.system,
            organisation=submission.organisation,
            role=submission.role,
            person=submission.person,
        )
        events = events_of(
            admitted,
            source=source,
            key=message_id,
            occurred_at_ms=submission.occurred_at_ms,
            received_at_ms=now_ms,
            sealer=self._sealer,
        )
        for event in events:
            try:
                await append(self._log, event, received.traceparent, message_id)
            except RecordTooLarge:
                raise Rejected(DoorReason.TOO_LARGE) from None

    async def _answer(self, rejection: Rejected, submission: Submission[Any] | None, received: Received) -> None:
        """The receipt of a rejection: by message id where it can be read, by topic, partition and offset always."""
        message_id = None if submission is None else _uuid(submission.message_id)
        receipt = SubmissionReceipt(
            effect_id=str(uuid5(EVENTS, f"rejected\n{received.place}")),
            outcome="rejected",
            message_id=message_id,
            reason=rejection.reason.value,
            errors=rejection.errors,
            topic=received.topic,
            partition=received.partition,
            offset=received.offset,
        )
        headers = cloud_event_headers(
            event_id=receipt.effect_id,
            event_type=codec.name_of(receipt),
            source="medchain",
            time_ms=self._clock.now_ms(),
            traceparent=received.traceparent,
        )
        key = (message_id or received.place).encode("utf-8")
        await self._log.append(f"{_RECEIPTS}.{received.system}", key, codec.encode(receipt), headers)
        self._metrics.rejected(rejection.reason.value)
        get_logger().info(
            "submission_rejected",
            topic=received.topic,
            partition=received.partition,
            offset=received.offset,
            reason=rejection.reason.value,
            count=len(rejection.errors),
        )


def _read(received: Received, framing: Framing) -> Submission[Any]:
    """The submission in a record. Raises Rejected for what is none."""
    try:
        message = codec.decode(framing.from_topic(received.value))
    except codec.UndecodableError as error:
        raise Rejected(_UNREADABLE.get(error.reason, DoorReason.UNREADABLE)) from None
    if not isinstance(message, Submission):
        raise Rejected(DoorReason.UNKNOWN_SCHEMA)
    return message


def _check_that_it_belongs(submission: Submission[Any], topic: str) -> None:
    """Raises Rejected for a submission of nothing, and for one that is another service's."""
    if not submission.bodies:
        raise Rejected(DoorReason.INVALID, _errors(TurnedAway([Finding(("bodies",), DoorReason.TOO_FEW)])))
    if codec.name_of(submission) not in load().declaration(topic).schemas:
        raise Rejected(DoorReason.UNKNOWN_SCHEMA)


def _uuid(text: str) -> str | None:
    """A message id in the form of the contract; None for what is no UUID, which then stays out of the receipt."""
    try:
        return str(UUID(text))
    except ValueError:
        return None


def _errors(turned_away: TurnedAway) -> tuple[ReceiptError, ...]:
    return tuple(
        ReceiptError(pointer=error.pointer, reason=error.reason.value, text=error.text)
        for error in turned_away.errors()
    )
