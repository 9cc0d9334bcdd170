"""The contract's types at the HTTP edge: instants, numbers, and texts that look like them."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from schemas import golden
from schemas.codec import contract_types
from schemas.events import Quantity
from schemas.medication_list import MedicationList, ShownRecall, ShownUse, Who
from services.admission.plain import plain_of
from services.medication_list.fold.state import META, Meta, State
from services.medication_list.read_api.list_answer import answered, stood
from services.medication_list.read_api.presenting import to_json
from services.medication_list.read_api.view import show
from services.serving.documents import schemas_of

WHO = Who(organisation="974760673", role="doctor")


class _Holding(msgspec.Struct, frozen=True):
    """A number and a text, as many of the contract's types hold them."""

    value: Decimal
    text: str
    moved_at_ms: int
    last: Decimal


def _read(made: bytes) -> Any:
    return json.loads(made, parse_float=Decimal, parse_int=Decimal)


def _plain(value: Any) -> Any:
    """What JSON holds, of builtins: numbers as Decimal, dates as text."""
    match value:
        case dict():
            return {name: _plain(each) for name, each in value.items() if each is not None}
        case list() | tuple():
            return [_plain(each) for each in value]
        case bool() | None | str():
            return value
        case date():
            return value.isoformat()
        case int() | Decimal():
            return Decimal(value)
        case _:
            raise TypeError(type(value))


def test_instants_are_rfc_3339_under_the_name_without_the_unit() -> None:
    recall = ShownRecall(reason="other", by=WHO, at_ms=1_772_442_000_123, from_on=date(2026, 3, 4))
    assert json.loads(to_json(recall)) == {
        "reason": "other",
        "by": {"organisation": "974760673", "role": "doctor"},
        "at": "2026-03-02T09:00:00.123Z",
        "from_on": "2026-03-04",
    }


def test_numbers_are_written_exactly_and_without_idle_zeros() -> None:
    written = {"100.0000": b"100", "0.5000": b"0.5", "0.0001": b"0.0001", "0": b"0", "0.0000": b"0", "-1.50": b"-1.5"}
    for given_as, shown in written.items():
        assert to_json(Quantity(value=Decimal(given_as), unit="tablet")) == b'{"value":%b,"unit":"tablet"}' % shown


def test_a_text_that_looks_like_a_field_stays_as_it_was_sent() -> None:
    note = 'she wrote "at_ms":1772442000123, and "value":1.0000, then x_ms":5} and a":2.50, b'
    assert json.loads(to_json(ShownUse(use="otherwise", by="patient", at_ms=0, note=note)))["note"] == note


@given(st.text(), st.decimals(places=4, min_value=0, max_value=10**6), st.integers(0, 4_000_000_000_000))
def test_whatever_is_shown_means_what_it_meant(text: str, value: Decimal, at_ms: int) -> None:
    held = _Holding(value, text, at_ms, -value)
    assert _read(to_json(held)) == _plain(plain_of(held))


@given(st.text(alphabet='"\\:,_}ms atx01.', max_size=40))
def test_no_text_can_pass_for_a_field(text: str) -> None:
    held = _Holding(Decimal("1.5000"), text, 0, Decimal(2))
    assert _read(to_json([held, {"a": held}]))[0]["text"] == text


def test_every_event_of_the_contract_is_shown_as_the_door_would_take_it() -> None:
    seen = 0
    for name in contract_types():
        for message in golden.newest_of(name).values():
            if b'"identity":' in msgspec.json.encode(message):
                continue  # bytes: never shown
            assert _plain(_read(to_json(message))) == _plain(plain_of(message)), name
            seen += 1
    assert seen > 30


def test_an_empty_list_says_what_is_empty() -> None:
    stands = stood("g1-aaaaaa", 3, 0, None, {})
    shown = json.loads(to_json(answered(MedicationList(version=-1), stands, as_of_ms=0, read_token=None)))
    assert shown["treatments"] == shown["allergies"] == []
    assert (shown["allergy_status"], shown["complete"], shown["incomplete_since"]) == ("not_asked", True, None)
    assert shown["as_of"] == "1970-01-01T00:00:00.000Z"


def test_an_incomplete_list_says_since_when() -> None:
    fields: dict[str, State] = {META: Meta(version=3, incomplete_since_ms=1_772_442_000_000)}
    stands = stood("g1-aaaaaa", 3, 5, 1_772_442_001_000, fields)
    shown = json.loads(to_json(answered(show(fields, 0), stands, as_of_ms=0, read_token=None)))
    assert (shown["complete"], shown["incomplete_since"]) == (False, "2026-03-02T09:00:00.000Z")
    assert (shown["position"], shown["position_recorded_at"]) == ("3-4", "2026-03-02T09:00:01.000Z")
    assert shown["generation"] == "g1-aaaaaa"


def test_the_schemas_say_what_is_shown() -> None:
    schemas = schemas_of([ShownRecall, Quantity, MedicationList])
    assert schemas["ShownRecall"]["properties"]["at"] == {"type": "string", "format": "date-time"}
    assert "at" in schemas["ShownRecall"]["required"]
    assert schemas["Quantity"]["properties"]["value"] == {"type": "number"}
    assert {"type": "null"} in schemas["MedicationList"]["properties"]["incomplete_since"]["anyOf"]
    assert "_ms" not in json.dumps({name: list(each.get("properties", ())) for name, each in schemas.items()})
