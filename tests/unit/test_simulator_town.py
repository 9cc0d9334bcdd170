"""The town is the same for the same seed, plausible in what it does, and irregular as often as it says."""

from collections import Counter
from itertools import pairwise

import pytest

from schemas import codec
from schemas.codes import CODES
from schemas.events import (
    BODIES,
    ClaimRequested,
    Event,
    MedicationDispensed,
    PrescriptionIssued,
    Source,
)
from services.admission.units import fits_form
from services.identity.registers import parse_atc, parse_hpr, parse_organisation_number
from services.simulator.diary import DAMAGES, Planned
from services.simulator.medicines import medicines
from services.simulator.population import Town
from services.simulator.rates import Rates
from services.simulator.town import events, patients_for


@pytest.fixture(scope="module")
def played() -> list[Planned]:
    return list(events(11, 30_000))


def test_the_same_seed_gives_the_same_town() -> None:
    assert list(events(5, 2_000)) == list(events(5, 2_000))


def test_another_seed_gives_another_town() -> None:
    assert list(events(5, 500)) != list(events(6, 500))


def test_a_longer_run_begins_like_a_shorter_one_in_the_same_town() -> None:
    town = Town(50)
    assert list(events(5, 3_000, town=town))[:1_000] == list(events(5, 1_000, town=town))


def test_actions_come_in_the_order_of_arrival(played: list[Planned]) -> None:
    assert all(one.received_at_ms <= other.received_at_ms for one, other in pairwise(played))


def test_nothing_arrives_before_it_happened(played: list[Planned]) -> None:
    assert all(each.occurred_at_ms <= each.received_at_ms for each in played)


def test_a_claim_arrives_within_the_quarter_of_an_hour_that_the_door_allows_or_is_a_repetition(
    played: list[Planned],
) -> None:
    late = [
        each
        for each in played
        if isinstance(each.body, ClaimRequested) and each.received_at_ms - each.occurred_at_ms > 900_000
    ]
    assert {each.irregularity for each in late} <= {"duplicate"}


def test_the_volumes_are_near_those_of_the_field(played: list[Planned]) -> None:
    count = Counter(type(each.body) for each in played)
    assert 55 / 33 * 0.75 < count[MedicationDispensed] / count[PrescriptionIssued] < 55 / 33 * 1.35


def test_every_event_of_the_contract_happens_somewhere() -> None:
    wanted = set(BODIES)
    for each in events(3, 60_000, rates=Rates(death=0.4, death_retracted=0.5)):
        wanted.discard(type(each.body))
        if not wanted:
            return
    assert wanted == set()


def test_every_irregularity_happens(played: list[Planned]) -> None:
    assert {each.irregularity for each in played} == {
        "",
        "conflicting",
        "duplicate",
        "forged_reference",
        "late_report",
        "overtaken",
        "race_for_claim",
        "recall_during_dispensing",
        "unreadable",
        "without_claim",
    }
    assert {each.damage for each in played} - {""} == set(DAMAGES)


def test_without_irregularities_nothing_is_repeated_damaged_or_late() -> None:
    none = Rates(**dict.fromkeys(Rates.__slots__, 0.0))
    plain = list(events(4, 5_000, rates=none))
    assert {each.irregularity for each in plain} == {""}
    assert len({each.event_id for each in plain}) == len(plain)


def test_a_duplicate_has_the_event_id_and_the_content_of_its_original(played: list[Planned]) -> None:
    first: dict[str, Planned] = {}
    for each in played:
        if each.irregularity == "duplicate":
            assert each.body == first[each.event_id].body
        else:
            assert each.event_id not in first
            first[each.event_id] = each


def test_a_race_is_two_pharmacies_at_one_prescription_in_the_same_moment(played: list[Planned]) -> None:
    claims = {
        each.body.prescription: each
        for each in played
        if isinstance(each.body, ClaimRequested) and each.irregularity == ""
    }
    races = [each for each in played if each.irregularity == "race_for_claim"]
    assert races
    assert all(each.together for each in races)
    for each in races:
        assert isinstance(each.body, ClaimRequested)
        assert each.body.prescription in claims


def test_a_dispense_that_overtakes_its_prescription_stands_before_it(played: list[Planned]) -> None:
    place = {each.event_id: number for number, each in enumerate(played)}
    overtaken = {
        each.body.prescription: each
        for each in played
        if each.irregularity == "overtaken" and isinstance(each.body, PrescriptionIssued)
    }
    before = [
        each
        for each in played
        if isinstance(each.body, MedicationDispensed)
        and each.body.prescription in overtaken
        and place[each.event_id] < place[overtaken[each.body.prescription].event_id]
    ]
    assert before


def test_what_is_planned_fits_the_contract(played: list[Planned]) -> None:
    for each in played[:4_000]:
        source = Source(
            system=each.actor.system,
            organisation=each.actor.organisation,
            role=each.actor.role,
            person=each.actor.person,
        )
        event = Event(
            event_id=each.event_id,
            patient="0" * 32,
            occurred_at_ms=each.occurred_at_ms,
            received_at_ms=each.received_at_ms,
            source=source,
            body=each.body,
        )
        assert codec.decode(codec.encode(event)) == event


def test_people_and_organisations_have_valid_numbers() -> None:
    town = Town(3_000)
    actors = (
        *town.doctors,
        *town.hospital_doctors,
        *town.nurses,
        *town.pharmacies,
        town.citizen,
        town.operator,
        town.register,
    )
    for actor in actors:
        parse_organisation_number(actor.organisation)
        assert actor.role in CODES["role"]
        if actor.person is not None:
            parse_hpr(actor.person)
    assert all(patient.national_id.is_synthetic for patient in town.patients)
    assert len({patient.national_id for patient in town.patients}) == 3_000


def test_no_patients_number_is_in_what_is_planned(played: list[Planned]) -> None:
    town = Town(patients_for(30_000))
    text = repr(played[:5_000])
    assert not any(patient.national_id.digits in text for patient in town.patients)


def test_the_town_has_at_least_150_real_medicines_with_codes_that_fit() -> None:
    assert len(medicines()) >= 150
    assert len({medicine.item_number for medicine in medicines()}) == len(medicines())
    for medicine in medicines():
        assert medicine.form in CODES["form"]
        assert medicine.route in CODES["route"]
        assert medicine.group in CODES["prescription_group"]
        assert fits_form(medicine.dose_unit, medicine.form)
        assert fits_form(medicine.package_unit, medicine.form)
        if medicine.atc is not None:
            parse_atc(medicine.atc)
        assert (medicine.atc is None) == (medicine.item_group != "medicine")
