"""FULL_TRANSITIVE compatibility: every released version of a type reads what every other version of it wrote.

`python -m schemas.compatibility` says where a version breaks it, and exits 1.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby, permutations
from typing import Any

from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from avro.schema import parse
from msgspec import Struct

from schemas import codec


class Break(Struct, frozen=True):
    """One field (a path such as `PrescriptionIssued.body.refills`) that `reader` cannot read from `writer`, and why."""

    name: str
    reader: int
    writer: int
    field: str
    why: str

    def __str__(self) -> str:
        return f"{self.name}: version {self.reader} cannot read version {self.writer}: {self.field}: {self.why}"


def breaks(released: Iterable[codec.Release] | None = None) -> list[Break]:
    """Where any version of a type cannot read any other version of it, in either direction."""
    versions = sorted(codec.releases() if released is None else released, key=lambda each: (each.name, each.version))
    return [
        found
        for _, group in groupby(versions, key=lambda release: release.name)
        for reader, writer in permutations(group, 2)
        for found in _between(reader, writer)
    ]


def _between(reader: codec.Release, writer: codec.Release) -> Iterator[Break]:
    checker = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]  # the library has no types here
    judged = checker.get_compatibility(parse(json.dumps(reader.schema)), parse(json.dumps(writer.schema)))
    if judged.compatibility is not SchemaCompatibilityType.compatible:
        # The library gives places and messages as two sets, and the root as a place of every trouble.
        why = "; ".join(sorted(judged.messages))
        for place in sorted(judged.locations - {"/"}) or ["/"]:
            yield Break(reader.name, reader.version, writer.version, field_at(reader.schema, place), why)
    for field, why in _reinterpreted(reader.schema, writer.schema, reader.name):
        yield Break(reader.name, reader.version, writer.version, field, why)


def _reinterpreted(reader: Any, writer: Any, path: str) -> Iterator[tuple[str, str]]:
    """Fields whose bytes would be read, but mean something else: the library does not look at logical types."""
    if isinstance(reader, list) and isinstance(writer, list):
        for ours, theirs in zip(reader, writer, strict=False):
            yield from _reinterpreted(ours, theirs, path)
    reader, writer = _described(reader), _described(writer)
    for key in ("logicalType", "scale", "precision"):
        if reader.get(key) != writer.get(key):
            yield path, f"{key} is {reader.get(key)} here and {writer.get(key)} there"
    theirs_by_name = {field["name"]: field for field in writer.get("fields", ())}
    for field in reader.get("fields", ()):
        if field["name"] in theirs_by_name:
            yield from _reinterpreted(field["type"], theirs_by_name[field["name"]]["type"], f"{path}.{field['name']}")
    if "items" in reader and "items" in writer:
        yield from _reinterpreted(reader["items"], writer["items"], path)


def _described(schema: Any) -> Mapping[str, Any]:
    return schema if isinstance(schema, Mapping) else {}


def field_at(schema: Mapping[str, Any], place: str) -> str:
    """The dotted names of the fields on the way to a JSON pointer into a schema, after the schema's own name."""
    names, here = [str(schema["name"])], _as_any(schema)
    for step in (step for step in place.split("/") if step):
        try:
            here = here[int(step)] if isinstance(here, list) else here[step]
        except (KeyError, IndexError, TypeError):
            break  # the library points into a named type from where it is used, which may be elsewhere in the file
        if isinstance(here, Mapping) and "name" in here and here.get("type") not in ("record", "enum"):
            names.append(str(here["name"]))
    return ".".join(names)


def _as_any(value: object) -> Any:
    return value


if __name__ == "__main__":
    found = breaks()
    for each in found:
        print(each)  # noqa: T201  a command that answers on the terminal
    sys.exit(1 if found else 0)
