"""The processor's one pass over a fetch, on a store in memory: neither how the log is cut nor one bad record may matter."""

import random
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from structlog.testing import capture_logs

from schemas.codec import decode, encode
from schemas.events import Event, PrescriptionIssued
from schemas.framing import Framing
from schemas.reasons import ParkReason
from services.canonical_log.allowed_keys import ALLOWED
from services.medication_list.driver.batches import Applied, Fetch, PartitionBatch
from services.medication_list.fold.judgement import ReceiptDue
from services.medication_list.fold.state import claim_field
from services.medication_list.judging.counting import Judged
from services.medication_list.judging.judge import Judge
from services.medication_list.log.last_record import mark_of
from services.medication_list.store.memory_roles import MemoryRoles
from services.medication_list.store.memory_store import MemoryStore
from services.medication_list.store.port import Standing
from services.medication_list.store.roles import Beginning
from services.medication_list.stored.parked_note import unpack_note
from services.publishing.log import SUBMISSION_HEADER
from tests.oracle.histories import history
from tests.unit.fold_world import PATIENT, aborted, claimed, dispensed, id_of, issued, tablets
from tests.unit.refold_world import RefoldWorld, Stored, Story


def test_a_claim_that_a_hand_out_ended_is_forgotten_by_the_store_too() -> None:
    """The hand-out never reads the field that it removes."""
    story = Story()
    for said in (issued("R1"), claimed("R1", "C1"), dispensed("D1", "R1")):
        story.say(said)
    assert claim_field(id_of("C1")) not in story.world.store.read_whole(0, PATIENT).fields
    story.say(aborted("C1"))
    assert story.outcome() == "refused(no_claim)"


@settings(max_examples=40)
@given(seed=st.integers(0, 100_000), length=st.integers(1, 80))
def test_one_record_a_fetch_gives_what_many_at_once_give(seed: int, length: int) -> None:
    dice, world = random.Random(seed), RefoldWorld()
    for each in history(seed, length):
        if isinstance(each.event, Event):
            world.append(each.event, each.broker_time_ms, damaged=dice.random() < 0.05)
    assert world.server.content() == world.afresh().server.content()


# --- What is wrong with one record is its own matter -------------------------------------------------------------


def told_by(world: RefoldWorld) -> list[ReceiptDue]:
    return [each.due for each in world.effects() if isinstance(each.due, ReceiptDue)]


def another(record: Stored, *headers: tuple[str, Any]) -> list[Stored]:
    """A prescription with these headers, and one after it."""
    event = cast("Event[PrescriptionIssued]", decode(record.value))
    return [
        record._replace(offset=offset, value=encode(renamed(event, number)), headers=headers if number == 2 else ())
        for number, offset in ((2, record.offset + 1), (3, record.offset + 2))
    ]


def renamed(event: Event[PrescriptionIssued], number: int) -> Event[PrescriptionIssued]:
    body = replace(event.body, prescription=id_of(f"R{number}"), treatment=id_of(f"T{number}"))
    return replace(event, event_id=id_of(f"another {number}"), body=body)


def test_a_header_that_is_no_text_keeps_nobody_from_being_judged() -> None:
    """Not even the event that came with it: what happened is not the header's."""
    story = Story()
    story.say(issued("R1"))
    records = another(story.world.records[0, 0], (SUBMISSION_HEADER, b"\xff\xfe"), ("traceparent", None))
    story.world.records.update(((0, each.offset), each) for each in records)
    story.world.judge(records)
    assert [story.outcome(offset) for offset in (1, 2)] == ["applied", "applied"]
    assert [each.message_id for each in told_by(story.world)] == ["\ufffd\ufffd"]


def test_whatever_fails_on_the_way_of_one_record_parks_that_one_alone() -> None:
    story = Story()
    story.say(issued("R1"))
    records = another(
        story.world.records[0, 0], (SUBMISSION_HEADER, 7)
    )  # what no broker sends, and what nobody foresaw
    story.world.records.update(((0, each.offset), each) for each in records)
    story.world.judge(records)
    assert [story.outcome(offset) for offset in (1, 2)] == ["parked(not_judged)", "applied"]
    assert told_by(story.world) == []


class Stumbling(Framing):
    """Fails on one record as no framing is known to."""

    def from_topic(self, value: bytes | None) -> bytes | None:
        """See `Framing.from_topic`."""
        if value == b"stumble":
            raise ZeroDivisionError
        return value


def test_a_record_that_decoding_stumbles_over_is_parked_alone_too() -> None:
    story = Story()
    story.say(issued("R1"))
    world = story.world
    records = another(world.records[0, 0])
    records[0] = records[0]._replace(value=b"stumble")
    batch = PartitionBatch(0, 1, 3, records, 0)
    assert Judge(world.store, 1, Stumbling()).process(Fetch((batch,))) == {0: Applied(3)}
    assert [unpack_note(each).reason for each in world.store.parked(0).values()] == [ParkReason.NOT_JUDGED]
    assert world.store.parked(0).keys() == {1}


def test_the_view_knows_the_record_that_it_judged_last_however_the_log_was_cut() -> None:
    """Also one that nobody can read, and where transaction markers follow it."""
    story = Story()
    story.say(issued("R1"))
    story.say(issued("R2", "T2"), damaged=True)
    world = story.world
    assert world.store.standing([0]) == {0: Standing(2, mark_of(world.records[0, 1]))}
    assert Judge(world.store, 1).process(Fetch((PartitionBatch(0, 2, 4, [], 0),))) == {0: Applied(4)}
    assert world.store.standing([0]) == {0: Standing(4, mark_of(world.records[0, 1]))}
    assert world.afresh().store.standing([0])[0].last == mark_of(world.records[0, 1])


# --- Alarms: raised once, by the live generation ------------------------------------------------------------------

ALARMS: Final = ("conflicting_duplicate", "prescription_number_conflict")


def another_patients(record: Stored, offset: int) -> Stored:
    """The same prescription as another patient's."""
    event = cast("Event[PrescriptionIssued]", decode(record.value))
    whose = "f" * 32
    return record._replace(
        offset=offset,
        key=whose.encode(),
        value=encode(replace(event, event_id=id_of(f"of another {offset}"), patient=whose)),
    )


def contradicted() -> RefoldWorld:
    """A log whose second record is refused for what the first one said, and whose third has the first one's number."""
    story = Story()
    story.say(issued("R1"))
    story.say(issued("R1", quantity=tablets(7)))
    story.world.add(another_patients(story.world.records[0, 0], 2))
    assert story.outcome(1) == "refused(conflicting_duplicate)"
    return story.world


def alarms_in(lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    """Those of the lines that are such an alarm."""
    return [(each["event"], each["partition"]) for each in lines if each["event"] in ALARMS]


def test_who_says_otherwise_what_was_said_before_is_an_alarm_that_names_the_event_and_its_sender_alone() -> None:
    with capture_logs() as lines:
        world = contradicted()
    (line,) = [each for each in lines if each["event"] == "conflicting_duplicate"]
    event = cast("Event[PrescriptionIssued]", decode(world.records[0, 1].value))
    assert line == {
        "event": "conflicting_duplicate",
        "log_level": "error",
        "partition": 0,
        "offset": 1,
        "event_id": event.event_id,
        "event_type": "PrescriptionIssued",
        "system": event.source.system,
        "organisation": event.source.organisation,
    }
    assert all(ALLOWED[key](value) for key, value in line.items() if key not in ("event", "log_level"))
    assert world.alarms() == (1, 1)


def test_an_event_id_that_comes_again_with_other_content_is_such_an_alarm_too_and_with_the_same_content_is_none() -> (
    None
):
    story = Story()
    for said in (issued("R1"), issued("R1"), claimed("R1", "C1")):
        story.say(said, event_id=id_of("one"))
    assert story.world.alarms() == (0, 1)


def test_a_generation_beside_the_live_one_raises_no_alarm_of_it() -> None:
    world = contradicted()
    assert not MemoryRoles(world.server).begin({0: Beginning("g2-aaaaaa", 1, 0, 0, beside=1)})
    with capture_logs() as lines:
        told = fold_into(MemoryStore(world.server, "g2-aaaaaa"), list(world.records.values()))
    assert alarms_in(lines) == []
    assert (told.conflicts, told.conflicting, told.outcomes["refused"]) == (0, 0, 1)


@pytest.mark.parametrize(("relayed", "again"), [(3, []), (2, ALARMS[1:]), (0, ALARMS)])
def test_a_view_that_is_made_again_raises_no_alarm_of_what_was_sent_before_it_was_lost(
    relayed: int, again: Sequence[str]
) -> None:
    world = contradicted()
    world.server.flush()
    assert not MemoryRoles(world.server).begin({0: Beginning("g1-bbbbbb", 1, 3, relayed)})
    with capture_logs() as lines:
        told = fold_into(MemoryStore(world.server, "g1-bbbbbb"), list(world.records.values()))
    assert sorted(alarms_in(lines)) == [(each, 0) for each in again]
    assert told.conflicts + told.conflicting == len(again)


def fold_into(store: MemoryStore, records: Sequence[Stored]) -> Judged:
    """Judge them in one fetch; returns what was told of it."""
    told: list[Judged] = []
    batch = PartitionBatch(0, 0, len(records), records, 0)
    assert Judge(store, 1, told=told.append).process(Fetch((batch,))) == {0: Applied(len(records))}
    (one,) = told
    return one
