"""The checker is checked: of a sound round it says nothing, and each thing that can be broken in one it finds and names."""

from collections.abc import Callable, Sequence
from random import Random

import pytest
from msgspec.structs import replace

from schemas import events as ev
from tests.chaos.checker import Kind, violations
from tests.chaos.evidence import Delivered, Evidence, Progressed, Submitted
from tests.chaos.recorded import PATIENT, sound
from tests.oracle.comparing import compare
from tests.oracle.history import Unreadable
from tests.oracle.memory_held import MemoryHeld
from tests.oracle.reader import Log

SEED = 11


@pytest.fixture
def evidence() -> Evidence:
    return sound(SEED)


def kinds(evidence: Evidence) -> set[Kind]:
    return {each.kind for each in violations(evidence)}


def is_notice(delivered: Delivered) -> bool:
    return isinstance(delivered.message, ev.Notice)


def is_receipt(delivered: Delivered) -> bool:
    return isinstance(delivered.message, ev.SubmissionReceipt)


def where(found: Sequence[Delivered], wanted: Callable[[Delivered], bool]) -> int:
    return next(number for number, each in enumerate(found) if wanted(each))


def test_of_a_sound_round_it_says_nothing(seed: int) -> None:
    dice = Random(seed)
    for _ in range(10):
        assert violations(sound(dice.randrange(10**6))) == []


def test_a_repeated_delivery_is_no_doubled_effect(evidence: Evidence) -> None:
    evidence.delivered.append(evidence.delivered[0])
    assert violations(evidence) == []


# --- Writes -----------------------------------------------------------------------------------------------------------


def test_an_acknowledged_write_that_is_not_in_the_log_is_lost(evidence: Evidence) -> None:
    evidence.lines.append(replace(evidence.lines[0], event_id="00000000-0000-4000-a000-000000000001", position=None))
    assert kinds(evidence) == {Kind.LOST}


def test_an_acknowledged_write_that_lies_beyond_the_end_of_the_log_is_lost(evidence: Evidence) -> None:
    (partition, end) = next(iter(evidence.log.ends.items()))
    evidence.lines.append(replace(evidence.lines[0], position=f"{partition}-{end}"))
    assert Kind.LOST in kinds(evidence)


def test_another_record_in_the_place_of_an_acknowledged_write_is_a_loss(evidence: Evidence) -> None:
    evidence.lines.append(replace(evidence.lines[0], position=evidence.lines[-1].position, sent_at_ms=10**15))
    assert Kind.LOST in kinds(evidence)


def test_a_write_that_nobody_acknowledged_may_be_missing(evidence: Evidence) -> None:
    failed = replace(evidence.lines[0], event_id="00000000-0000-4000-a000-000000000001", position=None)
    evidence.lines.append(replace(failed, outcome="failed"))
    assert violations(evidence) == []


def test_an_answer_that_the_log_contradicts_differs(evidence: Evidence) -> None:
    place = next(number for number, line in enumerate(evidence.lines) if line.outcome == "applied")
    evidence.lines[place] = replace(evidence.lines[place], outcome="refused")
    assert kinds(evidence) == {Kind.DIFFERS}


def test_two_writes_of_one_sender_that_lie_the_wrong_way_round_are_reordered(evidence: Evidence) -> None:
    one, other = evidence.lines[3], evidence.lines[4]
    evidence.lines[3] = replace(one, sent_at_ms=other.sent_at_ms, answered_at_ms=other.answered_at_ms)
    evidence.lines[4] = replace(other, sent_at_ms=one.sent_at_ms, answered_at_ms=one.answered_at_ms)
    assert kinds(evidence) == {Kind.REORDERED}


def test_a_submission_that_nobody_answered_is_lost(evidence: Evidence) -> None:
    evidence.submitted.append(Submitted("prescription-submissions.journal", 0, 99, None))
    assert kinds(evidence) == {Kind.LOST}


def test_a_submission_that_was_rejected_is_answered(evidence: Evidence) -> None:
    topic = "prescription-submissions.journal"
    evidence.submitted.append(Submitted(topic, 0, 99, None))
    receipt = ev.SubmissionReceipt(
        effect_id="00000000-0000-4000-a000-000000000001", outcome="rejected", topic=topic, partition=0, offset=99
    )
    evidence.delivered.append(Delivered("submission-receipts.journal", 0, 99, 0, receipt))
    assert violations(evidence) == []


# --- The view ---------------------------------------------------------------------------------------------------------


def test_a_view_that_left_an_event_out_is_found(evidence: Evidence) -> None:
    records = evidence.log.patients[PATIENT]
    first_told = next(record for record in records if not isinstance(record.event, Unreadable))
    without = Log({PATIENT: [each for each in records if each is not first_told]}, [], dict(evidence.log.ends))
    evidence.report = compare(evidence.log, MemoryHeld(without), [10**13])
    assert Kind.LOST in kinds(evidence)


def test_a_view_in_which_a_repeated_event_took_effect_again_is_doubled(evidence: Evidence) -> None:
    held = MemoryHeld(evidence.log)
    told = dict(held.outcomes_of(PATIENT, set(evidence.event_ids.values())))
    held.outcomes[PATIENT] = told | {"a second one": ("applied", None, frozenset())}
    evidence.report = compare(evidence.log, held, [10**13])
    assert kinds(evidence) == {Kind.DOUBLED}


def test_a_view_that_never_came_to_the_end_has_lost_what_is_left(evidence: Evidence) -> None:
    evidence.report.behind = {0: 3}
    assert kinds(evidence) == {Kind.LOST}


# --- Effects ----------------------------------------------------------------------------------------------------------


def test_a_notice_that_never_came_is_lost(evidence: Evidence) -> None:
    del evidence.delivered[where(evidence.delivered, is_notice)]
    assert kinds(evidence) == {Kind.LOST}


def test_a_receipt_that_never_came_is_lost(evidence: Evidence) -> None:
    del evidence.delivered[where(evidence.delivered, is_receipt)]
    assert kinds(evidence) == {Kind.LOST}


def test_the_same_notice_under_another_id_is_doubled(evidence: Evidence) -> None:
    notice = evidence.delivered[where(evidence.delivered, is_notice)]
    assert isinstance(notice.message, ev.Notice)
    again = replace(notice.message, effect_id="00000000-0000-4000-a000-000000000001")
    evidence.delivered.append(notice._replace(message=again, topic=notice.topic, partition=1))
    assert kinds(evidence) == {Kind.DOUBLED}


def test_a_notice_that_no_event_brought_about_is_invented(evidence: Evidence) -> None:
    notice = evidence.delivered[where(evidence.delivered, is_notice)]
    assert isinstance(notice.message, ev.Notice)
    other = replace(
        notice.message, effect_id="00000000-0000-4000-a000-000000000001", kind="claim_released", prescription=None
    )
    evidence.delivered.append(notice._replace(message=other, partition=1))
    assert kinds(evidence) == {Kind.INVENTED}


def test_first_deliveries_that_come_the_wrong_way_round_are_reordered(evidence: Evidence) -> None:
    notices = [number for number, each in enumerate(evidence.delivered) if is_notice(each)]
    topic = evidence.delivered[notices[0]].topic
    same = [number for number in notices if evidence.delivered[number].topic == topic]
    first, second = same[0], same[-1]
    assert evidence.delivered[first].offset < evidence.delivered[second].offset, "the seed has two of one recipient"
    found = evidence.delivered
    found[first], found[second] = found[second], found[first]
    evidence.progress.clear()
    assert kinds(evidence) == {Kind.REORDERED}


def test_progress_that_was_noted_before_the_delivery_is_too_early(evidence: Evidence) -> None:
    last = evidence.progress[-1]
    evidence.progress.append(Progressed(0, last.partition, last.source_offset))
    assert kinds(evidence) == {Kind.TOO_EARLY}


# --- Reads ------------------------------------------------------------------------------------------------------------


def test_a_list_that_went_back_is_found(evidence: Evidence) -> None:
    evidence.reads.append(evidence.reads[2])
    assert kinds(evidence) == {Kind.WENT_BACK}


def test_a_list_that_went_back_after_a_refusal_was_announced(evidence: Evidence) -> None:
    refused = replace(evidence.reads[-1], status=503, position=None)
    evidence.reads += [refused, evidence.reads[2]]
    assert violations(evidence) == []


def test_a_list_of_a_new_generation_may_stand_further_back(evidence: Evidence) -> None:
    evidence.reads.append(replace(evidence.reads[2], generation="g2-000000"))
    assert violations(evidence) == []


def test_a_list_that_shows_less_than_what_was_asked_for_went_back(evidence: Evidence) -> None:
    evidence.reads[-1] = replace(evidence.reads[-1], after="0-1000")
    assert kinds(evidence) == {Kind.WENT_BACK}


def test_an_empty_list_that_was_not_empty_is_found(evidence: Evidence) -> None:
    place = next(number for number, read in enumerate(evidence.reads) if not read.empty)
    evidence.reads[place] = replace(evidence.reads[place], empty=True)
    assert kinds(evidence) == {Kind.EMPTY}


def test_a_list_with_another_version_than_the_log_gives_differs(evidence: Evidence) -> None:
    evidence.reads[-1] = replace(evidence.reads[-1], version=-1)
    assert kinds(evidence) == {Kind.DIFFERS}


def test_a_list_said_to_be_complete_that_is_not_differs(evidence: Evidence) -> None:
    evidence.reads[-1] = replace(evidence.reads[-1], complete=not evidence.reads[-1].complete)
    assert kinds(evidence) == {Kind.DIFFERS}


def test_an_empty_list_of_a_new_generation_is_found_where_something_was_shown_before(evidence: Evidence) -> None:
    last = evidence.reads[-1]
    assert not last.empty
    built = {"position": -1, "version": -1, "generation": "g2-000000", "empty": True, "complete": True}
    evidence.reads.append(replace(last, asked_at_ms=last.answered_at_ms + 1, **built))
    assert kinds(evidence) == {Kind.EMPTY}
