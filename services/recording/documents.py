"""The OpenAPI document of a service: bodies from the models of the door, examples from the golden ones."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date, timedelta
from functools import cache
from typing import Any, Final

import msgspec
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.json_schema import models_json_schema

from schemas import golden
from schemas.events import Body, Submission
from services.admission.door import Report
from services.admission.models import model_of
from services.admission.plain import plain_of
from services.admission.validity import oslo_day
from services.clock import SystemClock
from services.recording.answers import Answer, Answers

_REF: Final = "#/components/schemas/{model}"
_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}(T[0-9:.]+Z)?")
"""A date, or an instant as `plain_of` writes it."""
_models: dict[str, type[BaseModel]] = {}


@cache
def request_model(records: type[Body], known: frozenset[str]) -> type[BaseModel]:
    """A request as it is written down: the event's fields, whom it is about, and when it happened."""
    name = f"{records.__name__}Request"
    around = {field: (model.annotation, model) for field, model in model_of(Report).model_fields.items()}
    made: type[BaseModel] = create_model(name, __base__=model_of(records, known), **around)  # type: ignore[call-overload]  # fields by name
    return made


def body_document(records: type[Body], known: frozenset[str], lines: str | None) -> dict[str, Any]:
    """The request body of one write, for its OpenAPI operation."""
    model = request_model(records, known)
    _models[model.__name__] = model
    choices = [_REF.format(model=model.__name__)]
    if lines is not None:
        several = _several(records, lines)
        _models[several.__name__] = several
        choices.append(_REF.format(model=several.__name__))
    refs = [{"$ref": choice} for choice in choices]
    content = {"schema": refs[0] if len(refs) == 1 else {"anyOf": refs}, "examples": _examples(records, known)}
    return {"required": True, "content": {"application/json": content}}


def _several(records: type[Body], lines: str) -> type[BaseModel]:
    around = {field: (model.annotation, model) for field, model in model_of(Report).model_fields.items()}
    fields: dict[str, Any] = {**around, lines: (tuple[model_of(records), ...], Field(min_length=1))}  # type: ignore[misc]  # made at run time
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


def answer_documents() -> dict[int | str, dict[str, Any]]:
    """The answers of every write besides problems."""
    content = {"application/json": {"schema": {"anyOf": [{"$ref": _REF.format(model=name)} for name in _ANSWERS]}}}
    return {
        200: {
            "description": "a duplicate: the first outcome where still known, with what it named, and the resource as it is "
            "now, unless that outcome was a refusal",
            "content": content,
        },
        201: {"description": "applied: outcome, flags, position, and the resource as it is now", "content": content},
        202: {
            "description": "in the log and not judged yet; ask where Location says, after Retry-After seconds (of several "
            "events the last one: when it is judged, all are)",
            "content": content,
        },
        401: {"description": "the caller is not stated"},
    }


_ANSWERS: Final = ("Answer", "Answers")


def describe(app: FastAPI) -> None:
    """Put the schemas that the operations refer to into the app's OpenAPI document."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = made()
            document.setdefault("components", {}).setdefault("schemas", {}).update(_schemas(_models.values()))
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to change the document


def _schemas(models: Iterable[type[BaseModel]]) -> dict[str, Any]:
    _, bodies = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
    _, answers = msgspec.json.schema_components([Answer, Answers], ref_template="#/components/schemas/{name}")
    return {**bodies["$defs"], **answers}
