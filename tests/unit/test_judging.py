"""The processor's one pass over a fetch, on a store in memory: neither how the log is cut nor one bad record may matter."""

import random
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from schemas.codec import decode, encode
from schemas.events import Event, PrescriptionIssued
from schemas.framing import Framing
from schemas.reasons import ParkReason
from services.medication_list.driver import Applied, Fetch, PartitionBatch, mark_of
from services.medication_list.fold.judgement import ReceiptDue
from services.medication_list.fold.state import claim_field
from services.medication_list.judging import Judge
from services.medication_list.mending import note_in
from services.medication_list.store.port import Standing
from services.publishing.log import SUBMISSION_HEADER
from tests.oracle.histories import history
from tests.unit.fold_world import PATIENT, aborted, claimed, dispensed, id_of, issued
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
    assert [note_in(each).reason for each in world.store.parked(0).values()] == [ParkReason.NOT_JUDGED]
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
