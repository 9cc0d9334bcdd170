"""How the contract's types look at the HTTP edge: JSON, instants as RFC 3339 under names without `_ms`, exact numbers."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from services.admission.models import outside_name
from services.admission.plain import rfc3339

_encode: Final = msgspec.json.Encoder(decimal_format="number").encode
# In JSON that msgspec made, a letter, a quotation mark and a colon in this order stand only at the end of a name: within
# a text the mark would be escaped. So these find fields of our own types, and nothing in what was sent.
_INSTANT: Final = re.compile(rb'_ms":(-?[0-9]+|null)')
_ZEROS: Final = re.compile(rb'":(?<=[a-z_]":)(-?[0-9]+)(?:\.0+|(\.[0-9]*[1-9])0+)(?=[,}])')


def to_json(shown: Any) -> bytes:
    """The JSON of a contract type or of builtins that hold some: what is left at its default is left out.

    Numbers are written as people do, 100 and 0.5, whatever places the wire gave them.
    """
    return _ZEROS.sub(rb'":\1\2', _INSTANT.sub(_outside, _encode(shown)))


def _outside(found: re.Match[bytes]) -> bytes:
    at_ms = found[1]
    return b'":null' if at_ms == b"null" else b'":"%b"' % rfc3339(int(at_ms)).encode()


def schemas_of(types: Iterable[Any], ref_template: str) -> dict[str, Any]:
    """JSON Schema components of what `to_json` makes of these types, by name. `ref_template` holds `{name}`."""
    _, components = msgspec.json.schema_components(types, ref_template=ref_template)
    return {name: _as_shown(schema) for name, schema in components.items()}


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
