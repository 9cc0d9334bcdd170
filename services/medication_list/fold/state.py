"""What the fold keeps of a patient: small frozen values, each one field of the patient's hash in the store.

An event touches a few of these however long the history is. Documents (a prescription as signed, a hand-out as
reported) are kept beside them as the bytes of their record in the log, written once and never read by the fold except
where an order must carry them.
"""

from datetime import date
from decimal import Decimal

from msgspec import Struct

from schemas.events import AllergyRecorded, Body, Event

BEFORE_ANY_EVENT = -1
"""The version of a list that nothing has moved yet."""
META = "meta"
ALLERGIES = "allergies"


def treatment_field(treatment: str) -> str:
    """Field of a `TreatmentState`."""
    return f"t:{treatment}"


def prescription_field(prescription: str) -> str:
    """Field of a `PrescriptionState`."""
    return f"rx:{prescription}"


def claim_field(claim: str) -> str:
    """Field that leads from a standing claim to its prescription."""
    return f"claim:{claim}"


def request_field(request: str) -> str:
    """Field of a `RenewalState`."""
    return f"request:{request}"


def hand_out_field(dispense: str) -> str:
    """Field that leads from a hand-out to its prescription, and says who handed out how much."""
    return f"out:{dispense}"


def refused_report_field(dispense: str) -> str:
    """Field of a `HandOutPointer` that holds nothing but conflicts: the hand-out's first report was itself refused."""
    return f"out:{dispense}:refused"


def waiting_field(awaited: str) -> str:
    """Field of what waits for something not seen yet, by the field that it will have.

    Not by its id alone: a hand-out under the id of its own prescription waits for the one and is itself the other.
    """
    return f"waiting:{awaited}"


def allergy_awaited(allergy: str) -> str:
    """The name under which facts wait for an allergy; once known it is in `Allergies`."""
    return f"{ALLERGIES}:{allergy}"


def signed_field(prescription: str) -> str:
    """Document: the record of PrescriptionIssued as it is in the log."""
    return f"signed:{prescription}"


def handed_field(dispense: str) -> str:
    """Document: the record of MedicationDispensed as it is in the log."""
    return f"handed:{dispense}"


def recorded_field(treatment: str) -> str:
    """Document: the record of TreatmentRecorded as it is in the log."""
    return f"recorded:{treatment}"


def dosed_field(treatment: str) -> str:
    """Document: the record of the last TreatmentChanged that carried a dosing."""
    return f"dosed:{treatment}"


class By(Struct, frozen=True, array_like=True, gc=False):
    """Who did it."""

    organisation: str
    role: str
    person: str | None = None


class Claim(Struct, frozen=True, array_like=True, gc=False):
    """A claim in force. `place` is its offset: a holder's completion counts from there."""

    claim: str
    pharmacy: str
    place: int


class Dispatch(Struct, frozen=True, array_like=True, gc=False):
    """A dispatch in force. Bound once no claim is in its way; then its order is sent."""

    dispatch: str
    pharmacy: str
    delivery: str
    every: bool
    lapses_at_ms: int
    bound: bool


class Recall(Struct, frozen=True, array_like=True, gc=False):
    """A closer of kind recall. In effect from `from_ms` (0: at once); `at_ms` is when it happened in the world."""

    place: int
    reason: str
    at_ms: int
    from_ms: int
    by: By
    replaced_by: str | None = None
    is_own: bool = False
    """By PrescriptionRecalled, and not because something else happened."""


class HandOut(Struct, frozen=True, array_like=True, gc=False):
    """One hand-out as its prescription counts it. `place` is its claim's offset if its pharmacy held one."""

    dispense: str
    pharmacy: str
    occurred_at_ms: int
    place: int
    amount: Decimal
    """In the prescription's counting unit, of the lines that are comparable with it."""
    is_comparable: bool
    """Whether all lines are."""
    period_completed: bool
    completed: bool
    flags: tuple[int, ...] = ()
    reversed: bool = False


class PrescriptionState(Struct, frozen=True, array_like=True, gc=False):
    """A prescription: the terms it was signed on, its holder, its hand-outs and its recalls in log order."""

    treatment: str
    place: int
    issued_at_ms: int
    issuer: By
    valid_until_ms: int
    """The first instant at which it is no longer valid."""
    earliest_ms: int
    """0: at once."""
    unit: str
    """The counting unit: a package with stated content is counted in its content's unit."""
    amount: Decimal
    """One period, in the counting unit."""
    refills: int
    strength: str | None = None
    item_number: str | None = None
    package_content: Decimal | None = None
    series: str | None = None
    multidose: bool = False
    substitution_reserved: bool = False
    is_course: bool = False
    dosing_end_ms: int = 0
    """The first instant after its own dosing, at which a course ends; 0: without end."""
    flags: tuple[int, ...] = ()
    claim: Claim | None = None
    dispatch: Dispatch | None = None
    recalls: tuple[Recall, ...] = ()
    hand_outs: tuple[HandOut, ...] = ()
    moved: int = -1


class OpenPrescription(Struct, frozen=True, array_like=True, gc=False):
    """A prescription of a treatment that a later replacement or stop may still have to close."""

    prescription: str
    issued_at_ms: int
    series: str | None = None


class Stop(Struct, frozen=True, array_like=True, gc=False):
    """A discontinuation or a withdrawal."""

    at_ms: int
    place: int
    reason: str
    by: By
    withdrawn: bool = False
    note: str | None = None


class Pause(Struct, frozen=True, array_like=True, gc=False):
    """A pause from one day to another inclusive, or open-ended; or until it was resumed."""

    start: date
    until: date | None
    reason: str
    by: By
    resumed_at_ms: int | None = None


class Reservation(Struct, frozen=True, array_like=True, gc=False):
    """A change of whether another product may be handed out, and when it was made."""

    at_ms: int
    reserved: bool


class UseOfTreatment(Struct, frozen=True, array_like=True, gc=False):
    """How the patient really takes it, and who says so."""

    use: str
    reported_by: str
    at_ms: int
    note: str | None = None


class Conflict(Struct, frozen=True, array_like=True, gc=False):
    """A hand-out reported again under a known id with other content."""

    pharmacy: str
    at_ms: int
    place: int


class TreatmentState(Struct, frozen=True, array_like=True, gc=False):
    """An entry of the list."""

    kind: str
    newest: str | None = None
    """The newest-signed prescription."""
    newest_at_ms: int = 0
    atc: str | None = None
    use: str = "regular"
    dosing_end_ms: int = 0
    """As a prescription's, by what was recorded or by the latest change of the dosing."""
    open: tuple[OpenPrescription, ...] = ()
    stops: tuple[Stop, ...] = ()
    """Every stop and withdrawal in log order, taken back or not: what was signed before one may still arrive."""
    reinstated_place: int = -1
    """Stops before this place in the log are taken back."""
    pauses: tuple[Pause, ...] = ()
    """Every pause in log order, over or not: what was handed out in one may still be reported."""
    dosed_at_ms: int | None = None
    """When the dosing was last changed apart from a prescription. None: never, as with the two below."""
    reported_use: UseOfTreatment | None = None
    indication_text: str | None = None
    indicated_at_ms: int | None = None
    reservations: tuple[Reservation, ...] = ()
    """In the order in which they were made: what was handed out before one may still be reported."""
    administration: str | None = None
    administered_at_ms: int | None = None
    moved: int = -1


class HandOutPointer(Struct, frozen=True, array_like=True, gc=False):
    """From a hand-out to its prescription, with what is needed to judge a reversal."""

    prescription: str
    pharmacy: str
    quantities: tuple[tuple[str, Decimal], ...]
    """What was handed out, by unit; packages also by what they hold."""
    content: tuple[str, Decimal] | None = None
    """What a package of it holds at least; None if unstated, or stated in several units."""
    returned: tuple[tuple[str, Decimal], ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    """Reports under the same id with other content: refused, and shown."""
    reversed: bool = False
    flags_unseen: tuple[int, ...] = ()
    """As judged on arrival, of a hand-out whose prescription was not seen then."""
    outcome_changed: bool = False
    """A reversal of it was first applied and then refused."""
    moved: int = -1
    """The version at which the list last showed something new of it, other than under its prescription."""


class RenewalState(Struct, frozen=True, array_like=True, gc=False):
    """A request for renewal, until it is declined."""

    prescription: str
    to: str
    asked_by: str
    declined: bool = False


class WaitingFact(Struct, frozen=True, gc=False):
    """A fact that waits for what it names: judged again, at its own place, when that arrives."""

    event: Event[Body]
    offset: int
    digest: bytes


class Waiting(Struct, frozen=True, gc=False):
    """What waits for one id: facts in log order, and replacements by prescriptions that named it."""

    facts: tuple[WaitingFact, ...] = ()
    replacements: tuple[Recall, ...] = ()


class AllergyState(Struct, frozen=True, gc=False):
    """One allergy, or none_known, as recorded."""

    recorded: AllergyRecorded
    by: By
    at_ms: int
    refuted: bool = False
    moved: int = -1


class Superseded(Struct, frozen=True, array_like=True, gc=False):
    """A none_known that a later record replaced."""

    allergy: str
    refuted: bool


class Allergies(Struct, frozen=True, gc=False):
    """All recorded allergies: few enough that each order can carry them."""

    entries: tuple[AllergyState, ...] = ()
    superseded: tuple[Superseded, ...] = ()


class Multidose(Struct, frozen=True, array_like=True, gc=False):
    """Who is responsible, and which pharmacy packs (None once the pharmacy ended its part)."""

    doctor: str
    organisation: str
    pharmacy: str | None
    start: date
    packing_days: int
    next_pack: date | None
    moved: int


class Death(Struct, frozen=True, array_like=True, gc=False):
    """A death: a recall of whatever is dispensable, until it is retracted."""

    on: date
    place: int
    at_ms: int
    by: By


class Reconciliation(Struct, frozen=True, array_like=True, gc=False):
    """The last confirmation of the whole list."""

    at_ms: int
    by: By
    version: int


class ParkedPlace(Struct, frozen=True, array_like=True, gc=False):
    """A record of the patient that could not be judged, and when the broker took it."""

    place: int
    at_ms: int
    reason: int


class Meta(Struct, frozen=True, array_like=True, gc=False):
    """What concerns the patient as a whole. `version` is the offset of the last event that changed what the list shows.

    position: the offset after the patient's last event. parked: what the list waits for, in log order.
    """

    version: int = BEFORE_ANY_EVENT
    position: int = 0
    incomplete_since_ms: int = 0
    death: Death | None = None
    multidose: Multidose | None = None
    reconciled: Reconciliation | None = None
    moved_otherwise: int = -1
    """The version at which something changed that no longer exists: a multi-dose ended, a death retracted."""
    parked: tuple[ParkedPlace, ...] = ()


class Remembered(Struct, frozen=True, array_like=True, gc=False):
    """What is remembered of an event for ever: where it is, a digest of its content, and its outcome."""

    offset: int
    digest: bytes
    outcome: int
    reason: int = 0
    flags: bytes = b""
    named: tuple[str, str] | None = None


State = PrescriptionState | TreatmentState | HandOutPointer | RenewalState | Waiting | Allergies | Meta | str | bytes
"""A field's value: one of these structs, a pointer (str), or a document (bytes of a record)."""
