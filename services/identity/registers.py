"""Identifiers from public registers for health professionals, organisations and medicines: checked, in one form."""

from __future__ import annotations

import re
from typing import Final

from schemas.reasons import DoorReason

_HPR: Final = re.compile(r"[1-9][0-9]{6,8}")
_ORGANISATION: Final = re.compile(r"[0-9]{9}")
_ORGANISATION_WEIGHTS: Final = (3, 2, 7, 6, 5, 4, 3, 2)
_ATC: Final = re.compile(r"[ABCDGHJLMNPRSV]([0-9]{2}([A-Z]([A-Z]([0-9]{2})?)?)?)?")
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class InvalidIdentifier(ValueError):  # noqa: N818 - named for what is wrong
    """A text is not what its field requires. The text itself is nowhere in the error: it may be a mistyped person.

    field: the name of the kind of identifier. reason: for the answer's `errors[]`.
    """

    def __init__(self, field: str, reason: DoorReason, why: str) -> None:
        super().__init__(f"{field}: {why}")
        self.field = field
        self.reason = reason


def parse_hpr(text: str) -> str:
    """A number in the register of health personnel: 7 to 9 digits, no leading zero. Raises InvalidIdentifier."""
    if not _HPR.fullmatch(text):
        raise InvalidIdentifier("hpr", DoorReason.WRONG_FORMAT, "an HPR number has 7 to 9 digits, the first not 0")
    return text


def parse_organisation_number(text: str) -> str:
    """An organisation number: 9 digits, the last a control digit modulo 11. Raises InvalidIdentifier."""
    if not _ORGANISATION.fullmatch(text):
        raise InvalidIdentifier("organisation", DoorReason.WRONG_FORMAT, "an organisation number has 9 digits")
    if int(text[8]) != _organisation_control(text):
        raise InvalidIdentifier("organisation", DoorReason.WRONG_CHECKSUM, "the control digit is wrong")
    return text


def parse_atc(text: str) -> str:
    """An ATC code of any of the five levels (A, A10, A10B, A10BA, A10BA02), upper case. Raises InvalidIdentifier."""
    if not _ATC.fullmatch(text):
        raise InvalidIdentifier("atc", DoorReason.WRONG_FORMAT, "an ATC code looks like A10BA02, or the start of one")
    return text


def parse_uuid(text: str) -> str:
    """A UUID of 8-4-4-4-12 hexadecimal digits in any case, given back in lower case. Raises InvalidIdentifier."""
    lowered = text.lower()
    if not _UUID.fullmatch(lowered):
        raise InvalidIdentifier("uuid", DoorReason.WRONG_FORMAT, "a UUID has 8-4-4-4-12 hexadecimal digits")
    return lowered


def _organisation_control(text: str) -> int:
    """The control digit over the first eight; 10 when there is none."""
    return -sum(int(digit) * weight for digit, weight in zip(text, _ORGANISATION_WEIGHTS, strict=False)) % 11
