"""Every read of a patient tells its position and generation, and whether it lacks an event that could not be read."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest_asyncio

from services.admission.plain import rfc3339
from tests.unit.fold_world import MINUTE_MS, id_of, issued, recorded
from tests.unit.reading_world import Citizen, ReadingWorld
from tests.unit.refold_world import GENERATION

NUMBER = "1234-5678"
TOLD = ("position", "position_recorded_at", "generation", "complete", "incomplete_since")


@pytest_asyncio.fixture
async def world() -> AsyncIterator[ReadingWorld]:
    made = ReadingWorld()
    yield made
    await made.close()


async def reads_of(world: ReadingWorld, citizen: Citizen) -> dict[str, Mapping[str, Any]]:
    """Every way in which the citizen's one prescription is read."""
    by_patient, by_number = {"patient": citizen.key}, {"reference_number": NUMBER}
    answers = {
        "list": await world.post("/v1/list/read", citizen.body()),
        "history": await world.post("/v1/list/history", citizen.body()),
        "search by patient": await world.post("/internal/prescriptions", by_patient),
        "search by number": await world.post("/internal/prescriptions", by_number),
        "search by both": await world.post("/internal/prescriptions", by_patient | by_number),
        "status": await world.get(f"/v1/prescriptions/{citizen.id_of('R1')}/status"),
    }
    assert {answer.status_code for answer in answers.values()} == {200}
    return {name: answer.json() for name, answer in answers.items()}


async def test_every_read_says_that_an_event_of_the_patient_is_parked_and_since_when(world: ReadingWorld) -> None:
    citizen, other = world.citizens()
    place = world.say(citizen, issued("R1", reference_number=NUMBER))
    taken_at = rfc3339(world.clock.now_ms())
    world.say_what_nobody_can_read(other)
    for name, read in (await reads_of(world, citizen)).items():
        assert [read[each] for each in TOLD] == [place, taken_at, GENERATION, True, None], name

    world.say_what_nobody_can_read(citizen)
    since = rfc3339(world.clock.now_ms())
    world.say_what_nobody_can_read(citizen)
    place = world.say(citizen, recorded("T2"))
    taken_at = rfc3339(world.clock.now_ms())
    world.clock.advance(MINUTE_MS)
    for name, read in (await reads_of(world, citizen)).items():
        assert [read[each] for each in TOLD] == [place, taken_at, GENERATION, False, since], name


async def test_what_finds_nothing_of_a_patient_tells_the_same(world: ReadingWorld) -> None:
    citizen, other = world.citizens()
    place = world.say_what_nobody_can_read(citizen)
    taken_at = rfc3339(world.clock.now_ms())
    told = [place, taken_at, GENERATION, False, taken_at]
    found = (await world.post("/internal/prescriptions", {"patient": citizen.key})).json()
    assert (found["prescriptions"], [found[each] for each in TOLD]) == ([], told)
    never_anything = (await world.post("/v1/list/history", other.body())).json()
    assert (never_anything["events"], [never_anything[each] for each in TOLD]) == (
        [],
        [None, None, GENERATION, True, None],
    )


async def test_a_number_that_nobody_has_is_about_no_list(world: ReadingWorld) -> None:
    citizen, _ = world.citizens()
    world.say_what_nobody_can_read(citizen)
    found = (await world.post("/internal/prescriptions", {"reference_number": NUMBER})).json()
    assert found == {"prescriptions": [], "cursor": None, **dict.fromkeys(TOLD)}


async def test_each_page_tells_it(world: ReadingWorld) -> None:
    citizen, _ = world.citizens()
    for number in range(3):
        place = world.say(citizen, issued(f"R{number}", f"T{number}", signed_ms=world.clock.now_ms()))
    cursor: dict[str, str] = {}
    for _ in range(3):
        asked = {"patient": citizen.key, "limit": 1, **cursor}
        page = (await world.post("/internal/prescriptions", asked)).json()
        assert (len(page["prescriptions"]), page["position"], page["complete"]) == (1, place, True)
        cursor = {"cursor": page["cursor"]}
    assert cursor == {"cursor": None}


async def test_a_status_gains_what_every_read_tells_and_loses_nothing(world: ReadingWorld) -> None:
    citizen, _ = world.citizens()
    world.say(citizen, issued("R1", reference_number=NUMBER))
    reads = await reads_of(world, citizen)
    (found,) = reads["search by number"]["prescriptions"]
    assert reads["status"] == {**found, **{each: reads["list"][each] for each in TOLD}}
    assert found["issued"]["treatment"] == id_of("T1")
