"""The vocabularies of answers are one thing in code, in the file of texts and in the store."""

import re

import pytest

from schemas.reasons import (
    SECTIONS,
    CodedName,
    DoorReason,
    Flag,
    NoticeKind,
    ParkReason,
    Reason,
    catalogue,
    text_of,
)

# The names in the order of their codes, as first released. New names are appended; nothing else may change here.
RELEASED: dict[type[CodedName], str] = {
    Reason: """unknown conflicting_duplicate deceased held already_held withdrawn discontinued completed recalled
        expired dispatched_to too_early not_holder no_claim no_dispatch not_dispenser over_returned token_expired
        not_permitted stale list_incomplete allergies_recorded multidose_elsewhere not_responsible not_deceased
        not_paused not_discontinued no_request""",
    Flag: """dispensed_without_claim dispensed_after_recall dispensed_after_expiry dispensed_after_completion
        dispensed_after_withdrawal dispensed_after_death substitution_reserved treatment_paused over_quantity
        ahead_of_period prescription_unknown treatment_unknown dispense_unknown allergy_unknown recalled
        recalled_after_completion already_recalled expired already_reversed course_ended multidose_elsewhere
        list_incomplete dosing_changed renews_other_treatment substance_changed prescribed_after_discontinuation
        already_discontinued already_paused already_withdrawn withdrawn conflicting_report dosing_text_differs
        outcome_changed prescription_number_conflict already_deceased already_refuted""",
    NoticeKind: """dispensed reversed recalled_by_other recalled_while_held recalled_while_dispatched claim_ended
        claim_released order_void prescribed_after_discontinuation multidose_taken_over multidose_part_ended
        renewal_requested renewal_declined death_retracted outcome_changed prescription_number_conflict""",
    ParkReason: """unreadable unknown_schema wrong_partition no_key wrong_key no_value too_large invalid_content
        not_judged""",
    DoorReason: """not_parseable nested_too_deep too_large not_json invalid not_found method_not_allowed
        no_idempotency_key idempotency_key_reused no_caller log_unavailable list_unavailable unexpected unreadable
        unknown_schema missing unexpected_field null_not_allowed wrong_type wrong_format too_long too_short too_many
        too_few duplicate_field unpaired_surrogate control_character not_a_number wrong_checksum unknown_code
        not_positive out_of_range too_precise unit_does_not_fit end_before_start overlapping_periods
        date_out_of_range occurred_in_future claim_too_old refills_not_allowed not_exactly_one contradicts
        other_patient token_not_valid""",
}

ALL_MEMBERS = [member for kind in RELEASED for member in kind]


def test_every_released_name_keeps_its_code() -> None:
    for kind, names in RELEASED.items():
        for code, name in enumerate(names.split(), start=1):
            assert kind(name).code == code, (kind, name)


def test_no_code_is_used_twice_and_each_fits_a_byte() -> None:
    for kind in RELEASED:
        codes = [member.code for member in kind]
        assert len(set(codes)) == len(codes)
        assert all(1 <= code <= 255 for code in codes)


def test_the_file_of_texts_names_exactly_the_members_with_their_codes() -> None:
    assert set(catalogue()) == set(SECTIONS)
    for section, kind in SECTIONS.items():
        rows = {name: entry.code for name, entry in catalogue()[section].items()}
        assert rows == {member.value: member.code for member in kind}


@pytest.mark.parametrize("member", ALL_MEMBERS, ids=lambda m: f"{type(m).__name__}.{m}")
def test_every_member_has_a_sentence_in_both_languages(member: CodedName) -> None:
    for sentence in (text_of(member, "en"), text_of(member, "nb")):
        assert re.fullmatch(r"[A-ZÆØÅ].+\.", sentence)


@pytest.mark.parametrize("member", ALL_MEMBERS, ids=lambda m: f"{type(m).__name__}.{m}")
def test_a_member_comes_back_from_its_code_and_its_name(member: CodedName) -> None:
    assert type(member).from_code(member.code) is member
    assert type(member)(member.value) is member
    assert str(member) == member.value == member.name.lower()


def test_an_unused_code_is_told_by_name() -> None:
    with pytest.raises(ValueError, match="Flag has no member with code 255"):
        Flag.from_code(255)


def test_a_problem_type_means_one_thing() -> None:
    """Reason and DoorReason share the space /problems/<name>."""
    assert not {m.value for m in Reason} & {m.value for m in DoorReason}
