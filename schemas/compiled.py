"""Reads Avro bodies with code made from the schema: one straight function for each contract type, no walk at run time.

The library's reader visits the schema again for each record, and builds a mapping that is then converted to the type;
at some twenty microseconds that was the largest share of what an event costs the processor. This builds the type at
once, in less than half the time (`tests/benchmark/bench_codec.py`). It reads what the library writes, bit for bit, and a
test holds the two equal on every golden record, on generated values, and on damaged bytes.
"""

import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from functools import lru_cache
from itertools import groupby
from typing import Any

Reader = Callable[[bytes, int], tuple[Any, int]]
"""(bytes, where the body begins) -> (the message, where it ends). Raises ValueError or IndexError on damaged bytes."""

_EPOCH_DAY = date(1970, 1, 1).toordinal()
_LONGEST = 63
"""Bits of the last byte of a long."""
_INSTANT_BYTES = 6
"""Of a time in milliseconds between 2004 and 2527."""
_MORE_FOLLOWS = 0x80 * (1 + (1 << 7) + (1 << 14) + (1 << 21) + (1 << 28))
_LONG_RUN = 3
"""So many fields that may be left out are worth a look at all of them at once."""
_PLACES = -4
_TOO_MANY_DIGITS = 10**15
_DEEPEST = 20


def reader_of(schema: Mapping[str, Any], message_type: Any) -> Reader:
    """The reader of one version of a contract type. A field that this version lacks gets the type's default.

    Raises TypeError when the schema holds what the contract never uses (maps, floats, fixed).
    """
    maker = _Maker()
    made = maker.value(schema, message_type, 1)
    source = "\n".join(["def read(b, i):", "    s = b.decode('latin-1')", *maker.lines, f"    return {made}, i"])
    names: dict[str, Any] = {"long": _long, "size": _size, "decimal": _decimal, "day": date.fromordinal, **maker.types}
    exec(compile(source, f"<reader of {schema['name']}>", "exec"), names)  # noqa: S102 - our own text, made from our own schema
    reader: Reader = names["read"]
    return reader


def _long(b: bytes, i: int) -> tuple[int, int]:
    """A zigzag number of any length. Most are instants, of six bytes."""
    instant = b[i : i + _INSTANT_BYTES]
    if len(instant) == _INSTANT_BYTES and instant[5] < 0x80:  # noqa: PLR2004 - the bit that says: more follows
        c, d, e, f, g, h = instant
        if c & d & e & f & g & 0x80 and not c & 1:
            # Each of the first five has the bit that says: more follows. An even number is twice what it stands for.
            twice = c + (d << 7) + (e << 14) + (f << 21) + (g << 28) + (h << 35) - _MORE_FOLLOWS
            return twice >> 1, i + _INSTANT_BYTES
    value, shift = 0, 0
    while True:
        byte = b[i]
        i += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the bit that says: more follows
            return (value >> 1) ^ -(value & 1), i
        shift += 7
        if shift > _LONGEST:
            raise ValueError("a number without an end")


def _size(b: bytes, i: int) -> tuple[int, int]:
    """The length of what follows, which must all be there."""
    size, i = _long(b, i)
    if not 0 <= size <= len(b) - i:
        raise ValueError("a length that cannot be")
    return size, i


@lru_cache(maxsize=4096)
def _decimal(unscaled: bytes) -> Decimal:
    """Quantities repeat: 1, 100, 0.5. More digits than the contract's precision are no number of ours."""
    value = int.from_bytes(unscaled, "big", signed=True)
    if abs(value) >= _TOO_MANY_DIGITS:
        raise ValueError("more digits than the contract allows")
    return Decimal(value).scaleb(_PLACES)


class _Maker:
    """Writes the lines of one reader. Names of its variables are v1, v2, ...; `b` is the bytes, `i` the place."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.types: dict[str, Any] = {}
        self._variables = 0
        self._records: dict[str, Mapping[str, Any]] = {}

    def value(self, schema: Any, hint: Any, depth: int) -> str:
        """Add the lines that read a value; returns the variable that holds it."""
        if depth > _DEEPEST:
            raise TypeError("a type within itself cannot be read by straight code")
        if isinstance(schema, str) and schema in self._records:
            schema = self._records[schema]
        if isinstance(schema, list):
            return self._union(schema, hint, depth)
        kind = schema if isinstance(schema, str) else schema["type"]
        logical = None if isinstance(schema, str) else schema.get("logicalType")
        match kind:
            case "record":
                return self._record(schema, hint, depth)
            case "array":
                return self._array(schema, hint, depth)
            case "string" | "bytes":
                return self._sized(kind, logical, depth)
            case "long" | "int":
                return self._number(logical, depth)
            case "boolean" | "enum":
                return self._byte(kind, depth)
            case _:
                raise TypeError(f"no contract type holds a {kind}")

    def _say(self, depth: int, *lines: str) -> None:
        self.lines += ["    " * depth + line for line in lines]

    def _variable(self) -> str:
        self._variables += 1
        return f"v{self._variables}"

    def _sized(self, kind: str, logical: str | None, depth: int) -> str:
        made = self._variable()
        shown = {"string": "s[i:j]", "bytes": "b[i:j]"}[kind]
        if logical == "decimal":
            shown = "decimal(b[i:j])"
        self._say(
            depth,
            "n = b[i]",
            "if n & 0x81: n, j = size(b, i); i = j; j += n",  # long or negative
            # What would reach past the end comes out too short, and is found out where the record should end.
            "else: i += 1; j = i + (n >> 1)",
            f"{made} = {shown}",
        )
        if kind == "string":
            # Nearly all are ASCII, and so a slice of the record, which was made a text as a whole.
            self._say(depth, f"if not {made}.isascii(): {made} = b[i:j].decode()")
        self._say(depth, "i = j")
        return made

    def _number(self, logical: str | None, depth: int) -> str:
        made = self._variable()
        self._say(
            depth,
            f"{made} = b[i]",
            f"if {made} < 0x80: {made} = {made} >> 1 ^ -({made} & 1); i += 1",
            f"else: {made}, i = long(b, i)",
        )
        if logical == "date":
            self._say(depth, f"{made} = day({made} + {_EPOCH_DAY})")
        return made

    def _byte(self, kind: str, depth: int) -> str:
        """A boolean; or the one symbol of an enum that tells the product kinds apart, whose type says it anyway."""
        made = self._variable()
        least = "1" if kind == "boolean" else "0"
        self._say(depth, f"{made} = b[i] == 1", f"if b[i] > {least}: raise ValueError", "i += 1")
        return made if kind == "boolean" else ""

    def _array(self, schema: Mapping[str, Any], hint: Any, depth: int) -> str:
        made, left = self._variable(), self._variable()
        count = (f"{left} = b[i]", f"if {left} & 0x81: {left}, i = long(b, i)", f"else: {left} >>= 1; i += 1")
        self._say(depth, f"{made} = ()")
        self._say(depth, "if b[i] == 0: i += 1", "else:")
        depth += 1
        self._say(depth, f"{made} = []", *count, f"while {left}:")
        self._say(depth + 1, f"if {left} < 0: {left} = -{left}; n, i = size(b, i)", f"for _ in range({left}):")
        item = self.value(schema["items"], typing.get_args(hint)[0], depth + 2)
        self._say(depth + 2, f"{made}.append({item})")
        self._say(depth + 1, *count)
        self._say(depth, f"{made} = tuple({made})")
        return made

    def _union(self, schema: list[Any], hint: Any, depth: int) -> str:
        """Which member follows is said by its place in the schema; its type is found by the record's name."""
        made = self._variable()
        of_name = {getattr(each, "__name__", ""): each for each in _members(hint)}
        self._say(depth, "n = b[i]; i += 1")
        for place, member in enumerate(schema):
            self._say(depth, f"{'if' if place == 0 else 'elif'} n == {2 * place}:")
            if member == "null":
                self._say(depth + 1, f"{made} = None")
                continue
            name = member["name"] if isinstance(member, dict) and member["type"] == "record" else ""
            found = self.value(member, of_name.get(name, _members(hint)[0]), depth + 1)
            self._say(depth + 1, f"{made} = {found}")
        self._say(depth, "else: raise ValueError")
        return made

    def _run(self, fields: Sequence[Mapping[str, Any]], hints: Sequence[Any], depth: int) -> list[str]:
        """Fields in order. Most of what may be left out is: then each is a zero byte, and one look tells it of all."""
        pairs = list(zip(fields, hints, strict=True))
        if len(fields) < _LONG_RUN:
            return [self.value(each["type"], hint, depth) for each, hint in pairs]
        at = len(self.lines)
        made = [self.value(each["type"], hint, depth + 1) for each, hint in pairs]
        self.types[f"zeros{len(fields)}"] = bytes(len(fields))
        lines, self.lines = self.lines[at:], self.lines[:at]
        self._say(depth, f"if b.startswith(zeros{len(fields)}, i):")
        self._say(depth + 1, *(f"{v} = {_lacking(f['type'])}" for f, v in zip(fields, made, strict=True)))
        self._say(depth + 1, f"i += {len(fields)}")
        self._say(depth, "else:")
        self.lines += lines
        return made

    def _record(self, schema: Mapping[str, Any], hint: Any, depth: int) -> str:
        made, of = self._variable(), typing.get_origin(hint) or hint
        self._records[schema["name"]] = self._records[f"medchain.{schema['name']}"] = schema
        self.types[of.__name__] = of
        hints = typing.get_type_hints(of)
        parameters = dict(zip(getattr(of, "__parameters__", ()), typing.get_args(hint), strict=False))
        said = []
        for run in _runs(schema["fields"]):
            found = self._run(run, [_filled(hints.get(each["name"]), parameters) for each in run], depth)
            said += [f"{f['name']}={v}" for f, v in zip(run, found, strict=True) if v and f["name"] in hints]
        self._say(depth, f"{made} = {of.__name__}({', '.join(said)})")
        return made


def _runs(fields: Sequence[Mapping[str, Any]]) -> Iterator[Sequence[Mapping[str, Any]]]:
    """The fields in order, those together that follow one another and may all be left out; others alone."""
    for may_lack, run in groupby(fields, key=lambda each: _lacking(each["type"]) is not None):
        together = list(run)
        yield from [together] if may_lack and len(together) >= _LONG_RUN else ([each] for each in together)


def _lacking(schema: Any) -> str | None:
    """What a value of this schema is when its first byte is zero and nothing follows; None where that says more."""
    if isinstance(schema, list):
        return "None" if schema[0] == "null" else None
    kind = schema if isinstance(schema, str) else schema["type"]
    return {"boolean": "False", "array": "()"}.get(kind)


def _members(hint: Any) -> tuple[Any, ...]:
    """The members of a union apart from None; a type that is no union is its own."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return tuple(each for each in typing.get_args(hint) if each is not type(None))
    return (hint,)


def _filled(hint: Any, parameters: Mapping[Any, Any]) -> Any:
    """A hint with the type that a generic parameter stands for."""
    if hint in parameters:
        return parameters[hint]
    if typing.get_origin(hint) is tuple and typing.get_args(hint)[0] in parameters:
        return tuple[parameters[typing.get_args(hint)[0]], ...]  # type: ignore[misc]  # made of a type known at run time
    return hint
