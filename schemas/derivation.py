"""Derives an Avro schema from a contract type, so that a test can hold the checked-in schemas equal to the types."""

import types
import typing
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, get_args, get_origin

import msgspec

from schemas.events import BODIES, EFFECTS, EVERY_BODY, Event, Submission
from schemas.fields import Rule

type_hints = typing.get_type_hints
NAMESPACE = "medchain"
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 15, "scale": 4}
_PLAIN: dict[object, object] = {str: "string", int: "long", bool: "boolean", bytes: "bytes", Decimal: DECIMAL}


def contract() -> dict[str, dict[str, Any]]:
    """Name -> Avro schema, for every event, every submission and everything that goes out."""
    schemas: dict[str, dict[str, Any]] = {}
    for body in EVERY_BODY:
        schemas[body.__name__] = _named(Event[body], body.__name__, {"body": f"{body.__name__}Body"})  # type: ignore[valid-type]  # a type known only at run time
    for body in BODIES:
        name = f"Submission{body.__name__}"
        schemas[name] = _named(Submission[body], name, {"bodies": f"{body.__name__}Body"})  # type: ignore[valid-type]  # a type known only at run time
    for effect in EFFECTS:
        schemas[effect.__name__] = _named(effect, effect.__name__, {"issued": "PrescriptionIssuedBody"})
    return schemas


def _named(struct: Any, name: str, renamed: dict[str, str]) -> dict[str, Any]:
    schema = _record(struct, name, set(), renamed)
    assert isinstance(schema, dict)
    return {"type": "record", "name": name, "namespace": NAMESPACE} | schema


def _record(struct: Any, name: str, seen: set[str], renamed: dict[str, str]) -> dict[str, Any] | str:
    """A record, or its bare name where it was written out before, as Avro wants it."""
    if name in seen:
        return f"{NAMESPACE}.{name}"
    seen.add(name)
    origin = get_origin(struct) or struct
    fields: list[dict[str, Any]] = []
    tag = origin.__struct_config__.tag
    if tag:
        fields.append({"name": "kind", "type": {"type": "enum", "name": f"{name}Kind", "symbols": [tag]}})
    hints = type_hints(origin, include_extras=True)
    parameters = dict(zip(getattr(origin, "__parameters__", ()), get_args(struct), strict=False))
    for field in msgspec.structs.fields(origin):
        hint = hints[field.name]
        if get_origin(hint) is tuple and get_args(hint)[0] in parameters:
            hint = tuple[parameters[get_args(hint)[0]], ...]  # type: ignore[misc]  # as above
        described = _type(parameters.get(hint, hint), seen, renamed.get(field.name))
        fields.append({"name": field.name, "type": described} | _default(field))
    return {"type": "record", "name": name, "doc": (origin.__doc__ or "").strip().split("\n")[0], "fields": fields}


def _default(field: msgspec.structs.FieldInfo) -> dict[str, Any]:
    if field.required:
        return {}
    default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return {"default": list(default) if isinstance(default, tuple) else default}


def _type(hint: Any, seen: set[str], renamed: str | None = None) -> Any:  # noqa: PLR0911 - one line a kind of type
    origin = get_origin(hint)
    if origin is Annotated:
        return _annotated(*get_args(hint), seen=seen)
    if origin in (types.UnionType, typing.Union):
        members = get_args(hint)
        if type(None) in members:
            return ["null", *(_type(member, seen, renamed) for member in members if member is not type(None))]
        return [_type(member, seen) for member in members]
    if origin is tuple:
        return {"type": "array", "items": _type(get_args(hint)[0], seen, renamed)}
    if hint is date:
        return {"type": "int", "logicalType": "date"}
    if hint in _PLAIN:
        return _PLAIN[hint]
    return _record(hint, renamed or hint.__name__, seen, {})


def _annotated(plain: Any, rule: Rule, *, seen: set[str]) -> Any:
    if rule.kind == "uuid":
        return {"type": "string", "logicalType": "uuid"}
    if rule.kind == "instant":
        return {"type": "long", "logicalType": "timestamp-millis"}
    return _type(plain, seen)
