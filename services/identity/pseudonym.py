"""The only place where a patient's pseudonym is made: the key of the log, of the store, and of every lookup.

A patient with two numbers (a D-number, later a fødselsnummer) has two pseudonyms today. Aliases come here: this
module will be asked for the pseudonym of a number and answer with that of the patient's first one.
"""

from __future__ import annotations

import hashlib
from typing import Final

from services.identity.national_id import NationalId

PSEUDONYM_BYTES: Final = 16
PSEUDONYM_CHARACTERS: Final = 32
_KEY_BYTES: Final = range(32, 65)


class Pseudonymiser:
    """Makes pseudonyms with one secret key. Another key gives other pseudonyms, so the key must be kept as long as the log."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) not in _KEY_BYTES:
            raise ValueError("the pseudonym key must have 32 to 64 bytes")
        self._key = key

    def patient_key(self, national_id: NationalId) -> str:
        """The patient's pseudonym: keyed BLAKE2b of the digits, 128 bits, as 32 lower-case hexadecimal characters."""
        digest = hashlib.blake2b(
            national_id.digits.encode("ascii"), key=self._key, digest_size=PSEUDONYM_BYTES, person=b"medchain-patient"
        )
        return digest.hexdigest()
