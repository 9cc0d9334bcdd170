"""Replays that are killed, stopped, begun twice and needed after a loss: minutes of it, so `make long` runs them."""

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.waiting import wait_until
from services.medication_list.generations import record_of
from services.medication_list.store.roles import WorkerKind
from tests.integration.replay_stand import PARTITIONS, WITHIN_S, ReplayStand, a_replay_stand

pytestmark = [pytest.mark.integration, pytest.mark.long]
EVENTS = 4_000


@pytest.fixture(scope="module")
def stand(scratch: Path) -> Iterator[ReplayStand]:
    with a_replay_stand(scratch / "replay-long") as stand:
        stand.live_in(EVENTS)
        stand.await_judged()
        yield stand


def child_of(process: int) -> int | None:
    """The bulk reader that a replay started, if it has one now."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split()
    return int(children[0]) if children else None


def test_a_replay_killed_five_times_under_load_goes_on_and_ends_equal(stand: ReplayStand, seed: int) -> None:
    whole_at = random.Random(seed).randrange(5)
    # One of a hundred parts of a core: so that it is in the middle whenever it is killed.
    slow = ("replay", "start", "--yes", "--max-share", "0.01")
    with stand.traffic(600, rate=60):
        process = stand.started(*slow)
        generation = stand.await_filling()
        for number in range(5):
            stood = stand.done(generation)
            wait_until(lambda stood=stood: stand.done(generation) > stood, within_s=WITHIN_S, what="it goes on")  # type: ignore[misc]  # bound now
            victim = child_of(process.pid)
            if number == whole_at or victim is None:
                process.kill()
                process.wait()
                wait_until(lambda: not stand.roles.attending(generation), within_s=WITHIN_S, what="its time is over")
                process = stand.started(*slow)
            else:
                os.kill(victim, signal.SIGKILL)
        assert record_of(stand.pointer(), generation).state == "filling", "it was killed in the middle, five times"
        process.kill()
        process.wait()
        wait_until(lambda: not stand.roles.attending(generation), within_s=WITHIN_S, what="its time is over")
        ended = stand.started("replay", "start", "--yes", "--max-share", "1", "--no-follow").wait(WITHIN_S)
    assert ended == 0
    stand.await_judged()
    with stand.running("replay", "follow"):
        wait_until(
            lambda: stand.done(generation) == stand.done(stand.pointer().generation),
            within_s=WITHIN_S,
            what="it has come to the log's end",
        )
    found = stand.asked("replay", "compare", generation)
    assert found["compared"] == found["equal"] > 20
    assert (found["differing"], found["behind"], found["notes"], found["is_whole"]) == (0, 0, {}, True)
    assert stand.states()[generation] == "beside"


def test_a_replay_that_has_no_room_or_was_begun_already_does_not_begin(stand: ReplayStand) -> None:
    live = stand.pointer().generation
    stand.retire_all()
    assert not list(stand.redis.scan_iter("g2-*"))
    stand.redis.config_set("maxmemory", "6mb")
    try:
        assert "no room for a second view" in stand.refused("replay", "start", "--yes", "--reserve", "0.5")
    finally:
        stand.redis.config_set("maxmemory", "0")
    assert stand.asked("replay", "start")["would"]["doing"] == "begin"
    assert list(stand.states()) == [live], "nothing was done without --yes"
    with stand.running("replay", "start", "--yes", "--max-share", "0.01"):
        begun = stand.await_filling()
        assert "is running" in stand.refused("replay", "start", "--yes")
        assert "is not finished" in stand.refused("replay", "switch", begun, "--yes")
        assert "end it first" in stand.refused("replay", "retire", begun, "--yes")
    wait_until(lambda: not stand.roles.attending(begun), within_s=WITHIN_S, what="the replay is gone")
    assert stand.asked("replay", "start")["would"]["doing"] == "resume"
    stand.retire_all()


def test_a_replay_stops_where_it_is_told_to_and_goes_on_later(stand: ReplayStand) -> None:
    partition, end = max(stand.ends().items(), key=lambda each: each[1])
    words = ("replay", "start", "--yes", "--max-share", "1")
    assert stand.started(*words, "--until", f"{partition}-{end // 2}").wait(WITHIN_S) == 0
    pointer = stand.pointer()
    (generation,) = (name for name in pointer.records if record_of(pointer, name).state == "filling")
    assert stand.roles.offsets(generation, [partition])[partition] == end // 2 + 1
    wait_until(lambda: not stand.roles.attending(generation), within_s=WITHIN_S, what="the replay is gone")
    for yes in ((), ("--yes",)):
        assert "stands beyond that" in stand.refused("replay", "start", "--until", f"{partition}-{end // 4}", *yes)
    assert stand.started(*words, "--no-follow").wait(WITHIN_S) == 0
    assert stand.await_whole() == generation


def test_a_lost_view_is_built_again_by_a_replay_where_no_processor_runs(stand: ReplayStand) -> None:
    stand.end_processor()
    stand.redis.flushall()
    assert stand.started("replay", "start", "--yes", "--max-share", "1", "--no-follow").wait(WITHIN_S) == 0
    assert dict(stand.roles.offsets(stand.pointer().generation, range(PARTITIONS))) == stand.ends()
    assert set(stand.states().values()) == {"live"}
    stand.begin_processor()
    stand.await_fed(stand.pointer().generation, WorkerKind.PROCESSOR)
