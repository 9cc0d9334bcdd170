"""What differs between one patient in two generations, as kinds that many patients share, each with before and after."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from services.medication_list.fold.remembering import EVENT, recollect
from services.medication_list.fold.state import META, Meta, Remembered
from services.medication_list.store.inventory import Flat, Sides
from services.medication_list.stored.packing import unpack_field, unpack_memory

MISSING: Final = "(nothing)"
HIDDEN: Final = "(hidden)"
_PLACES: Final = (["version"], ["position"], ["moved_otherwise"])
"""What of a patient's `meta` is a place in the log; the rest, such as a death, is the patient's."""
_NAMES: Final = {"t": "treatment", "rx": "prescription", "out": "hand-out", "signed": "document of a prescription"}


class Difference(NamedTuple):
    """One difference. `kind` holds no value; before and after do, and `is_clinical` says whether they are a patient's."""

    kind: str
    before: str
    after: str
    is_clinical: bool = False

    def told(self, *, show: bool) -> tuple[str, str]:
        """Before and after, as far as they may be shown."""
        return (self.before, self.after) if show or not self.is_clinical else (HIDDEN, HIDDEN)


def last_position(sides: Sides) -> int:
    """The offset after the last event of the patient that either generation knows."""
    return max(position(sides.one), position(sides.other))


def position(fields: Flat) -> int:
    """The offset after the last event of the patient that this generation knows; 0 where it knows none."""
    packed = fields.get(META.encode())
    if packed is None:
        return 0
    meta = unpack_field(META, packed)
    assert isinstance(meta, Meta), "the field's name tells its type"
    return meta.position


def differences(sides: Sides) -> Iterator[Difference]:
    """Everything in which a patient differs; the same kind may come several times."""
    for name in sorted(sides.one.keys() | sides.other.keys()):
        before, after = sides.one.get(name), sides.other.get(name)
        if before != after:
            yield from _of_field(name.decode(), before, after)
    for key in sorted(sides.one_index.keys() | sides.other_index.keys()):
        before, after = sides.one_index.get(key), sides.other_index.get(key)
        if before != after:
            yield _of_event(key, before, after)


def _of_field(name: str, before: bytes | None, after: bytes | None) -> Iterator[Difference]:
    kind = name.partition(":")[0]
    kind = _NAMES.get(kind, kind)
    if before is None or after is None:
        yield Difference(f"{kind} {'only after' if before is None else 'only before'}", *_presence(before, after))
        return
    try:
        one, other = _plain(unpack_field(name, before)), _plain(unpack_field(name, after))
    except (msgspec.MsgspecError, KeyError, ValueError):
        one, other = before.hex(), after.hex()
    for path, was, now in _leaves(one, other, ""):
        yield Difference(f"{kind}{path}", str(was), str(now), name != META or path.split(".")[1:2] not in _PLACES)


def _of_event(key: bytes, before: bytes | None, after: bytes | None) -> Difference:
    if key[:1] != EVENT or before is None or after is None:
        kind = "event" if key[:1] == EVENT else "natural id or parked record"
        return Difference(f"{kind} {_where(before, after)}", *_presence(before, after))
    was, now = _verdict(key, before), _verdict(key, after)
    return Difference(f"outcome: {was} -> {now}" if was != now else "event: what is remembered", was, now)


def _where(before: bytes | None, after: bytes | None) -> str:
    if before is None:
        return "only after"
    return "only before" if after is None else "otherwise"


def _presence(before: bytes | None, after: bytes | None) -> tuple[str, str]:
    return (MISSING if before is None else "there", MISSING if after is None else "there")


def _verdict(key: bytes, packed: bytes) -> str:
    """An outcome with its reason and flags: words of the rules, nothing of the patient."""
    try:
        known = unpack_memory(key, packed)
        assert isinstance(known, Remembered), "an event is remembered with its outcome"
        verdict = recollect(known)
    except (msgspec.MsgspecError, ValueError, KeyError):
        return "parked or unreadable"
    reason = f"({verdict.reason})" if verdict.reason else ""
    flags = f" [{', '.join(sorted(str(flag) for flag in verdict.flags))}]" if verdict.flags else ""
    return f"{verdict.outcome}{reason}{flags}"


def _plain(value: Any) -> Any:
    """A value with the names of its fields."""
    if isinstance(value, msgspec.Struct):
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list | set | frozenset):
        return [_plain(each) for each in value]
    return value.hex() if isinstance(value, bytes) else value


def _leaves(one: Any, other: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """The parts that differ, each by its path; elements of a list share one."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for name in one:
            yield from _leaves(one[name], other[name], f"{path}.{name}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for mine, its in zip(one, other, strict=True):
            yield from _leaves(mine, its, f"{path}[]")
    elif one != other:
        yield path, one, other
