"""A patient's identity, sealed so that it can travel in an event and be opened only for the pharmacy that needs it.

AES-256-GCM, bound to the patient's pseudonym: bytes moved to another patient's event do not open. The same identity
seals to the same bytes (the nonce is derived from key, patient and content), because a sender that repeats an event
must repeat its content; equal bytes reveal no more than the pseudonym beside them.
"""

from __future__ import annotations

import hmac
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.identity.national_id import NationalId

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_LAST_KEY_ID: Final = 255


class SealBroken(Exception):  # noqa: N818 - named for what is wrong
    """Sealed bytes cannot be opened: an unknown key, another patient's, or not what was sealed."""


@dataclass(frozen=True, slots=True, repr=False)
class SealedIdentityContent:
    """What is inside: the number, and the name as a person writes it (any script, kept in NFC)."""

    national_id: NationalId
    name: str

    def __repr__(self) -> str:
        return "SealedIdentityContent(***)"


class _Inside(msgspec.Struct, array_like=True, frozen=True):
    digits: str
    name: str


class Sealer:
    """Seals with one key and opens with that or an older one; the first byte says which."""

    def __init__(self, key: bytes, *, key_id: int = 1, older: Mapping[int, bytes] | None = None) -> None:
        """`key` and the `older` ones have 32 bytes each; ids lie in 0..255 and are never used again."""
        keys = {**(older or {}), key_id: key}
        if any(len(each) != _KEY_BYTES for each in keys.values()):
            raise ValueError("a sealing key must have 32 bytes")
        if not all(0 <= each <= _LAST_KEY_ID for each in keys) or key_id in (older or {}):
            raise ValueError("key ids lie in 0..255, and each has one key")
        self._key_id = key_id
        self._keys = {each: (_derived(secret, b"encrypt"), _derived(secret, b"nonce")) for each, secret in keys.items()}

    def seal(self, identity: SealedIdentityContent, bound_to: str) -> bytes:
        """Key id (1 byte), nonce (12), cipher text and tag; `bound_to` is the patient's pseudonym."""
        inside = _Inside(identity.national_id.digits, unicodedata.normalize("NFC", identity.name))
        plain = msgspec.msgpack.encode(inside)
        encrypting, nonce_making = self._keys[self._key_id]
        bound = _bound(self._key_id, bound_to)
        nonce = hmac.digest(nonce_making, len(bound).to_bytes(4, "big") + bound + plain, "sha256")[:_NONCE_BYTES]
        return bytes([self._key_id]) + nonce + AESGCM(encrypting).encrypt(nonce, plain, bound)

    def open(self, sealed: bytes, bound_to: str) -> SealedIdentityContent:
        """What was sealed for this patient. Raises SealBroken, which tells nothing of the content."""
        if len(sealed) < 1 + _NONCE_BYTES + _TAG_BYTES:
            raise SealBroken("the sealed identity is too short")
        if sealed[0] not in self._keys:
            raise SealBroken(f"there is no sealing key with id {sealed[0]}")
        encrypting, _ = self._keys[sealed[0]]
        nonce, cipher_text = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            plain = AESGCM(encrypting).decrypt(nonce, cipher_text, _bound(sealed[0], bound_to))
        except InvalidTag:
            raise SealBroken("the sealed identity does not belong here, or was changed") from None
        inside = msgspec.msgpack.decode(plain, type=_Inside)
        return SealedIdentityContent(NationalId.parse(inside.digits), inside.name)


def _derived(secret: bytes, purpose: bytes) -> bytes:
    """One key for each purpose, so that the nonce tells nothing of the encryption."""
    return hmac.digest(secret, b"medchain-identity-" + purpose, "sha256")


def _bound(key_id: int, bound_to: str) -> bytes:
    return bytes([key_id]) + bound_to.encode("utf-8")
