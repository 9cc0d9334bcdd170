"""What a repetition is answered by the list: what became of the first, with its flags and what it named, and no more than that showed."""

import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.unit.fold_world import (
    Said,
    aborted,
    changed,
    claimed,
    dispensed,
    issued,
    multidose,
    organisation,
    recalled,
    reversed_,
)
from tests.unit.reading_world import ReadingWorld

EVENT_ID = "0b7cbf7e-4c5f-5d0f-9f0d-0a3f5c9e7f11"
HELD = {"outcome": "refused", "reason": "held", "flags": [], "named": {"holder": organisation("P")}}
same_event_or_not = pytest.mark.parametrize("event_id", [EVENT_ID, None], ids=["same event", "new event id"])


@pytest_asyncio.fixture
async def world() -> AsyncIterator[ReadingWorld]:
    made = ReadingWorld()
    yield made
    await made.close()


@same_event_or_not
async def test_a_duplicate_tells_what_the_first_refusal_named(world: ReadingWorld, event_id: str | None) -> None:
    citizen, _ = world.citizens()
    world.say(citizen, issued())
    world.say(citizen, claimed(claim="C1", by="P"))
    world.say(citizen, claimed(claim="C2", by="Q"), event_id=EVENT_ID)
    again = event_id or str(uuid.uuid4())
    position = world.say(citizen, claimed(claim="C2", by="Q"), event_id=again)
    assert (await world.outcome(citizen, position))["first"] == HELD
    asked_later = (await world.get(f"/v1/events/{again}?position={position}")).json()
    assert (asked_later["outcome"], asked_later["first"]) == ("duplicate", HELD)


async def test_a_duplicate_tells_which_a_recall_was_the_first_time(world: ReadingWorld) -> None:
    citizen, _ = world.citizens()
    world.say(citizen, issued())
    first = await world.outcome(citizen, world.say(citizen, recalled(), event_id=EVENT_ID))
    again = await world.outcome(citizen, world.say(citizen, recalled(), event_id=EVENT_ID))
    assert first["named"]
    assert again["first"]["named"] == first["named"]


@same_event_or_not
async def test_a_repeated_claim_is_answered_with_the_flags_of_the_first(
    world: ReadingWorld, event_id: str | None
) -> None:
    citizen, _ = world.citizens()
    for said in (issued(), changed()):
        world.say(citizen, said)
    first = await world.outcome(citizen, world.say(citizen, claimed(), event_id=EVENT_ID))
    again = await world.outcome(citizen, world.say(citizen, claimed(), event_id=event_id))
    assert first["resource"]["flags"] == ["dosing_changed"]
    assert (again["outcome"], again["first"]["flags"]) == ("duplicate", ["dosing_changed"])
    assert again["resource"] == first["resource"]


@same_event_or_not
async def test_a_refused_claim_that_is_repeated_shows_no_more_than_the_refusal(
    world: ReadingWorld, event_id: str | None
) -> None:
    citizen, _ = world.citizens()
    world.say(citizen, issued(locked=True))
    world.say(citizen, claimed(claim="C1", by="P"))
    world.say(citizen, claimed(claim="C2", by="Q"), event_id=EVENT_ID)
    again = event_id or str(uuid.uuid4())
    for _ in ("the second time", "the third time"):
        told = await world.outcome(citizen, world.say(citizen, claimed(claim="C2", by="Q"), event_id=again))
        assert told.keys() == {"event_id", "outcome", "position", "first"}
        assert (told["outcome"], told["first"]) == ("duplicate", HELD)


@pytest.mark.parametrize("refused", [aborted("C1", by="Q"), reversed_("D1", by="Q")], ids=["abort", "reversal"])
async def test_what_was_refused_to_another_pharmacy_shows_it_no_prescription_when_it_is_repeated(
    world: ReadingWorld, refused: Said
) -> None:
    citizen, _ = world.citizens()
    for said in (issued(locked=True), dispensed("D1", by="P"), claimed(claim="C1", by="P")):
        world.say(citizen, said)
    world.say(citizen, refused, event_id=EVENT_ID)
    told = await world.outcome(citizen, world.say(citizen, refused, event_id=EVENT_ID))
    assert (told["outcome"], told["first"]["outcome"]) == ("duplicate", "refused")
    assert "resource" not in told


async def test_a_duplicate_of_nothing_that_it_names_has_no_first_and_shows_what_it_is_about(
    world: ReadingWorld,
) -> None:
    citizen, _ = world.citizens()
    world.say(citizen, multidose())
    told = await world.outcome(citizen, world.say(citizen, multidose()))
    assert (told["outcome"], told.get("first")) == ("duplicate", None)
    assert told["resource"]["pharmacy"] == organisation("P")
