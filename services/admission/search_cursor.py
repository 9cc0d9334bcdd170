"""The cursor of a pharmacy's search: the medication list makes it, and the door rejects a malformed one."""

from __future__ import annotations

import base64
import binascii
from typing import NamedTuple


class InvalidCursor(ValueError):  # noqa: N818 - named for what is wrong
    """A text that no page ever held as a cursor."""


class SearchPlace(NamedTuple):
    """Where a page ends, newest-signed first: when its last prescription was signed, and which it is."""

    issued_at_ms: int
    prescription: str


def cursor_of(place: SearchPlace) -> str:
    """An opaque text that leads to what comes after."""
    text = f"{place.issued_at_ms}/{place.prescription}"
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode("ascii")


def place_after(cursor: str) -> SearchPlace:
    """Where the page ended that held this cursor. Raises InvalidCursor."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
        at_ms, prescription = text.split("/")
        return SearchPlace(int(at_ms), prescription)
    except (binascii.Error, ValueError):
        raise InvalidCursor("not a cursor of ours") from None
