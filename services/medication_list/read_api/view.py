"""The list as a reader sees it: built from a patient's fields, whole, by the reader's clock; pure like the fold.

What depends on time (status, expiry, courses that end, entries that leave after 90 days) is computed here, when it is
read; nobody has to send anything for it.
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta
from decimal import Decimal
from typing import cast

from msgspec.structs import replace

from schemas.codec import decode
from schemas.events import (
    Dosing,
    Event,
    MedicationDispensed,
    PrescriptionIssued,
    Quantity,
    Source,
    TreatmentChanged,
    TreatmentRecorded,
)
from schemas.medication_list import (
    ConflictingReport,
    MedicationList,
    ShownAllergies,
    ShownAllergy,
    ShownDosing,
    ShownHandOut,
    ShownMultidose,
    ShownPause,
    ShownPrescription,
    ShownRecall,
    ShownReconciliation,
    ShownStop,
    ShownTreatment,
    ShownUse,
    Who,
)
from schemas.reasons import Flag
from services.medication_list.fold.availability import is_substitution_reserved
from services.medication_list.fold.calendar import day_of, ended_ms, is_later
from services.medication_list.fold.dispatching import standing_dispatch
from services.medication_list.fold.policy import VISIBLE_AFTER_END_DAYS
from services.medication_list.fold.standing import NEVER, NOTHING, first_recall, status, total_of, usage
from services.medication_list.fold.state import (
    ALLERGIES,
    META,
    Allergies,
    By,
    Death,
    HandOut,
    HandOutPointer,
    Meta,
    PrescriptionState,
    Recall,
    State,
    TreatmentState,
    Waiting,
    WaitingFact,
    dosed_field,
    hand_out_field,
    handed_field,
    recorded_field,
    signed_field,
)
from services.medication_list.fold.stopping import is_paused, standing_pause, stop_in_force
from services.medication_list.read_api.dosing_text import dosing_text, texts_differ
from services.medication_list.stored.answered import changed_answers

OTHER_GROUPS = frozenset({"nutrition", "consumable"})
FOUR_PLACES = Decimal("0.0001")
Fields = Mapping[str, State]
"""Every field of a patient that stands, by name."""


def show(fields: Fields, at_ms: int, flagged: Collection[str] = ()) -> MedicationList:
    """The whole list at that time. `flagged`: prescriptions whose number came under another patient later."""
    return _Reader(fields, at_ms, flagged).whole()


def show_prescription(
    fields: Fields, prescription: str, at_ms: int, flagged: Collection[str] = ()
) -> ShownPrescription | None:
    """One prescription at that time, None where it was never seen."""
    reader = _Reader(fields, at_ms, flagged)
    state = fields.get(f"rx:{prescription}")
    return reader.prescription(prescription, state) if isinstance(state, PrescriptionState) else None


def show_treatment(fields: Fields, treatment: str, at_ms: int) -> ShownTreatment | None:
    """One entry at that time, also when the list does not show it any more; None where it was never seen."""
    reader = _Reader(fields, at_ms)
    state = fields.get(f"t:{treatment}")
    return reader.treatment(treatment, state) if isinstance(state, TreatmentState) else None


def show_dosing(fields: Fields, prescription: str) -> ShownDosing | None:
    """The dosing in force for a prescription: a later change wins over the prescription's own."""
    state = fields.get(f"rx:{prescription}")
    if not isinstance(state, PrescriptionState):
        return None
    treatment = cast("TreatmentState", fields[f"t:{state.treatment}"])
    return _Reader(fields, 0).dosing_in_force(state.treatment, treatment, (prescription, state))


def show_allergies(fields: Fields) -> ShownAllergies:
    """What is known of allergies: the part of the list that goes along with every claim."""
    allergies = cast("Allergies | None", fields.get(ALLERGIES)) or Allergies()
    return ShownAllergies(_allergy_status(allergies), _allergies(allergies))


def incomplete_since(fields: Fields) -> int | None:
    """When the oldest parked event of the patient came; None when the list is complete."""
    return (cast("Meta | None", fields.get(META)) or Meta()).incomplete_since_ms or None


class _Reader:
    """One reading of one patient."""

    def __init__(self, fields: Fields, at_ms: int, flagged: Collection[str] = ()) -> None:
        self.fields = fields
        self.flagged = flagged
        self.at_ms = at_ms
        self.meta = cast("Meta | None", fields.get(META)) or Meta()
        self.documents: dict[str, object] = {}
        """What was decoded already: an entry, its dosing and its prescription ask for the same record."""
        self.chains: dict[str, list[tuple[str, PrescriptionState]]] = {}
        self.conflicts: list[tuple[str, HandOutPointer]] = []
        self.corrected = {each.entry for each in changed_answers(fields)}
        for field, value in fields.items():
            if isinstance(value, PrescriptionState):
                self.chains.setdefault(value.treatment, []).append((field.removeprefix("rx:"), value))
            elif isinstance(value, HandOutPointer) and value.conflicts:
                self.conflicts.append((field.split(":")[1], value))

    def whole(self) -> MedicationList:
        treatments = [
            (self.is_other(field.removeprefix("t:")), self.treatment(field.removeprefix("t:"), value))
            for field, value in sorted(self.fields.items())
            if isinstance(value, TreatmentState) and self.is_visible(field.removeprefix("t:"), value)
        ]
        meta, known = self.meta, show_allergies(self.fields)
        return MedicationList(
            version=meta.version,
            treatments=tuple(shown for is_other, shown in treatments if not is_other),
            other_prescriptions=tuple(shown for is_other, shown in treatments if is_other),
            unseen_hand_outs=self.unseen_hand_outs(),
            allergies=known.allergies,
            allergy_status=known.allergy_status,
            multidose=_multidose(meta),
            deceased_on=meta.death.on if meta.death else None,
            reconciled=_reconciled(meta),
            incomplete_since_ms=incomplete_since(self.fields),
        )

    # --- Entries -------------------------------------------------------------------------------------------------

    def is_visible(self, treatment_id: str, treatment: TreatmentState) -> bool:
        """Hidden: withdrawn with nothing handed out or held; and what ended more than 90 days ago."""
        stop = stop_in_force(treatment)
        if stop is not None:
            if stop.withdrawn and not self._is_in_use(treatment_id):
                return False
            return self._is_recent(stop.at_ms)
        course_end_ms = self._course_end_ms(treatment_id, treatment)
        return not 0 < course_end_ms <= self.at_ms or self._is_recent(course_end_ms - 1)

    def is_other(self, treatment_id: str) -> bool:
        """Vaccines, nutrition and consumables, by what is in force."""
        in_force = self._in_force(treatment_id)
        if in_force is not None:
            issued = self.signed(in_force[0]).body
            return issued.use == "vaccine" or issued.item_group in OTHER_GROUPS
        recorded = cast("Event[TreatmentRecorded]", self.recorded(treatment_id)).body
        return recorded.use == "vaccine" or recorded.medication.form in OTHER_GROUPS

    def _is_in_use(self, treatment_id: str) -> bool:
        return any(
            prescription.claim is not None or any(not each.reversed for each in prescription.hand_outs)
            for _, prescription in self.chains.get(treatment_id, ())
        )

    def _is_recent(self, ended_at_ms: int) -> bool:
        last_day = day_of(ended_at_ms) + timedelta(days=VISIBLE_AFTER_END_DAYS)
        return self.at_ms < ended_ms(last_day)

    def _course_end_ms(self, treatment_id: str, treatment: TreatmentState) -> int:
        """The first instant after a course by the dosing in force; 0: no course, or without end."""
        in_force = self._in_force(treatment_id)
        if not (treatment.use == "course" if in_force is None else in_force[1].is_course):
            return 0
        if in_force is None or is_later(treatment.dosed_at_ms, in_force[1].issued_at_ms):
            return treatment.dosing_end_ms
        return in_force[1].dosing_end_ms

    def _in_force(self, treatment_id: str) -> tuple[str, PrescriptionState] | None:
        """The newest-signed prescription whose earliest date has come, else the newest-signed; None where none came."""
        newest_first = self._newest_first(treatment_id)
        begun = (each for each in newest_first if each[1].earliest_ms <= self.at_ms)
        return next(begun, newest_first[0] if newest_first else None)

    def _newest_first(self, treatment_id: str) -> list[tuple[str, PrescriptionState]]:
        chain = self.chains.get(treatment_id, ())
        return sorted(chain, key=lambda each: (each[1].issued_at_ms, each[0]), reverse=True)

    def treatment(self, treatment_id: str, treatment: TreatmentState) -> ShownTreatment:
        """One entry, shown as it stands."""
        prescriptions = tuple(self.prescription(*each) for each in self._newest_first(treatment_id))
        in_force = self._in_force(treatment_id)
        head = self.signed(in_force[0]).body if in_force else None
        signed_at_ms = in_force[1].issued_at_ms if in_force else None
        recorded = self.recorded(treatment_id)
        origin = head if head is not None else cast("Event[TreatmentRecorded]", recorded).body
        dosing = self.dosing_in_force(treatment_id, treatment, in_force)
        stop, conflicts = stop_in_force(treatment), self._conflicts(treatment_id)
        is_indicated_later = is_later(treatment.indicated_at_ms, signed_at_ms)
        return ShownTreatment(
            treatment=treatment_id,
            status=self._status_of(treatment_id, treatment),
            kind=treatment.kind,
            medication=origin.medication,
            dosing=dosing,
            use=origin.use,
            prescriptions=prescriptions,
            flags=_names(self._flags_of(treatment_id, treatment, prescriptions, dosing, conflicts)),
            stopped=ShownStop(at_ms=stop.at_ms, reason=stop.reason, by=_who(stop.by), note=stop.note) if stop else None,
            paused=self._pause_of(treatment),
            reported_use=_reported_use(treatment),
            indication_text=(treatment.indication_text if is_indicated_later else None) or origin.indication_text,
            substitution_reserved=_is_reserved(treatment, head, signed_at_ms),
            administration=treatment.administration,
            paper_prescription=recorded.body.paper_prescription if recorded else None,
            last_dispense=_last(prescriptions),
            conflicting_reports=conflicts,
        )

    def _conflicts(self, treatment_id: str) -> tuple[ConflictingReport, ...]:
        """In log order. The report that a conflict is about may itself have been refused, and be no hand-out."""
        prescriptions = {prescription for prescription, _ in self.chains.get(treatment_id, ())}
        of_treatment = [
            (
                conflict.place,
                ConflictingReport(dispense=dispense, pharmacy=conflict.pharmacy, at_ms=conflict.at_ms),
            )
            for dispense, pointer in self.conflicts
            if pointer.prescription in prescriptions
            for conflict in pointer.conflicts
        ]
        return tuple(report for _, report in sorted(of_treatment, key=lambda each: each[0]))

    def _status_of(self, treatment_id: str, treatment: TreatmentState) -> str:
        if stop_in_force(treatment) is not None:
            return "discontinued"
        if 0 < self._course_end_ms(treatment_id, treatment) <= self.at_ms:
            return "completed"
        return "paused" if is_paused(treatment, self.at_ms) else "active"

    def _flags_of(
        self,
        treatment_id: str,
        treatment: TreatmentState,
        prescriptions: tuple[ShownPrescription, ...],
        dosing: ShownDosing,
        conflicts: tuple[ConflictingReport, ...],
    ) -> Iterable[str]:
        stop = stop_in_force(treatment)
        if stop is not None and stop.withdrawn:
            yield Flag.WITHDRAWN
        if prescriptions:
            yield from {Flag.PRESCRIBED_AFTER_DISCONTINUATION, Flag.SUBSTANCE_CHANGED} & set(prescriptions[0].flags)
        if treatment_id in self.corrected or any(Flag.OUTCOME_CHANGED in each.flags for each in prescriptions):
            yield Flag.OUTCOME_CHANGED
        if conflicts:
            yield Flag.CONFLICTING_REPORT
        if any(Flag.PRESCRIPTION_NUMBER_CONFLICT in each.flags for each in prescriptions):
            yield Flag.PRESCRIPTION_NUMBER_CONFLICT
        if dosing.texts_differ:
            yield Flag.DOSING_TEXT_DIFFERS

    def _pause_of(self, treatment: TreatmentState) -> ShownPause | None:
        pause = standing_pause(treatment, self.at_ms)
        if pause is None:
            return None
        return ShownPause(start=pause.start, until=pause.until, reason=pause.reason, by=_who(pause.by))

    def dosing_in_force(
        self, treatment_id: str, treatment: TreatmentState, in_force: tuple[str, PrescriptionState] | None
    ) -> ShownDosing:
        """A later change wins over what the prescription, or the record where there is none, said."""
        signed_at_ms: int | None = None
        if in_force is not None:
            issued = self.signed(in_force[0])
            signed_at_ms = at_ms = in_force[1].issued_at_ms
            own, medication, source = issued.body.dosing, issued.body.medication, issued.source
        else:
            recorded = cast("Event[TreatmentRecorded]", self.recorded(treatment_id))
            own, medication, at_ms = recorded.body.dosing, recorded.body.medication, recorded.occurred_at_ms
            source = recorded.source
        if not is_later(treatment.dosed_at_ms, signed_at_ms):
            return _dosing(own, medication.strength, source, at_ms)
        changed = cast("Event[TreatmentChanged]", self._document(dosed_field(treatment_id)))
        return _dosing(changed.body.dosing or own, medication.strength, changed.source, changed.occurred_at_ms)

    # --- Prescriptions and hand-outs -----------------------------------------------------------------------------

    def prescription(self, prescription_id: str, state: PrescriptionState) -> ShownPrescription:
        """One prescription, with its status at this reading's time."""
        issued = self.signed(prescription_id).body
        used, death = usage(state), self.meta.death
        dispenses_left = state.refills + 1 - used.periods
        hand_outs = tuple(self._hand_out(prescription_id, each) for each in state.hand_outs)
        dispatch = standing_dispatch(state, self.at_ms)
        return ShownPrescription(
            prescription=prescription_id,
            status=status(state, death, self.at_ms),
            issued=replace(issued, identity=None),
            issuer=_who(state.issuer),
            refills_left=min(state.refills, dispenses_left),
            dispenses_left=dispenses_left,
            dispenses_done=sum(not each.reversed for each in state.hand_outs),
            handed_out=_as_prescribed(used.amount, issued, state),
            total=_as_prescribed(total_of(state), issued, state),
            returned=_as_prescribed(self._returned(state), issued, state),
            holder=state.claim.pharmacy if state.claim else None,
            claim=state.claim.claim if state.claim else None,
            dispatched_to=dispatch.pharmacy if dispatch and dispatch.bound else None,
            flags=self._prescription_flags(prescription_id, state, death),
            recalls=_recalls(state, death),
            hand_outs=hand_outs,
        )

    def _prescription_flags(
        self, prescription_id: str, state: PrescriptionState, death: Death | None
    ) -> tuple[str, ...]:
        flags = {Flag.from_code(code) for code in state.flags}
        if prescription_id in self.flagged:
            flags.add(Flag.PRESCRIPTION_NUMBER_CONFLICT)
        if status(state, death, self.at_ms) != "R":
            flags.discard(Flag.RECALLED_AFTER_COMPLETION)
        for hand_out in state.hand_outs:
            if not hand_out.reversed:
                flags |= {Flag.from_code(code) for code in hand_out.flags}
        if first_recall(state, death, self.at_ms) < NEVER:
            flags.add(Flag.RECALLED)
        if state.claim is not None and self.at_ms >= state.valid_until_ms:
            flags.add(Flag.EXPIRED)
        return _names(flags)

    def _hand_out(self, prescription_id: str, hand_out: HandOut) -> ShownHandOut:
        pointer = cast("HandOutPointer", self.fields[hand_out_field(hand_out.dispense)])
        report = cast("Event[MedicationDispensed]", self._document(handed_field(hand_out.dispense))).body
        return ShownHandOut(
            dispense=hand_out.dispense,
            prescription=prescription_id,
            pharmacy=hand_out.pharmacy,
            handed_out_at_ms=hand_out.occurred_at_ms,
            lines=report.lines,
            completed=report.completed,
            period_completed=report.period_completed,
            flags=_names(Flag.from_code(code) for code in hand_out.flags),
            reversed=hand_out.reversed,
            returned=_came_back(pointer),
        )

    def _returned(self, state: PrescriptionState) -> Decimal:
        standing = (each.dispense for each in state.hand_outs if not each.reversed)
        pointers = (cast("HandOutPointer", self.fields[hand_out_field(dispense)]) for dispense in standing)
        total = sum((_returned_in(state.unit, each) for each in pointers), NOTHING)
        return total.quantize(FOUR_PLACES) if state.unit == "package" else total

    def unseen_hand_outs(self) -> tuple[ShownHandOut, ...]:
        """Handed out, prescription not seen: no list entry, but shown."""
        waiting = [value for value in self.fields.values() if isinstance(value, Waiting)]
        facts = sorted((fact for each in waiting for fact in each.facts), key=lambda fact: fact.offset)
        return tuple(self._unseen(fact) for fact in facts if isinstance(fact.event.body, MedicationDispensed))

    def _unseen(self, fact: WaitingFact) -> ShownHandOut:
        report = cast("MedicationDispensed", fact.event.body)
        pointer = cast("HandOutPointer", self.fields[hand_out_field(report.dispense)])
        return ShownHandOut(
            dispense=report.dispense,
            prescription=report.prescription,
            pharmacy=fact.event.source.organisation,
            handed_out_at_ms=fact.event.occurred_at_ms,
            lines=report.lines,
            completed=report.completed,
            period_completed=report.period_completed,
            flags=_names(Flag.from_code(code) for code in pointer.flags_unseen),
            reversed=pointer.reversed,
            returned=_came_back(pointer),
        )

    # --- Documents -----------------------------------------------------------------------------------------------

    def signed(self, prescription: str) -> Event[PrescriptionIssued]:
        """A known prescription as it was signed."""
        return cast("Event[PrescriptionIssued]", self._document(signed_field(prescription)))

    def recorded(self, treatment: str) -> Event[TreatmentRecorded] | None:
        """A treatment as it was recorded, None for one that came with a prescription."""
        return cast("Event[TreatmentRecorded] | None", self._document(recorded_field(treatment)))

    def _document(self, field: str) -> object:
        if field not in self.documents:
            record = self.fields.get(field)
            self.documents[field] = decode(record) if isinstance(record, bytes) else None
        return self.documents[field]


def _returned_in(wanted: str, pointer: HandOutPointer) -> Decimal:
    """What came back, in the unit that is wanted, as far as it is known what the packages of the hand-out hold."""
    content_unit, of_a_package = pointer.content or ("", NOTHING)
    total = NOTHING
    for unit, value in pointer.returned:
        if unit == wanted:
            total += value
        elif unit == "package" and content_unit == wanted:
            total += value * of_a_package
        elif unit == content_unit and wanted == "package":
            total += value / of_a_package
    return total


def _as_prescribed(amount: Decimal, issued: PrescriptionIssued, state: PrescriptionState) -> Decimal:
    """An amount in the unit that was prescribed: counted by content, shown in packages again."""
    if issued.quantity.unit == state.unit or state.package_content is None:
        return amount
    return (amount / state.package_content).quantize(FOUR_PLACES)


def _who(by: By) -> Who:
    return Who(organisation=by.organisation, role=by.role, person=by.person)


def _names(flags: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({str(flag) for flag in flags}))


def _dosing(dosing: Dosing, strength: str | None, source: Source, at_ms: int) -> ShownDosing:
    made = dosing_text(dosing, strength)
    who = Who(organisation=source.organisation, role=source.role, person=source.person)
    differ = texts_differ(dosing, made)
    return ShownDosing(dosing=dosing, text=made, by=who, at_ms=at_ms, strength=strength, texts_differ=differ)


def _recalls(state: PrescriptionState, death: Death | None) -> tuple[ShownRecall, ...]:
    """In log order; a replacement or stop that came when another recall was in effect is not among them."""
    recalls = list(state.recalls)
    if death is not None:
        recalls.append(Recall(death.place, "death", death.at_ms, 0, death.by))
    return tuple(
        ShownRecall(
            reason=recall.reason,
            by=_who(recall.by),
            at_ms=recall.at_ms,
            from_on=day_of(recall.from_ms) if recall.from_ms else None,
            replaced_by=recall.replaced_by,
        )
        for recall in sorted(recalls, key=lambda each: each.place)
    )


def _is_reserved(treatment: TreatmentState, head: PrescriptionIssued | None, signed_at_ms: int | None) -> bool:
    by_itself = head is not None and head.substitution_reserved
    return is_substitution_reserved(treatment, signed_at_ms, NEVER, by_itself=by_itself)


def _reported_use(treatment: TreatmentState) -> ShownUse | None:
    use = treatment.reported_use
    return ShownUse(use=use.use, by=use.reported_by, at_ms=use.at_ms, note=use.note) if use else None


def _last(prescriptions: tuple[ShownPrescription, ...]) -> ShownHandOut | None:
    standing = [each for shown in prescriptions for each in shown.hand_outs if not each.reversed]
    return max(standing, key=lambda each: (each.handed_out_at_ms, each.dispense), default=None)


def _came_back(pointer: HandOutPointer) -> Quantity | None:
    """What came back in all, in the unit of what came back first, or, of packages and their content, in what they hold."""
    if not pointer.returned:
        return None
    units = [unit for unit, _ in pointer.returned]
    content_unit = pointer.content[0] if pointer.content else ""
    unit = content_unit if content_unit in units else units[0]
    return Quantity(value=_returned_in(unit, pointer), unit=unit)


def _allergies(allergies: Allergies) -> tuple[ShownAllergy, ...]:
    standing = [each for each in allergies.entries if not each.refuted and not each.recorded.none_known]
    return tuple(
        ShownAllergy(recorded=each.recorded, by=_who(each.by), at_ms=each.at_ms)
        for each in sorted(standing, key=lambda each: each.recorded.allergy)
    )


def _allergy_status(allergies: Allergies) -> str:
    """That nobody asked, and that there is none, are different things to a prescriber."""
    standing = [each for each in allergies.entries if not each.refuted]
    if not standing:
        return "not_asked"
    return "none_known" if standing[-1].recorded.none_known else "recorded"


def _multidose(meta: Meta) -> ShownMultidose | None:
    present = meta.multidose
    if present is None:
        return None
    return ShownMultidose(
        doctor=present.doctor,
        pharmacy=present.pharmacy,
        start=present.start,
        packing_days=present.packing_days,
        next_pack=present.next_pack,
    )


def _reconciled(meta: Meta) -> ShownReconciliation | None:
    last = meta.reconciled
    return ShownReconciliation(at_ms=last.at_ms, by=_who(last.by), version=last.version) if last else None
