"""Where the log lost records and others took their places, no offset of the view leads to another patient's record."""

from collections.abc import AsyncIterator, MutableMapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace
from structlog.testing import capture_logs

from schemas.codec import decode, encode
from schemas.events import Event
from services.medication_list.refolding.refolder import RefoldRefusedError
from tests.unit.fold_world import PATIENT, issued
from tests.unit.reading_world import Citizen, ReadingWorld
from tests.unit.refold_world import Story

ANOTHER = "f" * 32


@pytest_asyncio.fixture
async def world() -> AsyncIterator[ReadingWorld]:
    made = ReadingWorld()
    yield made
    await made.close()


async def laid_over(world: ReadingWorld) -> tuple[Citizen, int]:
    """A citizen whose second record is another's by now, and the time of the last one."""
    whose, another = world.citizens()
    world.say(whose, issued("R1"))
    lost = world.say(whose, issued("R2", "T2"))
    world.say(another, issued("R3"))
    world.lay_over(lost, another)
    return whose, world.clock.now_ms()


def alarmed(lines: Sequence[MutableMapping[str, Any]]) -> list[tuple[int, int]]:
    """Partition and offset of each alarm."""
    return [
        (line["partition"], line["offset"])
        for line in lines
        if (line["event"], line["log_level"]) == ("record_not_as_judged", "error")
    ]


async def test_a_history_shows_no_record_of_another_patient(world: ReadingWorld) -> None:
    whose, _ = await laid_over(world)
    with capture_logs() as lines:
        answer = await world.post("/v1/list/history", whose.body())
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/log_unavailable")
    assert alarmed(lines) == [(whose.partition, 1)]


async def test_a_list_of_the_past_is_not_made_of_another_patients_record(world: ReadingWorld) -> None:
    whose, now_ms = await laid_over(world)
    as_of = datetime.fromtimestamp(now_ms / 1000, UTC).isoformat()
    with capture_logs() as lines:
        answer = await world.post("/v1/list/read", whose.body(as_of=as_of))
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/log_unavailable")
    assert alarmed(lines) == [(whose.partition, 1)]


def test_a_refold_makes_nothing_of_another_patients_record() -> None:
    story = Story()
    story.say(issued("R1"))
    story.say(issued("R2", "T2"), damaged=True)
    world = story.world
    world.mend([1])
    theirs = decode(world.records[0, 1].value)
    assert isinstance(theirs, Event)
    record = encode(replace(theirs, patient=ANOTHER))
    world.records[0, 1] = world.records[0, 1]._replace(key=ANOTHER.encode(), value=record)
    before = world.view(PATIENT)
    with pytest.raises(RefoldRefusedError, match="offset 1 of partition 0"):
        world.refolder.refold(PATIENT)
    assert world.view(PATIENT) == before


def test_a_refold_is_refused_where_the_log_lost_a_record() -> None:
    story = Story()
    story.say(issued("R1"))
    story.say(issued("R2", "T2"), damaged=True)
    del story.world.records[0, 1]
    with pytest.raises(RefoldRefusedError, match="lost records"):
        story.world.refolder.refold(PATIENT)
