"""A read that is wrong is told everything that is wrong with it at once, the form of its position or cursor too."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from services.admission.errors import TurnedAway
from services.pharmacy.search import asked_of
from tests.unit.fold_world import issued
from tests.unit.reading_world import DOOR, PARTITIONS, ReadingWorld

NO_POSITIONS = ("yesterday", "-1-0", f"{PARTITIONS}-0", "1-", "01-1", "1-1 ")
NO_CURSORS = ("nowhere", "???", "1", "MTIz", "Æ")


@pytest_asyncio.fixture
async def world() -> AsyncIterator[ReadingWorld]:
    made = ReadingWorld()
    yield made
    await made.close()


async def told(world: ReadingWorld, path: str, sent: object) -> set[tuple[str, str]]:
    answer = await world.post(path, sent)
    assert answer.status_code == 422, answer.text
    return {(error["pointer"], error["reason"]) for error in answer.json()["errors"]}


@pytest.mark.parametrize("position", NO_POSITIONS)
async def test_a_position_that_no_answer_told_is_told_with_all_else(world: ReadingWorld, position: str) -> None:
    citizen, _ = world.citizens()
    wrong = citizen.body(after_position=position, as_of="2031-01-01T00:00:00Z", more=1)
    assert await told(world, "/v1/list/read", wrong) == {
        ("/after_position", "wrong_format"),
        ("/as_of", "out_of_range"),
        ("/more", "unexpected_field"),
    }
    nobody = {"patient": {"national_id": "12345678901"}, "cursor": position, "limit": 0}
    assert await told(world, "/v1/list/history", nobody) == {
        ("/patient/national_id", "wrong_format"),
        ("/cursor", "wrong_format"),
        ("/limit", "out_of_range"),
    }


async def test_a_position_of_another_patients_partition_is_no_fault_of_form(world: ReadingWorld) -> None:
    citizen, other = world.citizens()
    elsewhere = world.say(other, issued("R1"))
    sent = citizen.body(after_position=elsewhere)
    assert await told(world, "/v1/list/read", sent) == {("/after_position", "contradicts")}
    assert await told(world, "/v1/list/history", citizen.body(cursor=elsewhere)) == {("/cursor", "contradicts")}


@pytest.mark.parametrize("cursor", NO_CURSORS)
def test_a_cursor_that_no_search_made_is_told_with_all_else(cursor: str) -> None:
    sent: dict[str, Any] = {"reference_number": "RX-1", "limit": 0, "all": "yes", "cursor": cursor}
    with pytest.raises(TurnedAway) as wrong:
        asked_of(DOOR, sent, 0)
    assert {(error.pointer, error.reason.value) for error in wrong.value.errors()} == {
        ("/limit", "out_of_range"),
        ("/all", "wrong_type"),
        ("/cursor", "wrong_format"),
    }


async def test_the_cursor_of_a_page_passes_the_pharmacys_door_unchanged(world: ReadingWorld) -> None:
    citizen, _ = world.citizens()
    for number in range(2):
        world.say(citizen, issued(f"R{number}", f"T{number}", signed_ms=world.clock.now_ms()))
    page = (await world.post("/internal/prescriptions", {"patient": citizen.key, "limit": 1})).json()
    asked = asked_of(DOOR, {"reference_number": "RX-1", "cursor": page["cursor"]}, 0)
    assert asked["cursor"] == page["cursor"]
    assert await told(world, "/internal/prescriptions", {"patient": citizen.key, "cursor": "nowhere"}) == {
        ("/cursor", "wrong_format")
    }
