"""What is not found while a partition of the view is lost, or is being made again, is not told to be nowhere."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.unit.fold_world import id_of, issued
from tests.unit.reading_world import ReadingWorld

NUMBER = "1234-5678"


@pytest_asyncio.fixture
async def world() -> AsyncIterator[ReadingWorld]:
    made = ReadingWorld()
    yield made
    await made.close()


async def found(world: ReadingWorld, **asked: object) -> list[str]:
    answer = await world.post("/internal/prescriptions", asked)
    assert answer.status_code == 200, answer.text
    return [each["prescription"] for each in answer.json()["prescriptions"]]


async def refused(world: ReadingWorld, **asked: object) -> object:
    answer = await world.post("/internal/prescriptions", asked)
    assert answer.status_code == 503, answer.text
    assert answer.json()["type"] == "/problems/list_unavailable"
    assert answer.headers["Retry-After"]
    return answer.json()["progress"]


async def test_a_reference_number_is_nobodys_only_where_every_partition_was_asked(world: ReadingWorld) -> None:
    lost, whole = world.citizens()
    world.say(lost, issued("R1", reference_number=NUMBER))
    world.say(whole, issued("R2", reference_number="of the other"))
    assert await found(world, reference_number="never given") == []
    world.lose(lost.partition)
    for number in (NUMBER, "never given"):
        nothing_there = {"partition": lost.partition, "offset": None, "until": None}
        assert await refused(world, reference_number=number) == nothing_there
    assert await found(world, reference_number="of the other") == [whole.id_of("R2")]

    world.begin(range(lost.partition, lost.partition + 1))
    assert await refused(world, reference_number=NUMBER) == {"partition": lost.partition, "offset": 0, "until": 1}

    world.catch_up(lost.partition)
    assert await found(world, reference_number=NUMBER) == [lost.id_of("R1")]
    assert await found(world, reference_number="never given") == []


async def test_a_number_is_not_told_to_be_none_of_a_patients_while_it_may_be_anothers(world: ReadingWorld) -> None:
    """With all partitions there, the pharmacy would turn the two keys away for contradicting each other."""
    lost, whole = world.citizens()
    world.say(lost, issued("R1", reference_number=NUMBER))
    world.say(whole, issued("R2", reference_number="of the other"))
    world.lose(lost.partition)
    assert await refused(world, patient=whole.key, reference_number=NUMBER)
    assert await found(world, patient=whole.key, reference_number="of the other") == [whole.id_of("R2")]
    assert await found(world, patient=whole.key) == [whole.id_of("R2")]


@pytest.mark.parametrize("role", ["doctor", "pharmacist"])
async def test_a_status_is_not_there_only_where_every_partition_was_asked(world: ReadingWorld, role: str) -> None:
    lost, whole = world.citizens()
    world.say(lost, issued("R1"))
    world.say(whole, issued("R2"))
    world.say(whole, issued("R3", "T3", locked=True))
    world.lose(lost.partition)

    async def status(prescription: str) -> int:
        return (await world.get(f"/v1/prescriptions/{prescription}/status", role=role)).status_code

    assert await status(lost.id_of("R1")) == await status(id_of("of nobody")) == 503
    assert await status(whole.id_of("R2")) == 200
    assert await status(whole.id_of("R3")) == {"doctor": 200, "pharmacist": 503}[role], "as if it had never been"
    world.begin(range(lost.partition, lost.partition + 1))
    world.catch_up(lost.partition)
    assert await status(lost.id_of("R1")) == 200
    assert await status(id_of("of nobody")) == 404
    assert await status(whole.id_of("R3")) == {"doctor": 200, "pharmacist": 404}[role]


async def test_a_lost_partition_keeps_back_neither_the_lists_of_others_nor_a_write(world: ReadingWorld) -> None:
    """The door asks for owners before it takes a write: what it cannot be told it leaves to the fold."""
    lost, whole = world.citizens()
    world.say(lost, issued("R1", reference_number=NUMBER))
    world.say(whole, issued("R2"))
    world.lose(lost.partition)
    assert (await world.post("/v1/list/read", whole.body())).status_code == 200
    asked = {"prescriptions": [whole.id_of("R2"), lost.id_of("R1")], "reference_numbers": [NUMBER]}
    owners = await world.post("/internal/owners", asked)
    assert (owners.status_code, owners.json()) == (200, {whole.id_of("R2"): whole.key})
