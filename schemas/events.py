"""The events of the medication chain as Python types, equal field by field to the Avro schemas in `avro/`."""

from datetime import date
from typing import Generic, TypeVar

from msgspec import Struct

from schemas.fields import (
    Administration,
    AllergySource,
    Atc,
    Certainty,
    Count,
    Delivery,
    DiscontinuationReason,
    Form,
    Hpr,
    Id,
    IndicationCode,
    Instant,
    Intervention,
    InterventionChange,
    ItemGroup,
    ItemNumber,
    Line,
    Money,
    NationalIdKind,
    Note,
    Number,
    OrganisationNumber,
    PrescriptionGroup,
    Pseudonym,
    RecallReason,
    RecordedKind,
    Refills,
    ReimbursementBasis,
    ReportedBy,
    ReportedUse,
    ReservedBy,
    Role,
    Route,
    Severity,
    Signed,
    TimeOfDay,
    Unit,
    Use,
    Weekday,
    Word,
)


class Quantity(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """An amount with its unit. Amounts are compared in one unit only."""

    value: Number
    unit: Unit


# --- Medication: exactly one of package, brand, substance, mixture -----------------------------------------------


class Package(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False, tag_field="kind", tag="package"):
    """One package of the catalogue, by its item number. `content` is what one package holds."""

    item_number: ItemNumber
    name: Line
    content: Quantity | None = None


class Brand(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False, tag_field="kind", tag="brand"):
    """A brand of the catalogue, any of its packages."""

    name: Line
    brand_id: Word | None = None


class Substance(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False, tag_field="kind", tag="substance"):
    """An active substance; the pharmacy chooses the product."""

    name: Line
    substance_id: Word | None = None


class Ingredient(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One ingredient of a mixture and how much of it."""

    name: Line
    amount: Line


class Mixture(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False, tag_field="kind", tag="mixture"):
    """A mixture made at the pharmacy: its ingredients and the directions for making it."""

    name: Line
    ingredients: tuple[Ingredient, ...]
    directions: Note


class Medication(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What is taken. ATC is null only for what has none (mixtures, nutrition, consumables)."""

    product: Package | Brand | Substance | Mixture
    form: Form
    atc: Atc | None = None
    strength: Line | None = None


# --- Dosing ------------------------------------------------------------------------------------------------------


class Dose(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A dose, or a range of doses when `high` is there."""

    low: Number
    unit: Unit
    high: Number | None = None


class FixedDose(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A dose taken at times of the day or at an interval, on all days, given weekdays, or days on and days off."""

    dose: Dose
    times_of_day: tuple[TimeOfDay, ...] = ()
    interval_hours: Count | None = None
    weekdays: tuple[Weekday, ...] = ()
    days_on: Count | None = None
    days_off: Count | None = None
    rate_per_hour: Quantity | None = None
    duration_minutes: Count | None = None


class AsNeeded(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A dose taken when needed: what for, and how much at most."""

    dose: Dose
    indication: Line
    max_per_day: Number | None = None
    max_per_period: Number | None = None
    period_days: Count | None = None
    min_interval_hours: Count | None = None


class DosingPeriod(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What holds between two dates, both included. Periods do not overlap; gaps are allowed."""

    start: date | None = None
    end: date | None = None
    fixed: tuple[FixedDose, ...] = ()
    as_needed: AsNeeded | None = None


class Dosing(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Structured dosing, or `per_scheme` (warfarin), and the sender's own text beside it."""

    periods: tuple[DosingPeriod, ...] = ()
    per_scheme: bool = False
    text: Note | None = None


# --- Prescriptions -----------------------------------------------------------------------------------------------


class Reimbursement(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """On what legal basis (7427) and for which condition (7435) the state pays."""

    basis: ReimbursementBasis
    code: Word | None = None


class Weight(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The patient's weight in kilograms, and the day it was taken."""

    kg: Number
    on: date


class PrescriptionIssued(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A prescriber signed a prescription. `treatment` is made by the first sender; `renews` names what it replaces."""

    prescription: Id
    treatment: Id
    issued_at_ms: Instant
    valid_until: date
    medication: Medication
    quantity: Quantity
    refills: Refills
    dosing: Dosing
    use: Use = "regular"
    item_group: ItemGroup = "medicine"
    group: PrescriptionGroup = "C"
    earliest_dispense: date | None = None
    reference_number: Word | None = None
    renews: Id | None = None
    series_id: Id | None = None
    locked: bool = False
    in_doctors_name: bool = False
    from_hospital: bool = False
    multidose: bool = False
    substitution_reserved: bool = False
    substitution_reason: Line | None = None
    reimbursement: Reimbursement | None = None
    indication_text: Line | None = None
    indication_code: IndicationCode | None = None
    route: Route | None = None
    weight: Weight | None = None
    renal_note: Line | None = None
    note: Note | None = None
    prescriber_name: Line | None = None
    identity: bytes | None = None
    """The patient's identity, sealed (AES-GCM): opened only for the dispensing pharmacy."""


class PrescriptionRecalled(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A prescriber recalled a prescription (7500)."""

    prescription: Id
    reason: RecallReason


# --- Treatments --------------------------------------------------------------------------------------------------


class TreatmentRecorded(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Somebody takes a medicine that has no prescription in the chain: over the counter, paper, hospital, stated."""

    treatment: Id
    kind: RecordedKind
    medication: Medication
    dosing: Dosing
    use: Use = "regular"
    paper_prescription: Word | None = None
    indication_text: Line | None = None
    informant: Line | None = None


class TreatmentChanged(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Dosing, indication, substitution or administration of a treatment changed; null means unchanged."""

    treatment: Id
    reason: Line
    dosing: Dosing | None = None
    indication_text: Line | None = None
    substitution_reserved: bool | None = None
    administration: Administration | None = None


class TreatmentPaused(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A treatment is paused from `start`, until and with `until`, or until it is resumed."""

    treatment: Id
    start: date
    reason: Line
    until: date | None = None


class TreatmentResumed(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A paused treatment goes on."""

    treatment: Id
    reason: Line


class TreatmentDiscontinued(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A treatment stops at `at_ms` (7494)."""

    treatment: Id
    at_ms: Instant
    reason: DiscontinuationReason
    note: Line | None = None


class TreatmentReinstated(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A discontinuation is taken back. The prescriptions that it recalled stay recalled."""

    treatment: Id
    reason: Line


class TreatmentWithdrawn(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A treatment was registered by mistake."""

    treatment: Id
    reason: Line


class UseReported(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """How the patient really takes it. Stands beside the dosing, never in it."""

    treatment: Id
    use: ReportedUse
    by: ReportedBy
    note: Line | None = None


# --- The whole list ----------------------------------------------------------------------------------------------


class ListReconciled(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A doctor confirmed the list that the token names; version and time are read from the verified token."""

    read_token: Signed
    version: int
    read_at_ms: Instant


class AllergyRecorded(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """An allergy or adverse reaction, or `none_known`: somebody asked, and there is none."""

    allergy: Id
    none_known: bool = False
    substance: Line | None = None
    atc: Atc | None = None
    reaction: Line | None = None
    severity: Severity | None = None
    certainty: Certainty | None = None
    source: AllergySource | None = None
    onset: date | None = None


class AllergyRefuted(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """An allergy proved not to be one."""

    allergy: Id
    reason: Line


class MultidoseAssigned(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A doctor takes responsibility for machine-packed doses from one pharmacy."""

    doctor: Hpr
    pharmacy: OrganisationNumber
    start: date
    packing_days: Count
    next_pack: date | None = None


class MultidoseEnded(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The registered doctor ends multi-dose, or the pharmacy its own part of it."""

    reason: Line


class PatientDied(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The patient died on that day."""

    on: date


class DeathRetracted(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The report of a death was wrong."""

    reason: Line


# --- At the pharmacy ---------------------------------------------------------------------------------------------


class ClaimRequested(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A pharmacy wants to dispense a prescription."""

    claim: Id
    prescription: Id


class ClaimAborted(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The holder gives a claim back."""

    claim: Id
    reason: Line


class ClaimReleased(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """An operator frees a claim that its pharmacy cannot give back."""

    claim: Id
    reason: Line


class DispensedLine(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One package or part of it handed out; `content` is what one package holds."""

    quantity: Quantity
    item_number: ItemNumber | None = None
    name: Line | None = None
    strength: Line | None = None
    content: Quantity | None = None
    substituted: bool = False
    batch: Word | None = None


class InterventionMade(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What the pharmacy did about the prescription (7412, 7413)."""

    code: Intervention
    change: InterventionChange | None = None
    confirmed_with: Line | None = None
    reason: Line | None = None


class Price(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What it cost, in kroner, and what the patient paid."""

    total_nok: Money
    patient_nok: Money | None = None


class MedicationDispensed(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A pharmacy handed a medicine out."""

    dispense: Id
    prescription: Id
    lines: tuple[DispensedLine, ...]
    period_completed: bool
    completed: bool
    claim: Id | None = None
    dispense_number: Count | None = None
    reserved_by: ReservedBy | None = None
    interventions: tuple[InterventionMade, ...] = ()
    offline: bool = False
    price: Price | None = None


class DispenseReversed(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A hand-out is taken back, whole; or, with a quantity, goods came back."""

    reversal: Id
    dispense: Id
    reason: Line
    quantity: Quantity | None = None


class DispatchRequested(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The next dispense of a prescription (or every one) is tied to one pharmacy."""

    dispatch: Id
    prescription: Id
    pharmacy: OrganisationNumber
    delivery: Delivery = "pick_up"
    every: bool = False


class DispatchWithdrawn(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A dispatch is taken back by citizen, prescriber or the bound pharmacy."""

    prescription: Id
    reason: Line


class RenewalRequested(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Somebody asks a prescriber's organisation to renew a prescription."""

    request: Id
    prescription: Id
    to: OrganisationNumber
    message: Note | None = None


class RenewalDeclined(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The prescriber says no to a request for renewal."""

    request: Id
    reason: Line


class ParkedRecordClosed(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """An operator closes a record of this patient that nobody can judge: the list waits for it no longer."""

    offset: int
    """Where it lies, in the partition that all of the patient's records lie in."""
    reason: Line


Body = (
    PrescriptionIssued
    | PrescriptionRecalled
    | TreatmentRecorded
    | TreatmentChanged
    | TreatmentPaused
    | TreatmentResumed
    | TreatmentDiscontinued
    | TreatmentReinstated
    | TreatmentWithdrawn
    | UseReported
    | ListReconciled
    | AllergyRecorded
    | AllergyRefuted
    | MultidoseAssigned
    | MultidoseEnded
    | PatientDied
    | DeathRetracted
    | ClaimRequested
    | ClaimAborted
    | ClaimReleased
    | MedicationDispensed
    | DispenseReversed
    | DispatchRequested
    | DispatchWithdrawn
    | RenewalRequested
    | RenewalDeclined
    | ParkedRecordClosed
)
EVERY_BODY: tuple[type[Body], ...] = Body.__args__
"""Of everything that the log of medication events can hold."""
BODIES: tuple[type[Body], ...] = tuple(each for each in EVERY_BODY if each is not ParkedRecordClosed)
"""Of what prescribers, pharmacies and citizens report, by HTTP or as a submission; the rest is the operators' alone."""

B_co = TypeVar("B_co", covariant=True)


class Source(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Who says it: system (from the authenticated channel), organisation, person's HPR number, role."""

    system: Word
    organisation: OrganisationNumber
    role: Role
    person: Hpr | None = None


class Event(Struct, Generic[B_co], frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One event of one patient: the envelope around a body.

    occurred_at_ms: when it happened in the world. received_at_ms: stamped by the service that appended it.
    """

    event_id: Id
    patient: Pseudonym
    occurred_at_ms: Instant
    received_at_ms: Instant
    source: Source
    body: B_co


class PatientIdentity(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Whom a submission is about; kind: fødselsnummer, d_number, auxiliary or duf. Never leaves its topic unsealed."""

    national_id: Word
    kind: NationalIdKind
    name: Line | None = None


class Submission(Struct, Generic[B_co], frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What an outside system puts on its own topic: one or more bodies of one kind, checked whole, judged one by one."""

    message_id: Id
    patient: PatientIdentity
    occurred_at_ms: Instant
    organisation: OrganisationNumber
    role: Role
    bodies: tuple[B_co, ...]
    person: Hpr | None = None


# --- What goes out -----------------------------------------------------------------------------------------------


class AllergyWarning(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """An allergy as the pharmacy is told of it."""

    allergy: Id
    none_known: bool = False
    substance: Line | None = None
    atc: Atc | None = None
    reaction: Line | None = None
    severity: Severity | None = None


class DispenseOrder(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A dispatch bound: the pharmacy gets the whole prescription, the dosing in force, allergies and flags."""

    effect_id: Id
    dispatch: Id
    prescription: Id
    pharmacy: OrganisationNumber
    delivery: Delivery
    issued: PrescriptionIssued
    dosing_in_force: Dosing
    bound_at_ms: Instant
    source_partition: int
    source_offset: int
    allergies: tuple[AllergyWarning, ...] = ()
    flags: tuple[Word, ...] = ()
    identity: bytes | None = None
    """Sealed in the outbox; opened by the relay for this pharmacy's own topic alone, then UTF-8 JSON."""


class Notice(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Something an organisation must be told. `kind` and `flags` are in reasons.yaml; `subject` is what it is about."""

    effect_id: Id
    kind: Word
    organisation: OrganisationNumber
    prescription: Id | None
    source_event: Id
    source_partition: int
    source_offset: int
    at_ms: Instant
    subject: Word | None = None
    flags: tuple[Word, ...] = ()
    reason: Line | None = None
    by: OrganisationNumber | None = None
    outcome: Word | None = None


class ReceiptError(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One error of a rejected submission: JSON pointer, reason, text."""

    pointer: Line
    reason: Word
    text: Line


class SubmissionReceipt(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What became of a submission: rejected at the door with every error, or the outcome of one of its events."""

    effect_id: Id
    outcome: Word
    """rejected, applied, duplicate, refused or parked."""
    message_id: Id | None = None
    event_id: Id | None = None
    reason: Word | None = None
    flags: tuple[Word, ...] = ()
    named: Line | None = None
    """What a refusal names: the holder, the date, the pharmacy, what moved."""
    errors: tuple[ReceiptError, ...] = ()
    topic: Line | None = None
    partition: int | None = None
    offset: int | None = None


class UnsentRecord(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A record whose effects are still to come, and why it was parked: it is, or was refolded and they are not sent yet."""

    offset: int
    reason: Word


class RelayProgress(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """How far the relay of a partition has come: the source position of the last effect whose ack arrived, and what is unsent."""

    partition: int
    source_offset: int
    effect_id: Id
    unsent: tuple[UnsentRecord, ...] = ()
    """By offset; whatever is not in it and lies before `source_offset` was sent."""


EFFECTS: tuple[type[Struct], ...] = (DispenseOrder, Notice, SubmissionReceipt, RelayProgress)
