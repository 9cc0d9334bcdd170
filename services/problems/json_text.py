"""Untrusted JSON, read strictly: invalid JSON is refused as a whole, invalid texts and numbers are named.

Both entrances use this: HTTP and the inbox of submissions.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import takewhile
from typing import Final, NamedTuple

from schemas.reasons import DoorReason, text_of

LARGEST_MESSAGE_BYTES: Final = 256 * 1024
DEEPEST_NESTING: Final = 32
MOST_ERRORS: Final = 200
"""*Policy*: as many errors as one answer holds; a message with more of them was not made by a working system."""
FIELD_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
"""What a field may be called in an answer. A sender's own name could be anything, a person's number or as long as the message;
then the answer names what holds it."""
_LONGEST_NUMBER: Final = 300  # characters; more digits than any double needs

_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
"""A text, or a bracket outside of any. A text that never ends is one too: else each quotation mark in it would be tried as the
beginning of another, to the message's end each time."""
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""Control characters but tab, line feed and carriage return, which a note may hold."""
_SUSPECT: Final = re.compile(rb"\\|\x7f|\xc2[\x80-\x9f]")
"""Without any of these a message's texts have no faults: half a surrogate pair, and control characters below U+0020, can only
be escaped. Looking at every text of a message takes as long as reading it."""


_Path = tuple[str | int, ...]


class FieldError(NamedTuple):
    """One fault of one field. pointer: JSON pointer (RFC 6901) into the message; text: English, without content."""

    pointer: str
    reason: DoorReason
    text: str


class MessageUnreadable(ValueError):  # noqa: N818 - named for what is wrong
    """The message as a whole cannot be read (too large, no JSON, nested too deep). Its text holds no content."""

    def __init__(self, reason: DoorReason, why: str) -> None:
        super().__init__(why)
        self.reason = reason


class MessageInvalid(ValueError):  # noqa: N818 - named for what is wrong
    """The message can be read, and has these faults: all of them, or the first 200.

    value: the message as read, faults included, so that further errors can be reported.
    """

    def __init__(self, errors: Iterable[FieldError], value: object = None) -> None:
        self.errors = tuple(errors)
        self.value = value
        super().__init__(f"{len(self.errors)} faults")


class _Fields(dict[str, object]):
    """A JSON object that remembers which of its names came more than once."""

    repeated: tuple[str, ...] = ()


class _NotANumber:
    """Stands where NaN, Infinity or a number beyond all measure was written."""


def parse_json(body: bytes, *, largest_bytes: int = LARGEST_MESSAGE_BYTES, deepest: int = DEEPEST_NESTING) -> object:
    """The JSON value in `body`: dict, list, str, int, Decimal (for what has a point or exponent), bool or None.

    Raises MessageUnreadable for what is no JSON in UTF-8, is too large or nested too deep; MessageInvalid, with every
    pointer, for repeated names, half surrogate pairs, control characters, and numbers that are none.
    """
    if len(body) > largest_bytes:
        raise MessageUnreadable(DoorReason.TOO_LARGE, f"the message is larger than {largest_bytes} bytes")
    _refuse_deep_nesting(body, deepest)
    making = _Making()
    try:
        value: object = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=making.fields,
            parse_int=making.whole_number,
            parse_float=making.number,
            parse_constant=making.no_number,
        )
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise MessageUnreadable(DoorReason.NOT_PARSEABLE, f"the message is not JSON: {error.msg}, {where}") from None
    except UnicodeDecodeError as error:
        why = f"the message is not UTF-8, at byte {error.start}"
        raise MessageUnreadable(DoorReason.NOT_PARSEABLE, why) from None
    if (making.is_at_fault or _SUSPECT.search(body)) and (errors := _first_faults(value)):
        raise MessageInvalid(errors, value)
    return value


def pointer(path: Iterable[str | int]) -> str:
    """The JSON pointer (RFC 6901) of a path of names and indexes; what no text may hold is shown as `?`."""
    return "".join(f"/{_escaped(part)}" for part in path)


def _escaped(part: str | int) -> str:
    shown = _CONTROL.sub("?", _SURROGATE.sub("?", str(part)))
    return shown.replace("~", "~0").replace("/", "~1")


def _refuse_deep_nesting(body: bytes, deepest: int) -> None:
    """Count brackets before the parser sees them: it would run out of stack, or of time."""
    if body.count(b"[") + body.count(b"{") <= deepest:
        return
    depth = 0
    for token in _TOKEN.finditer(body):
        first = token.group()[:1]
        depth += (first in b"[{") - (first in b"]}")
        if depth > deepest:
            raise MessageUnreadable(DoorReason.NESTED_TOO_DEEP, f"the message is nested deeper than {deepest} levels")


class _Making:
    """Makes the values of one message, and remembers whether any of them is at fault by itself."""

    def __init__(self) -> None:
        self.is_at_fault = False

    def fields(self, pairs: list[tuple[str, object]]) -> _Fields:
        fields = _Fields(pairs)
        if len(fields) != len(pairs):
            times = Counter(name for name, _ in pairs)
            fields.repeated = tuple(name for name in fields if times[name] > 1)
            self.is_at_fault = True
        return fields

    def whole_number(self, text: str) -> object:
        return int(text) if len(text) <= _LONGEST_NUMBER else self.no_number(text)

    def number(self, text: str) -> object:
        is_one = len(text) <= _LONGEST_NUMBER and math.isfinite(float(text))
        return Decimal(text) if is_one else self.no_number(text)

    def no_number(self, _: str) -> _NotANumber:
        self.is_at_fault = True
        return _NotANumber()


def _first_faults(value: object) -> tuple[FieldError, ...]:
    """Each fault once, and no more of them than one answer holds."""
    found: dict[FieldError, None] = {}
    for path, reason in _faults(value, ()):
        found[FieldError(pointer(takewhile(_can_be_told, path)), reason, text_of(reason))] = None
        if len(found) == MOST_ERRORS:
            break
    return tuple(found)


def _can_be_told(part: str | int) -> bool:
    return isinstance(part, int) or FIELD_NAME.fullmatch(part) is not None


def _faults(value: object, path: _Path) -> Iterator[tuple[_Path, DoorReason]]:
    match value:
        case _Fields():
            for name in value.repeated:
                yield (*path, name), DoorReason.DUPLICATE_FIELD
            for name, inner in value.items():
                yield from _faults_of_text(name, (*path, name))
                yield from _faults(inner, (*path, name))
        case list():
            for index, inner in enumerate(value):
                yield from _faults(inner, (*path, index))
        case str():
            yield from _faults_of_text(value, path)
        case _NotANumber():
            yield path, DoorReason.NOT_A_NUMBER
        case _:
            return  # whole numbers, decimals, true, false and null have no faults


def _faults_of_text(text: str, path: _Path) -> Iterator[tuple[_Path, DoorReason]]:
    if _SURROGATE.search(text):
        yield path, DoorReason.UNPAIRED_SURROGATE
    if _CONTROL.search(text):
        yield path, DoorReason.CONTROL_CHARACTER
