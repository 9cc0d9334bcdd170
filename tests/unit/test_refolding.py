"""One patient folded anew: what had been parked takes effect in its own place, and nothing else changes or is lost."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from structlog.testing import capture_logs

from schemas.events import Body, Event, ParkedRecordClosed
from schemas.reasons import ParkReason
from services.admission.read_token import ReadToken
from services.medication_list.fold.judgement import NoticeDue, ReceiptDue
from services.medication_list.read_api.view import show_treatment
from services.medication_list.refolding.refolder import Refold, RefoldRefusedError
from services.medication_list.store.memory_roles import MemoryRoles
from services.medication_list.store.roles import Beginning
from services.medication_list.stored.answered import ANSWERED
from services.medication_list.stored.effects import effect_id_of
from services.medication_list.stored.packing import unpack_field
from tests.oracle.histories import history
from tests.unit.fold_world import (
    ACTORS,
    MINUTE_MS,
    PATIENT,
    Said,
    at,
    claimed,
    closed,
    dispensed,
    id_of,
    issued,
    organisation,
    recalled,
    reconciled,
    reversed_,
    tablets,
)
from tests.unit.refold_world import GENERATION, RefoldWorld, Story


def without_answers(view: dict[str, object]) -> dict[str, object]:
    """What the log alone tells."""
    return {
        key: {name: value for name, value in held.items() if name != ANSWERED.encode()}
        if isinstance(held, dict)
        else held
        for key, held in view.items()
    }


def events_of(seed: int, length: int) -> list[tuple[Event[Body], int]]:
    """A history by chance, with the times at which the broker took its records."""
    records = history(seed, length + 5)
    return [(each.event, each.broker_time_ms) for each in records if isinstance(each.event, Event)]


@settings(max_examples=60)
@given(seed=st.integers(0, 100_000), length=st.integers(1, 60), share=st.sampled_from([0.05, 0.2, 0.6]))
def test_a_refold_after_the_mend_gives_what_a_fold_of_the_mended_log_gives(
    seed: int, length: int, share: float
) -> None:
    """Byte for byte, but for what had been answered; also when it is mended in parts, with traffic between."""
    dice = random.Random(seed)
    world = RefoldWorld()
    story = events_of(seed, length)
    patient = story[0][0].patient
    for number, (event, at_ms) in enumerate(story):
        world.append(event, at_ms, damaged=dice.random() < share, submission=dice.random() < 0.2)
        if dice.random() < 0.1:
            world.append(a_closing(event, dice.randrange(len(world.records)), number), at_ms)
        if number in (length // 3, 2 * length // 3):
            world.mend([offset for offset in list(world.good) if dice.random() < 0.5])
            world.refolder.refold(patient)
    world.mend(list(world.good))
    done = world.refolder.refold(patient)
    assert done is not None
    assert not done.parked
    assert without_answers(world.view(patient)) == without_answers(world.afresh().view(patient))
    again = world.refolder.refold(patient)
    assert again is not None
    assert not again.is_needed


def a_closing(event: Event[Body], offset: int, number: int) -> Event[Body]:
    """An operator's, of a record that may or may not be parked."""
    body = ParkedRecordClosed(offset=offset, reason="cut off")
    return replace(event, event_id=id_of(f"closing {number}"), source=ACTORS["operator"], body=body)


@settings(max_examples=60)
@given(seed=st.integers(0, 100_000), length=st.integers(1, 60))
def test_a_refold_doubles_no_effect_and_owes_none_that_followed_from_what_was_parked(seed: int, length: int) -> None:
    dice = random.Random(seed)
    world = RefoldWorld()
    story = events_of(seed, length)
    for event, at_ms in story:
        world.append(event, at_ms, damaged=dice.random() < 0.2, submission=dice.random() < 0.3)
    parked = set(world.good)
    before = world.effects()
    world.mend(parked)
    plan = world.refolder.preview(story[0][0].patient)
    assert world.effects() == before, "looking changes nothing"
    world.refolder.refold(story[0][0].patient)
    fresh = world.afresh()
    ids = Counter(effect_id_of(each.due) for each in world.effects() if not isinstance(each.due, ReceiptDue))
    once = Counter(effect_id_of(each.due) for each in fresh.effects() if not isinstance(each.due, ReceiptDue))
    assert {name: many for name, many in ids.items() if many > max(1, once[name])} == {}
    owed = {effect_id_of(each.due) for each in fresh.effects() if each.source_offset in parked}
    assert owed <= {effect_id_of(each.due) for each in world.effects()}
    told = {each.event_id for each in plan.changes if each.is_outcome}
    changed = [each.due for each in world.effects()[len(before) :] if isinstance(each.due, NoticeDue)]
    assert told <= {due.source_event for due in changed if due.kind == "outcome_changed"}


# --- One story at a time -----------------------------------------------------------------------------------------


def test_a_parked_recall_takes_effect_in_its_place_and_whoever_was_answered_otherwise_is_told() -> None:
    story = Story()
    story.say(issued("R1"))
    story.say(recalled("R1"), damaged=True)
    claim = story.say(claimed("R1", "C1", by="P"))
    done = story.refold()
    assert [(each.offset, each.answered.outcome, each.now.reason) for each in done.changes] == [
        (claim, "applied", "recalled")
    ]
    assert done.unparked == [1]
    (notice,) = [due for due in done.effects if isinstance(due, NoticeDue) and due.kind == "outcome_changed"]
    assert (notice.organisation, notice.outcome, notice.reason) == (organisation("P"), "refused", "recalled")
    whole = story.world.store.read_whole(0, PATIENT)
    entry = show_treatment({name: unpack_field(name, each) for name, each in whole.fields.items()}, id_of("T1"), at(1))
    assert entry is not None
    assert "outcome_changed" in entry.flags
    kept = story.field(ANSWERED)
    assert [(each.entry, each.times, each.first.outcome) for each in kept.changes] == [(id_of("T1"), 1, 0)]


def test_nothing_is_written_before_it_is_approved_and_nothing_if_it_is_not() -> None:
    story = Story()
    story.say(issued("R1"), damaged=True)
    story.world.mend([0])
    before = story.world.server.content()
    assert story.world.refolder.refold(PATIENT, lambda _: False) is None
    assert story.world.server.content() == before


def test_an_event_that_comes_between_reading_and_writing_is_not_lost_and_a_changed_answer_is_shown_again() -> None:
    story = Story()
    story.say(issued("R1"))
    story.say(recalled("R1"), damaged=True)
    story.world.mend([1])
    shown: list[list[int]] = []

    def approve(plan: Refold) -> bool:
        shown.append([each.offset for each in plan.changes])
        if len(shown) == 1:
            story.say(claimed("R1", "C1", by="P"))
        return True

    done = story.world.refolder.refold(PATIENT, approve)
    assert done is not None
    assert shown == [[], [2]]
    assert without_answers(story.world.view(PATIENT)) == without_answers(story.world.afresh().view(PATIENT))


def test_a_conflicting_report_that_leaves_no_entry_in_the_index_is_not_lost_either() -> None:
    story = Story()
    story.say(issued("R1"), damaged=True)
    story.say(dispensed("D1", "R1"), event_id=id_of("first report"))
    story.world.mend([0])
    came = iter([dispensed("D1", "R1", quantity=None, by="Q")])

    def approve(_: Refold) -> bool:
        for said in came:
            story.say(said, event_id=id_of("first report"))
        return True

    story.world.refolder.refold(PATIENT, approve)
    assert story.world.view(PATIENT) == story.world.afresh().view(PATIENT)


def test_the_list_stays_incomplete_while_anything_else_is_parked_and_since_that() -> None:
    story = Story()
    story.say(issued("R1"), damaged=True)
    story.say(recalled("R1"), damaged=True)
    second_ms = story.now_ms
    story.world.mend([0])
    done = story.world.refolder.refold(PATIENT)
    assert done is not None
    assert (done.unparked, done.parked) == ([0], [1])
    assert story.world.store.parked(0).keys() == {1}
    assert story.field("meta").incomplete_since_ms == second_ms
    story.refold()
    assert story.field("meta").incomplete_since_ms == 0


def test_each_correction_of_one_event_is_another_effect() -> None:
    """Twice changed, twice told: a receiver that knows the first must not take the second for it."""
    story = Story()
    story.say(issued("R1"), damaged=True)
    story.say(recalled("R1"), damaged=True)
    story.say(claimed("R1", "C1", by="P"))
    for offset in (0, 1):
        story.world.mend([offset])
        story.world.refolder.refold(PATIENT)
    told = [each.due for each in story.world.effects() if isinstance(each.due, NoticeDue)]
    corrections = [due for due in told if due.kind == "outcome_changed"]
    assert [(due.outcome, due.reason) for due in corrections] == [("applied", None), ("refused", "recalled")]
    assert len({effect_id_of(due) for due in corrections}) == 2


def test_a_correction_after_a_loss_is_another_effect_than_one_before_it_that_told_something_else() -> None:
    """How often an answer has changed is known to the view alone; a lost one counts from the beginning."""
    story = Story()
    story.say(issued("R1"), damaged=True)
    story.say(recalled("R1"), damaged=True)
    story.say(claimed("R1", "C1", by="P"))
    told = []
    for offset in (0, 1):
        story.world.mend([offset])
        story.world.refolder.refold(PATIENT)
        told += [each.due for each in story.world.effects() if isinstance(each.due, NoticeDue)]
        story.world.server.flush()
        MemoryRoles(story.world.server).begin({0: Beginning(GENERATION, 1, 0, 0)})
        story.world.judge(list(story.world.records.values()))
    corrections = [due for due in told if due.kind == "outcome_changed"]
    assert [(due.outcome, due.reason) for due in corrections] == [("applied", None), ("refused", "recalled")]
    assert len({effect_id_of(due) for due in corrections}) == 2


def test_a_parked_submission_gets_its_receipt_when_it_is_judged() -> None:
    story = Story()
    story.say(issued("R1"), damaged=True, submission=True)
    done = story.refold()
    assert [due.message_id for due in done.effects if isinstance(due, ReceiptDue)] == ["message-0"]


def test_a_reversal_that_the_fold_itself_corrects_is_corrected_once() -> None:
    story = Story()
    story.say(issued("R1"))
    story.say(reversed_("D1", by="Q"))
    story.say(dispensed("D1", "R1", by="P"), damaged=True)
    done = story.refold()
    told = [due for due in done.effects if isinstance(due, NoticeDue) and due.kind == "outcome_changed"]
    assert [due.organisation for due in told] == [organisation("Q")]


def test_a_release_that_reads_less_takes_nothing_back() -> None:
    story = Story()
    offset = story.say(issued("R1"))
    record = story.world.records[0, offset]
    story.world.records[0, offset] = record._replace(value=b"\xc3\x01newer!!!" + record.value[10:])
    with pytest.raises(RefoldRefusedError, match="was judged"):
        story.world.refolder.refold(PATIENT)


def test_what_is_parked_for_another_reason_now_is_listed_by_that() -> None:
    story = Story()
    story.say(issued("R1"), damaged=True)
    record = story.world.records[0, 0]
    story.world.records[0, 0] = record._replace(value=b"no Avro of ours")
    before = story.world.store.parked(0)[0]
    story.world.refolder.refold(PATIENT)
    assert story.world.store.parked(0)[0] != before
    assert ParkReason.UNREADABLE.encode() in story.world.store.parked(0)[0]


# --- Confirming a list that something was missing from -----------------------------------------------------------


def confirming(story: Story) -> Said:
    """A doctor confirms the list as it is read now, by what the read API puts into the token."""
    version, is_whole = story.field("meta").version, not story.field("meta").incomplete_since_ms
    token = ReadToken(version, story.now_ms, is_whole)
    return reconciled(token.confirmed_version, at_ms=story.now_ms + MINUTE_MS, read_ms=token.read_at_ms)


def test_a_list_that_was_read_while_something_was_missing_is_not_confirmed_when_it_is_whole() -> None:
    """The version is the same before and after: what was missing takes effect at its old place."""
    story = Story()
    story.say(issued("R1", "T1"))
    story.say(issued("R9", "T9", by="B"), damaged=True)
    read, version = confirming(story), story.field("meta").version
    story.refold()
    assert story.field("meta").version == version
    story.say(read)
    assert story.outcome() == "refused(stale)"
    story.say(confirming(story))
    assert story.outcome() == "applied"


def test_a_refused_confirmation_of_a_list_with_something_missing_does_not_come_to_stand_by_a_refold() -> None:
    story = Story()
    story.say(issued("R1", "T1"))
    story.say(issued("R9", "T9", by="B"), damaged=True)
    story.say(confirming(story))
    assert story.outcome() == "refused(list_incomplete)"
    story.refold()
    assert (story.outcome(), story.field("meta").reconciled) == ("refused(stale)", None)


def test_a_list_that_was_whole_stays_confirmed_though_a_closed_record_proves_readable() -> None:
    """An operator had said that nothing was missing. docs/decisions/version.md says what that costs."""
    story = Story()
    story.say(issued("R1", "T1"))
    story.say(issued("R9", "T9", by="B"), damaged=True)
    story.say(closed(1))
    story.say(issued("R2", "T2"))
    story.say(confirming(story))
    story.refold()
    assert story.outcome() == "applied"


@pytest.mark.parametrize("damaged", [0, 1], ids=["the first", "the one that contradicts it"])
def test_a_refold_that_finds_what_was_said_otherwise_raises_the_alarm_once(damaged: int) -> None:
    story = Story()
    for number, said in enumerate((issued("R1"), issued("R1", quantity=tablets(7)))):
        story.say(said, damaged=number == damaged)
    assert story.world.alarms() == (0, 0)
    with capture_logs() as lines:
        story.refold()
    assert story.outcome(1) == "refused(conflicting_duplicate)"
    assert [each["offset"] for each in lines if each["event"] == "conflicting_duplicate"] == [1]
    story.refold()
    assert story.world.alarms() == (0, 1)
