"""What the store knows of an outbox entry: its record of the log. The rest concerns the fold and the relay."""

import msgspec


class _Entry(msgspec.Struct, frozen=True, array_like=True):
    """The first element of an entry; what follows it is not looked at."""

    source_offset: int


_decoder = msgspec.msgpack.Decoder(_Entry)


def source_offset(entry: bytes) -> int:
    """The offset that the entry (a msgpack array) begins with. Raises msgspec.DecodeError."""
    return _decoder.decode(entry).source_offset
