"""Pseudonyms and sealed identities: the same patient, recognisable; the person, only with the key."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.identity.national_id import NationalId, synthetic
from services.identity.pseudonym import Pseudonymiser
from services.identity.sealing import SealBroken, SealedIdentityContent, Sealer

KEY = bytes(range(32))
OTHER_KEY = bytes(range(1, 33))
PATIENT = Pseudonymiser(KEY).patient_key(synthetic(1))
IDENTITY = SealedIdentityContent(synthetic(1), "Kari Nordmann")


def test_a_pseudonym_is_32_lower_case_hexadecimal_characters() -> None:
    assert len(PATIENT) == 32
    assert PATIENT.lower() == PATIENT
    bytes.fromhex(PATIENT)


def test_a_pseudonym_is_the_keyed_hash_of_the_digits_and_stays_that() -> None:
    """Every key in the log depends on this: a change here would lose every patient."""
    expected = hashlib.blake2b(b"02013299997", key=KEY, digest_size=16, person=b"medchain-patient").hexdigest()
    assert Pseudonymiser(KEY).patient_key(NationalId.parse("02013299997")) == expected
    assert expected == "d2f8b011282d7c4b6c329a9bfb7df967"


def test_another_key_gives_another_pseudonym() -> None:
    assert Pseudonymiser(OTHER_KEY).patient_key(synthetic(1)) != PATIENT


def test_different_patients_have_different_pseudonyms() -> None:
    pseudonymiser = Pseudonymiser(KEY)
    assert len({pseudonymiser.patient_key(synthetic(index)) for index in range(10_000)}) == 10_000


@pytest.mark.parametrize("key", [b"", b"short", bytes(65)])
def test_a_pseudonym_key_of_a_wrong_length_is_refused(key: bytes) -> None:
    with pytest.raises(ValueError, match="32 to 64"):
        Pseudonymiser(key)


@given(st.integers(min_value=0, max_value=9_999_999), st.text(max_size=60).filter(lambda name: name.isprintable()))
def test_what_is_sealed_opens_for_the_same_patient(index: int, name: str) -> None:
    sealer = Sealer(KEY)
    opened = sealer.open(sealer.seal(SealedIdentityContent(synthetic(index), name), PATIENT), PATIENT)
    assert opened.national_id == synthetic(index)
    again = sealer.open(sealer.seal(opened, PATIENT), PATIENT)
    assert again == opened, "a name in NFC stays as it is"


def test_the_bytes_show_nothing_of_the_identity() -> None:
    sealed = Sealer(KEY).seal(IDENTITY, PATIENT)
    assert IDENTITY.national_id.digits.encode() not in sealed
    assert b"Kari" not in sealed


def test_sealing_the_same_again_gives_the_same_bytes_so_that_a_retry_is_a_duplicate() -> None:
    assert Sealer(KEY).seal(IDENTITY, PATIENT) == Sealer(KEY).seal(IDENTITY, PATIENT)


def test_another_name_another_patient_or_another_key_gives_another_nonce() -> None:
    changed = SealedIdentityContent(synthetic(1), "Kari Nordman")
    seals = [
        Sealer(KEY).seal(IDENTITY, PATIENT),
        Sealer(KEY).seal(changed, PATIENT),
        Sealer(KEY).seal(IDENTITY, "0" * 32),
        Sealer(OTHER_KEY).seal(IDENTITY, PATIENT),
    ]
    assert len({sealed[1:13] for sealed in seals}) == len(seals)


def test_a_sealed_identity_does_not_open_for_another_patient() -> None:
    sealed = Sealer(KEY).seal(IDENTITY, PATIENT)
    with pytest.raises(SealBroken):
        Sealer(KEY).open(sealed, "0" * 32)


@given(st.data())
def test_any_changed_bit_breaks_the_seal(data: st.DataObject) -> None:
    sealed = bytearray(Sealer(KEY).seal(IDENTITY, PATIENT))
    at = data.draw(st.integers(min_value=0, max_value=len(sealed) * 8 - 1))
    sealed[at // 8] ^= 1 << at % 8
    with pytest.raises(SealBroken):
        Sealer(KEY).open(bytes(sealed), PATIENT)


@given(st.binary(max_size=64))
def test_anything_else_breaks_it_too(sealed: bytes) -> None:
    with pytest.raises(SealBroken):
        Sealer(KEY).open(sealed, PATIENT)


def test_after_a_rotation_what_was_sealed_before_still_opens() -> None:
    sealed = Sealer(KEY, key_id=1).seal(IDENTITY, PATIENT)
    rotated = Sealer(OTHER_KEY, key_id=2, older={1: KEY})
    assert rotated.open(sealed, PATIENT) == IDENTITY
    assert rotated.seal(IDENTITY, PATIENT)[0] == 2
    with pytest.raises(SealBroken, match="no sealing key with id 1"):
        Sealer(OTHER_KEY, key_id=2).open(sealed, PATIENT)


def test_a_key_id_is_not_used_twice_and_a_key_has_32_bytes() -> None:
    with pytest.raises(ValueError, match="each has one key"):
        Sealer(KEY, key_id=1, older={1: OTHER_KEY})
    with pytest.raises(ValueError, match="32 bytes"):
        Sealer(KEY[:16])


def test_an_identity_is_never_shown() -> None:
    for shown in (repr(IDENTITY), str(IDENTITY), repr([IDENTITY])):
        assert "Kari" not in shown
        assert IDENTITY.national_id.digits not in shown
