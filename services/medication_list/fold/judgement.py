"""What judging one event yields, and the draft in which a judgement is made."""

from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from schemas.events import Body, Event
from schemas.reasons import Flag, NoticeKind, Reason
from services.medication_list.fold.state import (
    ALLERGIES,
    META,
    Allergies,
    HandOutPointer,
    Meta,
    PrescriptionState,
    RenewalState,
    State,
    TreatmentState,
    Waiting,
    WaitingFact,
    hand_out_field,
    prescription_field,
    request_field,
    treatment_field,
    waiting_field,
)

OutcomeName = Literal["applied", "duplicate", "refused", "parked"]
OUTCOMES: tuple[OutcomeName, ...] = ("applied", "duplicate", "refused", "parked")

EVERYTHING = "*"
"""Asked for when a judgement must see every field of the patient (a death, a reconciliation)."""


NOTHING_WAITS = Waiting()


class NotLoadedError(Exception):
    """The judgement needs a field that was not read with the state. Read it at the same offset and epoch; judge again."""

    def __init__(self, field: str) -> None:
        super().__init__(field)
        self.field = field


class Verdict(Struct, frozen=True, gc=False):
    """What became of an event. `named` is what a refusal or an answer names: (what, value)."""

    outcome: OutcomeName
    flags: tuple[Flag, ...] = ()
    reason: Reason | None = None
    named: tuple[str, str] | None = None


def applied(*flags: Flag, named: tuple[str, str] | None = None) -> Verdict:
    """The event took effect, with these flags (each once, in the vocabulary's order)."""
    if len(flags) > 1:
        flags = tuple(sorted(set(flags), key=lambda flag: flag.code))
    return Verdict("applied", flags, None, named) if flags or named else APPLIED


def refused(reason: Reason, named: tuple[str, str] | None = None) -> Verdict:
    """The event changed nothing."""
    return Verdict("refused", (), reason, named)


APPLIED = Verdict("applied")


class NoticeDue(Struct, frozen=True, array_like=True, tag="n", gc=False):
    """Something an organisation must be told. The relay derives its id from source event, kind, recipient, subject."""

    kind: NoticeKind
    organisation: str
    source_event: str
    at_ms: int
    prescription: str | None = None
    subject: str | None = None
    flags: tuple[Flag, ...] = ()
    reason: str | None = None
    by: str | None = None
    outcome: str | None = None
    change: int = 0
    """For an outcome changed by a refold: the offset after that of the last record which was judged by it, so that each change is
    a separate effect, and has the same id when it is made again after a loss."""


class OrderDue(Struct, frozen=True, array_like=True, tag="o", gc=False):
    """A dispatch bound: its pharmacy must get the whole prescription, as it was signed, and what is in force now."""

    dispatch: str
    prescription: str
    pharmacy: str
    delivery: str
    source_event: str
    bound_at_ms: int
    signed: bytes
    dosed: bytes | None
    allergies: Allergies
    flags: tuple[Flag, ...] = ()


class ReceiptDue(Struct, frozen=True, array_like=True, tag="r", gc=False):
    """The outcome of an event that came as a submission, for the system that submitted it."""

    system: str
    message_id: str
    event_id: str
    outcome: str
    reason: str | None = None
    flags: tuple[Flag, ...] = ()
    named: tuple[str, str] | None = None


Effect = NoticeDue | OrderDue | ReceiptDue


class Rejudged(Struct, frozen=True, gc=False):
    """An earlier event that had waited: what it has come to now."""

    fact: WaitingFact
    verdict: Verdict


class Draft(Struct, gc=False):
    """The patient as far as loaded, with what this event changes: reads fall through to the state before it.

    A draft is made for one judgement and thrown away; what it read is never changed.
    """

    before: dict[str, State | None]
    offset: int
    place: int
    """The place in the log of the fact at hand: its own offset, also when it is judged again after waiting."""
    now_ms: int
    """When the event at hand was received, also while a fact that waited for it is judged anew."""
    digest: bytes
    complete: bool = False
    puts: dict[str, State | None] = {}
    effects: list[Effect] = []
    rejudged: list[Rejudged] = []
    moved: bool = False

    def get(self, field: str) -> Any:
        """A field's value, None where there is none; the field's name tells its type. Raises NotLoadedError when it was not read."""
        if field in self.puts:
            return self.puts[field]
        try:
            return self.before[field]
        except KeyError:
            if self.complete:
                return None
            raise NotLoadedError(field) from None

    def put(self, field: str, value: State | None) -> None:
        """Set a field; None removes it."""
        self.puts[field] = value

    def everything(self) -> dict[str, State]:
        """All fields that stand. Raises NotLoadedError unless the whole patient was read."""
        if not self.complete:
            raise NotLoadedError(EVERYTHING)
        return {field: value for field, value in (self.before | self.puts).items() if value is not None}

    def move_version(self) -> int:
        """Note that what the list shows has changed; returns the version that it gets."""
        self.moved = True
        return self.offset

    def meta(self) -> Meta:
        """What concerns the patient as a whole."""
        found: Meta | None = self.get(META)
        return found or Meta()

    def allergies(self) -> Allergies:
        """All that is recorded about allergies."""
        found: Allergies | None = self.get(ALLERGIES)
        return found or Allergies()

    def prescription(self, prescription: str) -> PrescriptionState | None:
        """A prescription by its id."""
        found: PrescriptionState | None = self.get(prescription_field(prescription))
        return found

    def treatment(self, treatment: str) -> TreatmentState | None:
        """A treatment by its id."""
        found: TreatmentState | None = self.get(treatment_field(treatment))
        return found

    def treatment_of(self, prescription: PrescriptionState) -> TreatmentState:
        """The treatment that a known prescription belongs to."""
        treatment = self.treatment(prescription.treatment)
        assert treatment is not None, "a prescription is kept only with its treatment"
        return treatment

    def hand_out(self, dispense: str) -> HandOutPointer | None:
        """Where a hand-out belongs."""
        found: HandOutPointer | None = self.get(hand_out_field(dispense))
        return found

    def renewal_request(self, request: str) -> RenewalState | None:
        """A request for renewal."""
        found: RenewalState | None = self.get(request_field(request))
        return found

    def waiting(self, awaited: str) -> Waiting:
        """What waits for something not seen yet, by its field."""
        found: Waiting | None = self.get(waiting_field(awaited))
        return found or NOTHING_WAITS

    def change_outcome(self, fact: WaitingFact, verdict: Verdict) -> None:
        """A fact that was applied, and waited, is refused after all: that is remembered, and its sender is told."""
        self.rejudged.append(Rejudged(fact, replace(verdict, flags=(Flag.OUTCOME_CHANGED,))))
        self.notify(
            NoticeKind.OUTCOME_CHANGED,
            fact.event.source.organisation,
            fact.event,
            subject=fact.event.event_id,
            outcome=verdict.outcome,
            reason=verdict.reason,
        )

    def notify(self, kind: NoticeKind, organisation: str, event: Event[Body], **about: object) -> None:
        """Tell an organisation something; keywords as the fields of NoticeDue."""
        self.effects.append(NoticeDue(kind, organisation, event.event_id, event.received_at_ms, **about))  # type: ignore[arg-type]  # checked by the callers' tests: keywords are NoticeDue's fields
