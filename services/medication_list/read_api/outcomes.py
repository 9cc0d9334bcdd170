"""The outcome of one record of the log, as the view remembers it, and the resource that it is about, as it is now."""

from collections.abc import Callable
from typing import Any, Final, cast

from msgspec import Struct
from msgspec.structs import replace

from schemas.codec import UndecodableError, decode, digest_of
from schemas.events import Body, ClaimAborted, ClaimReleased, ClaimRequested, Event
from schemas.reasons import ParkReason, Reason
from services.medication_list.fold.judgement import Verdict
from services.medication_list.fold.remembering import event_key, natural_key, parked_key, recollect
from services.medication_list.fold.state import Remembered
from services.medication_list.log.positions import LogPlace, position_of
from services.medication_list.log.record import Record
from services.medication_list.log.record_log import all_of
from services.medication_list.read_api.log_lookup import LogLookup
from services.medication_list.read_api.number_conflicts import NumberConflicts
from services.medication_list.read_api.requests import OutcomeAsked
from services.medication_list.read_api.resources import resource_of
from services.medication_list.read_api.stored_events import event_id_of, event_of, places_of
from services.medication_list.store.reading import Found, ViewReader
from services.medication_list.stored.packing import unpack_memory

_LOOKED_BACK: Final = 20
"""Records of a patient that are looked through at once for a claim; it was made shortly before it ended."""


class NotInLogError(Exception):
    """There is no such record of this patient, or it is no event of this id."""


class FirstOutcome(Struct, frozen=True):
    """What became of an event when it came for the first time. `named`: what that answer named, such as a holder."""

    outcome: str
    reason: str | None = None
    flags: tuple[str, ...] = ()
    named: dict[str, str] | None = None


class Outcome(Struct, frozen=True, omit_defaults=True):
    """How the record at `position` was judged. `first` is there when it, or the same under another event id, came before.

    `named`: what the ruling names, such as {"holder": "..."}. `resource`: what it is about, as it is now; of what was
    refused, now or the first time, there is none.
    """

    event_id: str
    outcome: str
    """applied, duplicate, refused or parked."""
    position: str
    reason: str | None = None
    flags: tuple[str, ...] = ()
    named: dict[str, str] | None = None
    first: FirstOutcome | None = None
    resource: Any = None


class FirstReport(Struct, frozen=True):
    """When an event happened, as it came for the first time; null where none of this id came."""

    occurred_at_ms: int | None = None


class Outcomes:
    """Looks outcomes up, in the view and, for what the view does not keep, in the log."""

    def __init__(self, reader: ViewReader, log: LogLookup, numbers: NumberConflicts) -> None:
        self._reader = reader
        self._numbers = numbers
        self._log = log

    async def of(self, event_id: str, place: LogPlace) -> Outcome | None:
        """The outcome of the event at this place, without resource; None while it is not judged.

        Raises NotInLogError, NotReadyError, StoreUnavailableError, LogLookupError.
        """
        record = await self._record(event_id, place)
        found = await self._reader.remembered(_owner_of(record), _keys(event_id, place))
        return await self._judged(event_id, place, event_of(record), found)

    async def awaited(self, asked: OutcomeAsked, now_ms: Callable[[], int]) -> Outcome | None:
        """The outcome of a patient's event, once it is judged, with what it is about at that time.

        None when it was not judged in time. Raises as `of` does.
        """
        event_id, place, patient = asked.event_id, LogPlace(asked.partition, asked.offset), asked.patient
        event = self._sent(asked) if asked.record else await self._logged(asked)
        shown = await self._reader.shown_from(patient, _keys(event_id, place), place.offset + 1, asked.wait_ms)
        if shown is None:
            return None
        listed, index = shown
        outcome = await self._judged(event_id, place, event, index)
        if outcome is None or event is None:
            return outcome
        flags = _flags_of_what_took_effect(outcome)
        if flags is None:
            return outcome
        claimed = await self._claimed(patient, place, event.body)
        named = claimed or getattr(event.body, "prescription", None)
        view = await self._numbers.settled(listed, patient, () if named is None else (named,))
        about = resource_of(view.fields, event.body, flags, now_ms(), claimed=claimed, flagged=view.flagged)
        return replace(outcome, resource=about)

    async def first_report(self, patient: str, event_id: str) -> FirstReport:
        """How this patient's event came for the first time; nothing of an id that never came.

        Raises NotReadyError, StoreUnavailableError, LogLookupError.
        """
        key = event_key(event_id)
        found = await self._reader.remembered(patient, [key])
        known = unpack_memory(key, found.values[key]) if key in found.values else None
        if not isinstance(known, Remembered):
            return FirstReport()
        records = await self._log.read(found.partition, [known.offset])
        event = event_of(all_of(patient, found.partition, [known.offset], records)[known.offset])
        return FirstReport(event.occurred_at_ms if event is not None and event.event_id == event_id else None)

    def _sent(self, asked: OutcomeAsked) -> Event[Body]:
        """The event that is asked about, as it came along. Raises NotInLogError where it is another than said."""
        try:
            event = decode(asked.record)
        except UndecodableError:
            raise NotInLogError from None
        is_as_said = isinstance(event, Event) and (event.event_id, event.patient) == (asked.event_id, asked.patient)
        if not is_as_said or self._reader.partition_of(asked.patient) != asked.partition:
            raise NotInLogError
        return cast("Event[Body]", event)

    async def _logged(self, asked: OutcomeAsked) -> Event[Body] | None:
        """The event that is asked about, as it lies in the log; None if it cannot be read there.

        Raises NotInLogError where it is not this patient's, or has another id.
        """
        record = await self._record(asked.event_id, LogPlace(asked.partition, asked.offset))
        if _owner_of(record) != asked.patient:
            raise NotInLogError
        return event_of(record)

    async def _record(self, event_id: str, place: LogPlace) -> Record:
        record = (await self._log.read(place.partition, [place.offset])).get(place.offset)
        if record is None or event_id_of(record) != event_id:
            raise NotInLogError
        if self._reader.partition_of(_owner_of(record)) != place.partition:
            raise NotInLogError
        return record

    async def _judged(self, event_id: str, place: LogPlace, event: Event[Body] | None, found: Found) -> Outcome | None:
        """What the patient's index says of the record; the log is asked only for one whose event id was known before."""
        keys = _keys(event_id, place)
        if found.offset <= place.offset:
            return None
        parked, known = (unpack_memory(key, found.values[key]) if key in found.values else None for key in keys)
        position = position_of(*place)
        if isinstance(parked, Remembered):
            reason = ParkReason.from_code(parked.reason)
            return Outcome(event_id=event_id, outcome="parked", position=position, reason=reason)
        if not isinstance(known, Remembered) or known.offset > place.offset:
            raise NotInLogError
        earlier = await self._earlier(event, known)
        if known.offset == place.offset:
            return told(event_id, position, recollect(known), earlier)
        return _again(event_id, position, known, earlier or known, await self._record(event_id, place))

    async def _earlier(self, event: Event[Body] | None, known: Remembered) -> Remembered | None:
        """The first event of what this one makes known, a claim say, where that had come under another event id.

        Both have one content, so the digest leads to it, at the cost of a look at the whole index.
        """
        if event is None or natural_key(event) is None or recollect(known).outcome != "duplicate":
            return None
        _, index = await self._reader.list_and_index(event.patient)
        memories = (unpack_memory(key, packed) for key, packed in index.values.items())
        same = [each for each in memories if isinstance(each, Remembered) and each.digest == known.digest]
        first = min(same, key=lambda each: each.offset, default=known)
        return first if first.offset < known.offset else None

    async def _claimed(self, patient: str, place: LogPlace, body: Body) -> str | None:
        """The prescription of the claim that was given back; the view forgets it, the patient's own events tell it."""
        if not isinstance(body, ClaimAborted | ClaimReleased):
            return None
        known = places_of(*await self._reader.list_and_index(patient))
        offsets = sorted((offset for offset in known if offset < place.offset), reverse=True)
        for start in range(0, len(offsets), _LOOKED_BACK):
            some = offsets[start : start + _LOOKED_BACK]
            records = all_of(patient, place.partition, some, await self._log.read(place.partition, some))
            for event in map(event_of, records.values()):
                if event is not None and isinstance(event.body, ClaimRequested) and event.body.claim == body.claim:
                    return event.body.prescription
        return None


def _keys(event_id: str, place: LogPlace) -> tuple[bytes, bytes]:
    return parked_key(place.offset), event_key(event_id)


def _owner_of(record: Record) -> str:
    return (record.key or b"").decode(errors="replace")


def _flags_of_what_took_effect(outcome: Outcome) -> tuple[str, ...] | None:
    """The flags of the event itself, of a duplicate those of the first; None where nothing took effect.

    Then nothing is shown of what it is about: a refusal did not, and who repeats it may not see more than it did.
    """
    if outcome.outcome == "applied":
        return outcome.flags
    if outcome.outcome != "duplicate":
        return None
    first = outcome.first
    if first is None:
        return outcome.flags
    return None if first.outcome == "refused" else first.flags


def told(event_id: str, position: str, verdict: Verdict, first: Remembered | None = None) -> Outcome:
    """A verdict as it is answered, with what became of the first such event where this is another."""
    return Outcome(
        event_id=event_id,
        outcome=verdict.outcome,
        position=position,
        reason=verdict.reason,
        flags=tuple(verdict.flags),
        named=named_by(verdict),
        first=None if first is None else first_outcome(first),
    )


def named_by(verdict: Verdict) -> dict[str, str] | None:
    """What a verdict names, as it is answered."""
    return None if verdict.named is None else dict((verdict.named,))


def first_outcome(known: Remembered) -> FirstOutcome:
    """What is remembered of an event, as it was answered first."""
    verdict = recollect(known)
    return FirstOutcome(verdict.outcome, verdict.reason, tuple(verdict.flags), named_by(verdict))


def _again(event_id: str, position: str, known: Remembered, first: Remembered, record: Record) -> Outcome:
    """A record whose event id was known: the fold keeps nothing of it, but judges the same each time."""
    event = event_of(record)
    is_same = event is not None and digest_of(event) == known.digest
    again = Verdict("duplicate") if is_same else Verdict("refused", reason=Reason.CONFLICTING_DUPLICATE)
    return told(event_id, position, again, first)
