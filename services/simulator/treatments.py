"""One treatment's life: prescribed, picked up, renewed, changed, paused, stopped; or recorded without a prescription."""

from dataclasses import dataclass
from typing import Final, Protocol

from schemas.events import (
    DispatchRequested,
    DispatchWithdrawn,
    Medication,
    PrescriptionIssued,
    PrescriptionRecalled,
    Quantity,
    Reimbursement,
    RenewalDeclined,
    RenewalRequested,
    TreatmentChanged,
    TreatmentDiscontinued,
    TreatmentPaused,
    TreatmentRecorded,
    TreatmentReinstated,
    TreatmentResumed,
    TreatmentWithdrawn,
    UseReported,
)
from services.admission.validity import valid_until
from services.simulator import medicines
from services.simulator.diary import DAY_MS, HOUR_MS, MINUTE_MS, Diary, day_of
from services.simulator.medicines import Medicine
from services.simulator.pharmacies import pick_up
from services.simulator.population import Actor, Patient

_LASTING: Final = frozenset({"chronic", "as_needed", "contraceptive", "nutrition", "consumable"})
_REASONS: Final = (
    "treatment_finished",
    "no_effect",
    "side_effect",
    "interaction",
    "replaced",
    "patients_wish",
    "other",
)
_USES: Final = (
    ("as_stated", "patient"),
    ("otherwise", "care_service"),
    ("not_taking", "relative"),
    ("otherwise", "pharmacy"),
)


class Taker(Protocol):
    """The patient, as far as a treatment needs to know."""

    patient: Patient
    doctor: Actor
    pharmacy: Actor
    treatments: "list[Treatment]"
    dead: bool
    multidose: bool


@dataclass(slots=True, eq=False)
class Treatment:
    """One treatment as the town knows it. `prescription` is the newest one, empty when there is none."""

    id: str
    taker: Taker
    medicine: Medicine
    doctor: Actor
    prescription: str = ""
    stopped: bool = False
    dispatched_to: Actor | None = None

    @property
    def lasting(self) -> bool:
        """Whether it goes on until somebody stops it."""
        return self.medicine.kind in _LASTING


def begin(at_ms: int, diary: Diary, taker: Taker, medicine: Medicine) -> None:
    """A doctor prescribes something new."""
    if taker.dead:
        return
    at_hospital = diary.chance(diary.rates.by_hospital)
    doctor = diary.random.choice(diary.town.hospital_doctors) if at_hospital else taker.doctor
    treatment = Treatment(diary.id(), taker, medicine, doctor)
    taker.treatments.append(treatment)
    _prescribe(at_ms, diary, treatment)
    if treatment.lasting:
        _plan_the_year(at_ms, diary, treatment)
    if diary.chance(diary.rates.withdrawn):
        diary.at(at_ms + 2 * DAY_MS, _withdraw, diary, treatment)


def record(at_ms: int, diary: Diary, taker: Taker, medicine: Medicine) -> None:
    """Somebody notes a medicine that has no prescription in the chain."""
    kind = diary.random.choices(
        (medicine.kind if medicine.kind == "supplement" else "otc", "hospital", "paper", "patient_stated"),
        (80, 7, 3, 10),
    )[0]
    treatment = Treatment(diary.id(), taker, medicine, taker.doctor)
    taker.treatments.append(treatment)
    body = TreatmentRecorded(
        treatment=treatment.id,
        kind=kind,
        medication=medicine.by_brand,
        dosing=medicine.dosing(day_of(at_ms)),
        use=medicine.use,
        paper_prescription=f"P-{diary.random.randrange(100_000)}" if kind == "paper" else None,
        informant="Pasienten",
    )
    diary.send(at_ms, taker.patient, taker.doctor, body)
    if diary.chance(0.3):
        diary.at(at_ms + _some_days(diary, 20, 300), _discontinue, diary, treatment)


def _prescribe(at_ms: int, diary: Diary, treatment: Treatment, renews: str | None = None) -> None:
    draw, rates, taker = diary.random, diary.rates, treatment.taker
    issued = _prescription(at_ms, diary, treatment, renews)
    treatment.prescription = issued.prescription
    first = at_ms + _some_days(diary, 0, 3 if not renews else 20) + draw.randrange(10, 120) * MINUTE_MS
    overtaken = diary.chance(rates.overtaken)
    diary.send(
        at_ms,
        taker.patient,
        treatment.doctor,
        issued,
        late_ms=first - at_ms + HOUR_MS if overtaken else 0,
        why="overtaken" if overtaken else "",
    )
    if diary.chance(rates.recalled):
        diary.at(at_ms + _some_days(diary, 0, 60), _recall, diary, treatment, issued.prescription)
    if diary.chance(rates.dispatched):
        _dispatch(at_ms + HOUR_MS, diary, treatment)
    diary.at(first, pick_up, diary, treatment, issued, 0)
    if treatment.lasting:
        lasts = min(treatment.medicine.days_in_package * (issued.refills + 1), 330)
        diary.at(first + max(lasts - 10, 20) * DAY_MS, _renew, diary, treatment, issued.prescription)


def _prescription(at_ms: int, diary: Diary, treatment: Treatment, renews: str | None) -> PrescriptionIssued:
    draw, rates, medicine, taker = diary.random, diary.rates, treatment.medicine, treatment.taker
    refills = draw.choice((0, 1, 1, 2, 3)) if treatment.lasting else 0
    medication, quantity = _medication(diary, medicine)
    hospital = treatment.doctor.system == "hospital"
    return PrescriptionIssued(
        prescription=diary.id(),
        treatment=treatment.id,
        issued_at_ms=at_ms,
        valid_until=valid_until(medication, at_ms),
        medication=medication,
        quantity=quantity,
        refills=refills,
        dosing=medicine.dosing(day_of(at_ms)),
        use=medicine.use,
        item_group=medicine.item_group,
        group=medicine.group,
        earliest_dispense=day_of(at_ms + 20 * DAY_MS) if renews and diary.chance(0.1) else None,
        reference_number=f"R{draw.getrandbits(48):012X}" if diary.chance(0.5) else None,
        renews=renews,
        series_id=diary.id() if diary.chance(rates.staged) else None,
        locked=diary.chance(rates.locked),
        from_hospital=hospital,
        multidose=taker.multidose and treatment.lasting,
        substitution_reserved=diary.chance(0.03),
        reimbursement=Reimbursement(basis="200", code="K86") if medicine.kind == "chronic" else None,
        indication_text=medicine.indication,
        route=medicine.route,
        note="Vurderes på nytt ved neste kontroll." if diary.chance(0.1) else None,
        prescriber_name=f"Lege {treatment.doctor.person}",
    )


def _medication(diary: Diary, medicine: Medicine) -> tuple[Medication, Quantity]:
    amount = Quantity(value=medicine.package, unit=medicine.package_unit)
    ways = (
        (medicine.by_package, Quantity(value=medicines.ONE, unit="package")),
        (medicine.by_brand, amount),
        (medicine.by_substance, amount),
    )
    return diary.random.choices(ways, (50, 20, 30))[0]


def _renew(at_ms: int, diary: Diary, treatment: Treatment, prescription: str) -> None:
    taker, rates = treatment.taker, diary.rates
    if taker.dead or treatment.stopped or treatment.prescription != prescription:
        return
    if diary.chance(rates.renewal_requested):
        by = diary.town.citizen if diary.chance(0.7) else taker.pharmacy
        request = RenewalRequested(request=diary.id(), prescription=prescription, to=treatment.doctor.organisation)
        diary.send(at_ms, taker.patient, by, request)
        if diary.chance(rates.renewal_declined):
            declined = RenewalDeclined(request=request.request, reason="Ta kontakt for time først")
            diary.send(at_ms + HOUR_MS, taker.patient, treatment.doctor, declined)
            diary.at(at_ms + _some_days(diary, 10, 30), _renew, diary, treatment, prescription)
            return
    if diary.chance(rates.other_substance):
        treatment.medicine = diary.random.choice(medicines.of_kind(treatment.medicine.kind))
    _prescribe(at_ms + 2 * HOUR_MS, diary, treatment, renews=prescription)


def _plan_the_year(at_ms: int, diary: Diary, treatment: Treatment) -> None:
    """What happens to a lasting treatment within the year that begins."""
    if treatment.stopped or treatment.taker.dead:
        return
    for share, step in (
        (diary.rates.changed, _change),
        (diary.rates.paused, _pause),
        (diary.rates.discontinued, _discontinue),
        (diary.rates.use_reported, _report_use),
    ):
        if diary.chance(share):
            diary.at(at_ms + _some_days(diary, 5, 360), step, diary, treatment)
    diary.at(at_ms + 365 * DAY_MS, _plan_the_year, diary, treatment)


def _change(at_ms: int, diary: Diary, treatment: Treatment) -> None:
    doubled = diary.chance(0.7)
    body = TreatmentChanged(
        treatment=treatment.id,
        reason="Ny vurdering",
        dosing=treatment.medicine.dosing(day_of(at_ms), doubled=True) if doubled else None,
        administration=None if doubled else "care_service",
    )
    _sent_if_alive(at_ms, diary, treatment, treatment.taker.doctor, body)


def _pause(at_ms: int, diary: Diary, treatment: Treatment) -> None:
    until = day_of(at_ms + 7 * DAY_MS) if diary.chance(0.5) else None
    body = TreatmentPaused(treatment=treatment.id, start=day_of(at_ms), until=until, reason="Undersøkelse på sykehus")
    hospital = diary.random.choice(diary.town.hospital_doctors)
    _sent_if_alive(at_ms, diary, treatment, hospital, body)
    resumed = TreatmentResumed(treatment=treatment.id, reason="Undersøkelsen er over")
    diary.at(at_ms + _some_days(diary, 2, 9), _sent_if_alive, diary, treatment, hospital, resumed)


def _discontinue(at_ms: int, diary: Diary, treatment: Treatment) -> None:
    if treatment.stopped or treatment.taker.dead:
        return
    reason = diary.random.choice(_REASONS)
    body = TreatmentDiscontinued(treatment=treatment.id, at_ms=at_ms, reason=reason)
    late = _some_days(diary, 1, 20) if diary.chance(diary.rates.late_report) else 0
    diary.send(at_ms, treatment.taker.patient, treatment.doctor, body, late_ms=late, why="late_report" if late else "")
    treatment.stopped = True
    if diary.chance(diary.rates.reinstated):
        reinstated = TreatmentReinstated(treatment=treatment.id, reason="Seponert ved en feil")
        diary.at(at_ms + _some_days(diary, 1, 5), _sent_if_alive, diary, treatment, treatment.doctor, reinstated)
    elif diary.chance(diary.rates.prescribed_again):
        diary.at(at_ms + _some_days(diary, 5, 60), _prescribe_again, diary, treatment)


def _prescribe_again(at_ms: int, diary: Diary, treatment: Treatment) -> None:
    if not treatment.taker.dead:
        treatment.stopped = False
        _prescribe(at_ms, diary, treatment)


def _withdraw(at_ms: int, diary: Diary, treatment: Treatment) -> None:
    treatment.stopped = True
    body = TreatmentWithdrawn(treatment=treatment.id, reason="Registrert på feil pasient")
    diary.send(at_ms, treatment.taker.patient, treatment.doctor, body)


def _report_use(at_ms: int, diary: Diary, treatment: Treatment) -> None:
    use, by = diary.random.choice(_USES)
    nurse = diary.random.choice(diary.town.nurses)
    _sent_if_alive(at_ms, diary, treatment, nurse, UseReported(treatment=treatment.id, use=use, by=by))


def _recall(at_ms: int, diary: Diary, treatment: Treatment, prescription: str) -> None:
    by = treatment.doctor if diary.chance(0.8) else diary.random.choice(diary.town.hospital_doctors)
    body = PrescriptionRecalled(prescription=prescription, reason=diary.random.choice(("discontinued", "other")))
    diary.send(at_ms, treatment.taker.patient, by, body)


def _dispatch(at_ms: int, diary: Diary, treatment: Treatment) -> None:
    taker = treatment.taker
    pharmacy = diary.random.choice(diary.town.pharmacies)
    by = diary.town.citizen if diary.chance(0.6) else treatment.doctor
    body = DispatchRequested(
        dispatch=diary.id(),
        prescription=treatment.prescription,
        pharmacy=pharmacy.organisation,
        delivery=diary.random.choice(("pick_up", "home", "care_service")),
        every=diary.chance(0.1),
    )
    diary.send(at_ms, taker.patient, by, body)
    treatment.dispatched_to = pharmacy
    if diary.chance(diary.rates.dispatch_withdrawn):
        withdrawn = DispatchWithdrawn(prescription=treatment.prescription, reason="Henter den selv")
        diary.send(at_ms + HOUR_MS, taker.patient, by, withdrawn)
        treatment.dispatched_to = None


def _sent_if_alive(
    at_ms: int,
    diary: Diary,
    treatment: Treatment,
    actor: Actor,
    body: TreatmentChanged | TreatmentPaused | TreatmentResumed | TreatmentReinstated | UseReported,
) -> None:
    if not treatment.taker.dead:
        diary.send(at_ms, treatment.taker.patient, actor, body)


def _some_days(diary: Diary, least: int, most: int) -> int:
    return diary.random.randrange(least, most) * DAY_MS
