"""What the scenarios' words come to: values, fields and sentences; and that what nobody understands is told by its place."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from schemas import events as ev
from tests.acceptance.header_checks import understands
from tests.acceptance.not_built import NOT_BUILT, NotBuiltError
from tests.acceptance.translate import Play, Step, sentences
from tests.acceptance.unclear import Unclear
from tests.acceptance.values import NotUnderstoodError, When, amount, calendar_day, code_of, dosing_period, instant
from tests.unit.test_fold_scenarios import FoldRun
from tests.unit.test_oracle_scenarios import check_watched
from tests.unit.watched import play_through


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("d0", "2026-03-02T09:00+01:00"),
        ("d0-1d", "2026-03-01T09:00+01:00"),
        ("d0+4h", "2026-03-02T13:00+01:00"),
        ("d0 09:00 + 15m", "2026-03-02T09:15+01:00"),
        ("d0+1d 24:00", "2026-03-04T00:00+01:00"),
        ("2026-06-30T23:50+02:00", "2026-06-30T23:50+02:00"),
        (date(2026, 6, 30), "2026-06-30T09:00+02:00"),
        (datetime(2026, 6, 30, 21, 50, tzinfo=UTC), "2026-06-30T23:50+02:00"),
        (10 * 60 + 30, "2026-03-02T10:30+01:00"),
    ],
)
def test_a_time_is_read_in_every_form_that_the_file_can_have_it(said: When, meant: str) -> None:
    assert instant(said) == int(datetime.fromisoformat(meant).timestamp() * 1000)


def test_a_time_may_count_from_the_step_before() -> None:
    assert instant("+15m", instant("d0 10:00")) == instant("d0 10:15")


def test_the_day_of_a_time_is_the_day_in_oslo() -> None:
    assert calendar_day("2026-06-30T23:30+00:00") == date(2026, 7, 1)


@pytest.mark.parametrize(
    ("said", "value", "unit", "holds"),
    [
        ("100 tablets", 100, "tablet", None),
        (30, 30, "tablet", None),
        ("250 ml", 250, "ml", None),
        ("2 packages of 50 tablets", 2, "package", 50),
        ("3 x 30 capsules", 3, "package", 30),
    ],
)
def test_an_amount_is_read_with_what_a_package_holds(said: object, value: int, unit: str, holds: int | None) -> None:
    given, content = amount(said)
    assert given == ev.Quantity(value=Decimal(value), unit=unit)
    assert (content and content.value) == holds


def test_doses_are_read_from_words_and_from_short_forms() -> None:
    (morning,) = dosing_period("half a tablet morning", None, None)[0].fixed
    assert (morning.dose.low, morning.times_of_day) == (Decimal("0.5"), ("morning",))
    assert len(dosing_period("1+0+1", None, None)[0].fixed) == 2
    needed = dosing_period("1-2 tablets as needed for pain, max 8", None, None)[0].as_needed
    assert needed is not None
    assert (needed.dose.high, needed.max_per_day) == (Decimal(2), Decimal(8))
    assert dosing_period("by scheme", None, None) == ()


@pytest.mark.parametrize(
    ("kind", "said", "code"),
    [
        ("discontinuation_reason", "7494 A treatment finished", "treatment_finished"),
        ("discontinuation_reason", "X", "other"),
        ("recall_reason", "7500 2 discontinued", "discontinued"),
        ("recall_reason", "wrong patient", "other"),
        ("use", "9101 3 as needed", "as_needed"),
        ("reported_use", "not taking", "not_taking"),
        ("reported_by", "citizen", "patient"),
        ("reimbursement_basis", "7427 905", "905"),
    ],
)
def test_a_code_is_known_by_its_national_number_its_text_or_a_word_for_it(kind: str, said: str, code: str) -> None:
    assert code_of(kind, said) == code


def test_a_sentence_with_a_colon_is_a_mapping_to_yaml_and_still_a_sentence() -> None:
    assert sentences([{"notice to A": "dispense D1 of R1"}, "E", 404]) == ["notice to A: dispense D1 of R1", "E", "404"]


SENTENCES = """
R1 is T
R1 still U held by P
R1 not held
held by nobody
P still holds R1
refused(stale), naming what moved: R1 and R2
refused(too_early), naming d0+60d
refused, because the claim has ended
refused, naming the holder P
refused(held): P holds it
refused(conflicting_duplicate), with an alarm
flag already_recalled, no second notice
flag recalled and notice to P
applied without flags
not dispensed_after_recall
no flag on D1
R2 refills left 0
R1 has 2 refills left
50 of 100 tablets handed out
400 of 400
T1 paused until d0+10d
T1 shown as active again
T1 and T2 shown
one entry T1 with R1 and R2
the list is empty
D1 and D2 stand
D1 does not count
D1 counts once
T1 last dispense none
the answer says already dispensed
the refusal names P
rejected, nothing stored
turned away at the door, naming refills
the error points at refills
returns R1 (E) and R2 (U, held by P)
R1 not returned
allergy status none_known
shows "no known allergies"
R1 tied to nobody
no new order
P gets the order
prescriber A is told that R1 was recalled by B
two notices to the organisation of prescriber A
R1 is recalled, reason death
R1 status U held by P, flag recalled
R1 T, R2 E and R3 U
R1 stays T: the recall came first
R1 is still held by P, because nobody gave it back
E
U held by P
T1 shows flag conflicting_report
the dosing in force is half a tablet
the list shows that the patient is deceased
T1 reported use not taking
multi-dose pharmacy P
R1 listed under other prescriptions
R1 valid until d0+10d
T1 head R2
chain R1, R2, R3
R1 cannot be claimed
nothing is dispensable
R1 marked as locked
the same version
everything is as before
exactly one dispense on R1
the history has T1
status 409
404
""".strip().splitlines()


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_sentence_is_understood_in_the_forms_that_people_write(sentence: str) -> None:
    assert understands(sentence)


# --- Fields -----------------------------------------------------------------------------------------------------------


def played(action: str, target: str, actor: str = "prescriber A", expect: str = "applied", **fields: Any) -> Step:
    """One step of a scenario that issues R1 before it."""
    steps = [
        {"n": 1, "actor": "prescriber A", "action": "issue", "object": "R1", "expect": ["applied"]},
        {"n": 2, "actor": actor, "action": action, "object": target, "with": fields, "expect": [expect]},
    ]
    return list(Play({"id": "WORDS", "steps": steps}))[-1]


def body_of(step: Step) -> Any:
    (event,) = step.events
    return event.body


def test_what_a_prescription_says_besides_goes_into_the_event() -> None:
    issued = body_of(
        played("issue", "R2", weight="72 kg", reimbursement="200", indication="gout", renal_note="reduced", locked=True)
    )
    assert isinstance(issued, ev.PrescriptionIssued)
    assert issued.weight == ev.Weight(kg=Decimal(72), on=date(2026, 3, 2))
    assert issued.reimbursement == ev.Reimbursement(basis="200")
    assert (issued.indication_text, issued.renal_note, issued.locked) == ("gout", "reduced", True)


def test_what_a_hand_out_says_besides_goes_into_the_event() -> None:
    handed = body_of(played("dispense", "R1", "pharmacy P", dispense="D1", offline=True, price="99 NOK", batch="B7"))
    assert isinstance(handed, ev.MedicationDispensed)
    assert (handed.offline, handed.price, handed.lines[0].batch) == (True, ev.Price(total_nok=Decimal(99)), "B7")


@pytest.mark.parametrize(("atc", "until"), [("J01CE02", date(2026, 3, 12)), ("G03AA07", date(2029, 3, 2))])
def test_the_end_that_nobody_named_is_the_policys_and_is_left_to_the_platform(atc: str, until: date) -> None:
    step = played("issue", "R2", atc=atc)
    assert body_of(step).valid_until == until
    assert step.by_policy == {body_of(step).prescription}


def test_a_day_that_yaml_takes_for_a_truth_is_still_a_day() -> None:
    on: Any = {True: "d0-1d"}
    steps = [{"n": 1, "actor": "operator", "action": "death", "object": "patient", "with": on, "expect": ["applied"]}]
    assert body_of(next(iter(Play({"id": "WORDS", "steps": steps})))).on == date(2026, 3, 1)


# --- What nobody understands ------------------------------------------------------------------------------------------


def test_a_field_that_nobody_reads_is_told_by_scenario_step_and_name() -> None:
    with pytest.raises(
        NotUnderstoodError, match="WORDS, step 2, prescriber A recall R1: nobody reads the field 'colour'"
    ):
        played("recall", "R1", colour="green")


def test_a_value_that_means_nothing_is_told_by_its_place() -> None:
    with pytest.raises(NotUnderstoodError, match=r"WORDS, step 2, prescriber A issue R2: nobody understands .*many"):
        played("issue", "R2", refills="many")


def test_an_action_that_nobody_knows_is_told() -> None:
    with pytest.raises(
        NotUnderstoodError, match="WORDS, step 2, prescriber A dance R1: nobody knows the action 'dance'"
    ):
        played("dance", "R1")


def test_somebody_whom_nobody_knows_is_told() -> None:
    with pytest.raises(NotUnderstoodError, match=r"WORDS, step 2.*nobody is called 'dentist'"):
        played("recall", "R1", "dentist")


@pytest.mark.parametrize("action", NOT_BUILT)
def test_what_is_not_built_yet_says_so(action: str) -> None:
    with pytest.raises(NotBuiltError, match="not built yet"):
        played(action, "T1", "citizen")


def test_a_sentence_that_nobody_understands_is_told_by_scenario_and_step_when_the_rest_was_looked_at() -> None:
    steps = [{"n": 1, "actor": "prescriber A", "action": "issue", "object": "R1", "expect": ["R1 glows", "R1 sings"]}]
    scenario = {"id": "WORDS", "steps": steps, "then": []}
    with pytest.raises(NotUnderstoodError) as told:
        play_through(scenario, FoldRun(Play(scenario)), check_watched)
    assert str(told.value) == (
        "WORDS, step 1: nobody understands 'R1 glows'; WORDS, step 1: nobody understands 'R1 sings'"
    )


def test_what_explains_a_sentence_does_not_stand_for_it() -> None:
    assert not understands("the recall came first: R1 glows")
    assert not understands("R1 glows: the recall came first")


def test_a_flag_that_is_none_is_told() -> None:
    steps = [{"n": 1, "actor": "prescriber A", "action": "issue", "object": "R1", "expect": ["flag un_known"]}]
    scenario = {"id": "WORDS", "steps": steps, "then": []}
    with pytest.raises(NotUnderstoodError, match="WORDS, step 1: un_known is no flag"):
        play_through(scenario, FoldRun(Play(scenario)), check_watched)


def test_a_key_of_the_end_that_nobody_knows_is_told() -> None:
    steps = [{"n": 1, "actor": "prescriber A", "action": "issue", "object": "R1", "expect": ["applied"]}]
    scenario = {"id": "WORDS", "steps": steps, "then": [], "final": {"R1": {"colour": "green"}}}
    with pytest.raises(NotUnderstoodError, match="WORDS, final: nobody knows 'colour' of R1"):
        play_through(scenario, FoldRun(Play(scenario)), check_watched)


def test_what_is_understood_is_told_of_nobody() -> None:
    Unclear({"id": "WORDS"}).tell()


@pytest.mark.parametrize(
    "wrong", ["R1 status T", "flag recalled", "refused(held)", "no list entry", "R1 held by P", "A is told of R1"]
)
def test_what_does_not_hold_fails(wrong: str) -> None:
    steps = [{"n": 1, "actor": "prescriber A", "action": "issue", "object": "R1", "expect": [wrong]}]
    scenario = {"id": "WORDS", "steps": steps, "then": []}
    with pytest.raises(AssertionError):
        play_through(scenario, FoldRun(Play(scenario)), check_watched)


def test_a_notice_that_the_scenario_has_no_word_for_fails() -> None:
    steps = [
        {"n": 1, "actor": "prescriber A", "action": "issue", "object": "R1", "expect": ["applied"]},
        {"n": 2, "actor": "prescriber B", "action": "recall", "object": "R1", "expect": ["applied"]},
    ]
    scenario = {"id": "WORDS", "steps": steps, "then": []}
    with pytest.raises(AssertionError, match="nobody expects 'recalled_by_other to OA about R1'"):
        play_through(scenario, FoldRun(Play(scenario)), check_watched)
