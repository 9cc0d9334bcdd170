"""The fold's values as the store's bytes, and back: msgpack arrays, except documents, which are bytes already."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec

from schemas.events import EVERY_BODY, Event
from services.medication_list.fold import Memory
from services.medication_list.fold.judgement import Effect, OrderDue
from services.medication_list.fold.state import (
    ALLERGIES,
    META,
    Allergies,
    HandOutPointer,
    Meta,
    PrescriptionState,
    Recall,
    Remembered,
    RenewalState,
    State,
    TreatmentState,
    Waiting,
    WaitingFact,
)
from services.medication_list.stored.answered import ANSWERED, Answered


class _PackedFact(msgspec.Struct, frozen=True, array_like=True):
    """A waiting fact; the name of its body tells how to read the event."""

    name: str
    event: msgspec.Raw
    offset: int
    digest: bytes


class _PackedWaiting(msgspec.Struct, frozen=True, array_like=True):
    """See Waiting."""

    facts: tuple[_PackedFact, ...]
    replacements: tuple[Recall, ...]


class WaitingEffect(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An effect as it waits in the outbox; the relay makes the record to send from it.

    `source_offset` stands first: the store reads it to leave out what was relayed before a loss. `patient` is the
    pseudonym that the sealed identity of an order is bound to, else None; it goes no further than the relay.
    `traceparent`: the header of the record that it comes from, where that one is traced.
    """

    source_offset: int
    patient: str | None
    due: Effect
    traceparent: bytes | None = None


_DOCUMENTS = ("signed", "handed", "recorded", "dosed")
_TYPES: Mapping[str, Any] = {
    "t": TreatmentState,
    "rx": PrescriptionState,
    "out": HandOutPointer,
    "claim": str,
    "request": RenewalState,
    ALLERGIES: Allergies,
    META: Meta,
    ANSWERED: Answered,
}
_encode = msgspec.msgpack.Encoder().encode
_EVENTS = {body.__name__: msgspec.msgpack.Decoder(Event[body]) for body in EVERY_BODY}  # type: ignore[valid-type]  # one decoder for each member of a closed union
_waiting_fields_decoder = msgspec.msgpack.Decoder(_PackedWaiting)
_memory_decoder = msgspec.msgpack.Decoder(Remembered)
_waiting_decoder = msgspec.msgpack.Decoder(WaitingEffect)
_NATURAL = ord("n")


def pack_field(value: State | Answered) -> bytes:
    """The bytes of a field's value."""
    kind = type(value)
    if kind is bytes:
        return cast("bytes", value)
    return _encode(_pack_waiting(cast("Waiting", value)) if kind is Waiting else value)


def unpack_field(field: str, packed: bytes) -> State:
    """A field's value; the field's name tells its type. Raises msgspec.DecodeError: the store holds what nobody wrote."""
    return _UNPACK[field.partition(":")[0]](packed)


def unpack_fields(fields: Mapping[str, bytes]) -> dict[str, State]:
    """A patient's hash as the fold's values. Raises msgspec.DecodeError."""
    return {name: unpack_field(name, packed) for name, packed in fields.items()}


def _pack_waiting(waiting: Waiting) -> _PackedWaiting:
    facts = (
        _PackedFact(type(fact.event.body).__name__, msgspec.Raw(_encode(fact.event)), fact.offset, fact.digest)
        for fact in waiting.facts
    )
    return _PackedWaiting(tuple(facts), waiting.replacements)


def _unpack_waiting(value: bytes) -> Waiting:
    packed = _waiting_fields_decoder.decode(value)
    facts = (WaitingFact(_EVENTS[fact.name].decode(fact.event), fact.offset, fact.digest) for fact in packed.facts)
    return Waiting(tuple(facts), packed.replacements)


def _unpack_document(value: bytes) -> bytes:
    return value


_UNPACK: Mapping[str, Callable[[bytes], State]] = {
    **{kind: msgspec.msgpack.Decoder(of).decode for kind, of in _TYPES.items()},
    **dict.fromkeys(_DOCUMENTS, _unpack_document),
    "waiting": _unpack_waiting,
}
"""How a field's value is read, by the first word of its name."""


def pack_memory(memory: Memory) -> bytes:
    """The bytes of what is remembered."""
    return memory if isinstance(memory, bytes) else _encode(memory)


def unpack_memory(key: bytes, packed: bytes) -> Memory:
    """What is remembered under a key: a digest for natural ids, else what became of an event."""
    return packed if key[0] == _NATURAL else _memory_decoder.decode(packed)


def pack_effect(source_offset: int, patient: str, effect: Effect, traceparent: bytes | None = None) -> bytes:
    """The bytes of an outbox entry: the record that an effect comes from, and whose it is if the relay needs to know."""
    whose = patient if type(effect) is OrderDue else None
    # One element less where nothing is traced; a relay of an older release overlooks the other one.
    return _encode(
        (source_offset, whose, effect) if traceparent is None else (source_offset, whose, effect, traceparent)
    )


def unpack_effect(packed: bytes) -> WaitingEffect:
    """An outbox entry. Raises msgspec.DecodeError."""
    return _waiting_decoder.decode(packed)
