"""What the oracle remembers of one patient: every event that was applied, in log order, and nothing derived from it."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Generic, TypeVar, cast
from zoneinfo import ZoneInfo

import msgspec

from schemas import events as ev
from schemas.reasons import Flag, NoticeKind, ParkReason, Reason

OSLO = ZoneInfo("Europe/Oslo")
PATIENT = ("patient", "")
Key = tuple[str, str]


def day(at_ms: int) -> date:
    """The calendar day in Norway at that instant."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).astimezone(OSLO).date()


def starts(on: date) -> int:
    """The first instant of a day in Norway."""
    return int(datetime(on.year, on.month, on.day, tzinfo=OSLO).timestamp() * 1000)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """In the place of an event: why the record could not be judged."""

    reason: ParkReason


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One record of the log, in the order of its partition."""

    partition: int
    offset: int
    broker_time_ms: int
    event: ev.Event[ev.Body] | Unreadable


@dataclass(frozen=True, slots=True)
class Notice:
    """What an organisation must be told: of which kind, and about which prescription, treatment or request."""

    kind: NoticeKind
    organisation: str
    subject: str


@dataclass(frozen=True, slots=True)
class Order:
    """A dispense order that goes out to a pharmacy."""

    pharmacy: str
    prescription: str
    dispatch: str


@dataclass(slots=True)
class Verdict:
    """What becomes of one record. `named` is what a refusal names: holder, pharmacy, date, or what moved."""

    record: LogRecord
    outcome: str
    reason: str | None = None
    flags: set[Flag] = field(default_factory=set)
    named: str | None = None
    notices: list[Notice] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)

    def tell(self, kind: NoticeKind, organisation: str, subject: str) -> None:
        """Expect a notice, once."""
        notice = Notice(kind, organisation, subject)
        if notice not in self.notices:
            self.notices.append(notice)


BodyOf = TypeVar("BodyOf")


@dataclass(slots=True, eq=False)
class Entry(Generic[BodyOf]):
    """An applied event in its place. Four facts are kept with it, because only that moment knows them.

    claim_position: of a hand-out by the holder, the place of the claim. ended_claim: the claim that a hand-out ended.
    voids_order: of a hand-out by another, whether it made the order of the bound pharmacy void.
    shown_flags: of a hand-out or an issue, its flags as the list shows them.
    """

    position: int
    event: ev.Event[Any]
    verdict: Verdict
    claim_position: int | None = None
    ended_claim: str | None = None
    voids_order: bool = False
    shown_flags: set[Flag] = field(default_factory=set)

    @property
    def body(self) -> BodyOf:
        """The event's body."""
        return cast("BodyOf", self.event.body)

    @property
    def organisation(self) -> str:
        """Who sent it."""
        return self.event.source.organisation

    @property
    def occurred_at_ms(self) -> int:
        """When it happened in the world."""
        return self.event.occurred_at_ms

    @property
    def time_and_place(self) -> tuple[int, int]:
        """For "the latest": when it happened, and for the same instant its place in the log."""
        return (self.event.occurred_at_ms, self.position)


@dataclass(frozen=True, slots=True)
class Conflict:
    """A hand-out that was reported again with other content, and the prescription under which it is shown."""

    prescription: str
    dispense: str
    pharmacy: str
    at_ms: int


@dataclass(slots=True)
class Chart:
    """One patient's history. `about` holds the same entries once more by what they name, so that looking is not slow.

    version: the place of the last event that changed what the list shows; -1 before any.
    """

    about: dict[Key, list[Entry[Any]]] = field(default_factory=lambda: defaultdict(list))
    event_ids: dict[str, object] = field(default_factory=dict)
    natural_ids: dict[Key, object] = field(default_factory=dict)
    dispense_prescription: dict[str, str] = field(default_factory=dict)
    reported_under: dict[str, str] = field(default_factory=dict)
    """Dispense -> the prescription that its first report names, be that report refused for its event id."""
    parked: list[LogRecord] = field(default_factory=list)
    moves: list[tuple[int, str]] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)
    opened: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Prescription -> the places in the log after which anybody could dispense it, of those that asked for a dispatch."""
    outcome_changed: set[str] = field(default_factory=set)
    """Dispenses of which a reversal was first applied and then refused."""

    @property
    def version(self) -> int:
        """Where the list last moved."""
        return self.moves[-1][0] if self.moves else -1

    def add(self, entry: Entry[Any]) -> None:
        """Remember an applied event under everything that it names."""
        for key in self._keys(entry.event.body):
            self.about[key].append(entry)

    def remove(self, entry: Entry[Any]) -> None:
        """Forget an event whose outcome was changed to refused."""
        for key in self._keys(entry.event.body):
            self.about[key].remove(entry)

    def _keys(self, body: ev.Body) -> list[Key]:
        keys = named_by(body)
        if isinstance(body, ev.ClaimAborted | ev.ClaimReleased):
            keys += [("rx", claim.body.prescription) for claim in of(self, ("claim", body.claim), ev.ClaimRequested)]
        return keys


def named_by(body: ev.Body) -> list[Key]:  # noqa: C901, PLR0911  # one line for each type of event
    """What an event is about."""
    match body:
        case ev.PrescriptionIssued():
            renews = [("renews", body.renews)] if body.renews else []
            return [("rx", body.prescription), ("t", body.treatment), *renews]
        case ev.PrescriptionRecalled() | ev.DispatchRequested() | ev.DispatchWithdrawn():
            return [("rx", body.prescription)]
        case ev.AllergyRecorded() | ev.AllergyRefuted():
            return [("allergy", body.allergy), PATIENT]
        case ev.ClaimRequested():
            return [("claim", body.claim), ("rx", body.prescription)]
        case ev.ClaimAborted() | ev.ClaimReleased():
            return [("claim", body.claim)]
        case ev.MedicationDispensed():
            return [("dispense", body.dispense), ("rx", body.prescription)]
        case ev.DispenseReversed():
            return [("dispense", body.dispense)]
        case ev.RenewalRequested() | ev.RenewalDeclined():
            return [("request", body.request)]
        case ev.ListReconciled() | ev.MultidoseAssigned() | ev.MultidoseEnded():
            return [PATIENT]
        case ev.PatientDied() | ev.DeathRetracted() | ev.ParkedRecordClosed():
            return [PATIENT]
        case _:
            return [("t", body.treatment)]


def of(chart: Chart, key: Key, body_type: type[BodyOf]) -> list[Entry[BodyOf]]:
    """The applied events of one type about one thing, in log order."""
    return [entry for entry in chart.about.get(key, ()) if isinstance(entry.event.body, body_type)]


def natural_id(body: ev.Body) -> Key | None:  # noqa: PLR0911  # one line for each type of event
    """The id by which a thing is the same thing under whatever event id."""
    match body:
        case ev.PrescriptionIssued():
            return ("prescription", body.prescription)
        case ev.MedicationDispensed():
            return ("dispense", body.dispense)
        case ev.ClaimRequested():
            return ("claim", body.claim)
        case ev.AllergyRecorded():
            return ("allergy", body.allergy)
        case ev.DispenseReversed():
            return ("reversal", body.reversal)
        case ev.DispatchRequested():
            return ("dispatch", body.dispatch)
        case ev.RenewalRequested():
            return ("request", body.request)
        case ev.TreatmentRecorded():
            return ("recorded", body.treatment)
        case _:
            return None


def content(event: ev.Event[ev.Body]) -> object:
    """What makes two reports the same: who sent it and what it says, text in NFC.

    The sealed identity is packaging: it differs each time it is sealed, and says nothing that the patient key does not.
    """
    body = event.body
    if isinstance(body, ev.PrescriptionIssued):
        body = msgspec.structs.replace(body, identity=None)
    plain = msgspec.to_builtins(body, builtin_types=(bytes, date, Decimal))
    return (event.source.organisation, type(body).__name__, _canonical(plain))


def _canonical(value: Any) -> object:
    if isinstance(value, dict):
        return {key: _canonical(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(member) for member in value]
    return unicodedata.normalize("NFC", value) if isinstance(value, str) else value


def first(found: Iterable[BodyOf]) -> BodyOf | None:
    """The first of them, None of none."""
    return next(iter(found), None)


def last(found: Iterable[BodyOf]) -> BodyOf | None:
    """The last of them, None of none."""
    return next(reversed(list(found)), None)


def is_same_person(one: ev.Source, other: ev.Source) -> bool:
    """Whether both are the same person; where one of them names nobody, whether both are of the same organisation."""
    if one.person and other.person:
        return one.person == other.person
    return one.organisation == other.organisation


def refuse(reason: Reason, named: str | None = None) -> tuple[Reason, str | None]:
    """A refusal, and what it names."""
    return (reason, named)
