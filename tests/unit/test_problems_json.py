"""JSON from strangers: what is none is refused as a whole, what no text or number may be is named with its pointer."""

import json
import re
import sys
from collections.abc import Iterator
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.reasons import DoorReason
from services.problems import MessageInvalid, MessageUnreadable, json_text, parse_json, pointer


def faults(body: bytes) -> set[tuple[str, str]]:
    with pytest.raises(MessageInvalid) as found:
        parse_json(body)
    return {(error.pointer, error.reason.value) for error in found.value.errors}


def refusal(body: bytes) -> MessageUnreadable:
    with pytest.raises(MessageUnreadable) as found:
        parse_json(body)
    return found.value


plain_text = st.text(alphabet=st.characters(blacklist_categories=("Cc", "Cs")))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | plain_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(plain_text, inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_well_formed_json_comes_through_unchanged(value: object) -> None:
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


def test_numbers_with_a_point_are_exact() -> None:
    assert parse_json(b'{"a": 0.1, "b": 1e3, "c": 7}') == {"a": Decimal("0.1"), "b": Decimal(1000), "c": 7}


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_a_body_nested_a_thousand_deep_is_refused_with_a_clear_text(opening: bytes) -> None:
    for depth in (33, 1_000, 20_000):
        error = refusal(opening * depth)
        assert error.reason is DoorReason.NESTED_TOO_DEEP
        assert "deeper than 32 levels" in str(error)


def test_brackets_inside_a_text_are_not_nesting() -> None:
    text = "[{" * 500 + '\\"'
    assert parse_json(json.dumps([text, text]).encode()) == [text, text]


def test_many_flat_values_are_not_nesting() -> None:
    value = [{"a": [1]}] * 1_000
    assert parse_json(json.dumps(value).encode()) == value


def test_nesting_up_to_the_limit_is_read() -> None:
    body = b"[" * 32 + b"]" * 32
    assert json.dumps(parse_json(body)).encode() == body


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"{]", b'{"a" 1}', b"{'a': 1}", b"nul", b'"a', b'{"a": 1}x', b'"\xff"', b"\xef\xbb\xbf{}", b'"a\nb"', b"\xed\xa0\x80", b'{"a": 01}'],
)  # fmt: skip
def test_what_is_no_json_is_refused_as_not_parseable(body: bytes) -> None:
    assert refusal(body).reason is DoorReason.NOT_PARSEABLE


@given(st.binary(max_size=60))
def test_no_bytes_at_all_break_it(body: bytes) -> None:
    try:
        parse_json(body)
    except (MessageUnreadable, MessageInvalid) as error:
        assert error.args  # noqa: PT017 - either outcome is right, anything else is not


def test_what_is_too_large_is_refused_before_it_is_read() -> None:
    assert refusal(b'"' + b"x" * 256 * 1024 + b'"').reason is DoorReason.TOO_LARGE


def test_a_refusal_repeats_nothing_of_the_message() -> None:
    assert "Morfin" not in str(refusal(b'{"name": "Morfin" "x"}'))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" * 301, "1." + "1" * 300])
def test_what_is_not_a_number_is_named_where_it_stands(number: str) -> None:
    body = f'{{"lines": [{{"quantity": 1}}, {{"quantity": {number}}}]}}'.encode()
    assert faults(body) == {("/lines/1/quantity", "not_a_number")}


def test_a_number_of_more_digits_than_python_converts_is_no_crash() -> None:
    assert faults(b"[" + b"9" * (sys.get_int_max_str_digits() + 1) + b"]") == {("/0", "not_a_number")}


def test_half_a_surrogate_pair_is_named_in_values_and_in_names() -> None:
    assert faults(rb'{"note": "a\ud800b", "x\udc00": [1]}') == {
        ("/note", "unpaired_surrogate"),
        ("", "unpaired_surrogate"),
    }


def test_a_whole_surrogate_pair_is_a_character() -> None:
    assert parse_json(rb'"\ud83d\udc8a"') == "\N{PILL}"


@pytest.mark.parametrize("code", [0x00, 0x08, 0x0B, 0x0C, 0x1F, 0x7F, 0x85, 0x9F])
def test_control_characters_are_named(code: int) -> None:
    assert faults(f'{{"a": ["x\\u{code:04x}"]}}'.encode()) == {("/a/0", "control_character")}


@pytest.mark.parametrize("code", [0x7F, 0x80, 0x85, 0x9F])
@pytest.mark.parametrize("form", ['["x%c"]', '[{"x%c": 1}]', '["\\u00e5", "%c"]'])
def test_control_characters_are_named_as_they_stand_too(form: str, code: int) -> None:
    ((_, reason),) = faults((form % code).encode())
    assert reason == "control_character"


texts = st.text(max_size=4)


@given(st.recursive(texts, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4)))
def test_control_characters_are_found_in_every_way_of_writing_them(value: object) -> None:
    has_fault = any(re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", text) for text in texts_in(value))
    for body in (json.dumps(value).encode(), json.dumps(value, ensure_ascii=False).encode()):
        if has_fault:
            assert faults(body)
        else:
            assert parse_json(body) == value


def texts_in(value: object) -> Iterator[str]:
    match value:
        case dict():
            yield from value
            yield from texts_in(list(value.values()))
        case list():
            for each in value:
                yield from texts_in(each)
        case str():
            yield value
        case _:
            return


def test_tab_and_line_ends_are_allowed_in_a_text() -> None:
    assert parse_json(rb'"a\tb\r\nc"') == "a\tb\r\nc"


def test_a_repeated_name_is_named() -> None:
    assert faults(b'{"a": {"b": 1, "b": 2, "d": 3}}') == {("/a/b", "duplicate_field")}


@pytest.mark.parametrize("name", ["02013299997", "b/c", "", "x" * 65, "\N{PILL}"])
def test_a_name_that_no_field_has_is_not_repeated_and_neither_is_what_it_holds(name: str) -> None:
    body = f'{{"a": {{"{name}": 1, "{name}": {{"b": ["\\u0001", "\\u0001", NaN]}}}}}}'.encode()
    assert faults(body) == {("/a", "duplicate_field"), ("/a", "control_character"), ("/a", "not_a_number")}


def test_all_faults_are_told_at_once() -> None:
    body = rb'{"a": NaN, "b": "\ud800\u0000", "c": [{"d": 1, "d": Infinity}]}'
    assert faults(body) == {
        ("/a", "not_a_number"),
        ("/b", "unpaired_surrogate"),
        ("/b", "control_character"),
        ("/c/0/d", "duplicate_field"),
        ("/c/0/d", "not_a_number"),
    }


def test_no_more_faults_are_told_than_one_answer_holds_each_once_and_in_its_order() -> None:
    with pytest.raises(MessageInvalid) as found:
        parse_json(json.dumps({"a": 1, "b": ["\u0001"] * 1_000}).encode())
    assert [error.pointer for error in found.value.errors] == [f"/b/{index}" for index in range(200)]


def test_a_long_name_is_in_no_pointer_however_much_it_holds() -> None:
    with pytest.raises(MessageInvalid) as found:
        parse_json(json.dumps({"x" * 10_000: ["\u0001"] * 1_000}).encode())
    assert [error.pointer for error in found.value.errors] == [""]


class Counted(str):
    """A name that counts how often it is compared with another."""

    __slots__ = ()
    compared = 0

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_repeated_names_are_found_in_one_pass_over_all_names() -> None:
    """29,600 names fit into a message; comparing each with each took seconds, in which a service answered nobody."""
    pairs: list[tuple[str, object]] = [(Counted(index), None) for index in (*range(1_000), 0)]
    assert json_text._Making().fields(pairs).repeated == ("0",)  # noqa: SLF001 - what the JSON reader calls
    assert Counted.compared < 3 * len(pairs)


def test_a_text_that_never_ends_is_read_once_and_its_brackets_are_no_nesting() -> None:
    """Each quotation mark in it was tried as the beginning of a text: 256 KiB of them took a service twenty minutes."""
    flat = b"[]" * 33
    assert refusal(flat + b'"' + b"[" * 1_000).reason is DoorReason.NOT_PARSEABLE
    assert refusal(flat + b'"' + rb"\"" * 1_000 + b"[" * 1_000).reason is DoorReason.NOT_PARSEABLE
    assert refusal(flat + b'"[[' + b"\\").reason is DoorReason.NOT_PARSEABLE


def test_a_pointer_escapes_what_the_standard_says() -> None:
    assert pointer(["a/b", 0, "m~n", ""]) == "/a~1b/0/m~0n/"
