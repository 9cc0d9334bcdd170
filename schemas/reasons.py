"""The closed vocabularies of answers: reasons, flags, notice kinds, parking reasons and door reasons, with their texts.

The members stand here so that the fold can match on them without reading a file; the texts in English and Norwegian
stand in `reasons.yaml`, and a test holds the two equal. Each member has a stable `code` (1..255), because the store
packs it in one byte: a code is never changed or used again, new members are appended.
"""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Final, Literal, Self

import msgspec
import yaml

Language = Literal["en", "nb"]


class CodedName(StrEnum):
    """A name of a closed vocabulary, with the small integer that the store keeps in its place."""

    code: int

    def __new__(cls, name: str, code: int = 0) -> Self:
        """Called by the enum machinery for each row below; `Reason("held")` looks a member up and never comes here."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.code = code
        return member

    @classmethod
    def from_code(cls, code: int) -> Self:
        """The member with this code; raises ValueError when there is none."""
        for member in cls:
            if member.code == code:
                return member
        raise ValueError(f"{cls.__name__} has no member with code {code}")


class Reason(CodedName):
    """Why the fold refused a registration or a request: the last part of `/problems/<reason>`."""

    UNKNOWN = "unknown", 1
    CONFLICTING_DUPLICATE = "conflicting_duplicate", 2
    DECEASED = "deceased", 3
    HELD = "held", 4
    ALREADY_HELD = "already_held", 5
    WITHDRAWN = "withdrawn", 6
    DISCONTINUED = "discontinued", 7
    COMPLETED = "completed", 8
    RECALLED = "recalled", 9
    EXPIRED = "expired", 10
    DISPATCHED_TO = "dispatched_to", 11
    TOO_EARLY = "too_early", 12
    NOT_HOLDER = "not_holder", 13
    NO_CLAIM = "no_claim", 14
    NO_DISPATCH = "no_dispatch", 15
    NOT_DISPENSER = "not_dispenser", 16
    OVER_RETURNED = "over_returned", 17
    TOKEN_EXPIRED = "token_expired", 18
    NOT_PERMITTED = "not_permitted", 19
    STALE = "stale", 20
    LIST_INCOMPLETE = "list_incomplete", 21
    ALLERGIES_RECORDED = "allergies_recorded", 22
    MULTIDOSE_ELSEWHERE = "multidose_elsewhere", 23
    NOT_RESPONSIBLE = "not_responsible", 24
    NOT_DECEASED = "not_deceased", 25
    NOT_PAUSED = "not_paused", 26
    NOT_DISCONTINUED = "not_discontinued", 27
    NO_REQUEST = "no_request", 28


class Flag(CodedName):
    """What is irregular, or worth seeing, about an applied event, a prescription or a list entry."""

    DISPENSED_WITHOUT_CLAIM = "dispensed_without_claim", 1
    DISPENSED_AFTER_RECALL = "dispensed_after_recall", 2
    DISPENSED_AFTER_EXPIRY = "dispensed_after_expiry", 3
    DISPENSED_AFTER_COMPLETION = "dispensed_after_completion", 4
    DISPENSED_AFTER_WITHDRAWAL = "dispensed_after_withdrawal", 5
    DISPENSED_AFTER_DEATH = "dispensed_after_death", 6
    SUBSTITUTION_RESERVED = "substitution_reserved", 7
    TREATMENT_PAUSED = "treatment_paused", 8
    OVER_QUANTITY = "over_quantity", 9
    AHEAD_OF_PERIOD = "ahead_of_period", 10
    PRESCRIPTION_UNKNOWN = "prescription_unknown", 11
    TREATMENT_UNKNOWN = "treatment_unknown", 12
    DISPENSE_UNKNOWN = "dispense_unknown", 13
    ALLERGY_UNKNOWN = "allergy_unknown", 14
    RECALLED = "recalled", 15
    RECALLED_AFTER_COMPLETION = "recalled_after_completion", 16
    ALREADY_RECALLED = "already_recalled", 17
    EXPIRED = "expired", 18
    ALREADY_REVERSED = "already_reversed", 19
    COURSE_ENDED = "course_ended", 20
    MULTIDOSE_ELSEWHERE = "multidose_elsewhere", 21
    LIST_INCOMPLETE = "list_incomplete", 22
    DOSING_CHANGED = "dosing_changed", 23
    RENEWS_OTHER_TREATMENT = "renews_other_treatment", 24
    SUBSTANCE_CHANGED = "substance_changed", 25
    PRESCRIBED_AFTER_DISCONTINUATION = "prescribed_after_discontinuation", 26
    ALREADY_DISCONTINUED = "already_discontinued", 27
    ALREADY_PAUSED = "already_paused", 28
    ALREADY_WITHDRAWN = "already_withdrawn", 29
    WITHDRAWN = "withdrawn", 30
    CONFLICTING_REPORT = "conflicting_report", 31
    DOSING_TEXT_DIFFERS = "dosing_text_differs", 32
    OUTCOME_CHANGED = "outcome_changed", 33
    PRESCRIPTION_NUMBER_CONFLICT = "prescription_number_conflict", 34
    ALREADY_DECEASED = "already_deceased", 35
    ALREADY_REFUTED = "already_refuted", 36


class NoticeKind(CodedName):
    """What an organisation is told on its own topic."""

    DISPENSED = "dispensed", 1
    REVERSED = "reversed", 2
    RECALLED_BY_OTHER = "recalled_by_other", 3
    RECALLED_WHILE_HELD = "recalled_while_held", 4
    RECALLED_WHILE_DISPATCHED = "recalled_while_dispatched", 5
    CLAIM_ENDED = "claim_ended", 6
    CLAIM_RELEASED = "claim_released", 7
    ORDER_VOID = "order_void", 8
    PRESCRIBED_AFTER_DISCONTINUATION = "prescribed_after_discontinuation", 9
    MULTIDOSE_TAKEN_OVER = "multidose_taken_over", 10
    MULTIDOSE_PART_ENDED = "multidose_part_ended", 11
    RENEWAL_REQUESTED = "renewal_requested", 12
    RENEWAL_DECLINED = "renewal_declined", 13
    DEATH_RETRACTED = "death_retracted", 14
    OUTCOME_CHANGED = "outcome_changed", 15
    PRESCRIPTION_NUMBER_CONFLICT = "prescription_number_conflict", 16


class ParkReason(CodedName):
    """Why a record of the log was set aside, with its bytes, instead of being judged."""

    UNREADABLE = "unreadable", 1
    UNKNOWN_SCHEMA = "unknown_schema", 2
    WRONG_PARTITION = "wrong_partition", 3
    NO_KEY = "no_key", 4
    WRONG_KEY = "wrong_key", 5
    NO_VALUE = "no_value", 6
    TOO_LARGE = "too_large", 7
    INVALID_CONTENT = "invalid_content", 8
    NOT_JUDGED = "not_judged", 9


class DoorReason(CodedName):
    """Why a service turned a message away before the log: of the whole message, or of one field in `errors[]`."""

    # Of the whole message.
    NOT_PARSEABLE = "not_parseable", 1
    NESTED_TOO_DEEP = "nested_too_deep", 2
    TOO_LARGE = "too_large", 3
    NOT_JSON = "not_json", 4
    INVALID = "invalid", 5
    NOT_FOUND = "not_found", 6
    METHOD_NOT_ALLOWED = "method_not_allowed", 7
    NO_IDEMPOTENCY_KEY = "no_idempotency_key", 8
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused", 9
    NO_CALLER = "no_caller", 10
    LOG_UNAVAILABLE = "log_unavailable", 11
    LIST_UNAVAILABLE = "list_unavailable", 12
    UNEXPECTED = "unexpected", 13
    UNREADABLE = "unreadable", 14
    UNKNOWN_SCHEMA = "unknown_schema", 15
    # Of one field: its form.
    MISSING = "missing", 16
    UNEXPECTED_FIELD = "unexpected_field", 17
    NULL_NOT_ALLOWED = "null_not_allowed", 18
    WRONG_TYPE = "wrong_type", 19
    WRONG_FORMAT = "wrong_format", 20
    TOO_LONG = "too_long", 21
    TOO_SHORT = "too_short", 22
    TOO_MANY = "too_many", 23
    TOO_FEW = "too_few", 24
    DUPLICATE_FIELD = "duplicate_field", 25
    UNPAIRED_SURROGATE = "unpaired_surrogate", 26
    CONTROL_CHARACTER = "control_character", 27
    NOT_A_NUMBER = "not_a_number", 28
    # Of one field: its meaning.
    WRONG_CHECKSUM = "wrong_checksum", 29
    UNKNOWN_CODE = "unknown_code", 30
    NOT_POSITIVE = "not_positive", 31
    OUT_OF_RANGE = "out_of_range", 32
    TOO_PRECISE = "too_precise", 33
    UNIT_DOES_NOT_FIT = "unit_does_not_fit", 34
    END_BEFORE_START = "end_before_start", 35
    OVERLAPPING_PERIODS = "overlapping_periods", 36
    DATE_OUT_OF_RANGE = "date_out_of_range", 37
    OCCURRED_IN_FUTURE = "occurred_in_future", 38
    CLAIM_TOO_OLD = "claim_too_old", 39
    REFILLS_NOT_ALLOWED = "refills_not_allowed", 40
    NOT_EXACTLY_ONE = "not_exactly_one", 41
    CONTRADICTS = "contradicts", 42
    OTHER_PATIENT = "other_patient", 43
    TOKEN_NOT_VALID = "token_not_valid", 44


SECTIONS: Final[dict[str, type[CodedName]]] = {
    "reasons": Reason,
    "flags": Flag,
    "notices": NoticeKind,
    "park_reasons": ParkReason,
    "door_reasons": DoorReason,
}


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row of `reasons.yaml`: the stable code, and one sentence each in English and Norwegian (bokmål)."""

    code: int
    en: str
    nb: str


@cache
def catalogue() -> dict[str, dict[str, Entry]]:
    """`reasons.yaml`, checked: section -> name -> entry. Raises msgspec.ValidationError if the file is malformed."""
    text = files("schemas").joinpath("reasons.yaml").read_text(encoding="utf-8")
    return msgspec.convert(yaml.safe_load(text), dict[str, dict[str, Entry]])


@cache
def text_of(member: CodedName, language: Language = "en") -> str:
    """The sentence that tells a person what the member means; never holds anything about a patient."""
    section = next(name for name, kind in SECTIONS.items() if isinstance(member, kind))
    entry = catalogue()[section][member.value]
    return entry.en if language == "en" else entry.nb
