"""How long a prescription is valid if its prescriber did not say: the policy for each kind of medicine."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from schemas.events import Medication

OSLO: Final = ZoneInfo("Europe/Oslo")
"""Dates are whole days there, the last one included."""

YEARS: Final = 1
"""*Policy*: one year from the day of issue, the general rule (the health directorate's guide, section 4-4)."""
CONTRACEPTIVE_ATC: Final = ("G03A", "G02BA03", "G02BB01")
"""Pills, implants, injections and patches; the hormonal intrauterine device; the hormonal ring."""
CONTRACEPTIVE_YEARS: Final = 3
"""*Policy*: hormonal contraceptives hold for three years (the same section): they are taken for long, by healthy people."""
ANTIBIOTIC_ATC: Final = "J01"
ANTIBIOTIC_DAYS: Final = 10
"""*Policy*: antibiotics for people hold for ten days (the same section): a later infection is to be judged anew."""


def oslo_day(at_ms: int) -> date:
    """The day in Oslo at an instant in milliseconds since the epoch."""
    return (datetime.fromtimestamp(at_ms // 1000, UTC)).astimezone(OSLO).date()


def valid_until(medication: Medication, issued_at_ms: int) -> date:
    """The last day on which a prescription can be dispensed whose prescriber did not name one."""
    issued_on = oslo_day(issued_at_ms)
    atc = medication.atc or ""
    if atc.startswith(ANTIBIOTIC_ATC):
        return issued_on + timedelta(days=ANTIBIOTIC_DAYS)
    return years_after(issued_on, CONTRACEPTIVE_YEARS if atc.startswith(CONTRACEPTIVE_ATC) else YEARS)


def years_after(day: date, years: int) -> date:
    """The same day some years later; 29 February becomes 28 February where the year has none."""
    try:
        return day.replace(year=day.year + years)
    except ValueError:
        return day.replace(year=day.year + years, day=28)
