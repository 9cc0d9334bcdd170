"""A registry's framing on the topics, and the one encoding everywhere else."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import codec
from schemas.framing import PLAIN, Framing, RegistryUnavailableError
from schemas.golden import examples
from schemas.reasons import ParkReason
from services.medication_list.log.record import unframed

MARKS = [release.header[2:] for release in codec.releases()]
IDS = {mark: number for number, mark in enumerate(MARKS, start=300)}
ALL = list(examples())
ISSUED = next(example.written for example in ALL if example.name == "PrescriptionIssued")


class Registered:
    """A registry of these schemas; None: it is away."""

    def __init__(self, schemas: Mapping[int, Mapping[str, Any]] | None = None) -> None:
        self.schemas = schemas
        self.asked: list[int] = []

    def schema_of(self, schema_id: int) -> Mapping[str, Any] | None:
        """See `Registry.schema_of`."""
        self.asked.append(schema_id)
        if self.schemas is None:
            raise RegistryUnavailableError
        return self.schemas.get(schema_id)


def framed(schema_id: int, single_object: bytes = ISSUED) -> bytes:
    return b"\x00" + schema_id.to_bytes(4, "big") + single_object[10:]


@pytest.mark.parametrize("example", ALL, ids=lambda example: f"{example.name}-{example.version}-{example.title}")
def test_every_record_ever_released_survives_a_registrys_framing(example: Any) -> None:
    away = Registered()
    framing = Framing(away, IDS)
    on_topic = framing.to_topic(example.written)
    assert on_topic == framed(IDS[example.written[2:10]], example.written)
    assert framing.from_topic(on_topic) == example.written
    assert away.asked == []


@dataclass(frozen=True)
class Plain:
    """A record of the log that is of neither Kafka library."""

    value: bytes | None
    offset: int = 3
    key: bytes | None = b"a patient"
    timestamp: int = 7
    headers: Sequence[tuple[str, bytes]] = (("ce_id", b"an event"),)


def test_any_record_of_the_log_is_read_without_its_framing_and_else_as_it_is() -> None:
    record, unreadable = Plain(framed(IDS[ISSUED[2:10]])), Plain(framed(1))
    found = unframed(record, Framing(Registered({}), IDS))
    assert found.value == ISSUED
    assert (found.offset, found.key, found.timestamp) == (record.offset, record.key, record.timestamp)
    assert found.headers == record.headers
    assert unframed(unreadable, Framing(Registered({}), IDS)) is unreadable


@pytest.mark.parametrize("example", ALL, ids=lambda example: f"{example.name}-{example.version}-{example.title}")
def test_single_object_encoding_is_read_beside_it(example: Any) -> None:
    assert Framing(Registered(), IDS).from_topic(example.written) == example.written


@given(st.binary(max_size=40) | st.binary(max_size=30).map(b"\xc3\x01".__add__))
def test_what_is_no_record_of_ours_is_appended_as_it_is(value: bytes) -> None:
    assert Framing(Registered(), IDS).to_topic(value) == value
    assert PLAIN.to_topic(value) == value
    assert PLAIN.from_topic(value) == value


def test_what_a_record_begins_with_ends_before_anything_that_its_writer_says() -> None:
    with_registry = Framing(Registered(), IDS)
    for framing, value, head in (
        (PLAIN, ISSUED, ISSUED[:10]),
        (with_registry, ISSUED, ISSUED[:10]),
        (with_registry, framed(300), framed(300)[:5]),
        (PLAIN, framed(300), framed(300)[:2]),
        (with_registry, b"13857300054;", b"13"),
        (PLAIN, b"", b""),
    ):
        assert framing.head_of(value) == head


def test_without_a_registry_its_framing_is_unreadable() -> None:
    with pytest.raises(codec.UndecodableError) as caught:
        codec.decode(PLAIN.from_topic(framed(300)))
    assert caught.value.reason is ParkReason.UNREADABLE


def test_a_number_never_seen_is_asked_for_once() -> None:
    registry = Registered({7: codec.newest("PrescriptionIssued").schema})
    framing = Framing(registry)
    assert framing.must_ask(framed(7))
    assert [framing.from_topic(framed(7)) for _ in range(3)] == [ISSUED] * 3
    assert registry.asked == [7]
    assert not framing.must_ask(framed(7))


def test_a_schema_that_only_says_it_in_other_words_is_ours() -> None:
    schema = deepcopy(dict(codec.newest("PrescriptionIssued").schema))
    schema["doc"] = "As another program registered it."
    assert Framing(Registered({7: schema})).from_topic(framed(7)) == ISSUED


def test_a_number_without_a_schema_is_an_unknown_schema_and_named() -> None:
    with pytest.raises(codec.UnknownSchemaError) as caught:
        Framing(Registered({})).from_topic(framed(4_000_000_000))
    assert caught.value.schema == "registry id 4000000000"


def test_a_schema_that_this_release_lacks_is_named_by_its_fingerprint() -> None:
    schema = deepcopy(dict(codec.newest("PrescriptionIssued").schema))
    schema["fields"].append({"name": "later", "type": "string", "default": ""})
    with pytest.raises(codec.UnknownSchemaError) as caught:
        codec.decode(Framing(Registered({7: schema})).from_topic(framed(7)))
    assert len(bytes.fromhex(caught.value.schema)) == 8
    assert bytes.fromhex(caught.value.schema) not in MARKS


def rescaled(schema: Any) -> Any:
    """The same schema with quantities of another scale: the same fingerprint, and a hundred times the amount."""
    if isinstance(schema, list):
        return [rescaled(member) for member in schema]
    if not isinstance(schema, Mapping):
        return schema
    scaled = {key: rescaled(value) for key, value in schema.items()}
    return scaled | {"scale": scaled["scale"] - 2} if scaled.get("logicalType") == "decimal" else scaled


def test_a_schema_whose_numbers_mean_something_else_is_not_taken_for_ours() -> None:
    ours = codec.newest("PrescriptionIssued").schema
    assert rescaled(ours) != ours
    with pytest.raises(codec.UnknownSchemaError, match="registry id 7"):
        Framing(Registered({7: rescaled(ours)})).from_topic(framed(7))


@pytest.mark.parametrize("schema", [{}, {"type": "object"}, {"type": "record"}, {"type": "string"}])
def test_what_is_no_record_of_avro_is_an_unknown_schema(schema: Mapping[str, Any]) -> None:
    with pytest.raises(codec.UnknownSchemaError):
        codec.decode(Framing(Registered({7: schema})).from_topic(framed(7)))


@pytest.mark.parametrize("cut", range(1, 5))
def test_a_record_that_ends_within_the_framing_is_unreadable(cut: int) -> None:
    with pytest.raises(codec.UndecodableError) as caught:
        Framing(Registered({}), IDS).from_topic(framed(7)[:cut])
    assert caught.value.reason is ParkReason.UNREADABLE


def test_while_the_registry_is_away_what_is_known_is_read_and_the_rest_is_for_later() -> None:
    framing = Framing(Registered(), IDS)
    assert framing.from_topic(framed(IDS[ISSUED[2:10]])) == ISSUED
    with pytest.raises(RegistryUnavailableError):
        framing.from_topic(framed(7))


@pytest.mark.parametrize("value", [None, b""])
def test_no_value_stays_no_value(value: bytes | None) -> None:
    assert Framing(Registered(), IDS).from_topic(value) == value
