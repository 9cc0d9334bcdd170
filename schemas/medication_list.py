"""What a reader is shown: one patient's list, as the read API answers it and as the oracle must come to it by itself.

Instants are milliseconds here (`*_at_ms`); the HTTP edge shows them as RFC 3339 under the name without `_ms`.
"""

from datetime import date
from decimal import Decimal

from msgspec import Struct

from schemas.events import AllergyRecorded, DispensedLine, Dosing, Medication, PrescriptionIssued, Quantity


class Who(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who did it: organisation, person's HPR number, role."""

    organisation: str
    role: str
    person: str | None = None


class ShownHandOut(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One hand-out. A reversed one stays shown as reversed and counts for nothing."""

    dispense: str
    prescription: str
    pharmacy: str
    handed_out_at_ms: int
    lines: tuple[DispensedLine, ...]
    completed: bool
    period_completed: bool
    flags: tuple[str, ...] = ()
    """Sorted flag names of reasons.yaml."""
    reversed: bool = False
    returned: Quantity | None = None


class ShownRecall(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One closer of kind recall: reason (7500, or withdrawn, death), who, when; in effect from `from_on` if later."""

    reason: str
    by: Who
    at_ms: int
    from_on: date | None = None
    """Set for a replacement that takes effect on a date."""
    replaced_by: str | None = None


class ShownPrescription(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One prescription with its status at the reader's clock."""

    prescription: str
    status: str
    """E, U, R, T or F."""
    issued: PrescriptionIssued
    """Without the sealed identity."""
    issuer: Who
    refills_left: int
    dispenses_left: int
    dispenses_done: int
    """Standing hand-outs."""
    handed_out: Decimal
    """Sum of the standing hand-outs in the prescription's unit, as far as comparable."""
    total: Decimal
    returned: Decimal = Decimal(0)
    holder: str | None = None
    claim: str | None = None
    dispatched_to: str | None = None
    flags: tuple[str, ...] = ()
    """Sorted: the flags of its issue, `recalled` when a recall stands in effect, `expired` while U past validity,
    recalled_after_completion, and the flags of its standing hand-outs."""
    recalls: tuple[ShownRecall, ...] = ()
    """In log order, those in effect or to come."""
    hand_outs: tuple[ShownHandOut, ...] = ()
    """In log order."""


class ShownStop(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A discontinuation or withdrawal: when, why, by whom."""

    at_ms: int
    reason: str
    by: Who
    note: str | None = None


class ShownPause(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A pause from a day, until and with another, or open."""

    start: date
    reason: str
    by: Who
    until: date | None = None


class ShownDosing(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The dosing in force: structure, the text made from it, the sender's text, and who set it when."""

    dosing: Dosing
    text: str
    by: Who
    at_ms: int
    strength: str | None = None
    texts_differ: bool = False


class ShownUse(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the patient really takes it, by whose word."""

    use: str
    by: str
    at_ms: int
    note: str | None = None


class ConflictingReport(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A hand-out reported again under a known id with other content: refused, and shown."""

    dispense: str
    pharmacy: str
    at_ms: int


class ShownTreatment(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One entry of the list. Its id never changes; its prescriptions are a chain, newest-signed first."""

    treatment: str
    status: str
    """active, paused, completed or discontinued."""
    kind: str
    """prescribed, or the kind of what was recorded: otc, supplement, hospital, paper, patient_stated."""
    medication: Medication
    dosing: ShownDosing
    use: str
    prescriptions: tuple[ShownPrescription, ...] = ()
    flags: tuple[str, ...] = ()
    """Sorted; among others withdrawn, substance_changed, prescribed_after_discontinuation, outcome_changed."""
    stopped: ShownStop | None = None
    paused: ShownPause | None = None
    reported_use: ShownUse | None = None
    indication_text: str | None = None
    substitution_reserved: bool = False
    administration: str | None = None
    paper_prescription: str | None = None
    last_dispense: ShownHandOut | None = None
    """The standing hand-out that happened last."""
    conflicting_reports: tuple[ConflictingReport, ...] = ()


class ShownAllergy(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A standing allergy; refuted ones are in the history alone."""

    recorded: AllergyRecorded
    by: Who
    at_ms: int


class ShownAllergies(Struct, frozen=True):
    """What is known of allergies."""

    allergy_status: str
    """not_asked, none_known or recorded."""
    allergies: tuple[ShownAllergy, ...]


class ShownMultidose(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who is responsible for machine-packed doses, and which pharmacy packs."""

    doctor: str
    start: date
    packing_days: int
    pharmacy: str | None = None
    """Null once the pharmacy ended its part."""
    next_pack: date | None = None


class ShownReconciliation(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The last confirmation of the list."""

    at_ms: int
    by: Who
    version: int


class MedicationList(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One citizen's list. `version` is the position of the last event that changed what it shows."""

    version: int
    treatments: tuple[ShownTreatment, ...] = ()
    """By treatment id."""
    other_prescriptions: tuple[ShownTreatment, ...] = ()
    """Vaccines, nutrition and consumables, by treatment id."""
    unseen_hand_outs: tuple[ShownHandOut, ...] = ()
    """Handed out, prescription not seen; in log order."""
    allergies: tuple[ShownAllergy, ...] = ()
    """By allergy id."""
    allergy_status: str = "not_asked"
    """not_asked, none_known or recorded."""
    multidose: ShownMultidose | None = None
    deceased_on: date | None = None
    reconciled: ShownReconciliation | None = None
    incomplete_since_ms: int | None = None
    """When the oldest parked event of this patient came; null when the list is complete."""


class ShownClaim(Struct, frozen=True, omit_defaults=True):
    """The whole prescription that a claim is for, the dosing in force beside its own, allergies, and the claim's flags."""

    prescription: ShownPrescription
    dosing_in_force: ShownDosing
    allergy_status: str
    """not_asked, none_known or recorded."""
    allergies: tuple[ShownAllergy, ...]
    flags: tuple[str, ...]


class ShownRenewalRequest(Struct, frozen=True):
    """A request for renewal: of which prescription, asked by whom and of whom."""

    request: str
    prescription: str
    to: str
    asked_by: str
    declined: bool


class RegisteredDeath(Struct, frozen=True):
    """The day of death, null when none is registered."""

    deceased_on: date | None = None


class PrescriptionsPage(Struct, frozen=True):
    """Some prescriptions, newest-signed first. `cursor` asks for those after them; null when these are the last.

    The last five are about the list of the patient who was named, or else of the one who has the reference number.
    `position` is the last record that this takes account of, null before the first one, and `position_recorded_at` when the
    log took it. `complete` is false while an event of
    that patient could not be read; `incomplete_since` says since when. Where nobody has the number, the page is about no
    list and all five are null: what could not be read, of whomever, may yet hold it.
    """

    prescriptions: tuple[ShownPrescription, ...]
    cursor: str | None = None
    position: str | None = None
    position_recorded_at_ms: int | None = None
    generation: str | None = None
    complete: bool | None = None
    incomplete_since_ms: int | None = None
