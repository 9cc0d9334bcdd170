"""How a record is made unreadable."""

from typing import Final

_UNKNOWN: Final = bytes(range(8))


def damaged(value: bytes, damage: str) -> bytes:
    """The record's bytes with the damage of that name (one of `diary.DAMAGES`)."""
    match damage:
        case "truncated":
            return value[: len(value) // 2]
        case "unknown_schema":
            return value[:2] + _UNKNOWN + value[10:]
        case "wrong_magic":
            return b"\x7b" + value[1:]
        case "left_over":
            return value + b"\x00left over"
        case "empty":
            return b""
        case _:
            raise ValueError(damage)
