"""The resources of the medication list: what outsiders read, and what the other services ask."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Final, NamedTuple

from fastapi import APIRouter, Depends, Request, Response

from schemas.medication_list import MedicationList
from schemas.reasons import DoorReason
from services.admission.door import Door
from services.admission.fields import MOST_AT_ONCE
from services.admission.read_token import ReadTokens
from services.admission.search_cursor import InvalidCursor
from services.clock import Clock
from services.health import Readiness, Trouble, TroubleReason
from services.identity.national_id import NationalId
from services.identity.registers import InvalidIdentifier, parse_uuid
from services.medication_list.log.positions import InvalidPositionError, LogPlace, place_of, position_of
from services.medication_list.read_api.as_of import past_of
from services.medication_list.read_api.documents import (
    EVENT,
    FIRST_REPORTS,
    HISTORY,
    OUTCOMES,
    OWNERS,
    PRESCRIPTIONS,
    READ,
    STATUS,
)
from services.medication_list.read_api.event_places import EventPlaces
from services.medication_list.read_api.history import page_of
from services.medication_list.read_api.list_answer import (
    ListAnswer,
    PrescriptionAnswer,
    answered,
    answered_alone,
    standing,
    stood,
)
from services.medication_list.read_api.locked import (
    PHARMACISTS,
    Withheld,
    is_withheld,
    withheld_from,
    withheld_of_all,
    without,
)
from services.medication_list.read_api.log_lookup import LogLookup
from services.medication_list.read_api.number_conflicts import NumberConflicts
from services.medication_list.read_api.outcomes import NotInLogError, Outcomes
from services.medication_list.read_api.presenting import to_json
from services.medication_list.read_api.requests import (
    FirstReportAsked,
    HistoryRead,
    ListRead,
    OutcomeAsked,
    OwnersAsked,
    PrescriptionsAsked,
    asked_from_outside,
    asked_from_within,
    wrong,
)
from services.medication_list.read_api.searching import Search, search
from services.medication_list.read_api.view import show, show_prescription
from services.medication_list.store.port import StoreUnavailableError
from services.medication_list.store.reading import NotReadyError, ViewReader
from services.problems import not_found, unavailable
from services.recording.caller import Caller, caller
from services.recording.direct import Handler
from services.recording.routes import message_of
from services.serving import reads
from services.telemetry import Registry

WAIT_MS: Final = 2_000
RETRY_AFTER_S: Final = 1

outside = APIRouter(tags=["medication list"])
inside = APIRouter(prefix="/internal", tags=["for the platform's own services"])

AnyCaller = Annotated[Caller, Depends(caller)]


class Parts(NamedTuple):
    """What the running API is made of."""

    reader: ViewReader
    log: LogLookup
    numbers: NumberConflicts
    outcomes: Outcomes
    places: EventPlaces
    door: Door
    tokens: ReadTokens
    clock: Clock
    partitions: int
    readiness: Readiness
    registry: Registry


def _parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


def _answer(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(to_json(content), status, headers, "application/json")


# --- For outsiders ------------------------------------------------------------------------------------------------


@outside.post("/v1/list/read", **READ)
async def read_list(request: Request, by: AnyCaller) -> Response:
    """One citizen's list: now, or as it was known at an earlier time. A pharmacy is not shown what is locked."""
    return await _list_read(request, by)


async def _read_list_directly(request: Request) -> Response:
    return await _list_read(request, await caller(request.headers.get("medchain-caller")))


async def _list_read(request: Request, by: Caller) -> Response:
    parts, now_ms = _parts(request), _parts(request).clock.now_ms()
    asked = asked_from_outside(ListRead, await message_of(request), now_ms)
    patient = parts.door.patient_key(NationalId.parse(asked.patient.national_id))
    if asked.after_position is not None:
        await _reach(parts, patient, asked.after_position)
    if asked.as_of_ms is None:
        return _answer(await _present(parts, patient, now_ms, by))
    return _answer(await _past(parts, patient, asked.as_of_ms, by))


def _withheld(shown: MedicationList, by: Caller) -> Withheld:
    return withheld_from(shown, by.organisation) if by.role in PHARMACISTS else Withheld()


async def _present(parts: Parts, patient: str, now_ms: int, by: Caller) -> ListAnswer:
    found, fields, flagged, _ = await parts.numbers.shown(patient)
    shown = show(fields, now_ms, flagged)
    shown = without(shown, _withheld(shown, by))
    stands = standing(found, fields)
    token = parts.tokens.make(patient, shown.version, now_ms, is_whole=stands.complete)
    return answered(shown, stands, as_of_ms=now_ms, read_token=token)


async def _past(parts: Parts, patient: str, as_of_ms: int, by: Caller) -> ListAnswer:
    hidden, flagged = await parts.numbers.told_apart(patient, as_of_ms)
    past = await past_of(parts.reader, parts.log, patient, as_of_ms, hidden)
    shown = show(past.fields, as_of_ms, flagged)
    stands = stood(past.generation, past.partition, past.offset + 1, past.recorded_at_ms, past.fields)
    return answered(without(shown, _withheld(shown, by)), stands, as_of_ms=as_of_ms, read_token=None)


async def _reach(parts: Parts, patient: str, position: str) -> None:
    """Wait until the view has taken account of a position. Raises Problem: 422 for none of this patient, 503 in vain."""
    place = _own_place(parts, patient, position, "after_position")
    if not await parts.reader.await_offset(place.partition, place.offset + 1, WAIT_MS):
        has = await parts.reader.offset_of(place.partition)
        raise unavailable(
            DoorReason.LIST_UNAVAILABLE,
            retry_after_s=RETRY_AFTER_S,
            progress=_progress(place.partition, has, place.offset + 1),
        )


def _own_place(parts: Parts, patient: str, position: str, field: str) -> LogPlace:
    """The place that a position names, whose form was judged. Raises a 422 problem for one that is none of this patient's."""
    place = place_of(position, parts.partitions)
    if place.partition != parts.reader.partition_of(patient):
        raise wrong((field,), DoorReason.CONTRADICTS)
    return place


@outside.post("/v1/list/history", **HISTORY)
async def read_history(request: Request, by: AnyCaller) -> Response:
    """Every event of one citizen, in log order. A pharmacy is not shown those of what is locked."""
    parts = _parts(request)
    asked = asked_from_outside(HistoryRead, await message_of(request), parts.clock.now_ms())
    patient = parts.door.patient_key(NationalId.parse(asked.patient.national_id))
    after = -1 if asked.cursor is None else _own_place(parts, patient, asked.cursor, "cursor").offset
    view = await parts.numbers.shown(patient)
    withheld = Withheld(offsets=view.hidden)
    if by.role in PHARMACISTS:
        withheld = withheld_of_all(view.fields, parts.clock.now_ms(), by.organisation, view.hidden)
    return _answer(await page_of(parts.reader, parts.log, patient, after, asked.limit, withheld))


@reads(outside, "/v1/events/{event_id}", **EVENT)
async def read_event(request: Request, event_id: str, _: AnyCaller, position: str | None = None) -> Response:
    """What became of one event."""
    parts = _parts(request)
    event_id = _id(event_id)
    place = await parts.places.find(event_id) if position is None else _stated(parts, position)
    if place is None:
        raise not_found()
    outcome = await _existing(parts.outcomes.of(event_id, place))
    if outcome is None:
        return _pending(event_id, place)
    return _answer(outcome)


def _stated(parts: Parts, position: str) -> LogPlace:
    try:
        return place_of(position, parts.partitions)
    except InvalidPositionError:
        raise wrong(("position",), DoorReason.WRONG_FORMAT) from None


def _pending(event_id: str, place: LogPlace) -> Response:
    content = {"event_id": event_id, "outcome": "pending", "position": position_of(*place)}
    return _answer(content, 202, {"Retry-After": str(RETRY_AFTER_S)})


def _id(text: str) -> str:
    try:
        return parse_uuid(text)
    except InvalidIdentifier:
        raise not_found() from None


async def _existing(looked_up: Awaitable[Any]) -> Any:
    try:
        return await looked_up
    except NotInLogError:
        raise not_found() from None


@reads(outside, "/v1/prescriptions/{prescription_id}/status", **STATUS)
async def read_status(request: Request, prescription_id: str, by: AnyCaller) -> Response:
    """One prescription, as it is now. To a pharmacy that has nothing to do with it a locked one is not there.

    What is not there, or not for this caller, is 503 for both while a partition of the view cannot be shown.
    """
    parts = _parts(request)
    prescription = _id(prescription_id)
    owner = await parts.numbers.owner_of(prescription)
    shown = None if owner.patient is None else await _status(parts, owner.patient, prescription)
    if shown is None or (by.role in PHARMACISTS and is_withheld(shown, by.organisation)):
        raise owner.not_asked or not_found()
    return _answer(shown)


async def _status(parts: Parts, patient: str, prescription: str) -> PrescriptionAnswer | None:
    found, fields, flagged, _ = await parts.numbers.shown(patient, [prescription])
    shown = show_prescription(fields, prescription, parts.clock.now_ms(), flagged)
    if shown is None:
        return None
    return answered_alone(shown, standing(found, fields))


# --- For the platform's own services ------------------------------------------------------------------------------


@inside.post("/outcomes", **OUTCOMES)
async def outcome(request: Request) -> Response:
    """The outcome of an event that a service appended, and what it is about, as it is now."""
    parts = _parts(request)
    asked = asked_from_within(OutcomeAsked, await request.body())
    place = LogPlace(asked.partition, asked.offset)
    remembering = asyncio.create_task(parts.places.remember(asked.event_id, place), name="event-place")
    try:
        judged = await _existing(parts.outcomes.awaited(asked, parts.clock.now_ms))
    finally:
        await remembering
    return _answer({}, 202, {"Retry-After": str(RETRY_AFTER_S)}) if judged is None else _answer(judged)


@inside.post("/prescriptions", **PRESCRIPTIONS)
async def find_prescriptions(request: Request) -> Response:
    """A pharmacy's search."""
    parts = _parts(request)
    asked = asked_from_within(PrescriptionsAsked, await request.body())
    if not 1 <= asked.limit <= MOST_AT_ONCE:
        raise wrong(("limit",), DoorReason.OUT_OF_RANGE)
    wanted = Search(asked.patient, asked.reference_number, asked.all, asked.limit, asked.cursor)
    try:
        return _answer(await search(parts.numbers, wanted, parts.clock.now_ms()))
    except InvalidCursor:
        raise wrong(("cursor",), DoorReason.WRONG_FORMAT) from None


@inside.post("/first-reports", **FIRST_REPORTS)
async def find_first_report(request: Request) -> Response:
    """When an event happened that a service may have recorded before."""
    asked = asked_from_within(FirstReportAsked, await request.body())
    return _answer(await _parts(request).outcomes.first_report(asked.patient, asked.event_id))


@inside.post("/owners", **OWNERS)
async def find_owners(request: Request) -> Response:
    """The patient (pseudonym) of each prescription id and reference number that is known."""
    asked = asked_from_within(OwnersAsked, await request.body())
    ids = (*asked.prescriptions, *asked.reference_numbers)
    return _answer(await _parts(request).numbers.known_owners(ids) if ids else {})


DIRECT: Final[dict[str, Handler]] = {
    "/v1/list/read": _read_list_directly,
    "/internal/outcomes": outcome,
    "/internal/owners": find_owners,
}
"""What most requests ask for, by address; see `DirectRoutes`."""
DECODED_BY_TYPE: Final = frozenset(
    f"{inside.prefix}/{each}" for each in ("outcomes", "owners", "first-reports", "prescriptions")
)


# --- Health -------------------------------------------------------------------------------------------------------


def readiness_of(request: Request) -> Readiness:
    """The readiness of the running API."""
    return _parts(request).readiness


async def check_view(reader: ViewReader, partitions: int) -> Sequence[Trouble]:
    """Whether every partition can be shown; where not, how far each has come (see `services.health`)."""
    try:
        stands = await asyncio.gather(*(_unready(reader.offset_of, each) for each in range(partitions)))
    except StoreUnavailableError:
        return ()  # the check of Redis says it
    behind = [stand for stand in stands if stand is not None]
    if not behind:
        return ()
    text = f"{len(behind)} of {partitions} partitions of the view cannot be shown: it was lost, or is being built."
    return (Trouble(TroubleReason.VIEW_INCOMPLETE, text, named={"partitions": behind}),)


async def _unready(offset_of: Callable[[int], Awaitable[int]], partition: int) -> dict[str, int | None] | None:
    try:
        await offset_of(partition)
    except NotReadyError as error:
        return progress_of(error)
    return None


def progress_of(error: NotReadyError) -> dict[str, int | None]:
    """Which partition, how far it has come and how far it must; null where the view has not begun."""
    return _progress(error.partition, error.offset, error.until)


def _progress(partition: int, offset: int | None, until: int | None) -> dict[str, int | None]:
    return {"partition": partition, "offset": offset, "until": until}
