"""Finds what could be an identity number in a text, however its digits are separated."""

import re
from typing import Final

MASK: Final = "(masked)"
_BETWEEN: Final = r"[\s.\-/\u00ad\u200b-\u200d\u2010-\u2015\u2060\u2212]"
"""What people and programs put between the digits of a number: space of any width, points, strokes, and what is not seen."""
_NUMBER: Final = re.compile(rf"\d(?:{_BETWEEN}*\d){{10,}}")
"""Eleven digits or more: a national id has eleven."""


def holds_a_number(text: str) -> bool:
    """Whether a text holds enough digits in a row to be an identity number, even if they are separated."""
    return bool(_NUMBER.search(text))


def mask(text: str) -> str:
    """A text without whatever could be an identity number."""
    return _NUMBER.sub(MASK, text)
