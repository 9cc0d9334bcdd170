"""What all our OpenAPI documents share: how a type is described, and the request and response headers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec
from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from services.admission.models import outside_name

_HEADERS_THAT_MUST_COME: Final = frozenset({"medchain-caller", "idempotency-key"})
"""The framework takes them for optional, since what is answered without them (401, 400) is ours to say."""

_asked: dict[str, type[BaseModel]] = {}
_shown: dict[str, type[msgspec.Struct]] = {}


def asked_as(model: type[BaseModel]) -> dict[str, str]:
    """The schema of what is sent and must pass the door."""
    _asked[model.__name__] = model
    return _named(model.__name__)


def shown_as(struct: type[msgspec.Struct]) -> dict[str, str]:
    """The schema of what is answered, or sent by a service of ours."""
    _shown[struct.__name__] = struct
    return _named(struct.__name__)


def with_resource(answer: Mapping[str, Any], resource: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of an answer whose `resource` has a schema of its own."""
    return {"allOf": [answer, {"type": "object", "properties": {"resource": resource}}]}


def json_content(schema: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """The content of a JSON body or answer. `more`: its example or examples."""
    return {"application/json": {"schema": schema, **more}}


def describe(app: FastAPI) -> None:
    """Put what FastAPI cannot know into the app's OpenAPI document: the schemas, and which headers must come."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = made()
            for parameter in _parameters(document):
                if parameter["name"] in _HEADERS_THAT_MUST_COME:
                    parameter |= {"required": True, "schema": {"type": "string", "minLength": 1}}
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            schemas |= _referred_to(document, schemas_of(_shown.values()) | _schemas_of_models(_asked.values()))
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to change the document


def schemas_of(shown: Iterable[Any]) -> dict[str, Any]:
    """JSON Schema components by name, of what `to_json` of the medication list makes of these types."""
    _, components = msgspec.json.schema_components(shown, ref_template=_REF)
    return {name: _as_shown(schema) for name, schema in components.items()}


_REF: Final = "#/components/schemas/{name}"


def _named(name: str) -> dict[str, str]:
    return {"$ref": _REF.format(name=name)}


def _parameters(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for operations in document["paths"].values():
        for operation in operations.values():
            yield from operation.get("parameters", ())


def _schemas_of_models(models: Iterable[type[BaseModel]]) -> dict[str, Any]:
    _, schemas = models_json_schema(
        [(model, "validation") for model in models], ref_template=_REF.format(name="{model}")
    )
    found: dict[str, Any] = schemas.get("$defs", {})
    return found


def _referred_to(document: Mapping[str, Any], schemas: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the schemas to which the document refers, and to which they refer in turn."""
    found: dict[str, Any] = {}
    waiting = set(_references(document))
    while waiting:
        name = waiting.pop()
        if name in schemas and name not in found:
            found[name] = schemas[name]
            waiting |= set(_references(schemas[name]))
    return found


def _references(value: Any) -> Iterator[str]:
    match value:
        case {"$ref": str(reference)}:
            yield reference.rpartition("/")[2]
        case dict():
            for inner in value.values():
                yield from _references(inner)
        case list():
            for inner in value:
                yield from _references(inner)
        case _:
            return


def _as_shown(schema: Any) -> Any:
    match schema:
        case {"format": "decimal"}:
            return {"type": "number"}
        case {"properties": dict(properties)}:
            shown = {outside_name(name): _property(name, each) for name, each in properties.items()}
            required = {"required": [outside_name(name) for name in schema["required"]]} if "required" in schema else {}
            return {**schema, "properties": shown, **required}
        case dict():
            return {name: _as_shown(each) for name, each in schema.items()}
        case list():
            return [_as_shown(each) for each in schema]
        case _:
            return schema


def _property(name: str, schema: Mapping[str, Any]) -> Any:
    if outside_name(name) == name:
        return _as_shown(schema)
    instant = {"type": "string", "format": "date-time"}
    return {"anyOf": [instant, {"type": "null"}]} if "anyOf" in schema else instant
