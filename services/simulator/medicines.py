"""The medicines of the town: real names, codes, forms, strengths and sensible doses, read from medicines.tsv."""

import csv
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from functools import cache, cached_property
from pathlib import Path
from typing import Final

from schemas.events import (
    AsNeeded,
    Brand,
    Dose,
    Dosing,
    DosingPeriod,
    FixedDose,
    Medication,
    Package,
    Quantity,
    Substance,
)

ONE: Final = Decimal(1)
_FILE: Final = Path(__file__).with_name("medicines.tsv")
_TIMES: Final = {"m": "morning", "n": "noon", "a": "afternoon", "e": "evening", "s": "night"}
_USES: Final = {
    "as_needed": "as_needed",
    "otc": "as_needed",
    "course": "course",
    "antibiotic": "course",
    "vaccine": "vaccine",
}
_FIRST_ITEM_NUMBER: Final = 900_000
_WEEK: Final = 7


@dataclass(frozen=True)
class Medicine:
    """One row of medicines.tsv.

    kind: chronic, course, antibiotic, as_needed, controlled, contraceptive, otc, supplement, vaccine, nutrition or
    consumable. when: letters for times of day, w / w2 weekly or every other week, q72 each 72 hours, p4 as needed
    with at most 4 doses a day, x per scheme, 1 once. days: how long a course takes, 0 when it has no end.
    """

    brand: str
    substance: str
    atc: str | None
    form: str
    strength: str
    dose_unit: str
    dose: Decimal
    when: str
    package: Decimal
    package_unit: str
    kind: str
    group: str
    route: str
    days: int
    indication: str
    item_number: str

    @cached_property
    def use(self) -> str:
        """The code of use (9101)."""
        return _USES.get(self.kind, "regular")

    @cached_property
    def item_group(self) -> str:
        """The item group (7402)."""
        return self.kind if self.kind in ("nutrition", "consumable") else "medicine"

    @cached_property
    def by_package(self) -> Medication:
        """Prescribed as one package of the catalogue."""
        content = Quantity(value=self.package, unit=self.package_unit)
        return self._medication(
            Package(item_number=self.item_number, name=f"{self.brand} {self.strength}", content=content)
        )

    @cached_property
    def by_brand(self) -> Medication:
        """Prescribed as a brand."""
        return self._medication(Brand(name=self.brand))

    @cached_property
    def by_substance(self) -> Medication:
        """Prescribed as a substance; the pharmacy chooses."""
        return self._medication(Substance(name=self.substance))

    @cached_property
    def days_in_package(self) -> int:
        """How long one package lasts at the usual dose; for what is taken when needed, two months."""
        a_day = _doses_a_day(self.when) * self.dose
        if a_day == 0 or self.package_unit != self.dose_unit:
            return 60
        return max(1, int(self.package / a_day))

    def dosing(self, start: date, *, doubled: bool = False) -> Dosing:
        """The usual dosing from a day on, or twice the dose."""
        dose = Dose(low=self.dose * (2 if doubled else 1), unit=self.dose_unit)
        if self.when == "x":
            return Dosing(per_scheme=True, text="Etter skjema")
        if self.when.startswith("p"):
            most = self.dose * int(self.when[1:]) * (2 if doubled else 1)
            return Dosing(
                periods=(DosingPeriod(as_needed=AsNeeded(dose=dose, indication=self.indication, max_per_day=most)),)
            )
        end = start + timedelta(days=max(self.days - 1, 0)) if self.days else None
        return Dosing(periods=(DosingPeriod(start=start, end=end, fixed=(self._fixed(dose),)),))

    def _fixed(self, dose: Dose) -> FixedDose:
        if self.when == "w":
            return FixedDose(dose=dose, times_of_day=("morning",), weekdays=("monday",))
        if self.when == "w2":
            return FixedDose(dose=dose, times_of_day=("morning",), days_on=1, days_off=13)
        if self.when == "1":
            return FixedDose(dose=dose, times_of_day=("morning",))
        if self.when.startswith("q"):
            return FixedDose(dose=dose, interval_hours=int(self.when[1:]))
        return FixedDose(dose=dose, times_of_day=tuple(_TIMES[letter] for letter in self.when))

    def _medication(self, product: Package | Brand | Substance) -> Medication:
        return Medication(product=product, form=self.form, atc=self.atc, strength=self.strength)


def _doses_a_day(when: str) -> Decimal:
    """How many doses a day on average; 0 where nobody can say."""
    if when == "w":
        return Decimal(1) / _WEEK
    if when == "w2":
        return Decimal(1) / (2 * _WEEK)
    if when.startswith("q"):
        return Decimal(24) / int(when[1:])
    if when == "1" or when.startswith(("p", "x")):
        return Decimal(0)
    return Decimal(len(when))


@cache
def medicines() -> tuple[Medicine, ...]:
    """All medicines of the town, in the order of the file. Item numbers are made up."""
    with _FILE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return tuple(_medicine(row, _FIRST_ITEM_NUMBER + 17 * number) for number, row in enumerate(rows))


@cache
def of_kind(*kinds: str) -> tuple[Medicine, ...]:
    """The medicines of these kinds."""
    return tuple(medicine for medicine in medicines() if medicine.kind in kinds)


def _medicine(row: dict[str, str], item_number: int) -> Medicine:
    return Medicine(
        brand=row["brand"],
        substance=row["substance"],
        atc=row["atc"] or None,
        form=row["form"],
        strength=row["strength"],
        dose_unit=row["dose_unit"],
        dose=Decimal(row["dose"]),
        when=row["when"],
        package=Decimal(row["package"]),
        package_unit=row["package_unit"],
        kind=row["kind"],
        group=row["group"],
        route=row["route"],
        days=int(row["days"]),
        indication=row["indication"],
        item_number=str(item_number),
    )
