"""A problem as an HTTP response, in the language that the client prefers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from schemas.reasons import Language
from services.problems.problem import MEDIA_TYPE, Problem

_LANGUAGES: Final[dict[str, Language]] = {"nb": "nb", "no": "nb", "nn": "nb", "en": "en"}


REASON_IN_SCOPE: Final = "medchain.problem"
"""Where a request's scope says which problem it was answered with, for metrics and logs."""


class _ProblemResponse(JSONResponse):
    media_type = MEDIA_TYPE
    reason: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[REASON_IN_SCOPE] = self.reason
        await super().__call__(scope, receive, send)


def response_to(problem: Problem, headers: Mapping[str, str]) -> JSONResponse:
    """The response; `headers` are the request's."""
    language = preferred_language(headers.get("accept-language", ""))
    answered = {**problem.headers, "Content-Language": language, "Vary": "Accept-Language"}
    response = _ProblemResponse(problem.document(language), status_code=problem.status, headers=answered)
    response.reason = problem.reason.value
    return response


def preferred_language(accept_language: str) -> Language:
    """English or Norwegian, by the weights of an Accept-Language header (RFC 9110); English where it says neither."""
    best: Language = "en"
    best_weight = 0.0
    for item in accept_language.split(","):
        tag, _, parameter = item.partition(";")
        language = _LANGUAGES.get(tag.strip().lower().split("-")[0])
        weight = _weight(parameter)
        if language is not None and weight > best_weight:
            best, best_weight = language, weight
    return best


def _weight(parameter: str) -> float:
    name, _, value = parameter.strip().partition("=")
    if not parameter.strip():
        return 1.0
    try:
        return float(value) if name.strip() == "q" else 0.0
    except ValueError:
        return 0.0
