"""The readers made from the schemas read what the Avro library reads, and nothing else."""

import io
import random
from typing import Any

import msgspec
import pytest
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from fastavro.utils import generate_one
from hypothesis import given
from hypothesis import strategies as st

from schemas import golden
from schemas.codec import TYPES, as_on_the_wire, releases
from schemas.compiled import Reader, reader_of

HEADER = 10
RELEASES = {(each.name, each.version): each for each in releases()}
READERS = {key: reader_of(each.schema, TYPES[each.name]) for key, each in RELEASES.items()}
PARSED = {key: parse_schema(as_on_the_wire(each.schema)) for key, each in RELEASES.items()}
EXAMPLES = list(golden.examples())


def by_library(key: tuple[str, int], body: bytes) -> Any:
    """What the Avro library and msgspec make of a body; ValueError for whatever they cannot read, or read in part."""
    source = io.BytesIO(body)
    try:
        message = msgspec.convert(schemaless_reader(source, PARSED[key], None), TYPES[key[0]])
    except Exception as error:
        raise ValueError from error
    if source.tell() != len(body):
        raise ValueError
    return message


def by_reader(read: Reader, body: bytes) -> Any:
    """What the made reader makes of it; ValueError likewise."""
    try:
        message, end = read(body, 0)
    except (ValueError, IndexError, ArithmeticError) as error:
        raise ValueError from error
    if end != len(body):
        raise ValueError
    return message


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda each: f"{each.name}-{each.title}")
def test_a_golden_record_is_read_as_it_was_written(example: golden.Example) -> None:
    message, end = READERS[example.name, example.version](example.written, HEADER)
    assert message == example.message
    assert end == len(example.written)


@pytest.mark.parametrize("key", sorted(READERS), ids=lambda key: key[0])
def test_whatever_the_library_writes_is_read_alike(key: tuple[str, int]) -> None:
    schema = parse_schema(as_on_the_wire(RELEASES[key].schema))
    for _ in range(20):
        out = io.BytesIO()
        schemaless_writer(out, schema, _in_precision(generate_one(schema)))
        assert by_reader(READERS[key], out.getvalue()) == by_library(key, out.getvalue())


def _in_precision(value: Any) -> Any:
    """The library makes decimals of ten bytes, and rounds them as it reads; the contract's have 15 digits at most."""
    if isinstance(value, dict):
        return {name: _in_precision(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_in_precision(each) for each in value]
    return value[:6] if isinstance(value, bytes) else value


@given(st.sampled_from(EXAMPLES), st.integers(0, 10_000), st.integers(0, 255), st.sampled_from(("cut", "changed")))
def test_damaged_bytes_are_read_alike_or_not_at_all(example: golden.Example, place: int, byte: int, how: str) -> None:
    body = example.written[HEADER:]
    place %= len(body)
    damaged = body[:place] if how == "cut" else body[:place] + bytes([byte]) + body[place + 1 :]
    key = example.name, example.version
    try:
        expected = by_library(key, damaged)
    except ValueError:
        expected = None
    try:
        found = by_reader(READERS[key], damaged)
    except ValueError:
        found = None
    # Ours is the stricter: it takes no number of more than 64 bits and no length past the end.
    assert found is None or found == expected


def test_a_list_in_several_blocks_is_read_whole() -> None:
    schema = {
        "type": "record",
        "name": "Many",
        "fields": [{"name": "flags", "type": {"type": "array", "items": "string"}}],
    }

    class Many(msgspec.Struct):
        flags: tuple[str, ...] = ()

    in_blocks = b"\x02\x02a" + b"\x03\x08\x02b\x02c" + b"\x00"
    assert reader_of(schema, Many)(in_blocks, 0) == (Many(flags=("a", "b", "c")), len(in_blocks))


def test_a_field_that_the_version_lacks_gets_the_default_and_one_that_the_type_lacks_is_passed_over() -> None:
    schema = {
        "type": "record",
        "name": "Old",
        "fields": [{"name": "gone", "type": "long"}, {"name": "kept", "type": "string"}],
    }

    class Old(msgspec.Struct, kw_only=True):
        kept: str
        added: int = 7

    assert reader_of(schema, Old)(b"\x04\x02x", 0) == (Old(kept="x"), 3)


def test_random_bytes_end_in_nothing_but_a_value_or_an_error() -> None:
    chance = random.Random(7)
    for key, read in READERS.items():
        for _ in range(30):
            body = chance.randbytes(chance.randrange(200))
            try:
                by_reader(read, body)
            except ValueError:
                continue
            assert by_library(key, body) is not None
