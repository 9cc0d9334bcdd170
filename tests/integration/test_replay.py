"""The view made again beside the live one while events come in, killed, compared, switched to and back, and retired."""

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.waiting import wait_until
from services.medication_list.fold import VERSION
from services.medication_list.generations import freeze, record_of
from services.medication_list.store.roles import WorkerKind
from tests.integration.replay_stand import PARTITIONS, WITHIN_S, ReplayStand, a_replay_stand, another_release
from tests.unit.fold_world import allergic, reconciled

pytestmark = pytest.mark.integration
EVENTS = 4_000
PATIENT = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def stand(scratch: Path) -> Iterator[ReplayStand]:
    with a_replay_stand(scratch / "replay") as stand:
        stand.live_in(EVENTS)
        stand.await_judged()
        yield stand


def done(stand: ReplayStand, generation: str) -> int:
    """How many events a generation has judged."""
    return sum(offset or 0 for offset in stand.roles.offsets(generation, range(PARTITIONS)).values())


def filling(stand: ReplayStand) -> str:
    """The generation that a replay has begun."""
    found: list[str] = []

    def is_there() -> bool:
        pointer = stand.pointer()
        found[:] = [name for name in pointer.records if record_of(pointer, name).state == "filling"]
        return bool(found) and bool(stand.roles.attending(found[0]))

    wait_until(is_there, within_s=WITHIN_S, what="a replay has begun")
    return found[0]


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
        generation = filling(stand)
        for number in range(5):
            stood = done(stand, generation)
            wait_until(lambda stood=stood: done(stand, generation) > stood, within_s=WITHIN_S, what="it goes on")  # type: ignore[misc]  # bound now
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
            lambda: done(stand, generation) == done(stand, stand.pointer().generation),
            within_s=WITHIN_S,
            what="it has come to the log's end",
        )
    found = stand.asked("replay", "compare", generation)
    assert found["compared"] == found["equal"] > 20
    assert (found["differing"], found["behind"], found["notes"], found["is_whole"]) == (0, 0, {}, True)
    assert stand.states()[generation] == "beside"


def test_a_planted_difference_is_found_and_shown_only_to_whom_asks(stand: ReplayStand) -> None:
    generation = stand.await_whole()
    stand.say(PATIENT, allergic(substance="Hasselnøtt"))
    stand.await_judged()
    with stand.running("replay", "follow"):
        wait_until(
            lambda: done(stand, generation) == done(stand, stand.pointer().generation), within_s=WITHIN_S, what="judged"
        )
    key = next(iter(stand.redis.scan_iter(f"{generation}:{{*}}:p:{PATIENT}")))
    good = stand.redis.hget(key, "allergies")
    assert isinstance(good, bytes)
    stand.redis.hset(key, "allergies", good.replace(b"Hasseln", b"Valsens"))
    try:
        hidden = stand.asked("replay", "compare", generation, exit_code=1)
        assert hidden["differing"] == 1
        ((kind, told),) = hidden["kinds"].items()
        assert kind.startswith("allergies")
        assert (told["differences"], told["patients"]) == (1, 1)
        assert told["examples"] == [{"patient": PATIENT, "before": "(hidden)", "after": "(hidden)"}]
        shown = stand.asked("replay", "compare", generation, "--show", exit_code=1)["kinds"][kind]["examples"][0]
        assert "Hasseln" in shown["before"]
        assert "Valsens" in shown["after"]
        told_to_people = stand.medchain("replay", "compare", generation)
        assert told_to_people.exit_code == 1
        assert "Valsens" not in told_to_people.output
    finally:
        stand.redis.hset(key, "allergies", good)
    assert stand.asked("replay", "compare", generation)["differing"] == 0
    sampled = stand.asked("replay", "compare", generation, "--sample", "5")
    assert sampled["compared"] >= 5


def test_every_mistake_of_an_operator_is_told_why_and_what_to_do(stand: ReplayStand) -> None:
    live, beside = stand.pointer().generation, stand.await_whole()
    before = stand.states()
    assert "switch to another generation" in stand.refused("replay", "retire", live, "--yes")
    assert "is the live one already" in stand.refused("replay", "switch", live, "--yes")
    assert "name the one to compare" in stand.refused("replay", "compare", live)
    for command in ("switch", "compare", "retire"):
        assert "no generation g9-abcdef" in stand.refused("replay", command, "g9-abcdef")
    assert "stands beside the live" in stand.refused("replay", "start", "--yes")
    wait_until(lambda: not stand.roles.attending(beside), within_s=WITHIN_S, what="nobody feeds it")
    assert "`replay follow`" in stand.refused("replay", "switch", beside, "--yes")
    assert "no way back but a replay" in stand.refused("replay", "rollback", "--yes")
    announced = freeze(stand.roles, PARTITIONS)
    assert "switch is under way" in stand.refused("replay", "retire", beside, "--yes")
    assert announced.generation == live
    # Whoever froze is gone: the processor gives the switch up by itself.
    wait_until(lambda: not stand.pointer().token, within_s=WITHIN_S, what="the switch is given up")
    assert stand.asked("replay", "retire", beside)["would_retire"]["generation"] == beside
    assert stand.states() == before


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
        begun = filling(stand)
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
    assert stand.started(*words, "--no-follow").wait(WITHIN_S) == 0
    assert stand.await_whole() == generation


def test_a_switch_and_the_way_back_under_load_lose_and_double_no_effect(stand: ReplayStand) -> None:
    first, second = stand.pointer().generation, stand.await_whole()
    with stand.running("replay", "follow", "--max-share", "1"), stand.traffic(1_500, rate=150):
        for to, commands in ((second, ("switch", second)), (first, ("rollback",)), (second, ("rollback",))):
            stand.await_fed(to, WorkerKind.REPLAY)
            said = stand.asked("replay", *commands, "--yes")["switched"]
            assert said["live"] == to
            assert said["ms"] < 1_000
            # The processor goes over to what is live, and the readers of the replay to what is not.
            stand.await_fed(to, WorkerKind.PROCESSOR)
    stand.await_judged()
    assert stand.effects() == stand.effects_of_one_fold()
    assert stand.pointer().generation == second


def test_a_rule_is_changed_reviewed_switched_to_and_taken_back(stand: ReplayStand, scratch: Path) -> None:
    stand.retire_all()
    last = stand.say(PATIENT, allergic(allergy="A2", substance="Latex"))
    hours = 3_600_000
    stand.say(PATIENT, reconciled(last, read_ms=_ago(6 * hours)))
    stand.await_judged()
    old = stand.pointer().generation
    release = another_release(
        scratch / "another-release",
        {
            "services/medication_list/fold/policy.py": ("READ_TOKEN_LIVES_MS = 4 *", "READ_TOKEN_LIVES_MS = 12 *"),
            "services/medication_list/fold/__init__.py": (f"VERSION = {VERSION}", f"VERSION = {VERSION + 1}"),
        },
    )
    with stand.running("replay", "start", "--yes", "--max-share", "1", release=release), stand.traffic(600, rate=60):
        new = stand.await_whole()
        assert "No processor of fold version" in stand.refused("replay", "switch", new, "--yes")
        with stand.processor(release):
            stand.await_fed(new, WorkerKind.PROCESSOR)
            found = stand.asked("replay", "compare", new, exit_code=1)
            assert "outcome: refused(token_expired) -> applied" in found["kinds"]
            for live, command in ((new, ("switch", new)), (old, ("rollback",)), (new, ("rollback",))):
                assert stand.asked("replay", *command, "--yes")["switched"]["live"] == live
                # Each release goes on feeding what its fold made, whichever is live.
                stand.await_fed(old, WorkerKind.PROCESSOR)
                stand.await_fed(new, WorkerKind.PROCESSOR)
            assert stand.asked("replay", "rollback", "--yes")["switched"]["live"] == old
    stand.await_judged()
    stand.retire_all()
    assert list(stand.states()) == [old]


def test_a_lost_view_is_built_again_by_a_replay_where_no_processor_runs(stand: ReplayStand) -> None:
    processor = stand.platform.child("processor-1")
    assert processor.pid is not None
    os.kill(processor.pid, signal.SIGSTOP)
    try:
        stand.redis.flushall()
        ended = stand.started("replay", "start", "--yes", "--max-share", "1", "--no-follow").wait(WITHIN_S)
        assert ended == 0
        assert dict(stand.roles.offsets(stand.pointer().generation, range(PARTITIONS))) == stand.ends()
        assert set(stand.states().values()) == {"live"}
    finally:
        os.kill(processor.pid, signal.SIGCONT)
    stand.await_fed(stand.pointer().generation, WorkerKind.PROCESSOR)


def _ago(ms: int) -> int:
    return time.time_ns() // 1_000_000 - ms
