"""The checked-in Avro schemas, the Python types and the released versions agree, and a break of that is named."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from fastavro.schema import fingerprint, to_parsing_canonical_form

from schemas import codec, compatibility
from schemas.derivation import contract


def checked_in(name: str) -> codec.Release:
    return codec.newest(name)


@pytest.mark.parametrize("name", sorted(contract()))
def test_the_newest_schema_of_a_type_is_what_its_python_type_says(name: str) -> None:
    assert checked_in(name).schema == contract()[name]


def test_every_checked_in_schema_belongs_to_a_type_and_every_type_has_one() -> None:
    assert {release.name for release in codec.releases()} == set(contract()) == set(codec.TYPES)


def test_versions_are_numbered_from_one_without_holes() -> None:
    for name in contract():
        versions = sorted(release.version for release in codec.releases() if release.name == name)
        assert versions == list(range(1, len(versions) + 1)), name


def test_every_released_version_reads_every_other() -> None:
    assert compatibility.breaks() == []


def body_of(schema: dict[str, Any]) -> list[dict[str, Any]]:
    body: list[dict[str, Any]] = next(field for field in schema["fields"] if field["name"] == "body")["type"]["fields"]
    return body


def field_of(fields: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(field for field in fields if field["name"] == name)


def change_type(schema: dict[str, Any]) -> None:
    field_of(body_of(schema), "refills")["type"] = "string"


def remove_field_without_default(schema: dict[str, Any]) -> None:
    fields = body_of(schema)
    fields.remove(field_of(fields, "quantity"))


def add_field_without_default(schema: dict[str, Any]) -> None:
    body_of(schema).append({"name": "hurry", "type": "string"})


def change_deep_inside(schema: dict[str, Any]) -> None:
    field_of(field_of(body_of(schema), "medication")["type"]["fields"], "form")["type"] = "long"


def change_what_the_bytes_mean(schema: dict[str, Any]) -> None:
    package = field_of(field_of(body_of(schema), "medication")["type"]["fields"], "product")["type"][0]
    quantity = field_of(package["fields"], "content")["type"][1]
    field_of(quantity["fields"], "value")["type"] = {
        "type": "bytes",
        "logicalType": "decimal",
        "precision": 15,
        "scale": 2,
    }


def change_a_date_to_a_number(schema: dict[str, Any]) -> None:
    field_of(body_of(schema), "valid_until")["type"] = "int"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (change_type, "PrescriptionIssued.body.refills"),
        (remove_field_without_default, "PrescriptionIssued.body.quantity"),
        (add_field_without_default, "PrescriptionIssued.body.hurry"),
        (change_deep_inside, "PrescriptionIssued.body.medication.form"),
        (change_what_the_bytes_mean, "PrescriptionIssued.body.medication.product.content.value"),
        (change_a_date_to_a_number, "PrescriptionIssued.body.valid_until"),
    ],
)
def test_a_breaking_change_is_caught_and_its_field_named(change: Callable[[dict[str, Any]], None], field: str) -> None:
    released = codec.newest("PrescriptionIssued")
    schema = copy.deepcopy(dict(released.schema))
    change(schema)
    found = compatibility.breaks([released, codec.Release(released.name, released.version + 1, schema, b"")])
    assert field in {each.field for each in found}, [str(each) for each in found]


def test_a_new_field_with_a_default_breaks_nothing() -> None:
    released = codec.newest("PrescriptionIssued")
    schema = copy.deepcopy(dict(released.schema))
    body_of(schema).append({"name": "hurry", "type": ["null", "string"], "default": None})
    assert compatibility.breaks([released, codec.Release(released.name, released.version + 1, schema, b"")]) == []


def test_every_version_is_compared_with_every_other_not_only_with_its_neighbour() -> None:
    released = codec.newest("PrescriptionIssued")
    back_again, between = copy.deepcopy(dict(released.schema)), copy.deepcopy(dict(released.schema))
    body_of(between).append({"name": "hurry", "type": ["null", "string"], "default": None})
    body_of(back_again).append({"name": "hurry", "type": ["null", "long"], "default": None})
    found = compatibility.breaks(
        [released, codec.Release(released.name, 2, between, b""), codec.Release(released.name, 3, back_again, b"")]
    )
    assert {(each.reader, each.writer) for each in found} == {(2, 3), (3, 2)}


def test_a_fingerprint_is_that_of_the_file_and_no_two_versions_share_one() -> None:
    marks: dict[str, str] = {}
    for path in sorted(codec.AVRO_FOLDER.glob("*/*.avsc")):
        mark = fingerprint(to_parsing_canonical_form(json.loads(path.read_text(encoding="utf-8"))), "CRC-64-AVRO")
        assert marks.setdefault(mark, str(path)) == str(path)
    assert {release.header[2:].hex() for release in codec.releases()} == set(marks)
