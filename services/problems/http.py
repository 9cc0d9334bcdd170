"""Problem details for a FastAPI application: every error that leaves it has this one form, and holds no content."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from schemas.reasons import DoorReason, text_of
from services.problems.guard import JsonGuard
from services.problems.json_text import LARGEST_MESSAGE_BYTES, FieldError, pointer
from services.problems.problem import Problem, invalid, not_found, unavailable
from services.problems.rendering import response_to

_REASON_OF_TYPE: Final[dict[str, DoorReason]] = {
    "missing": DoorReason.MISSING,
    "extra_forbidden": DoorReason.UNEXPECTED_FIELD,
    "json_invalid": DoorReason.NOT_PARSEABLE,
    "string_too_long": DoorReason.TOO_LONG,
    "bytes_too_long": DoorReason.TOO_LONG,
    "string_too_short": DoorReason.TOO_SHORT,
    "string_pattern_mismatch": DoorReason.WRONG_FORMAT,
    "string_unicode": DoorReason.UNPAIRED_SURROGATE,
    "too_long": DoorReason.TOO_MANY,
    "too_short": DoorReason.TOO_FEW,
    "enum": DoorReason.UNKNOWN_CODE,
    "literal_error": DoorReason.UNKNOWN_CODE,
    "union_tag_invalid": DoorReason.UNKNOWN_CODE,
    "union_tag_not_found": DoorReason.NOT_EXACTLY_ONE,
    "greater_than": DoorReason.OUT_OF_RANGE,
    "greater_than_equal": DoorReason.OUT_OF_RANGE,
    "less_than": DoorReason.OUT_OF_RANGE,
    "less_than_equal": DoorReason.OUT_OF_RANGE,
    "decimal_max_digits": DoorReason.TOO_PRECISE,
    "decimal_max_places": DoorReason.TOO_PRECISE,
    "decimal_whole_digits": DoorReason.OUT_OF_RANGE,
    "finite_number": DoorReason.NOT_A_NUMBER,
    "value_error": DoorReason.WRONG_FORMAT,
    "assertion_error": DoorReason.WRONG_FORMAT,
}
_LIMITS: Final = {
    "gt": "more than",
    "ge": "at least",
    "lt": "less than",
    "le": "at most",
    "max_length": "at most",
    "min_length": "at least",
    "decimal_places": "at most",
    "max_digits": "at most",
}
_NOT_FOUND: Final = 404
_METHOD_NOT_ALLOWED: Final = 405
_SERVER_ERROR: Final = 500


def install(
    app: FastAPI,
    *,
    retryable: Mapping[type[Exception], DoorReason] | None = None,
    largest_bytes: int = LARGEST_MESSAGE_BYTES,
    decoded_by_type: Collection[str] = (),
    hands_on_faults: bool = False,
) -> None:
    """Answer every error of `app` as problem details, and guard it against what is no JSON.

    retryable: errors that become 503 with Retry-After, such as {LogUnavailable: DoorReason.LOG_UNAVAILABLE}.
    decoded_by_type, hands_on_faults: see `JsonGuard`.
    """
    app.add_middleware(
        JsonGuard,
        is_taken=lambda scope: any(route.matches(scope)[0] is Match.FULL for route in app.router.routes),
        largest_bytes=largest_bytes,
        decoded_by_type=decoded_by_type,
        hands_on_faults=hands_on_faults,
    )
    _handle(app, Problem, lambda problem: problem)
    _handle(app, RequestValidationError, lambda error: problem_of_validation(error.errors(), error.body))
    _handle(app, HTTPException, _problem_of_http)
    for kind, reason in (retryable or {}).items():
        _handle(app, kind, partial(_problem_of_retryable, reason))
    # The last resort: what went wrong is in the log, and nothing of it in the answer.
    _handle(app, Exception, lambda _: Problem(_SERVER_ERROR, DoorReason.UNEXPECTED))


def _handle(app: FastAPI, kind: type[Exception], problem_of: Callable[[Any], Problem]) -> None:
    async def handler(request: Request, error: Exception) -> Response:
        return response_to(problem_of(error), request.headers)

    answer: Callable[[Request, Any], Awaitable[Response]] = handler
    app.add_exception_handler(kind, answer)


def _problem_of_retryable(reason: DoorReason, _: Exception) -> Problem:
    return unavailable(reason)


def _problem_of_http(error: HTTPException) -> Problem:
    """Errors of the framework itself. Their own texts are dropped: they may repeat what was sent."""
    if error.status_code == _NOT_FOUND:
        return not_found()
    if error.status_code == _METHOD_NOT_ALLOWED:
        return Problem(error.status_code, DoorReason.METHOD_NOT_ALLOWED, headers=error.headers)
    reason = DoorReason.UNEXPECTED if error.status_code >= _SERVER_ERROR else DoorReason.INVALID
    return Problem(error.status_code, reason, headers=error.headers)


def problem_of_validation(errors: Sequence[Mapping[str, Any]], body: object) -> Problem:
    """422 with every field at fault; 400 for a body that is none or a missing key; 404 for a malformed id in the path.

    errors: as pydantic lists them, each `loc` beginning with body, header, query or path. body: what was sent, which
    tells which parts of a `loc` are names in the message (the others are pydantic's own, such as a union's tag).
    """
    if any(error["type"] == "json_invalid" for error in errors):
        return Problem(400, DoorReason.NOT_PARSEABLE)
    if any(error["loc"][0] == "path" for error in errors):
        return not_found()
    if any(error["loc"][0] == "header" and str(error["loc"][-1]).lower() == "idempotency-key" for error in errors):
        return Problem(400, DoorReason.NO_IDEMPOTENCY_KEY)
    return invalid(_field_error(error, body) for error in errors)


def _field_error(error: Mapping[str, Any], body: object) -> FieldError:
    where, *path = error["loc"]
    at = pointer(_path_in(body, path)) if where == "body" else f"#{where}{pointer(path)}"
    reason = _reason_of(error)
    context = error.get("ctx", {})
    limits = [
        f"{words} {context[name]}" for name, words in _LIMITS.items() if isinstance(context.get(name), int | float)
    ]
    text = text_of(reason)
    return FieldError(at, reason, f"{text[:-1]} ({', '.join(limits)})." if limits else text)


def _reason_of(error: Mapping[str, Any]) -> DoorReason:
    """The reason that the model named itself (a custom error of that type), or the one that fits pydantic's type."""
    kind: str = error["type"]
    if "actual_length" in error.get("ctx", {}):
        # Pydantic's own name for a list's length; ours by the same name is about texts.
        return _REASON_OF_TYPE.get(kind, DoorReason.WRONG_FORMAT)
    if kind in DoorReason.__members__.values():
        return DoorReason(kind)
    if error.get("input", ...) is None and kind != "missing":
        return DoorReason.NULL_NOT_ALLOWED
    if kind == "greater_than" and error.get("ctx", {}).get("gt") == 0:
        return DoorReason.NOT_POSITIVE
    if kind in _REASON_OF_TYPE:
        return _REASON_OF_TYPE[kind]
    return DoorReason.WRONG_TYPE if kind.endswith("_type") else DoorReason.WRONG_FORMAT


def _path_in(body: object, path: Sequence[str | int]) -> list[str | int]:
    """The parts of `path` that lead through `body`; the last part stands even where the body lacks it."""
    found: list[str | int] = []
    for number, part in enumerate(path, start=1):
        match body, part:
            case dict(), str() if part in body:
                body = body[part]
            case list(), int() if 0 <= part < len(body):
                body = body[part]
            case _ if number < len(path) or not isinstance(body, dict):
                continue
            case _:
                pass
        found.append(part)
    return found
