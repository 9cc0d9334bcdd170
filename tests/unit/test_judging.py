"""The processor's one pass over a fetch, on a store in memory: how the log is cut into fetches must never matter."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.events import Event
from services.medication_list.fold.state import claim_field
from tests.oracle.histories import history
from tests.unit.fold_world import PATIENT, aborted, claimed, dispensed, id_of, issued
from tests.unit.refold_world import RefoldWorld, Story


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
