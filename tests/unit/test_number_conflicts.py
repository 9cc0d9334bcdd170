"""A number under two patients of different partitions, which no processor sees: whoever reads finds it, and counts it."""

from structlog.testing import capture_logs

from tests.unit.fold_world import issued
from tests.unit.reading_world import ReadingWorld

COUNTED = "medchain_read_number_conflicts_total"


async def test_it_is_counted_with_its_alarm_once_however_often_it_is_read() -> None:
    world = ReadingWorld()
    first, second = world.citizens()
    for citizen, name in ((first, "R1"), (second, "R2")):
        world.say(citizen, issued(name, reference_number="1234-5678"))
    assert f"{COUNTED} 0.0" in (await world.get("/metrics")).text
    with capture_logs() as lines:
        for citizen in (first, second, first):
            assert (await world.post("/v1/list/read", citizen.body())).status_code == 200
    assert [each["partition"] for each in lines if each["event"] == "prescription_number_conflict"] == [
        second.partition
    ]
    assert f"{COUNTED} 1.0" in (await world.get("/metrics")).text
    await world.close()
