"""The OpenAPI document of a service: bodies from the models of the door, examples from the golden ones."""

from __future__ import annotations

import re
from datetime import date, timedelta
from functools import cache
from typing import Any, Final

import msgspec
from msgspec import Struct
from pydantic import BaseModel, ConfigDict, Field, create_model

from schemas import golden
from schemas.events import Body, Submission
from services.admission.door import Report
from services.admission.models import MOST_ELEMENTS, model_of
from services.admission.plain import plain_of
from services.admission.validity import oslo_day
from services.clock import SystemClock
from services.problems.problem import RETRY_AFTER
from services.recording.answers import Answer, Answers
from services.serving.documents import asked_as, json_content, shown_as, with_resource

_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}(T[0-9:.]+Z)?")
"""A date, or an instant as `plain_of` writes it."""


@cache
def request_model(records: type[Body], known: frozenset[str]) -> type[BaseModel]:
    """A request as documented: the event's fields, whom it is about, and when it happened."""
    name = f"{records.__name__}Request"
    around = {field: (model.annotation, model) for field, model in model_of(Report).model_fields.items()}
    made: type[BaseModel] = create_model(name, __base__=model_of(records, known), **around)  # type: ignore[call-overload]  # fields by name
    return made


def body_document(records: type[Body], known: frozenset[str], lines: str | None) -> dict[str, Any]:
    """The request body of one write, for its OpenAPI operation."""
    schema: dict[str, Any] = asked_as(request_model(records, known))
    if lines is not None:
        schema = {"anyOf": [schema, asked_as(_several(records, lines))]}
    return {"required": True, "content": json_content(schema, examples=_examples(records, known))}


def _several(records: type[Body], lines: str) -> type[BaseModel]:
    around = {field: (model.annotation, model) for field, model in model_of(Report).model_fields.items()}
    some = Field(min_length=1, max_length=MOST_ELEMENTS)
    fields: dict[str, Any] = {**around, lines: (tuple[model_of(records), ...], some)}  # type: ignore[misc]  # made at run time
    return create_model(f"{records.__name__}Order", __config__=ConfigDict(extra="forbid"), **fields)


def _examples(records: type[Body], known: frozenset[str]) -> dict[str, Any]:
    """Each example of the contract as a request: what the submissions of the golden bytes say."""
    found = golden.newest_of(f"Submission{records.__name__}")
    return {title.replace("_", " "): {"value": _as_request(message, known)} for title, message in found.items()}


def _as_request(message: Submission[Body], known: frozenset[str]) -> dict[str, Any]:
    """The example as it can be sent today: written yesterday if not before, and `occurred_at` left to us.

    A death in ten years would be turned away, and so would a claim of last year. What is past stays as it is, so that an
    example that is sent again on another day is the same.
    """
    plain = plain_of(message)
    person = {name: value for name, value in plain["patient"].items() if name != "kind"}
    body = {name: value for name, value in plain["bodies"][0].items() if name not in known}
    yesterday = oslo_day(SystemClock().now_ms()) - timedelta(days=1)
    body = _moved(body, min(timedelta(0), yesterday - oslo_day(message.occurred_at_ms)))
    return dict(msgspec.json.decode(msgspec.json.Encoder(decimal_format="number").encode({"patient": person, **body})))


def _moved(value: Any, by: timedelta) -> Any:
    """The same with every date and instant within it moved by whole days."""
    match value:
        case dict():
            return {name: _moved(inner, by) for name, inner in value.items()}
        case list() | tuple():
            return [_moved(inner, by) for inner in value]
        case str() if _DAY.fullmatch(value):
            return (date.fromisoformat(value[:10]) + by).isoformat() + value[10:]
        case _:
            return value


def answer_documents(about: type[Struct], lines: str | None) -> dict[int | str, dict[str, Any]]:
    """The answers of a write besides problems; `about`: what their `resource` shows."""
    schema: dict[str, Any] = with_resource(shown_as(Answer), shown_as(about))
    if lines is not None:
        several = {"type": "object", "properties": {"outcomes": {"type": "array", "items": schema}}}
        schema = {"anyOf": [schema, {"allOf": [shown_as(Answers), several]}]}
    content = json_content(schema)
    return {
        200: {
            "description": "a duplicate: the first outcome where still known, the resource as it is now",
            "content": content,
        },
        201: {"description": "applied: outcome, flags, position, and the resource as it is now", "content": content},
        202: {
            "description": "in the log and not judged yet; ask where Location says, after Retry-After seconds",
            "headers": _HEADERS_OF_A_PENDING_ONE,
            "content": content,
        },
    }


_HEADERS_OF_A_PENDING_ONE: Final = {
    "Location": {"description": "where the outcome can be read", "schema": {"type": "string", "format": "uri"}},
    "Preference-Applied": {"description": "`respond-async` where that was asked for", "schema": {"type": "string"}},
    **RETRY_AFTER,
}
