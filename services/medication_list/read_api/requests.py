"""Requests to the read API: checked as the door checks a write, all errors at once."""

from collections.abc import Iterator
from typing import TypeVar

import msgspec
from msgspec import Struct
from pydantic import ValidationError

from schemas.fields import Instant, Word
from schemas.reasons import DoorReason
from services.admission.door import Person
from services.admission.errors import Finding, TurnedAway, findings_of
from services.admission.fields import AT_ONCE_UNLESS_SAID, PageSize
from services.admission.models import model_of, struct_of
from services.admission.rules import FUTURE_TOLERANCE_MS, broken_rules, door_rule
from services.medication_list.log.positions import InvalidPositionError, place_of
from services.problems import Problem, invalid
from services.problems.guard import Given
from services.topics.registry import EVENTS_TOPIC, load

T = TypeVar("T", bound=Struct)


class ListRead(Struct, frozen=True, kw_only=True):
    """Whose list; as it was known at a time; or no earlier than a position that an answer told."""

    patient: Person
    as_of_ms: Instant | None = None
    after_position: Word | None = None


class HistoryRead(Struct, frozen=True, kw_only=True):
    """Whose events, how many at most, and after which: the cursor of the page before."""

    patient: Person
    limit: PageSize = AT_ONCE_UNLESS_SAID
    cursor: Word | None = None


class OutcomeAsked(Struct, frozen=True, kw_only=True):
    """Which record's outcome, and how long to wait for it.

    record: its bytes, in single-object encoding, from whoever appended it; without them the log is asked.
    """

    patient: str
    event_id: str
    partition: int
    offset: int
    wait_ms: int = 0
    record: bytes = b""


class PrescriptionsAsked(Struct, frozen=True, kw_only=True):
    """A pharmacy's search: by patient (a pseudonym), by reference number, or by both."""

    patient: str | None = None
    reference_number: str | None = None
    all: bool = False
    limit: int = AT_ONCE_UNLESS_SAID
    cursor: str | None = None


class FirstReportAsked(Struct, frozen=True, kw_only=True):
    """An event of a patient (a pseudonym) of which a service asks how it came for the first time."""

    patient: str
    event_id: str


class OwnersAsked(Struct, frozen=True, kw_only=True):
    """Prescription ids and reference numbers whose patients are asked for."""

    prescriptions: tuple[str, ...] = ()
    reference_numbers: tuple[str, ...] = ()


@door_rule(ListRead)
def the_past_is_past(as_of_ms: int | None, received_at_ms: int) -> Iterator[Finding]:
    """Nothing is known of what will have been known."""
    if as_of_ms is not None and as_of_ms > received_at_ms + FUTURE_TOLERANCE_MS:
        yield Finding(("as_of",), DoorReason.OUT_OF_RANGE)


@door_rule(ListRead)
def a_read_waits_for_a_position(after_position: str | None) -> Iterator[Finding]:
    """One that an answer told. Whether it is one of this patient's shows only once the patient is known."""
    yield from _no_position("after_position", after_position)


@door_rule(HistoryRead)
def a_page_follows_on_a_position(cursor: str | None) -> Iterator[Finding]:
    """As above: it is that of the last event of the page before."""
    yield from _no_position("cursor", cursor)


def _no_position(field: str, given: str | None) -> Iterator[Finding]:
    try:
        if given is not None:
            place_of(given, load().partitions(EVENTS_TOPIC))
    except InvalidPositionError:
        yield Finding((field,), DoorReason.WRONG_FORMAT)


def asked_from_outside(kind: type[T], given: Given, now_ms: int) -> T:
    """A request of an outside caller. Raises a 422 problem with everything that is wrong with it."""
    findings: list[Finding] = []
    found = None
    try:
        found = model_of(kind).model_validate(given.value)
    except ValidationError as error:
        findings += findings_of(error)
    findings += broken_rules(kind, given.value, {"received_at_ms": now_ms})
    if findings or found is None or given.faults:
        raise given.turned_away(TurnedAway(findings).errors())
    asked: T = struct_of(found, kind)
    return asked


def asked_from_within(kind: type[T], body: bytes) -> T:
    """A request of another service of ours. Raises a 422 problem when it has another form."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise wrong((), DoorReason.WRONG_FORMAT) from None


def wrong(place: tuple[str, ...], reason: DoorReason) -> Problem:
    """A 422 problem with this one field."""
    return invalid(TurnedAway([Finding(place, reason)]).errors())
