"""Identity numbers and register numbers: the valid ones pass in one form, the others are told why not."""

import random
import traceback
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.reasons import DoorReason
from services.identity.national_id import InvalidNationalId, NationalId, NationalIdKind, synthetic, synthetic_born
from services.identity.registers import (
    InvalidIdentifier,
    parse_atc,
    parse_hpr,
    parse_organisation_number,
    parse_uuid,
)
from tests.organisations import organisation_number


@pytest.mark.parametrize("digits", ["02013299997", "30108299920", "30108299939"])
def test_the_published_examples_of_the_2032_checksum_are_valid(digits: str) -> None:
    assert NationalId.parse(digits) == NationalId(NationalIdKind.NATIONAL, digits)


@pytest.mark.parametrize("digits", ["02013299987", "02013299996"])
def test_the_published_counterexamples_are_refused_for_their_checksum(digits: str) -> None:
    with pytest.raises(InvalidNationalId) as refused:
        NationalId.parse(digits)
    assert refused.value.reason is DoorReason.WRONG_CHECKSUM


def with_control_digits(nine: str, rest: int = 0) -> str:
    """The number that begins with these nine digits, computed here by the rule's own words."""
    total = sum(int(d) * w for d, w in zip(nine, (3, 7, 6, 1, 8, 9, 4, 5, 2), strict=True))
    k1 = 11 + rest - total % 11
    k1 = k1 - 11 if k1 > 10 else k1
    ten = f"{nine}{k1}"
    k2 = 11 - sum(int(d) * w for d, w in zip(ten, (5, 4, 3, 2, 7, 6, 5, 4, 3, 2), strict=True)) % 11
    k2 = 0 if k2 == 11 else k2
    assert k1 < 10
    assert k2 < 10
    return f"{ten}{k2}"


@pytest.mark.parametrize(
    ("nine", "kind", "is_synthetic"),
    [
        ("010190124", NationalIdKind.NATIONAL, False),
        ("290200500", NationalIdKind.NATIONAL, False),
        ("410190123", NationalIdKind.D_NUMBER, False),
        ("014190123", NationalIdKind.AUXILIARY, False),
        ("018190123", NationalIdKind.NATIONAL, True),
        ("418190123", NationalIdKind.D_NUMBER, True),
        ("812345671", NationalIdKind.AUXILIARY, False),
        ("998765432", NationalIdKind.AUXILIARY, False),
    ],
)
def test_the_first_digits_tell_the_kind(nine: str, kind: NationalIdKind, is_synthetic: bool) -> None:  # noqa: FBT001
    found = NationalId.parse(with_control_digits(nine))
    assert (found.kind, found.is_synthetic) == (kind, is_synthetic)


def test_each_kind_states_its_own_system() -> None:
    endings = {kind: kind.oid.removeprefix("2.16.578.1.12.4.1.4.") for kind in NationalIdKind}
    assert endings == {
        NationalIdKind.NATIONAL: "1",
        NationalIdKind.D_NUMBER: "2",
        NationalIdKind.AUXILIARY: "3",
        NationalIdKind.DUF: "5",
    }


def test_a_duf_number_has_twelve_digits_and_a_checksum_of_its_own() -> None:
    assert NationalId.parse("200816832910").kind is NationalIdKind.DUF
    with pytest.raises(InvalidNationalId):
        NationalId.parse("200816832911")


@pytest.mark.parametrize(
    "text",
    [
        "", "0201329999", "0201329999700", "02013 29999", "02013299997 ", "0201329999x", "٠٢٠١٣٢٩٩٩٩٧",
        "32019012345", "00019012345", "01139012345", "30029012345", "29029912345", "01009012345", "72019012345",
        "01539012345", "01939012345", "-2013299997",
    ],
)  # fmt: skip
def test_what_is_no_number_or_begins_with_no_date_has_a_wrong_format(text: str) -> None:
    with pytest.raises(InvalidNationalId) as refused:
        NationalId.parse(text)
    assert refused.value.reason is DoorReason.WRONG_FORMAT


@pytest.mark.parametrize("rest", [0, 1, 2, 3])
def test_all_four_rests_of_2032_are_valid(rest: int) -> None:
    number = with_control_digits("020132990", rest)
    assert NationalId.parse(number).digits == number


def test_a_fifth_rest_is_not() -> None:
    with pytest.raises(InvalidNationalId):
        NationalId.parse(with_control_digits("020132990", 4))


def test_a_number_is_never_shown() -> None:
    number = NationalId.parse("02013299997")
    for shown in (repr(number), str(number), f"{number}", f"{number!r:>40}", "%s" % (number,), repr([number])):  # noqa: UP031
        assert "02013299997" not in shown
        assert "*" * 11 in shown


@given(st.text(alphabet="0123456789", min_size=9, max_size=14))
def test_the_error_never_holds_the_text_that_was_wrong(text: str) -> None:
    error = error_about(text)
    assert error is None or text not in "".join(traceback.format_exception(error))


def error_about(text: str) -> InvalidNationalId | None:
    try:
        NationalId.parse(text)
    except InvalidNationalId as error:
        return error
    return None


@given(st.integers(min_value=0, max_value=9_999_999))
def test_every_synthetic_number_is_valid_and_marked(index: int) -> None:
    number = synthetic(index)
    assert NationalId.parse(number.digits) == number
    assert NationalId.parse(number.digits).is_synthetic


def test_synthetic_numbers_do_not_come_twice() -> None:
    assert len({synthetic(index).digits for index in range(8_000)}) == 8_000
    assert len({synthetic(index).digits for index in range(9_999_800, 10_000_000)}) == 200


def test_a_seed_gives_the_same_synthetic_numbers_again() -> None:
    assert synthetic(random.Random(7)) == synthetic(random.Random(7))


@given(st.dates(min_value=date(1900, 1, 1), max_value=date(2039, 12, 31)))
def test_there_are_three_hundred_synthetic_numbers_for_any_birthday(born: date) -> None:
    number = synthetic_born(born, 299)
    assert number.digits.startswith(f"{born.day:02}{born.month + 80:02}{born.year % 100:02}")
    assert NationalId.parse(number.digits) == number


@pytest.mark.parametrize("index", [-1, 10_000_000])
def test_an_index_without_a_synthetic_number_is_refused(index: int) -> None:
    with pytest.raises(ValueError, match="index"):
        synthetic(index)


def test_more_synthetic_numbers_than_a_day_has_are_refused() -> None:
    with pytest.raises(ValueError, match="not as many"):
        synthetic_born(date(1970, 1, 1), 500)


@pytest.mark.parametrize("text", ["974760673", "123456785", "983971636"])
def test_valid_organisation_numbers_pass(text: str) -> None:
    assert parse_organisation_number(text) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("974760674", DoorReason.WRONG_CHECKSUM),
        ("97476067", DoorReason.WRONG_FORMAT),
        ("9747606731", DoorReason.WRONG_FORMAT),
        ("974 760 673", DoorReason.WRONG_FORMAT),
        ("974760673\n", DoorReason.WRONG_FORMAT),
    ],
)
def test_other_organisation_numbers_are_told_what_is_wrong(text: str, reason: DoorReason) -> None:
    with pytest.raises(InvalidIdentifier) as refused:
        parse_organisation_number(text)
    assert (refused.value.field, refused.value.reason) == ("organisation", reason)
    assert text not in str(refused.value)


@given(st.integers(min_value=0, max_value=999_999))
def test_made_organisation_numbers_are_valid(index: int) -> None:
    assert parse_organisation_number(organisation_number(index)).startswith("9")


def test_made_organisation_numbers_do_not_come_twice() -> None:
    assert len({organisation_number(index) for index in range(20_000)}) == 20_000


@pytest.mark.parametrize("text", ["9144889", "12345678", "123456789"])
def test_hpr_numbers_of_seven_to_nine_digits_pass(text: str) -> None:
    assert parse_hpr(text) == text


@pytest.mark.parametrize("text", ["", "123456", "1234567890", "0123456", "123456a", "٩١٤٤٨٨٩"])
def test_other_hpr_numbers_are_refused(text: str) -> None:
    with pytest.raises(InvalidIdentifier, match="hpr"):
        parse_hpr(text)


@pytest.mark.parametrize("code", ["A", "A10", "A10B", "A10BA", "A10BA02", "V03AE01"])
def test_atc_codes_of_all_five_levels_pass(code: str) -> None:
    assert parse_atc(code) == code


@pytest.mark.parametrize("code", ["", "E", "A1", "A10BA0", "A10BA021", "a10ba02", "A10 BA02", "QA10BA02", "10BA02"])
def test_other_atc_codes_are_refused(code: str) -> None:
    with pytest.raises(InvalidIdentifier, match="atc"):
        parse_atc(code)


@given(st.uuids())
def test_a_uuid_comes_back_in_lower_case(value: object) -> None:
    assert parse_uuid(str(value).upper()) == str(value)


@pytest.mark.parametrize(
    "text",
    ["", "6f1c", "{6f1c0a52-3c1e-4d0e-9e43-0a7f5a1b2c3d}", "6f1c0a523c1e4d0e9e430a7f5a1b2c3d", "6f1c0a52-3c1e-4d0e-9e43-0a7f5a1b2c3g"],
)  # fmt: skip
def test_other_spellings_of_a_uuid_are_refused(text: str) -> None:
    with pytest.raises(InvalidIdentifier, match="uuid"):
        parse_uuid(text)
