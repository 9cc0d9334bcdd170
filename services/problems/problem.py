"""A problem as it is answered: its kind, its status, its text, and the fields at fault."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from schemas.reasons import DoorReason, Language, Reason, text_of
from services.problems.json_text import MOST_ERRORS, FieldError

MEDIA_TYPE: Final = "application/problem+json"


class Problem(Exception):  # noqa: N818 - RFC 9457's own word
    """An answer other than success. `extra`: what the ruling names (a holder, a date); never what was sent."""

    def __init__(
        self,
        status: int,
        reason: Reason | DoorReason,
        *,
        detail: str | None = None,
        errors: Iterable[FieldError] = (),
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{status} {reason.value}")
        self.status = status
        self.reason = reason
        self.detail = detail
        self.errors = tuple(errors)
        self.extra = dict(extra or {})
        self.headers = dict(headers or {})

    def document(self, language: Language = "en") -> dict[str, Any]:
        """The problem as a JSON object, its title and the texts of its errors in this language.

        The text of an error that its finder worded himself (another than the reason's own) stays as it is.
        """
        document: dict[str, Any] = {
            "type": f"/problems/{self.reason.value}",
            "title": text_of(self.reason, language),
            "status": self.status,
        }
        if self.detail is not None:
            document["detail"] = self.detail
        if self.errors:
            document["errors"] = [
                {"pointer": error.pointer, "reason": error.reason.value, "text": _worded(error, language)}
                for error in self.errors
            ]
        return {**self.extra, **document}


def _worded(error: FieldError, language: Language) -> str:
    return text_of(error.reason, language) if error.text == text_of(error.reason) else error.text


def refused(reason: Reason, **named: Any) -> Problem:
    """409: the fold refused it. `named`: what the ruling names, such as holder="..." or earliest="2026-05-31"."""
    return Problem(409, reason, extra=named)


def invalid(errors: Iterable[FieldError]) -> Problem:
    """422: these fields are at fault, all of them, or the first 200."""
    return Problem(422, DoorReason.INVALID, errors=islice(errors, MOST_ERRORS))


def turned_away(reason: DoorReason, status: int = 400, detail: str | None = None) -> Problem:
    """The message as a whole does not get past the door."""
    return Problem(status, reason, detail=detail)


def not_found() -> Problem:
    """404: not there, or not for this caller. The same answer, so that nobody learns which."""
    return Problem(404, DoorReason.NOT_FOUND)


def unavailable(reason: DoorReason, *, retry_after_s: int = 1, detail: str | None = None, **named: Any) -> Problem:
    """503: try again after so many seconds, a write under the same key: what came through is known again.

    `named`: such as progress.
    """
    return Problem(503, reason, detail=detail, extra=named, headers={"Retry-After": str(retry_after_s)})


class FieldErrorDocument(BaseModel):
    """One fault of one field."""

    pointer: str
    reason: str
    text: str


class ProblemDocument(BaseModel):
    """Problem details (RFC 9457), for the OpenAPI documents; what a ruling names comes beside these fields."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str | None = None
    errors: list[FieldErrorDocument] | None = None


RETRY_AFTER: Final = {"Retry-After": {"description": "in how many seconds", "schema": {"type": "integer"}}}
"""The header of an answer after which the caller asks again, for the OpenAPI documents."""


def _response(description: str, **more: Any) -> dict[str, Any]:
    schema = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    schema["properties"]["errors"] = {"type": "array", "items": FieldErrorDocument.model_json_schema()}
    return {"description": description, "content": {MEDIA_TYPE: {"schema": schema}}, **more}


PROBLEM_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    400: _response("no idempotency key, or not parseable"),
    401: _response("the caller is not stated, or not in the right form"),
    404: _response("not there, or not for this caller"),
    409: _response("refused; `type` ends in the reason, and what the ruling names stands beside it"),
    413: _response("too large"),
    415: _response("not JSON"),
    422: _response("every field at fault, with its reason"),
    503: _response(
        "the log or the list does not answer now; a write that was not confirmed may have come through, of several events the "
        "first ones: repeat it under the same key, which is safe",
        headers=RETRY_AFTER,
    ),
}
"""For FastAPI's `responses=`: what every write may answer besides success."""
