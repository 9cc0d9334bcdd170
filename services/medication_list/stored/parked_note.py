"""The note that a parked record is listed by, as the store keeps it beside its partition."""

import msgspec

from schemas.reasons import ParkReason


class ParkedNote(msgspec.Struct, frozen=True, array_like=True):
    """How a parked record is listed: why, whose (None: unknown), and since when."""

    reason: ParkReason
    patient: str | None
    at_ms: int
    schema: str | None = None
    closed: int | None = None
    """The offset of the event with which an operator closed it."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ParkedNote).decode


def pack_note(note: ParkedNote) -> bytes:
    """The bytes of a note."""
    return _encode(note)


def unpack_note(packed: bytes) -> ParkedNote:
    """What a parked record is listed by. Raises msgspec.DecodeError: also for a reason of a newer release."""
    return _decode(packed)
