"""What the store knows of an outbox entry: which record of the log it comes from. The rest is the fold's and the relay's."""

import msgspec


class _Entry(msgspec.Struct, frozen=True, array_like=True):
    """The first element of an entry; what follows it is not looked at."""

    source_offset: int


_decoder = msgspec.msgpack.Decoder(_Entry)


def source_offset(entry: bytes) -> int:
    """The offset that the entry (a msgpack array) begins with. Raises msgspec.DecodeError."""
    return _decoder.decode(entry).source_offset
