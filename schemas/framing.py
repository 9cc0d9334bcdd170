"""How a record's bytes are framed on a topic, where a Confluent-compatible registry is configured.

Everywhere inside the chain a record is Avro single-object (`C3 01`, fingerprint, body), and only `codec` reads and
writes it. A registry's framing (`00`, a number of 4 bytes, the same body) exists on the topics alone: whoever appends
turns the one into the other, whoever reads turns it back. So what is kept of a record can be read without a registry.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol

from fastavro.schema import fingerprint, to_parsing_canonical_form

from schemas.codec import SINGLE_OBJECT, UndecodableError, UnknownSchemaError, release_of
from schemas.reasons import ParkReason

REGISTERED: Final = b"\x00"
_ID_BYTES: Final = 4
_HEAD: Final = len(REGISTERED) + _ID_BYTES
_OWN_HEAD: Final = len(SINGLE_OBJECT) + 8
_TELLING: Final = len(SINGLE_OBJECT)


class RegistryUnavailableError(Exception):
    """The registry does not answer, so that nobody can tell now what a number stands for: try again later."""


class Registry(Protocol):
    """The registry, for whoever reads."""

    def schema_of(self, schema_id: int) -> Mapping[str, Any] | None:
        """The Avro schema with that number, None if there is none. May block. Raises RegistryUnavailableError."""
        ...


class Framing:
    """Writes a registry's framing where there is one, and reads both. What it has learned it knows for ever.

    One for a process; every thread may use it.
    """

    def __init__(self, registry: Registry | None = None, ids: Mapping[bytes, int] | None = None) -> None:
        """`ids`: fingerprint -> number, of the released schemas. Without a registry nothing is changed either way."""
        self._registry = registry
        self._written: dict[bytes, bytes] = {}
        self._read: dict[bytes, bytes] = {}
        for mark, schema_id in (ids or {}).items():
            head = REGISTERED + schema_id.to_bytes(_ID_BYTES, "big")
            self._written[SINGLE_OBJECT + mark] = head
            self._read[head] = SINGLE_OBJECT + mark

    def to_topic(self, value: bytes) -> bytes:
        """A record as it is to be appended. Never asks anybody; what is no record of a released schema stays as it is."""
        head = self._written.get(value[:_OWN_HEAD])
        return value if head is None else head + value[_OWN_HEAD:]

    def from_topic(self, value: bytes | None) -> bytes | None:
        """A record in single-object encoding, whichever framing it had; for `codec.decode`.

        Raises UndecodableError, UnknownSchemaError for a number without a schema, and RegistryUnavailableError for a
        number that was never seen while the registry is away. It may block for such a number (see `must_ask`).
        """
        if self._registry is None or not value or value[0] != 0:
            return value
        head = self._read.get(value[:_HEAD])
        if head is None:
            head = self._learned(value[:_HEAD], self._registry)
        return head + value[_HEAD:]

    def head_of(self, value: bytes) -> bytes:
        """What a record begins with before its content; the first two bytes of what begins as none of ours does."""
        if value.startswith(SINGLE_OBJECT):
            return value[:_OWN_HEAD]
        return value[:_HEAD] if self._registry is not None and value.startswith(REGISTERED) else value[:_TELLING]

    def must_ask(self, value: bytes | None) -> bool:
        """Whether reading this may block, because the registry has to be asked."""
        if self._registry is None or not value or value[0] != 0:
            return False
        return value[:_HEAD] not in self._read

    def _learned(self, head: bytes, registry: Registry) -> bytes:
        if len(head) < _HEAD:
            raise UndecodableError(ParkReason.UNREADABLE, "the record ends within a registry's framing")
        schema_id = int.from_bytes(head[len(REGISTERED) :], "big")
        schema = registry.schema_of(schema_id)
        if schema is None:
            raise UnknownSchemaError(f"registry id {schema_id}")
        mark = _mark_of(schema)
        if mark is None:
            raise UnknownSchemaError(f"registry id {schema_id}")
        return self._read.setdefault(head, SINGLE_OBJECT + mark)


PLAIN: Final = Framing()
"""Where no registry is configured: single-object encoding, on the topics too."""


def _mark_of(schema: Mapping[str, Any]) -> bytes | None:
    """The fingerprint of a registry's schema; None for what is no Avro record, or means something else than ours.

    The fingerprint leaves logical types out: the same bytes with another scale would be another quantity.
    """
    try:
        mark = bytes.fromhex(fingerprint(to_parsing_canonical_form(dict(schema)), "CRC-64-AVRO"))
    except Exception:  # noqa: BLE001 - whatever the library says of what others registered, we have no such schema
        return None
    ours = release_of(mark)
    if ours is not None and list(_logical_types(ours.schema)) != list(_logical_types(schema)):
        return None
    return mark


def _logical_types(schema: Any) -> Iterator[tuple[object, ...]]:
    """What the bytes of a schema mean, in the order in which they lie there."""
    if isinstance(schema, list):
        for member in schema:
            yield from _logical_types(member)
    elif isinstance(schema, Mapping):
        yield schema.get("logicalType"), schema.get("precision"), schema.get("scale", 0)
        for part in (schema.get("type"), schema.get("items"), *(field["type"] for field in schema.get("fields", ()))):
            yield from _logical_types(part)
