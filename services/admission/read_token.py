"""The read token: signed by the medication list on reading, and sent back by a doctor to confirm exactly that list."""

from __future__ import annotations

import base64
import binascii
import hmac
import struct
from typing import Final, NamedTuple

NO_WHOLE_LIST: Final = -2
"""The version that a confirmation bears where the list that was read was not whole. No list has it: -1 is before any event.

A record that lay parked takes effect at its old offset once it can be judged, so the list that lacked it and the list
that has it can be of one version. Only by a version of no list at all is the confirmation refused either way.
"""
_WHOLE: Final = 1
_INCOMPLETE: Final = 2
"""The form says whether the list was whole. A release from before there were two forms turns the second one away."""
_LAYOUT: Final = struct.Struct(">Bqq")
_MAC_BYTES: Final = 24
_PURPOSE: Final = b"medchain-read-token"


class InvalidReadToken(ValueError):  # noqa: N818 - named for what is wrong
    """A token that was not made here, was changed, or was made for another patient."""


class ReadToken(NamedTuple):
    """Which list was read: its version, when (milliseconds since the epoch, UTC), and whether nothing of it was parked."""

    version: int
    read_at_ms: int
    is_whole: bool

    @property
    def confirmed_version(self) -> int:
        """The version that is confirmed with it: of a list that was not whole, none."""
        return self.version if self.is_whole else NO_WHOLE_LIST


class ReadTokens:
    """Makes and verifies read tokens with one secret key (32 bytes or more)."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) < 32:  # noqa: PLR2004 - 256 bits
            raise ValueError("the read token key must have at least 32 bytes")
        self._key = key

    def make(self, patient: str, version: int, read_at_ms: int, *, is_whole: bool) -> str:
        """An opaque token for this patient (a pseudonym), who is only signed; see ReadToken for what it holds."""
        content = _LAYOUT.pack(_WHOLE if is_whole else _INCOMPLETE, version, read_at_ms)
        return base64.urlsafe_b64encode(content + self._mac(patient, content)).rstrip(b"=").decode("ascii")

    def verify(self, patient: str, token: str) -> ReadToken:
        """What the token says, if it was made with our key for this patient. Its age is for the fold to judge.

        Raises:
            InvalidReadToken: it was not.
        """
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise InvalidReadToken("the token is not one of ours") from None
        content, mac = raw[: _LAYOUT.size], raw[_LAYOUT.size :]
        if len(content) != _LAYOUT.size or not hmac.compare_digest(mac, self._mac(patient, content)):
            raise InvalidReadToken("the token is not one of ours")
        form, version, read_at_ms = _LAYOUT.unpack(content)
        if form not in (_WHOLE, _INCOMPLETE):
            raise InvalidReadToken("the token has another form")
        return ReadToken(version, read_at_ms, is_whole=form == _WHOLE)

    def _mac(self, patient: str, content: bytes) -> bytes:
        return hmac.digest(self._key, _PURPOSE + patient.encode("utf-8") + content, "sha256")[:_MAC_BYTES]
