"""What is wrong with a message, field by field, in the field's words and never with the value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from schemas.reasons import DoorReason, text_of
from services.problems import FieldError, pointer
from services.problems.json_text import FIELD_NAME, MOST_ERRORS

Place = tuple[str | int, ...]
"""Where in a message: the names of fields and indices of lists that lead there."""

_OURS: Final = frozenset(reason.value for reason in DoorReason)
_OF_PYDANTIC: Final = {
    "missing": DoorReason.MISSING,
    "extra_forbidden": DoorReason.UNEXPECTED_FIELD,
}


class Finding(NamedTuple):
    """One thing that is wrong: where, and why."""

    place: Place
    reason: DoorReason

    def under(self, place: Place) -> Finding:
        """The same, seen from further out."""
        return Finding(place + self.place, self.reason)


class Findings:
    """What is wrong with a message, each error once, and no more than one answer holds: further ones are not looked for."""

    def __init__(self, found: Iterable[Finding] = ()) -> None:
        self._found: dict[Finding, None] = {}
        self.add(found)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    @property
    def is_full(self) -> bool:
        """Whether no more would be told."""
        return len(self) >= MOST_ERRORS

    def add(self, found: Iterable[Finding]) -> None:
        """Take from what is found as much as there is room for."""
        finding = iter(found)
        while not self.is_full and (each := next(finding, None)) is not None:
            self._found[each] = None


class TurnedAway(Exception):  # noqa: N818 - named for what happened
    """A message is turned away at the door; `findings` holds everything that is wrong with it."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = tuple(Findings(findings))
        super().__init__(f"turned away with {len(self.findings)} errors")

    def errors(self) -> tuple[FieldError, ...]:
        """Each error as an answer or a receipt states it: JSON pointer, reason, text. Never a value."""
        return tuple(
            FieldError(pointer(finding.place), finding.reason, text_of(finding.reason)) for finding in self.findings
        )


def refusal(reason: DoorReason) -> PydanticCustomError:
    """What a field's validator raises; the text comes from the vocabulary when the answer is made."""
    return PydanticCustomError(reason.value, "turned away")


def findings_of(error: ValidationError) -> Iterator[Finding]:
    """All that pydantic found, in our words. The tags of unions, written `<package>`, are no part of a message."""
    return map(_finding, error.errors(include_url=False, include_context=False))


def _finding(detail: ErrorDetails) -> Finding:
    where, reason = detail["loc"], _reason(detail)
    if detail["type"] == "union_tag_invalid" and reason is not DoorReason.NOT_EXACTLY_ONE:
        where = (*where, "kind")  # the tag is what is wrong, and not all that it is the tag of
    if reason is DoorReason.UNEXPECTED_FIELD and not FIELD_NAME.fullmatch(str(where[-1])):
        where = where[:-1]
    place: Place = tuple(part for part in where if not str(part).startswith("<"))
    return Finding(place, reason)


def _reason(detail: ErrorDetails) -> DoorReason:
    kind = detail["type"]
    if detail["input"] is None and kind not in ("extra_forbidden", "missing"):
        return DoorReason.NULL_NOT_ALLOWED
    if kind == "union_tag_invalid":
        return _reason_of_tag(detail["input"])
    if kind in _OF_PYDANTIC:
        return _OF_PYDANTIC[kind]
    return DoorReason(kind) if kind in _OURS else DoorReason.WRONG_TYPE


def _reason_of_tag(given: dict[str, object]) -> DoorReason:
    if "kind" not in given:
        return DoorReason.NOT_EXACTLY_ONE
    if given["kind"] is None:
        return DoorReason.NULL_NOT_ALLOWED
    return DoorReason.UNKNOWN_CODE if isinstance(given["kind"], str) else DoorReason.WRONG_TYPE
