"""Whatever bytes lie in a record, reading them ends in a message or in UndecodableError, and in nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import codec
from schemas.golden import Example, examples
from schemas.reasons import ParkReason

ALL = [each for each in examples() if each.version == codec.newest(each.name).version]
RICH = [
    each
    for each in ALL
    if each.name in ("PrescriptionIssued", "MedicationDispensed", "SubmissionTreatmentChanged", "DispenseOrder")
]


def reason_of(value: bytes | None) -> ParkReason | None:
    """The park reason of these bytes; None when they can be read."""
    try:
        codec.decode(value)
    except codec.UndecodableError as error:
        return error.reason
    return None


@pytest.mark.parametrize("example", ALL, ids=lambda each: f"{each.name}/{each.title}")
def test_a_record_cut_off_anywhere_is_undecodable(example: Example) -> None:
    whole = example.written
    for length in range(1, len(whole)):
        expected = ParkReason.UNREADABLE if length < 2 or length >= 10 else ParkReason.UNKNOWN_SCHEMA
        assert reason_of(whole[:length]) is expected, length


@pytest.mark.parametrize("value", [None, b""])
def test_a_record_without_a_value_says_so(value: bytes | None) -> None:
    assert reason_of(value) is ParkReason.NO_VALUE


@pytest.mark.parametrize("magic", [b"\x00\x00\x00\x00\x01", b"\xc3\x02", b"{", b"\x01\xc3"])
def test_a_wrong_magic_byte_is_unreadable(magic: bytes) -> None:
    assert reason_of(magic + RICH[0].written[2:]) is ParkReason.UNREADABLE


@given(
    mark=st.binary(min_size=8, max_size=8).filter(
        lambda mark: all(each.header[2:] != mark for each in codec.releases())
    )
)
def test_an_unknown_fingerprint_is_an_unknown_schema_and_is_named(mark: bytes) -> None:
    with pytest.raises(codec.UnknownSchemaError) as caught:
        codec.decode(codec.SINGLE_OBJECT + mark + RICH[0].written[10:])
    assert caught.value.schema == mark.hex()


@given(example=st.sampled_from(ALL), more=st.binary(min_size=1, max_size=40))
def test_bytes_left_over_after_a_record_are_unreadable(example: Example, more: bytes) -> None:
    assert reason_of(example.written + more) is ParkReason.UNREADABLE


@given(example=st.sampled_from(RICH), data=st.data())
def test_flipped_bytes_are_read_or_undecodable(example: Example, data: st.DataObject) -> None:
    damaged = bytearray(example.written)
    for at in data.draw(st.lists(st.integers(0, len(damaged) - 1), min_size=1, max_size=4)):
        damaged[at] ^= data.draw(st.integers(1, 255))
    reason_of(bytes(damaged))


@given(example=st.sampled_from(ALL), at=st.integers(10, 400), length=st.integers(0, 20), filling=st.binary(max_size=20))
def test_a_piece_cut_out_or_put_in_is_read_or_undecodable(
    example: Example, at: int, length: int, filling: bytes
) -> None:
    whole = example.written
    reason_of(whole[:at] + filling + whole[at + length :])


@given(value=st.binary(max_size=300))
def test_noise_is_undecodable(value: bytes) -> None:
    assert reason_of(value) is not None


@given(name=st.sampled_from(sorted(codec.TYPES)), noise=st.binary(max_size=300))
def test_noise_behind_a_known_fingerprint_is_read_or_undecodable(name: str, noise: bytes) -> None:
    reason_of(codec.newest(name).header + noise)


@given(example=st.sampled_from(RICH), data=st.data())
def test_the_error_never_holds_content_of_the_record(example: Example, data: st.DataObject) -> None:
    whole = example.written
    cut = data.draw(st.integers(11, len(whole) - 1))
    with pytest.raises(codec.UndecodableError) as caught:
        codec.decode(whole[:cut])
    assert example.message.__class__.__name__ not in str(caught.value)
    assert str(caught.value).startswith("unreadable: ")
    assert len(str(caught.value)) < 60
