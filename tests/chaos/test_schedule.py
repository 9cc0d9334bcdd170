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


def test_two_faults_of_one_server_never_stand_together() -> None:
    for seed in range(300):
        for together in names(seed):
            assert sum(name.startswith("redis_") for name in together) < 2
            assert sum(name.startswith(("broker_", "started_")) for name in together) < 2


def test_what_needs_the_servers_does_not_stand_while_one_is_away() -> None:
    for seed in range(300):
        for together in names(seed):
            needs = any(
                name.startswith(("another_fold", "records_", "switch", "replayed", "refolded")) for name in together
            )
            assert not (needs and any(name.startswith(("redis_", "broker_", "started_")) for name in together))


def test_broker_and_redis_can_be_away_at_once() -> None:
    pairs = [together for seed in range(300) for together in names(seed) if len(together) == 2]
    assert any({name.partition("_")[0] for name in pair} == {"broker", "redis"} for pair in pairs)


def test_faults_that_are_asked_for_come_in_their_order() -> None:
    asked = ["redis_flushed", "link_cut"]
    assert [[fault.name for fault in place] for place in schedule(1, 3, asked)] == [
        ["redis_flushed"],
        ["link_cut"],
        ["redis_flushed"],
    ]
