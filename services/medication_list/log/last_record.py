"""The mark by which a worker checks that the log still holds, at its offset, the record judged last."""

from hashlib import blake2b

from services.medication_list.log.record import Record

_DIGEST_BYTES = 8


def mark_of(record: Record) -> bytes:
    """Offset, the broker's time, and a digest of key and value: another record at the same offset has another mark."""
    digest = blake2b(record.key or b"", digest_size=_DIGEST_BYTES)
    digest.update(b"\0")
    digest.update(record.value or b"")
    return b"%d %d %s" % (record.offset, record.timestamp, digest.hexdigest().encode())


def offset_in(mark: bytes) -> int:
    """The offset of a mark's record."""
    return int(mark.partition(b" ")[0])


def recorded_at_ms_in(mark: bytes) -> int:
    """When the broker took a mark's record."""
    return int(mark.split(b" ", 2)[1])
