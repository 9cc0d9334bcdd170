"""Norwegian national identity numbers of all kinds: distinguished, checked with today's and the 2032 checksum, never shown.

A number has two forms in this module: the text that came from outside, which is judged by `NationalId.parse`, and a
`NationalId`, which is valid. Neither is ever part of an error's text or of a `repr`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import date, timedelta
from enum import StrEnum
from itertools import islice, product
from typing import TYPE_CHECKING, Final

from schemas.reasons import DoorReason

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_ELEVEN: Final = 11
_TWELVE: Final = 12
_K1_WEIGHTS: Final = (3, 7, 6, 1, 8, 9, 4, 5, 2)
_K2_WEIGHTS: Final = (5, 4, 3, 2, 7, 6, 5, 4, 3, 2)
_DUF_WEIGHTS: Final = (4, 6, 3, 2, 4, 6, 3, 2, 7, 5)
_RESTS_TODAY: Final = range(1)
_RESTS_FROM_2032: Final = range(4)
"""Numbers that are issued from 2032 may leave any of these rests in the first control digit; today's leave 0."""

_D_NUMBER_DAY: Final = 40
_AUXILIARY_MONTH: Final = 40
_SYNTHETIC_MONTH: Final = 80


class NationalIdKind(StrEnum):
    """The kinds of number, by what issues them; each has its own identifier system (`oid`)."""

    NATIONAL = "fødselsnummer"
    D_NUMBER = "d_number"
    AUXILIARY = "auxiliary"
    DUF = "duf"

    @property
    def oid(self) -> str:
        """The object identifier of the number's system, as messages to other parties state it."""
        return f"2.16.578.1.12.4.1.4.{_OID_ENDINGS[self]}"


_OID_ENDINGS: Final = {
    NationalIdKind.NATIONAL: 1,
    NationalIdKind.D_NUMBER: 2,
    NationalIdKind.AUXILIARY: 3,
    NationalIdKind.DUF: 5,
}


class InvalidNationalId(ValueError):  # noqa: N818 - named for what is wrong
    """A text is no national identity number. `reason` says why; the number itself is nowhere in the error."""

    def __init__(self, reason: DoorReason, why: str) -> None:
        super().__init__(f"not a national identity number: {why}")
        self.reason = reason


@dataclass(frozen=True, slots=True, repr=False)
class NationalId:
    """A valid national identity number. `digits` (11, or 12 for DUF) is the only way to the number itself."""

    kind: NationalIdKind
    digits: str
    is_synthetic: bool = field(default=False, compare=False)

    @classmethod
    def parse(cls, text: str) -> NationalId:
        """The number in `text`: digits alone, no spaces. Raises InvalidNationalId."""
        if not (text.isascii() and text.isdigit()):
            raise InvalidNationalId(DoorReason.WRONG_FORMAT, "it must be digits only")
        if len(text) == _TWELVE:
            return cls(NationalIdKind.DUF, _checked_duf(text))
        if len(text) != _ELEVEN:
            raise InvalidNationalId(DoorReason.WRONG_FORMAT, "it must have 11 digits (DUF numbers: 12)")
        kind, is_synthetic = _kind_by_date(text)
        if not _has_valid_checksum(text):
            raise InvalidNationalId(DoorReason.WRONG_CHECKSUM, "its control digits are wrong")
        return cls(kind, text, is_synthetic)

    def __repr__(self) -> str:
        return f"NationalId({self.kind.value}, {'*' * len(self.digits)})"

    __str__ = __repr__


def _checked_duf(text: str) -> str:
    """A number of the immigration authorities: year, serial, and the weighted sum modulo 11 in two digits."""
    if int(text[10:]) != _weighted_sum(text, _DUF_WEIGHTS) % 11:
        raise InvalidNationalId(DoorReason.WRONG_CHECKSUM, "its control digits are wrong")
    return text


def _kind_by_date(text: str) -> tuple[NationalIdKind, bool]:
    """The kind of an 11-digit number, and whether it is synthetic: its first six digits tell."""
    if text[0] in "89":
        # A common auxiliary number holds no date at all.
        return NationalIdKind.AUXILIARY, False
    day, month, year = int(text[0:2]), int(text[2:4]), int(text[4:6])
    kind, is_synthetic = NationalIdKind.NATIONAL, False
    if day > _D_NUMBER_DAY:
        kind, day = NationalIdKind.D_NUMBER, day - _D_NUMBER_DAY
    if month > _SYNTHETIC_MONTH:
        is_synthetic, month = True, month - _SYNTHETIC_MONTH
    elif month > _AUXILIARY_MONTH and kind is NationalIdKind.NATIONAL:
        kind, month = NationalIdKind.AUXILIARY, month - _AUXILIARY_MONTH
    try:
        # The century is not told apart here; 2000 + year is a leap year whenever any century's could be.
        date(2000 + year, month, day)
    except ValueError:
        raise InvalidNationalId(DoorReason.WRONG_FORMAT, "it does not begin with a date") from None
    return kind, is_synthetic


def _has_valid_checksum(text: str) -> bool:
    return any(text[9] == _k1(text, rest) for rest in _RESTS_FROM_2032) and text[10] == _k2(text)


def _k1(text: str, rest: int) -> str:
    """The first control digit that leaves this rest; empty when there is none."""
    digit = 11 + rest - _weighted_sum(text, _K1_WEIGHTS) % 11
    if digit > 10:  # noqa: PLR2004 - modulo 11: ten has no digit
        digit -= 11
    return str(digit) if digit < 10 else ""  # noqa: PLR2004 - modulo 11: ten has no digit


def _k2(text: str) -> str:
    """The second control digit, over the first ten; empty when there is none."""
    digit = -_weighted_sum(text, _K2_WEIGHTS) % 11
    return str(digit) if digit < 10 else ""  # noqa: PLR2004 - modulo 11: ten has no digit


def _weighted_sum(text: str, weights: Sequence[int]) -> int:
    return sum(int(digit) * weight for digit, weight in zip(text, weights, strict=False))


# Made data. Real people never have a month above 80, so nothing here can be somebody's number.

_FIRST_BIRTH: Final = date(1930, 1, 1)
_BIRTHS: Final = (date(2020, 1, 1) - _FIRST_BIRTH).days
_STRIDE: Final = 7919  # has no factor in common with _BIRTHS: neighbours in the index differ in age, all days come up
_INDEX_LIMIT: Final = 10_000_000


def synthetic(source: int | random.Random) -> NationalId:
    """A valid synthetic number (month + 80): of this index (0 to 9,999,999, each another number), or a random one."""
    index = source.randrange(_INDEX_LIMIT) if isinstance(source, random.Random) else source
    if not 0 <= index < _INDEX_LIMIT:
        raise ValueError(f"the index of a synthetic number lies in 0..{_INDEX_LIMIT - 1}")
    born = _FIRST_BIRTH + timedelta(days=index * _STRIDE % _BIRTHS)
    return synthetic_born(born, index // _BIRTHS)


def synthetic_born(born: date, serial: int) -> NationalId:
    """The `serial`-th (from 0; at least 300 exist) synthetic number of someone born on this day, 1900 to 2039."""
    found = next(islice(_synthetic_numbers(born), serial, None), None)
    if found is None:
        raise ValueError("there are not as many synthetic numbers for one day")
    return NationalId(NationalIdKind.NATIONAL, found, is_synthetic=True)


def _synthetic_numbers(born: date) -> Iterator[str]:
    """All synthetic numbers of a day with today's checksum. The serial range tells the century."""
    serials = range(500) if born.year < 2000 else range(500, 1000)  # noqa: PLR2004 - the rule is about this year
    day = f"{born.day:02}{born.month + _SYNTHETIC_MONTH:02}{born.year % 100:02}"
    for serial, rest in product(serials, _RESTS_TODAY):
        nine = f"{day}{serial:03}"
        k1 = _k1(nine, rest)
        k2 = _k2(nine + k1) if k1 else ""
        if k2:
            yield nine + k1 + k2
