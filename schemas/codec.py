"""Bytes to events and back, in Avro single-object encoding.

The entry functions are `decode` and `encode`. A record names its writer's schema by fingerprint; it is decoded with that
schema, and the Python type fills defaults. Resolving inside the Avro library would cost twice as much.
"""

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple
from unicodedata import normalize

import msgspec
from fastavro import parse_schema, schemaless_writer
from fastavro.schema import fingerprint, to_parsing_canonical_form

from schemas.compiled import Reader, reader_of
from schemas.events import BODIES, EFFECTS, EVERY_BODY, Body, Event, PrescriptionIssued, Submission
from schemas.reasons import ParkReason

AVRO_FOLDER = Path(__file__).parent / "avro"
SINGLE_OBJECT = b"\xc3\x01"
HEADER_BYTES = 10
"""C3 01, and the fingerprint of the schema."""
_DIGEST_BYTES = 8
_NATIVE = (date, Decimal, bytes)
# Instants and ids stay what they are on the wire (long, string): building datetime and UUID objects for each would
# cost more than the fold itself.
_KEPT_PLAIN = frozenset({"uuid", "timestamp-millis"})


_READERS: dict[bytes, Reader] = {}
"""The readers that were made, by the header of what they read."""


class UndecodableError(Exception):
    """A record that cannot be read. `reason` is a park reason; the text never holds content of the record."""

    def __init__(self, reason: ParkReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class UnknownSchemaError(UndecodableError):
    """A well-framed record whose writer's schema this release does not have; `schema` names it."""

    def __init__(self, schema: str) -> None:
        super().__init__(ParkReason.UNKNOWN_SCHEMA, f"no schema {schema}")
        self.schema = schema


class NotInContractError(ValueError):
    """A value does not fit the newest schema of its type; the text never holds content of the record."""


@dataclass(frozen=True, slots=True)
class Release:
    """One released version of one contract type: how to read what it wrote."""

    name: str
    version: int
    schema: Mapping[str, Any]
    header: bytes


class Written(NamedTuple):
    """An event with its bytes, and those of its body alone, with which they end."""

    event: Event[Body]
    record: bytes
    body: bytes


def contract_types() -> dict[str, Any]:
    """Name -> Python type, of everything that travels over a topic."""
    named: dict[str, Any] = {effect.__name__: effect for effect in EFFECTS}
    for body in EVERY_BODY:
        named[body.__name__] = Event[body]  # type: ignore[valid-type]  # a type for each member of a closed union
    for body in BODIES:
        named[f"Submission{body.__name__}"] = Submission[body]  # type: ignore[valid-type]  # as above
    return named


TYPES = contract_types()


def encode(message: Any) -> bytes:
    """Bytes of an event, a submission or an outgoing record, written with the newest schema of its type.

    Raises NotInContractError when a value does not fit the schema (the door has turned such values away before).
    """
    release = newest(name_of(message))
    out = io.BytesIO()
    out.write(release.header)
    schema = _parsed(release.name, release.version)
    try:
        schemaless_writer(out, schema, msgspec.to_builtins(message, builtin_types=_NATIVE))
    except (TypeError, ValueError, OverflowError) as error:
        raise NotInContractError(f"{release.name} does not fit its schema ({type(error).__name__})") from error
    return out.getvalue()


def written(event: Event[Body]) -> Written:
    """An event with the bytes that `encode` makes of it, for whoever needs them more than once, or the body's by themselves.

    Writing a prescription costs as much as reading six.
    """
    release = newest(name_of(event))
    envelope, body = _parsed_apart(release.name, release.version)
    plain = msgspec.to_builtins(event, builtin_types=_NATIVE)
    out = io.BytesIO()
    out.write(release.header)
    schemaless_writer(out, envelope, plain)
    begins = out.tell()
    schemaless_writer(out, body, plain["body"])
    record = out.getvalue()
    return Written(event, record, record[begins:])


def decode(value: bytes | None) -> Any:
    """The event, submission or outgoing record in these bytes. Raises UndecodableError."""
    if not value:
        raise UndecodableError(ParkReason.NO_VALUE, "the record has no value")
    read = _READERS.get(value[:HEADER_BYTES]) or _reader_named_by(value)
    return _read(read, value, HEADER_BYTES)


def _read(read: Reader, value: bytes, start: int) -> Any:
    try:
        message, end = read(value, start)
    except Exception as error:  # noqa: BLE001 - whatever a damaged record provokes in the reader, it is one thing: unreadable
        raise UndecodableError(ParkReason.UNREADABLE, type(error).__name__) from None
    if end != len(value):
        raise UndecodableError(ParkReason.UNREADABLE, "the record does not end where it should")
    return message


def name_of(message: Any) -> str:
    """The contract name of a message: an event's is its body's."""
    if isinstance(message, Event):
        return type(message.body).__name__
    if isinstance(message, Submission):
        return f"Submission{type(message.bodies[0]).__name__}"
    return type(message).__name__


def releases() -> Iterable[Release]:
    """Every version ever released, oldest first within a name."""
    return _releases().values()


def release_of(mark: bytes) -> Release | None:
    """The release whose schema has that fingerprint, None if it is none of ours."""
    return _releases().get(mark)


@cache
def newest(name: str) -> Release:
    """The newest released version of a contract type."""
    return max((release for release in releases() if release.name == name), key=lambda release: release.version)


@cache
def _releases() -> dict[bytes, Release]:
    found: dict[bytes, Release] = {}
    for path in sorted(AVRO_FOLDER.glob("*/*.avsc"), key=lambda path: (path.parent.name, int(path.stem))):
        schema = json.loads(path.read_text(encoding="utf-8"))
        mark = bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))
        found[mark] = Release(path.parent.name, int(path.stem), schema, SINGLE_OBJECT + mark)
    return found


@cache
def _parsed(name: str, version: int) -> Any:
    schema = next(release.schema for release in releases() if (release.name, release.version) == (name, version))
    return parse_schema(as_on_the_wire(schema))


@cache
def _parsed_apart(name: str, version: int) -> tuple[Any, Any]:
    """An event's schema without its last field, which is the body, and the body's: Avro writes field after field."""
    schema = next(release.schema for release in releases() if (release.name, release.version) == (name, version))
    *around, body = as_on_the_wire(schema)["fields"]
    namespace = {"namespace": schema["namespace"]}
    return parse_schema({**schema, "fields": around}), parse_schema(namespace | body["type"])


def _reader_named_by(value: bytes) -> Reader:
    """The reader of the schema that a record names, made when the first such record comes."""
    if value[:2] != SINGLE_OBJECT:
        raise UndecodableError(ParkReason.UNREADABLE, "the record does not begin with C3 01")
    release = release_of(value[2:HEADER_BYTES])
    if release is None:
        raise UnknownSchemaError(value[2:HEADER_BYTES].hex())
    return _READERS.setdefault(release.header, reader_of(release.schema, TYPES[release.name]))


def as_on_the_wire(schema: Any) -> Any:
    """The schema without the logical types that we read as they lie on the wire."""
    if isinstance(schema, list):
        return [as_on_the_wire(member) for member in schema]
    if not isinstance(schema, Mapping):
        return schema
    if schema.get("logicalType") in _KEPT_PLAIN:
        return schema["type"]
    return {
        key: as_on_the_wire(value) if key in ("type", "items", "fields") else value for key, value in schema.items()
    }


def content_of(event: Event[Body]) -> bytes:
    """What makes two reports the same: the body and the sending organisation, without the rest of the envelope, in NFC.

    The sealed identity is left out: the same report sealed again under a newer key is the same report.
    """
    body = _with_defaults_as_such(event.body)
    if isinstance(body, PrescriptionIssued) and body.identity is not None:
        body = msgspec.structs.replace(body, identity=None)
    content = msgspec.json.encode((event.source.organisation, type(body).__name__, body))
    return content if content.isascii() else normalize("NFC", content.decode()).encode()


def digest_of(event: Event[Body]) -> bytes:
    """Eight bytes by which two contents are told apart, and which are remembered of an event for ever."""
    return blake2b(content_of(event), digest_size=_DIGEST_BYTES).digest()


def _with_defaults_as_such(body: Body) -> Body:
    """The body with the default itself where a value equals it, so that both are left out of the content alike.

    msgspec leaves out only what is the very object that the type names, and a string that was read never is. A record
    of an older version, which lacks a field, would otherwise be other content than the same said in full.
    """
    defaults = _TEXT_DEFAULTS[type(body)]
    if not defaults:
        return body
    said = {name: default for name, default in defaults if getattr(body, name) == default}
    return msgspec.structs.replace(body, **said) if said else body


_TEXT_DEFAULTS: Mapping[type[Body], tuple[tuple[str, str], ...]] = {
    body: tuple((each.name, each.default) for each in msgspec.structs.fields(body) if isinstance(each.default, str))
    for body in EVERY_BODY
}
