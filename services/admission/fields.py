"""The contract's kinds of field as pydantic types: what each accepts at the door, and the one form in which it is passed on."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from functools import cache
from typing import Annotated, Any, Final

from pydantic import PlainValidator, WithJsonSchema

from schemas.codes import CODES
from schemas.fields import Rule
from schemas.reasons import DoorReason
from services.admission.errors import refusal
from services.identity.registers import (
    InvalidIdentifier,
    parse_atc,
    parse_hpr,
    parse_organisation_number,
    parse_uuid,
)

MOST_AT_ONCE: Final = 200
AT_ONCE_UNLESS_SAID: Final = 50
PageSize = Annotated[int, Rule("count", least="1", most=str(MOST_AT_ONCE))]
"""How many of what is found are wanted at once, at most."""

FIRST_YEAR: Final = 1900
LAST_YEAR: Final = 2200
PLACES: Final = Decimal("0.0001")
"""Quantities have four decimal places on the wire; more cannot be kept, so more is not taken."""
SET_BY_THE_LIST_ALONE: Final = {"recall_reason": frozenset({"withdrawn", "death"})}
"""Codes that the fold writes and no sender may use."""

_LONGEST_NUMBER: Final = 40
_DECOMPOSED: Final = 4
"""Text may shrink to a quarter of its length when it is composed; what is longer than that need not be looked at."""
_MOST_MARKS: Final = 30
"""As many marks as follow one another in the text of any language (Unicode's stream-safe format, UAX #15)."""
_NUMBER: Final = re.compile(r"[+-]?\d+(\.\d+)?")
_ITEM_NUMBER: Final = re.compile(r"[0-9]{6}")
_DATE: Final = re.compile(r"([+-]?[0-9]{4,})-([0-9]{2})-([0-9]{2})")
_INSTANT: Final = re.compile(
    _DATE.pattern + r"[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)

Judge = Callable[[Any], Any]


@cache
def field_type(plain: type, rule: Rule | None) -> Any:
    """The pydantic type of a field that the contract marks with this rule (none: a bool, a date or a whole number)."""
    judge, schema = _UNMARKED[plain] if rule is None else _BY_RULE[rule.kind](rule)
    return Annotated[plain, PlainValidator(judge), WithJsonSchema(schema)]


def allowed_codes(name: str) -> frozenset[str]:
    """The codes of a list that a sender may use."""
    return frozenset(CODES[name]) - SET_BY_THE_LIST_ALONE.get(name, frozenset())


def boolean(value: Any) -> bool:
    """True or false; no number or word stands for it."""
    if not isinstance(value, bool):
        raise refusal(DoorReason.WRONG_TYPE)
    return value


def text(value: Any, max_length: int) -> str:
    """Text in NFC, of any script, its lines ended by a newline alone.

    Control characters but newline and tab, halves of surrogate pairs, and marks without end are refused.
    """
    if not isinstance(value, str):
        raise refusal(DoorReason.WRONG_TYPE)
    if len(value) > _DECOMPOSED * max_length:
        raise refusal(DoorReason.TOO_LONG)
    composed = _composed(value).replace("\r\n", "\n")
    # What is printable holds neither; most text is, and is then not looked at character by character.
    for character in "" if composed.isprintable() else composed:
        category = unicodedata.category(character)
        if category == "Cs":
            raise refusal(DoorReason.UNPAIRED_SURROGATE)
        if category == "Cc" and character not in "\n\t":
            raise refusal(DoorReason.CONTROL_CHARACTER)
    if len(composed) > max_length:
        raise refusal(DoorReason.TOO_LONG)
    if not composed.strip():
        raise refusal(DoorReason.TOO_SHORT)
    return composed


def _composed(value: str) -> str:
    """The text in NFC. Putting marks in order takes the square of how many follow one another, so there is a bound."""
    if unicodedata.is_normalized("NFC", value):
        return value
    marks = 0
    for character in value:
        marks = marks + 1 if unicodedata.category(character).startswith("M") else 0
        if marks > _MOST_MARKS:
            raise refusal(DoorReason.WRONG_FORMAT)
    return unicodedata.normalize("NFC", value)


def item_number(value: Any) -> str:
    """A package's number in the catalogue: six digits."""
    if not _ITEM_NUMBER.fullmatch(_string(value)):
        raise refusal(DoorReason.WRONG_FORMAT)
    return str(value)


def day(value: Any) -> date:
    """A date as YYYY-MM-DD, in a year from 1900 to 2200."""
    found = _DATE.fullmatch(_string(value))
    if found is None:
        raise refusal(DoorReason.WRONG_FORMAT)
    year, month, of_month = (int(part) for part in found.groups())
    _check_year(year)
    try:
        return date(year, month, of_month)
    except ValueError:
        raise refusal(DoorReason.WRONG_FORMAT) from None


def instant(value: Any) -> int:
    """RFC 3339 with an offset -> milliseconds since the epoch, UTC; what is finer than a millisecond is cut off."""
    found = _INSTANT.fullmatch(_string(value))
    if found is None:
        raise refusal(DoorReason.WRONG_FORMAT)
    *numbers, fraction, sign, offset_hours, offset_minutes = found.groups()
    year, month, of_month, hour, minute, second = (int(part) for part in numbers)
    _check_year(year)
    ahead = timedelta(hours=int(offset_hours or 0), minutes=int(offset_minutes or 0))
    try:
        zone = timezone(-ahead if sign == "-" else ahead)
        at = datetime(year, month, of_month, hour, minute, second, tzinfo=zone)
    except ValueError:
        raise refusal(DoorReason.WRONG_FORMAT) from None
    milliseconds = int((fraction or "0")[:3].ljust(3, "0"))
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1) + milliseconds


def number(value: Any, least: Decimal, most: Decimal) -> Decimal:
    """A finite decimal within its bounds, as a number or in digits, with four decimals in the encoded record."""
    exact = _decimal(value)
    if not exact.is_finite():
        raise refusal(DoorReason.NOT_A_NUMBER)
    if exact <= 0 < least:
        raise refusal(DoorReason.NOT_POSITIVE)
    if exact > most or exact < 0:
        raise refusal(DoorReason.OUT_OF_RANGE)
    # Within the bounds, so that rounding to four places cannot fail; it must change nothing.
    rounded = exact.quantize(PLACES)
    if rounded != exact:
        raise refusal(DoorReason.TOO_PRECISE)
    if rounded < least:
        raise refusal(DoorReason.OUT_OF_RANGE)
    return abs(rounded)


def _decimal(value: Any) -> Decimal:
    if isinstance(value, Decimal):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return Decimal(value)
    digits = _string(value)
    if len(digits) > _LONGEST_NUMBER:
        raise refusal(DoorReason.OUT_OF_RANGE)
    if not _NUMBER.fullmatch(digits) or not digits.isascii():
        raise refusal(DoorReason.NOT_A_NUMBER)
    return Decimal(digits)


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise refusal(DoorReason.WRONG_TYPE)
    return value


def _check_year(year: int) -> None:
    if not FIRST_YEAR <= year <= LAST_YEAR:
        raise refusal(DoorReason.DATE_OUT_OF_RANGE)


def _registered(parse: Callable[[str], str]) -> Judge:
    def judge(value: Any) -> str:
        try:
            return parse(_string(value))
        except InvalidIdentifier as error:
            raise refusal(error.reason) from None

    return judge


def _text(max_length: int) -> Judge:
    return lambda value: text(value, max_length)


def _code(name: str) -> Judge:
    allowed = allowed_codes(name)

    def judge(value: Any) -> str:
        if _string(value) not in allowed:
            raise refusal(DoorReason.UNKNOWN_CODE)
        return str(value)

    return judge


def _number(least: Decimal, most: Decimal) -> Judge:
    return lambda value: number(value, least, most)


def _count(least: int, most: int) -> Judge:
    def judge(value: Any) -> int:
        if not _is_whole(value):
            raise refusal(DoorReason.WRONG_TYPE)
        if not least <= value <= most:
            raise refusal(DoorReason.OUT_OF_RANGE)
        return int(value)

    return judge


def _is_whole(value: Any) -> bool:
    """Whether it is a whole number, also where it was written with a point (1.0), which JSON Schema takes for the same."""
    if isinstance(value, Decimal):
        return value.is_finite() and value == value.to_integral_value()
    return isinstance(value, int) and not isinstance(value, bool)


Judged = tuple[Judge, dict[str, Any]]
_UNMARKED: Final[dict[type, Judged]] = {
    bool: (boolean, {"type": "boolean"}),
    int: (_count(0, 2**63 - 1), {"type": "integer"}),
    date: (day, {"type": "string", "format": "date"}),
}
_BY_RULE: Final[dict[str, Callable[[Rule], Judged]]] = {
    "uuid": lambda _: (_registered(parse_uuid), {"type": "string", "format": "uuid"}),
    "hpr": lambda _: (_registered(parse_hpr), {"type": "string", "description": "HPR number"}),
    "organisation": lambda _: (
        _registered(parse_organisation_number),
        {"type": "string", "description": "organisation number"},
    ),
    "atc": lambda _: (_registered(parse_atc), {"type": "string", "description": "ATC code of any level"}),
    "item_number": lambda _: (item_number, {"type": "string", "pattern": "^[0-9]{6}$"}),
    "instant": lambda _: (instant, {"type": "string", "format": "date-time"}),
    "text": lambda rule: (
        _text(rule.max_length),
        {"type": "string", "minLength": 1, "maxLength": rule.max_length},
    ),
    "code": lambda rule: (_code(rule.codes), {"type": "string", "enum": sorted(allowed_codes(rule.codes))}),
    "number": lambda rule: (
        _number(Decimal(rule.least), Decimal(rule.most)),
        {"type": "number", "minimum": float(rule.least), "maximum": float(rule.most)},
    ),
    "count": lambda rule: (
        _count(int(rule.least), int(rule.most)),
        {"type": "integer", "minimum": int(rule.least), "maximum": int(rule.most)},
    ),
}
