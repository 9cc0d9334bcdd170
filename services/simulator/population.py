"""Who lives and works in the town: derived from numbers alone, so that the same number is always the same person."""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

from msgspec import Struct

from services.identity.national_id import NationalId, synthetic
from services.identity.registers import InvalidIdentifier, parse_organisation_number
from services.topics.registry import Parties

_FIRST_NAMES: Final = (
    "Sigrid",
    "Ola",
    "Kari",
    "Nils",
    "Ingrid",
    "Lars",
    "Anne",
    "Per",
    "Solveig",
    "Jon",
    "Marit",
    "Arne",
    "Astrid",
    "Bjørn",
    "Liv",
    "Erik",
    "Ragnhild",
    "Kåre",
    "Åse",
    "Øyvind",
    "Fatima",
    "Mohammed",
    "Amina",
    "Wei",
    "Zofia",
    "Piotr",
    "Máret",
    "Ánte",
    "Nguyễn",
    "Søren",
    "Chloë",
    "José",
    "Олена",
    "Юрій",
    "محمد",
    "美咲",
)
_LAST_NAMES: Final = (
    "Testnes",
    "Prøvedal",
    "Liksomvik",
    "Eksempelstad",
    "Øvrebø-Prøve",
    "Simulen",
    "Tenkt",
    "Fiktivsen",
    "Modellgård",
    "Skisseth",
    "Utkast",
    "Papirli",
    "Attrapp",
    "Kulisse",
    "Mønsterås",
    "Šimánek-Test",
)
_SERIES: Final = 31_300_002
"""The first eight digits of the first organisation number: from the series for synthetic ones."""


class Actor(Struct, frozen=True, gc=False):
    """Who sends something: system, organisation, role, and the person's HPR number if there is one."""

    system: str
    organisation: str
    role: str
    person: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Patient:
    """One citizen. `age` at the town's beginning; the number is in no repr."""

    index: int
    national_id: NationalId
    name: str
    age: int

    def __repr__(self) -> str:
        return f"Patient({self.index})"


class Town:
    """The people and places of a town with this many patients."""

    def __init__(self, patients: int) -> None:
        self.patients = tuple(patient(index) for index in range(patients))
        offices = max(2, min(10, patients // 100))
        self.doctors = tuple(
            Actor("journal", organisation(2 + number // 3), "doctor", hpr(number)) for number in range(offices * 3)
        )
        self.hospital_doctors = tuple(
            Actor("hospital", organisation(20), "doctor", hpr(200 + number)) for number in range(6)
        )
        self.nurses = tuple(
            Actor("municipal", organisation(30 + number % 2), "nurse", hpr(300 + number)) for number in range(4)
        )
        places = (0, 1, *range(40, 40 + max(2, min(10, patients // 150))))
        self.pharmacies = tuple(
            Actor("pharmacy-desk", organisation(place), "pharmacist", hpr(400 + place)) for place in places
        )
        self.citizen = Actor("citizen-portal", organisation(60), "citizen")
        self.operator = Actor("operations", organisation(61), "operator", hpr(500))
        self.register = Actor("population-register", organisation(62), "system")

    @cached_property
    def parties(self) -> Parties:
        """Everyone who needs topics of their own."""
        everyone = (*self.doctors, *self.hospital_doctors, *self.nurses, *self.pharmacies)
        everyone += (self.citizen, self.operator, self.register)
        return Parties(
            systems=tuple(dict.fromkeys(actor.system for actor in everyone)),
            pharmacies=tuple(actor.organisation for actor in self.pharmacies),
            organisations=tuple(dict.fromkeys(actor.organisation for actor in everyone)),
        )


def patient(index: int) -> Patient:
    """The patient with this number (0 to 9,999,999): always the same one."""
    number = synthetic(index)
    return Patient(index, number, name(index), _age(number))


def name(index: int) -> str:
    """A made-up name in one of several scripts."""
    return f"{_FIRST_NAMES[index * 7 % len(_FIRST_NAMES)]} {_LAST_NAMES[index * 5 % len(_LAST_NAMES)]}"


def hpr(number: int) -> str:
    """A made-up number in the register of health personnel."""
    return str(9_144_000 + number)


def organisation(number: int) -> str:
    """The organisation number of the town's organisation with this number, each from 0 on another one."""
    found = -1
    for eight in range(_SERIES, _SERIES + 2 * number + 12):
        valid = _with_control_digit(eight)
        found += valid is not None
        if valid is not None and found == number:
            return valid
    raise AssertionError("fewer than half of all numbers lack a control digit")


def _with_control_digit(eight: int) -> str | None:
    for digit in range(10):
        try:
            return parse_organisation_number(f"{eight}{digit}")
        except InvalidIdentifier:
            continue
    return None


def _age(number: NationalId) -> int:
    """How old at the town's beginning: the serial tells the century."""
    century = 1900 if int(number.digits[6:9]) < 500 else 2000  # noqa: PLR2004  the rule of the number
    return 2021 - (century + int(number.digits[4:6]))
