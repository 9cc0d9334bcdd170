"""What happens to people of the town besides treatments: allergies, confirmed lists, vaccinations, multi-dose, death."""

from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace

from schemas.events import (
    AllergyRecorded,
    AllergyRefuted,
    ClaimRequested,
    DeathRetracted,
    ListReconciled,
    MultidoseAssigned,
    MultidoseEnded,
    PatientDied,
)
from services.simulator.diary import DAY_MS, HOUR_MS, YEAR_MS, Diary, day_of
from services.simulator.medicines import of_kind
from services.simulator.population import Actor, Patient
from services.simulator.treatments import Treatment, begin, record

_OLD: Final = 75
_ALLERGIES: Final = (
    ("Fenoksymetylpenicillin", "J01CE02", "Utslett"),
    ("Trimetoprim", "J01EA01", "Elveblest"),
    ("Ibuprofen", "M01AE01", "Tung pust"),
    ("Kodein", "R05DA04", "Kvalme"),
    ("Nøtter", None, "Anafylaksi"),
)


@dataclass(slots=True, eq=False)
class Person:
    """A patient as the town knows them: their doctor, their pharmacy, what they take, whether they live."""

    patient: Patient
    doctor: Actor
    pharmacy: Actor
    treatments: list[Treatment] = field(default_factory=list)
    dead: bool = False
    multidose: bool = False


def settle(diary: Diary, start_ms: int) -> None:
    """Everybody moves in, over three months."""
    draw = diary.random
    for patient in diary.town.patients:
        person = Person(patient, draw.choice(diary.town.doctors), draw.choice(diary.town.pharmacies))
        diary.at(start_ms + _days(diary, 0, 90), _move_in, diary, person)


def _move_in(at_ms: int, diary: Diary, person: Person) -> None:
    draw, age = diary.random, person.patient.age
    share = min(1.0, max(0.0, (age - 20) / 70))
    for _ in range(sum(draw.random() < share for _ in range(8))):
        diary.at(at_ms + _days(diary, 0, 120), _chronic, diary, person)
    diary.at(at_ms + _days(diary, 0, 250), _acute, diary, person)
    if diary.chance(0.4):
        diary.at(at_ms + _days(diary, 0, 300), _over_the_counter, diary, person)
    if diary.chance(0.5):
        diary.at(at_ms + _days(diary, 0, 30), _asked_about_allergies, diary, person)
    if diary.chance(0.3):
        diary.at(at_ms + _days(diary, 200, 400), _vaccinated, diary, person)
    if share > 0.5:  # noqa: PLR2004  those who take several medicines
        diary.at(at_ms + _days(diary, 120, 400), _reconciled, diary, person)
    if age > _OLD:
        if diary.chance(0.2):
            diary.at(at_ms + _days(diary, 20, 200), _packed, diary, person)
        diary.at(at_ms + _days(diary, 30, 365), _another_year, diary, person)


def _chronic(at_ms: int, diary: Diary, person: Person) -> None:
    kinds = ("chronic", "chronic", "chronic", "as_needed", "contraceptive", "controlled", "nutrition", "consumable")
    weights = (20, 20, 20, 12, 4 if person.patient.age < 50 else 0, 3, 1, 1)  # noqa: PLR2004 - an age, and no constant of the town
    kind = diary.random.choices(kinds, weights)[0]
    begin(at_ms, diary, person, diary.random.choice(of_kind(kind)))


def _acute(at_ms: int, diary: Diary, person: Person) -> None:
    if person.dead:
        return
    kind = diary.random.choices(("antibiotic", "course", "controlled", "as_needed"), (40, 30, 12, 18))[0]
    begin(at_ms, diary, person, diary.random.choice(of_kind(kind)))
    diary.at(at_ms + int(diary.random.expovariate(1 / 200) * DAY_MS), _acute, diary, person)


def _over_the_counter(at_ms: int, diary: Diary, person: Person) -> None:
    if not person.dead:
        record(at_ms, diary, person, diary.random.choice(of_kind("otc", "supplement")))


def _vaccinated(at_ms: int, diary: Diary, person: Person) -> None:
    if person.dead:
        return
    begin(at_ms, diary, person, diary.random.choice(of_kind("vaccine")))
    diary.at(at_ms + _days(diary, 350, 380), _vaccinated, diary, person)


def _asked_about_allergies(at_ms: int, diary: Diary, person: Person) -> None:
    if person.dead:
        return
    allergy = diary.id()
    if diary.chance(0.7):
        body = AllergyRecorded(allergy=allergy, none_known=True, source="patient")
        diary.send(at_ms, person.patient, person.doctor, body)
        return
    substance, atc, reaction = diary.random.choice(_ALLERGIES)
    severity = diary.random.choice(("low", "moderate", "high"))
    body = AllergyRecorded(
        allergy=allergy,
        substance=substance,
        atc=atc,
        reaction=reaction,
        severity=severity,
        certainty="likely",
        source="patient",
    )
    diary.send(at_ms, person.patient, person.doctor, body)
    if diary.chance(0.1):
        refuted = AllergyRefuted(allergy=allergy, reason="Negativ provokasjonstest")
        diary.at(at_ms + _days(diary, 30, 300), _sent, diary, person, person.doctor, refuted)


def _sent(
    at_ms: int, diary: Diary, person: Person, actor: Actor, body: AllergyRefuted | DeathRetracted | MultidoseEnded
) -> None:
    diary.send(at_ms, person.patient, actor, body)


def _reconciled(at_ms: int, diary: Diary, person: Person) -> None:
    """The token and the version are the channel's to fill in: the town does not know what the list answers."""
    if person.dead:
        return
    read = at_ms - 5 * 60_000 if diary.chance(0.95) else at_ms - 5 * HOUR_MS
    confirmed = ListReconciled(read_token="-", version=0, read_at_ms=read)  # noqa: S106  a place for one
    diary.send(at_ms, person.patient, person.doctor, confirmed)
    diary.at(at_ms + _days(diary, 300, 400), _reconciled, diary, person)


def _packed(at_ms: int, diary: Diary, person: Person) -> None:
    if person.dead or len(person.treatments) < 3:  # noqa: PLR2004  it pays for several medicines only
        return
    person.multidose = True
    doctor = person.doctor
    assert doctor.person is not None
    day = day_of(at_ms)
    body = MultidoseAssigned(
        doctor=doctor.person,
        pharmacy=person.pharmacy.organisation,
        start=day,
        packing_days=14,
        next_pack=day_of(at_ms + 14 * DAY_MS),
    )
    diary.send(at_ms, person.patient, doctor, body)
    if diary.chance(0.1):
        other = diary.random.choice(diary.town.pharmacies)
        diary.send(at_ms + DAY_MS, person.patient, doctor, replace(body, pharmacy=other.organisation))
    if diary.chance(0.15):
        ends = MultidoseEnded(reason="Flytter på sykehjem")
        diary.at(at_ms + _days(diary, 60, 300), _sent, diary, person, doctor, ends)


def _another_year(at_ms: int, diary: Diary, person: Person) -> None:
    if person.dead:
        return
    if not diary.chance(diary.rates.death):
        diary.at(at_ms + YEAR_MS, _another_year, diary, person)
        return
    diary.send(at_ms, person.patient, diary.town.register, PatientDied(on=day_of(at_ms - DAY_MS)))
    held = [each.prescription for each in person.treatments if each.prescription and not each.stopped]
    if held and diary.chance(0.5):
        claim = ClaimRequested(claim=diary.id(), prescription=held[0])
        diary.send(at_ms + 2 * HOUR_MS, person.patient, person.pharmacy, claim)
    if diary.chance(diary.rates.death_retracted):
        diary.at(at_ms + DAY_MS, _sent, diary, person, diary.town.register, DeathRetracted(reason="Forveksling"))
        diary.at(at_ms + YEAR_MS, _another_year, diary, person)
    else:
        person.dead = True


def _days(diary: Diary, least: int, most: int) -> int:
    """Some number of days, in milliseconds, at some time of a working day."""
    return diary.random.randrange(least, most) * DAY_MS + int(diary.random.random() * 9 * HOUR_MS)
