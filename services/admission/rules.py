"""The door rules that look at more than one field: each one function, with its rule in the docstring.

A rule names in its parameters the fields that it reads, as the contract calls them. It runs whenever all of those
are valid, whatever else is wrong with the message, so that all errors are reported at once. `received_at_ms` and
`occurred_at_ms` are those of the envelope.
"""

# ruff: noqa: FBT001 - a rule is called by the names of the fields that it reads, some of which are booleans

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from functools import cache
from typing import Any, Final, NamedTuple

import msgspec
from pydantic import BaseModel, ValidationError

from schemas.events import (
    AllergyRecorded,
    AsNeeded,
    DispensedLine,
    Dose,
    Dosing,
    DosingPeriod,
    FixedDose,
    Medication,
    MultidoseAssigned,
    Package,
    PatientDied,
    PrescriptionIssued,
    Price,
    Quantity,
    Reimbursement,
    TreatmentChanged,
    TreatmentPaused,
    TreatmentRecorded,
    Weight,
)
from schemas.reasons import DoorReason
from services.admission.errors import Finding
from services.admission.models import model_of
from services.admission.units import fits_content, fits_form
from services.admission.validity import oslo_day
from services.admission.validity import valid_until as valid_by_policy

FUTURE_TOLERANCE_MS: Final = 5 * 60 * 1000
"""*Policy*: clocks differ; a time further ahead than this is a wrong clock or a wrong report."""
CLAIM_AGE_MS: Final = 15 * 60 * 1000
"""*Policy*: a claim is judged by when it is received; one that was made longer ago is no longer what the pharmacy wants."""
LIGHTEST_KG: Final = Decimal("0.2")
HEAVIEST_KG: Final = Decimal(650)
"""*Policy*: lighter than any child that lived, heavier than anybody ever was: doses are reckoned from it."""
CONTROLLED_GROUPS: Final = frozenset({"A", "B"})
_ENVELOPE: Final = frozenset({"received_at_ms", "occurred_at_ms"})

Judge = Callable[..., Iterator[Finding]]


class Rule(NamedTuple):
    """A door rule of one contract type: the fields that it reads, what it needs of the envelope, a model of just those."""

    judge: Judge
    fields: tuple[str, ...]
    envelope: tuple[str, ...]
    reader: type[BaseModel]


RULES: Final[dict[type, list[Rule]]] = {}


def door_rule(*structs: type[msgspec.Struct]) -> Callable[[Judge], Judge]:
    """Makes a function a rule of these contract types."""

    def register(judge: Judge) -> Judge:
        asked = tuple(inspect.signature(judge).parameters)
        fields = tuple(name for name in asked if name not in _ENVELOPE)
        envelope = tuple(name for name in asked if name in _ENVELOPE)
        for struct in structs:
            RULES.setdefault(struct, []).append(Rule(judge, fields, envelope, _reader(struct, fields)))
        return judge

    return register


def _reader(struct: type[msgspec.Struct], names: tuple[str, ...]) -> type[BaseModel]:
    """A model of only these fields, blind to the rest of the message."""
    others = frozenset(struct.__struct_fields__) - frozenset(names) | {"kind"} - frozenset(names)
    return model_of(struct, others, blind=True)


# --- Prescriptions -----------------------------------------------------------------------------------------------


@door_rule(PrescriptionIssued)
def controlled_medicines_have_no_refills(
    group: str, refills: int, reimbursement: Reimbursement | None
) -> Iterator[Finding]:
    """Group A or B with refills and no reimbursement is turned away."""
    if group in CONTROLLED_GROUPS and refills > 0 and reimbursement is None:
        yield Finding(("refills",), DoorReason.REFILLS_NOT_ALLOWED)


@door_rule(PrescriptionIssued)
def a_prescription_is_valid_after_its_issue(
    valid_until: date | None, issued_at_ms: int | None, occurred_at_ms: int
) -> Iterator[Finding]:
    """`valid_until` is not before the day of issue."""
    if valid_until is not None and valid_until < oslo_day(issued_at_ms or occurred_at_ms):
        yield Finding(("valid_until",), DoorReason.END_BEFORE_START)


@door_rule(PrescriptionIssued)
def the_earliest_date_lies_within_the_stated_validity(
    earliest_dispense: date | None, valid_until: date | None
) -> Iterator[Finding]:
    """`earliest_dispense` is not after `valid_until`: it could never be dispensed."""
    if earliest_dispense is not None and valid_until is not None and earliest_dispense > valid_until:
        yield Finding(("earliest_dispense",), DoorReason.CONTRADICTS)


@door_rule(PrescriptionIssued)
def the_earliest_date_lies_within_the_validity_by_policy(
    earliest_dispense: date | None,
    valid_until: date | None,
    medication: Medication,
    issued_at_ms: int | None,
    occurred_at_ms: int,
) -> Iterator[Finding]:
    """The same where the validity comes from the policy for the kind of medicine."""
    if earliest_dispense is None or valid_until is not None:
        return
    if earliest_dispense > valid_by_policy(medication, issued_at_ms or occurred_at_ms):
        yield Finding(("earliest_dispense",), DoorReason.CONTRADICTS)


@door_rule(PrescriptionIssued)
def nothing_is_signed_in_the_future(issued_at_ms: int | None, received_at_ms: int) -> Iterator[Finding]:
    """`issued_at` more than 5 minutes in the future is turned away: which prescription replaces which hangs on it."""
    if issued_at_ms is not None and issued_at_ms > received_at_ms + FUTURE_TOLERANCE_MS:
        yield Finding(("issued_at",), DoorReason.OCCURRED_IN_FUTURE)


@door_rule(PrescriptionIssued)
def a_prescription_does_not_renew_itself(renews: str | None, prescription: str | None) -> Iterator[Finding]:
    """`renews` names another prescription."""
    if renews is not None and renews == prescription:
        yield Finding(("renews",), DoorReason.CONTRADICTS)


@door_rule(PrescriptionIssued)
def a_renewal_names_its_treatment(renews: str | None, treatment: str | None) -> Iterator[Finding]:
    """What renews goes on with a treatment that has an id already; a new id would tear the two apart."""
    if renews is not None and treatment is None:
        yield Finding(("treatment",), DoorReason.MISSING)


@door_rule(PrescriptionIssued)
def a_reason_against_substitution_needs_the_reservation(
    substitution_reason: str | None,
    substitution_reserved: bool,
) -> Iterator[Finding]:
    """`substitution_reason` without `substitution_reserved` says two things."""
    if substitution_reason is not None and not substitution_reserved:
        yield Finding(("substitution_reserved",), DoorReason.CONTRADICTS)


@door_rule(PrescriptionIssued)
def the_quantity_fits_the_form(quantity: Quantity, medication: Medication) -> Iterator[Finding]:
    """Nobody prescribes millilitres of tablets; packages fit every form."""
    if not fits_form(quantity.unit, medication.form):
        yield Finding(("quantity", "unit"), DoorReason.UNIT_DOES_NOT_FIT)


@door_rule(PrescriptionIssued, TreatmentRecorded)
def doses_fit_the_form(dosing: Dosing, medication: Medication) -> Iterator[Finding]:
    """Each dose is in a unit in which a medicine of this form can be taken."""
    for index, period in enumerate(dosing.periods):
        doses: list[tuple[tuple[str | int, ...], Dose]] = [
            (("fixed", at), fixed.dose) for at, fixed in enumerate(period.fixed)
        ]
        if period.as_needed is not None:
            doses.append((("as_needed",), period.as_needed.dose))
        for place, dose in doses:
            if not fits_form(dose.unit, medication.form) or dose.unit == "package":
                yield Finding(("dosing", "periods", index, *place, "dose", "unit"), DoorReason.UNIT_DOES_NOT_FIT)


@door_rule(Weight)
def a_weight_is_a_persons(kg: Decimal) -> Iterator[Finding]:
    """Doses are reckoned from it: what nobody weighs is a slip of the keyboard."""
    if not LIGHTEST_KG <= kg <= HEAVIEST_KG:
        yield Finding(("kg",), DoorReason.OUT_OF_RANGE)


@door_rule(Weight)
def a_weight_was_taken_before_it_is_reported(on: date, received_at_ms: int) -> Iterator[Finding]:
    """Nobody has been weighed tomorrow."""
    if on > oslo_day(received_at_ms + FUTURE_TOLERANCE_MS):
        yield Finding(("on",), DoorReason.OCCURRED_IN_FUTURE)


# --- Medication and dosing ---------------------------------------------------------------------------------------


@door_rule(Medication)
def a_package_holds_what_its_form_allows(product: Any, form: str) -> Iterator[Finding]:
    """The content of a package fits the form, and is not itself in packages."""
    if isinstance(product, Package) and product.content is not None:
        unit = product.content.unit
        if unit == "package" or not fits_form(unit, form):
            yield Finding(("product", "content", "unit"), DoorReason.UNIT_DOES_NOT_FIT)


@door_rule(Dosing)
def dosing_periods_do_not_overlap(periods: tuple[DosingPeriod, ...]) -> Iterator[Finding]:
    """Both dates of a period belong to it, and no day to two periods. A missing date is open on that side."""
    spans = [(each.start or date.min, each.end or date.max, index) for index, each in enumerate(periods)]
    sane = sorted(span for span in spans if span[0] <= span[1])
    latest_end = date.min
    for place, (start, end, index) in enumerate(sane):
        if place > 0 and start <= latest_end:
            yield Finding(("periods", index), DoorReason.OVERLAPPING_PERIODS)
        latest_end = max(latest_end, end)


@door_rule(Dosing)
def a_scheme_has_no_periods(per_scheme: bool, periods: tuple[DosingPeriod, ...]) -> Iterator[Finding]:
    """Dosing is structured, or by a scheme that is kept elsewhere; not both."""
    if per_scheme and periods:
        yield Finding(("per_scheme",), DoorReason.CONTRADICTS)


@door_rule(DosingPeriod)
def a_period_ends_after_it_starts(start: date | None, end: date | None) -> Iterator[Finding]:
    """The last day of a period is not before its first."""
    if start is not None and end is not None and end < start:
        yield Finding(("end",), DoorReason.END_BEFORE_START)


@door_rule(DosingPeriod)
def a_period_has_doses(fixed: tuple[FixedDose, ...], as_needed: AsNeeded | None) -> Iterator[Finding]:
    """Each period has fixed or as-needed parts; a time without doses is a gap between periods."""
    if not fixed and as_needed is None:
        yield Finding(("fixed",), DoorReason.TOO_FEW)


@door_rule(Dose)
def a_range_of_doses_goes_up(low: Decimal, high: Decimal | None) -> Iterator[Finding]:
    """`high` is not below `low`."""
    if high is not None and high < low:
        yield Finding(("high",), DoorReason.CONTRADICTS)


@door_rule(FixedDose)
def a_fixed_dose_has_times_or_an_interval(
    times_of_day: tuple[str, ...], interval_hours: int | None
) -> Iterator[Finding]:
    """Times of day or an interval; both would say two things."""
    if times_of_day and interval_hours is not None:
        yield Finding(("interval_hours",), DoorReason.CONTRADICTS)


@door_rule(FixedDose)
def no_interval_is_nothing(
    interval_hours: int | None, days_on: int | None, duration_minutes: int | None
) -> Iterator[Finding]:
    """An interval, a run of days and an infusion last longer than nothing."""
    stated = {"interval_hours": interval_hours, "days_on": days_on, "duration_minutes": duration_minutes}
    yield from (Finding((name,), DoorReason.NOT_POSITIVE) for name, value in stated.items() if value == 0)


@door_rule(FixedDose)
def days_off_follow_days_on(days_on: int | None, days_off: int | None) -> Iterator[Finding]:
    """Days on and days off are stated together."""
    if (days_on is None) != (days_off is None):
        yield Finding(("days_on" if days_on is None else "days_off",), DoorReason.MISSING)


@door_rule(AsNeeded)
def a_maximum_over_days_says_how_many(max_per_period: Decimal | None, period_days: int | None) -> Iterator[Finding]:
    """`max_per_period` and `period_days` are stated together, and the period is at least a day."""
    if (max_per_period is None) != (period_days is None):
        yield Finding(("max_per_period" if max_per_period is None else "period_days",), DoorReason.MISSING)
    if period_days == 0:
        yield Finding(("period_days",), DoorReason.NOT_POSITIVE)


@door_rule(AsNeeded)
def a_maximum_allows_one_dose(
    dose: Dose, max_per_day: Decimal | None, max_per_period: Decimal | None
) -> Iterator[Finding]:
    """What may be taken at most is not less than one dose, nor more in a day than in several."""
    most = {"max_per_day": max_per_day, "max_per_period": max_per_period}
    for name, value in most.items():
        if value is not None and value < dose.low:
            yield Finding((name,), DoorReason.CONTRADICTS)
    if max_per_day is not None and max_per_period is not None and max_per_day > max_per_period:
        yield Finding(("max_per_period",), DoorReason.CONTRADICTS)


# --- Treatments and the list -------------------------------------------------------------------------------------


@door_rule(TreatmentPaused)
def a_pause_ends_after_it_starts(start: date, until: date | None) -> Iterator[Finding]:
    """`until` is not before `start`."""
    if until is not None and until < start:
        yield Finding(("until",), DoorReason.END_BEFORE_START)


@door_rule(TreatmentChanged)
def a_change_changes_something(
    dosing: Dosing | None,
    indication_text: str | None,
    substitution_reserved: bool | None,
    administration: str | None,
) -> Iterator[Finding]:
    """At least one of dosing, indication, substitution and administration is given."""
    if all(given is None for given in (dosing, indication_text, substitution_reserved, administration)):
        yield Finding((), DoorReason.TOO_FEW)


@door_rule(AllergyRecorded)
def no_known_allergies_name_none(
    none_known: bool,
    substance: str | None,
    atc: str | None,
    reaction: str | None,
    severity: str | None,
) -> Iterator[Finding]:
    """`none_known` excludes everything that describes an allergy, and the other way round."""
    if none_known and any(given is not None for given in (substance, atc, reaction, severity)):
        yield Finding(("none_known",), DoorReason.CONTRADICTS)


@door_rule(AllergyRecorded)
def an_allergy_is_to_something(none_known: bool, substance: str | None, atc: str | None) -> Iterator[Finding]:
    """An allergy names a substance or an ATC code."""
    if not none_known and substance is None and atc is None:
        yield Finding(("substance",), DoorReason.MISSING)


@door_rule(AllergyRecorded)
def an_allergy_began_before_it_is_reported(onset: date | None, received_at_ms: int) -> Iterator[Finding]:
    """Nobody became allergic tomorrow."""
    if onset is not None and onset > oslo_day(received_at_ms + FUTURE_TOLERANCE_MS):
        yield Finding(("onset",), DoorReason.OCCURRED_IN_FUTURE)


@door_rule(MultidoseAssigned)
def a_packing_period_has_days(packing_days: int) -> Iterator[Finding]:
    """Doses are packed for at least one day."""
    if packing_days == 0:
        yield Finding(("packing_days",), DoorReason.NOT_POSITIVE)


@door_rule(MultidoseAssigned)
def the_next_pack_follows_the_start(start: date, next_pack: date | None) -> Iterator[Finding]:
    """`next_pack` is not before `start`."""
    if next_pack is not None and next_pack < start:
        yield Finding(("next_pack",), DoorReason.END_BEFORE_START)


@door_rule(PatientDied)
def a_death_lies_in_the_past(on: date, received_at_ms: int) -> Iterator[Finding]:
    """Nobody has died tomorrow."""
    if on > oslo_day(received_at_ms + FUTURE_TOLERANCE_MS):
        yield Finding(("on",), DoorReason.OCCURRED_IN_FUTURE)


# --- At the pharmacy ---------------------------------------------------------------------------------------------


@door_rule(DispensedLine)
def what_is_handed_out_fits_its_package(quantity: Quantity, content: Quantity | None) -> Iterator[Finding]:
    """The unit of what is handed out can come from packages with this content."""
    if content is not None and not fits_content(quantity.unit, content.unit):
        yield Finding(("content", "unit"), DoorReason.UNIT_DOES_NOT_FIT)


@door_rule(Price)
def a_patient_pays_at_most_the_price(total_nok: Decimal, patient_nok: Decimal | None) -> Iterator[Finding]:
    """The patient's part is not more than the whole."""
    if patient_nok is not None and patient_nok > total_nok:
        yield Finding(("patient_nok",), DoorReason.CONTRADICTS)


# --- Asking them -------------------------------------------------------------------------------------------------


def broken_rules(struct: type[msgspec.Struct], given: object, envelope: dict[str, int]) -> Iterator[Finding]:
    """What the rules of a type, and of all within it, find in a message as it was sent (whatever is wrong with it)."""
    if not isinstance(given, dict):
        return
    for rule in RULES.get(struct, ()):
        try:
            read = rule.reader.model_validate(given)
        except ValidationError:
            continue  # a field that it reads is wrong already, and was told
        yield from _asked(rule, read, envelope)
    for name, inner in _inner_types(struct).items():
        for place, value in _elements(given.get(name), are_several=inner.are_several):
            of_value = _which(inner.types, value)
            if of_value is not None:
                yield from (found.under((name, *place)) for found in broken_rules(of_value, value, envelope))


def broken_rules_of_valid(struct: type[msgspec.Struct], valid: object, envelope: dict[str, int]) -> Iterator[Finding]:
    """The same for a message whose fields are all in order: its model, or a contract type. Far cheaper."""
    for rule in RULES.get(struct, ()):
        yield from _asked(rule, valid, envelope)
    for name, inner in _inner_types(struct).items():
        for place, value in _elements(getattr(valid, name, None), are_several=inner.are_several):
            if isinstance(value, msgspec.Struct):
                found_within = broken_rules_of_valid(type(value), value, envelope)
                yield from (found.under((name, *place)) for found in found_within)


def _asked(rule: Rule, read: object, envelope: dict[str, int]) -> Iterator[Finding]:
    """What a rule says of these fields; nothing, if it asks for a time that could not be read."""
    if all(name in envelope for name in rule.envelope):
        fields = {name: getattr(read, name) for name in rule.fields}
        yield from rule.judge(**fields, **{name: envelope[name] for name in rule.envelope})


class _Inner(NamedTuple):
    """What a field holds: one of these contract types, or several in a list."""

    types: tuple[type[msgspec.Struct], ...]
    are_several: bool


@cache
def _inner_types(struct: type[msgspec.Struct]) -> dict[str, _Inner]:
    """The fields that hold other contract types, and which."""
    found: dict[str, _Inner] = {}
    for name, hint in typing.get_type_hints(struct).items():
        within = _structs_in(hint)
        if within:
            found[name] = _Inner(within, typing.get_origin(hint) is tuple)
    return found


def _structs_in(hint: Any) -> tuple[type[msgspec.Struct], ...]:
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return (hint,)
    return tuple(inner for argument in typing.get_args(hint) for inner in _structs_in(argument))


def _which(choices: tuple[type[msgspec.Struct], ...], value: object) -> type[msgspec.Struct] | None:
    """The type of a value: the only one, or the one that its `kind` names."""
    if len(choices) == 1:
        return choices[0]
    kind = value.get("kind") if isinstance(value, dict) else None
    return next((choice for choice in choices if choice.__struct_config__.tag == kind), None)


def _elements(value: object, *, are_several: bool) -> list[tuple[tuple[int, ...], object]]:
    """A value by itself, or each element of a list with its index; nothing of one that should be the other."""
    if isinstance(value, list | tuple) != are_several:
        return []
    if isinstance(value, list | tuple):
        return [((index,), element) for index, element in enumerate(value)]
    return [((), value)]
