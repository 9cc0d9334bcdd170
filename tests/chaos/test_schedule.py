"""The schedule of a round is its seed's alone, and no fault undoes another."""

from tests.chaos.faults import FAULTS
from tests.chaos.schedule import schedule


def names(seed: int, places: int = 5) -> list[list[str]]:
    return [[fault.name for fault in together] for together in schedule(seed, places)]


def test_the_same_seed_gives_the_same_faults() -> None:
    assert names(7) == names(7)
    assert names(7) != names(8)


def test_over_many_rounds_every_fault_is_drawn_but_those_that_are_only_for_the_asking() -> None:
    drawn = {name for seed in range(200) for together in names(seed) for name in together}
    assert drawn == {name for name, fault in FAULTS.items() if fault.weight}


def test_a_round_has_a_fault_only_once() -> None:
    for seed in range(50):
        several = [name for together in names(seed) for name in together]
        assert len(several) == len(set(several))


def test_two_faults_of_the_servers_never_stand_together() -> None:
    for seed in range(200):
        for together in names(seed):
            assert (
                sum(name.startswith(("broker_", "redis_", "records_", "started_", "switch")) for name in together) < 2
            )


def test_faults_that_are_asked_for_come_in_their_order() -> None:
    asked = ["redis_flushed", "link_cut"]
    assert [[fault.name for fault in place] for place in schedule(1, 3, asked)] == [
        ["redis_flushed"],
        ["link_cut"],
        ["redis_flushed"],
    ]
