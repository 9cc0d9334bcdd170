"""One visit to a pharmacy: claimed, perhaps contested, handed out, now and then given back, reversed or reported late."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Protocol

from schemas.events import (
    ClaimAborted,
    ClaimReleased,
    ClaimRequested,
    DispensedLine,
    DispenseReversed,
    InterventionMade,
    MedicationDispensed,
    PrescriptionIssued,
    PrescriptionRecalled,
    Price,
    Quantity,
)
from services.simulator.diary import DAY_MS, HOUR_MS, MINUTE_MS, Diary
from services.simulator.medicines import Medicine
from services.simulator.population import Actor, Patient

_NOWHERE: Final = "00000000-0000-4000-a000-0000000000ff"


class Customer(Protocol):
    """A customer, as far as the pharmacy needs to know."""

    @property
    def patient(self) -> Patient: ...  # noqa: D102 - the name says it

    @property
    def pharmacy(self) -> Actor: ...  # noqa: D102 - the name says it

    @property
    def dead(self) -> bool: ...  # noqa: D102 - the name says it

    @property
    def multidose(self) -> bool: ...  # noqa: D102 - the name says it


class Course(Protocol):
    """What the prescription belongs to, as far as a pharmacy needs to know."""

    medicine: Medicine
    doctor: Actor
    prescription: str
    stopped: bool
    dispatched_to: Actor | None

    @property
    def taker(self) -> Customer: ...  # noqa: D102 - the name says it


@dataclass(frozen=True, slots=True)
class _Visit:
    """One pick-up: of which prescription, by whom, and its number (from 0)."""

    course: Course
    issued: PrescriptionIssued
    pharmacy: Actor
    number: int
    claim: str | None


def pick_up(at_ms: int, diary: Diary, course: Course, issued: PrescriptionIssued, number: int) -> None:
    """The patient comes for a prescription, and comes again as long as there are refills."""
    rates, customer = diary.rates, course.taker
    if customer.dead or course.stopped or course.prescription != issued.prescription:
        return
    pharmacy = _where(diary, course)
    if diary.chance(rates.without_claim):
        _hand_out(at_ms, diary, _Visit(course, issued, pharmacy, number, None))
    elif not _claimed(at_ms, diary, course, issued, pharmacy, number):
        diary.at(at_ms + DAY_MS, pick_up, diary, course, issued, number)
        return
    if number < issued.refills:
        days = max(7, course.medicine.days_in_package - diary.random.randrange(0, 10))
        diary.at(at_ms + days * DAY_MS, pick_up, diary, course, issued, number + 1)


def _where(diary: Diary, course: Course) -> Actor:
    if course.dispatched_to is not None and diary.chance(0.9):
        chosen, course.dispatched_to = course.dispatched_to, None
        return chosen
    elsewhere = diary.rates.multidose_claim_elsewhere if course.taker.multidose else 0.12
    return diary.random.choice(diary.town.pharmacies) if diary.chance(elsewhere) else course.taker.pharmacy


def _claimed(
    at_ms: int, diary: Diary, course: Course, issued: PrescriptionIssued, pharmacy: Actor, number: int
) -> bool:
    """Claim and hand out; False when the claim was given back and the patient has to come again."""
    rates, patient = diary.rates, course.taker.patient
    claim = ClaimRequested(claim=diary.id(), prescription=issued.prescription)
    sent = diary.send(at_ms, patient, pharmacy, claim)
    if diary.chance(rates.race_for_claim):
        _race(sent.received_at_ms, diary, patient, issued, pharmacy)
    if diary.chance(rates.forged_reference):
        diary.send(
            at_ms + 2000,
            patient,
            pharmacy,
            ClaimRequested(claim=diary.id(), prescription=_NOWHERE),
            why="forged_reference",
        )
    if diary.chance(rates.claim_aborted):
        diary.send(at_ms + 20 * MINUTE_MS, patient, pharmacy, ClaimAborted(claim=claim.claim, reason="Utsolgt"))
        return False
    if diary.chance(rates.claim_released):
        released = ClaimReleased(claim=claim.claim, reason="Apotekets system er nede")
        diary.send(at_ms + 5 * HOUR_MS, patient, diary.town.operator, released)
        return False
    if diary.chance(rates.recall_during_dispensing):
        recall = PrescriptionRecalled(prescription=issued.prescription, reason="other")
        diary.send(at_ms + MINUTE_MS, patient, course.doctor, recall, why="recall_during_dispensing")
    later = diary.random.randrange(3, 40) * MINUTE_MS
    _hand_out(at_ms + later, diary, _Visit(course, issued, pharmacy, number, claim.claim))
    return True


def _race(at_ms: int, diary: Diary, patient: Patient, issued: PrescriptionIssued, winner: Actor) -> None:
    rival = diary.random.choice(diary.town.pharmacies)
    if rival is not winner:
        claim = ClaimRequested(claim=diary.id(), prescription=issued.prescription)
        diary.send(at_ms - 1, patient, rival, claim, late_ms=1, together=True, why="race_for_claim")


def _hand_out(at_ms: int, diary: Diary, visit: _Visit) -> None:
    rates = diary.rates
    partial = diary.chance(rates.partial) and visit.claim is not None
    body = _dispensed(diary, visit, partial=partial)
    late = 0
    if visit.claim is None or diary.chance(rates.late_report):
        late = diary.random.randrange(1, 72) * HOUR_MS
    why = "without_claim" if visit.claim is None else "late_report" if late else ""
    sent = diary.send(at_ms, visit.course.taker.patient, visit.pharmacy, body, late_ms=late, why=why)
    after = sent.received_at_ms
    if partial:
        _rest(after + 3 * DAY_MS, diary, visit)
    _regret(after, diary, visit, body)


def _rest(at_ms: int, diary: Diary, visit: _Visit) -> None:
    """The other half of a partial hand-out, a few days later."""
    claim = ClaimRequested(claim=diary.id(), prescription=visit.issued.prescription)
    patient = visit.course.taker.patient
    diary.send(at_ms, patient, visit.pharmacy, claim)
    body = _dispensed(
        diary, _Visit(visit.course, visit.issued, visit.pharmacy, visit.number, claim.claim), partial=True, rest=True
    )
    diary.send(at_ms + 10 * MINUTE_MS, patient, visit.pharmacy, body)


def _regret(at_ms: int, diary: Diary, visit: _Visit, body: MedicationDispensed) -> None:
    """Reversals and returned goods."""
    rates, patient = diary.rates, visit.course.taker.patient
    if diary.chance(rates.reversed):
        reversal = DispenseReversed(reversal=diary.id(), dispense=body.dispense, reason="Ikke hentet")
        diary.send(at_ms + DAY_MS, patient, visit.pharmacy, reversal)
    if diary.chance(rates.reversed_by_another):
        reversal = DispenseReversed(reversal=diary.id(), dispense=body.dispense, reason="Feil apotek")
        diary.send(at_ms + DAY_MS, patient, diary.random.choice(diary.town.pharmacies), reversal)
    if diary.chance(rates.returned):
        whole = body.lines[0].quantity
        returned = Quantity(value=whole.value, unit=whole.unit)
        reversal = DispenseReversed(reversal=diary.id(), dispense=body.dispense, reason="Tåler ikke", quantity=returned)
        diary.send(at_ms + 6 * DAY_MS, patient, visit.pharmacy, reversal)


def _dispensed(diary: Diary, visit: _Visit, *, partial: bool, rest: bool = False) -> MedicationDispensed:
    draw, rates, medicine = diary.random, diary.rates, visit.course.medicine
    last = visit.number >= visit.issued.refills
    substituted = diary.chance(rates.substituted)
    content = Quantity(value=medicine.package, unit=medicine.package_unit)
    half = (medicine.package / 2).quantize(Decimal("0.0001"))
    quantity = (
        Quantity(value=half, unit=medicine.package_unit) if partial else Quantity(value=Decimal(1), unit="package")
    )
    line = DispensedLine(
        quantity=quantity,
        item_number=f"{int(medicine.item_number) + (1 if substituted else 0)}",
        name=f"{medicine.substance if substituted else medicine.brand} {medicine.strength}",
        strength=medicine.strength,
        content=content,
        substituted=substituted,
        batch=f"L{draw.randrange(100_000):05}",
    )
    total = Decimal(draw.randrange(4_000, 90_000)) / 100
    return MedicationDispensed(
        dispense=diary.id(),
        prescription=visit.issued.prescription,
        lines=(line,),
        period_completed=rest or not partial,
        completed=last and (rest or not partial),
        claim=visit.claim,
        dispense_number=visit.number + 1,
        interventions=(InterventionMade(code="206", change="V", reason="Utsolgt"),)
        if diary.chance(rates.sold_out)
        else (),
        offline=visit.claim is None,
        price=Price(total_nok=total, patient_nok=(total / 2).quantize(Decimal("0.01"))),
    )
