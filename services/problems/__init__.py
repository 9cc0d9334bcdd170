"""How errors of a message are answered: JSON read strictly, and answers as problem details (RFC 9457)."""

from services.problems.http import install
from services.problems.json_text import FieldError, MessageInvalid, MessageUnreadable, parse_json, pointer
from services.problems.problem import (
    PROBLEM_RESPONSES,
    Problem,
    ProblemDocument,
    invalid,
    not_found,
    refused,
    turned_away,
    unavailable,
)

__all__ = [
    "PROBLEM_RESPONSES",
    "FieldError",
    "MessageInvalid",
    "MessageUnreadable",
    "Problem",
    "ProblemDocument",
    "install",
    "invalid",
    "not_found",
    "parse_json",
    "pointer",
    "refused",
    "turned_away",
    "unavailable",
]
