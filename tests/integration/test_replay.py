"""The view made again beside the live one while events come in, killed, compared, switched to and back, and retired."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.waiting import wait_until
from services.medication_list.fold import VERSION
from services.medication_list.store.roles import WorkerKind
from services.medication_list.switch_protocol import freeze
from tests.integration.replay_stand import PARTITIONS, WITHIN_S, ReplayStand, a_replay_stand, another_release
from tests.unit.fold_world import allergic, reconciled

pytestmark = pytest.mark.integration
EVENTS = 1_000
PATIENT = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def stand(scratch: Path) -> Iterator[ReplayStand]:
    with a_replay_stand(scratch / "replay") as stand:
        stand.live_in(EVENTS)
        stand.await_judged()
        assert stand.started("replay", "start", "--yes", "--max-share", "1", "--no-follow").wait(WITHIN_S) == 0
        yield stand


SHOW = ("--show", "--reason", "what was planted?")


def test_a_planted_difference_is_found_and_shown_only_to_whom_asks(stand: ReplayStand) -> None:
    generation = stand.await_whole()
    stand.say(PATIENT, allergic(substance="Hasselnøtt"))
    stand.await_judged()
    with stand.running("replay", "follow"):
        wait_until(
            lambda: stand.done(generation) == stand.done(stand.pointer().generation), within_s=WITHIN_S, what="judged"
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
        shown = stand.asked("replay", "compare", generation, *SHOW, exit_code=1)["kinds"][kind]["examples"][0]
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


def test_a_switch_and_the_way_back_under_load_lose_and_double_no_effect(stand: ReplayStand) -> None:
    first, second = stand.pointer().generation, stand.await_whole()
    with stand.running("replay", "follow", "--max-share", "1"), stand.traffic(1_000, rate=150):
        for to, commands in ((second, ("switch", second)), (first, ("rollback",)), (second, ("rollback",))):
            stand.await_fed(to, WorkerKind.REPLAY)
            stand.await_abreast(to)
            said = stand.asked("replay", *commands, "--yes")["switched"]
            assert said["live"] == to
            assert said["ms"] < 1_000
            # The processor goes over to what is live, and the readers of the replay to what is not.
            stand.await_fed(to, WorkerKind.PROCESSOR)
    stand.await_judged()
    assert stand.effects() == stand.effects_of_one_fold()
    assert stand.pointer().generation == second


def test_a_stop_that_the_log_has_not_is_refused_before_a_generation_is_begun(stand: ReplayStand) -> None:
    stand.retire_all()
    before = stand.states()
    for until, why in (
        ("9-0", "no partition 9"),
        ("0-999999999", "no record 0-999999999"),
        ("soon", "--until soon"),
        ("2999-01-01T00:00Z", "has not come yet"),
        ("1969-12-31T00:00Z", "before 1970"),
    ):
        assert why in stand.refused("replay", "start", "--until", until)
        assert why in stand.refused("replay", "start", "--until", until, "--yes")
    assert stand.states() == before
    first = f"{next(each for each, end in stand.ends().items() if end)}-0"
    assert stand.asked("replay", "start", "--until", first)["would"]["until"] == first
    assert stand.states() == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_replay_that_is_ended_in_the_middle_says_so_and_is_not_taken_for_done(
    stand: ReplayStand, number: signal.Signals
) -> None:
    stand.retire_all()
    process = stand.started("replay", "start", "--yes", "--no-follow", "--max-share", "0.005")
    made = stand.await_filling()
    process.send_signal(number)
    assert process.wait(60) == 2
    assert f"{made} is not whole yet: the same command goes on from here.\n" in stand.logged()
    wait_until(lambda: not stand.roles.attending(made), within_s=WITHIN_S, what="the replay is gone")


def test_a_replay_whose_view_is_retired_elsewhere_says_so_and_is_not_taken_for_done(stand: ReplayStand) -> None:
    stand.retire_all()
    with stand.running("replay", "start", "--yes", "--max-share", "1") as process:
        made = stand.await_whole()
        assert stand.medchain("replay", "retire", made, "--yes").exit_code == 0
        assert process.wait(WITHIN_S) == 2
    assert f"{made} was retired meanwhile" in stand.logged()
    assert f"{made} is whole. Compare it" not in stand.logged()


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
                stand.await_abreast(live)
                assert stand.asked("replay", *command, "--yes")["switched"]["live"] == live
                # Each release goes on feeding what its fold made, whichever is live.
                stand.await_fed(old, WorkerKind.PROCESSOR)
                stand.await_fed(new, WorkerKind.PROCESSOR)
            stand.await_abreast(old)
            assert stand.asked("replay", "rollback", "--yes")["switched"]["live"] == old
    stand.await_judged()
    stand.retire_all()
    assert list(stand.states()) == [old]


def _ago(ms: int) -> int:
    return time.time_ns() // 1_000_000 - ms
