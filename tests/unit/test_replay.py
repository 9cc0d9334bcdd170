"""A replay's parts by themselves: pace, comparison, switch and retirement on a store in memory, with a clock of the test."""

import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from datetime import date
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner, Result

from schemas import events as ev
from services.clock import ManualClock
from services.medication_list.driver.batches import Applied, Fetch, PartitionBatch, Rewind, Verdict
from services.medication_list.fold import VERSION
from services.medication_list.fold.state import META, By, Death, Meta, Remembered
from services.medication_list.generations import (
    GenerationRecord,
    GenerationRefusedError,
    GenerationState,
    begin_beside,
    enter,
    mark,
)
from services.medication_list.log.source_log import MemorySourceLog
from services.medication_list.processor.worker import Patience, Worker
from services.medication_list.store.inventory import Sides
from services.medication_list.store.keys import GenerationKeys
from services.medication_list.store.memory_inventory import MemoryInventory
from services.medication_list.store.memory_roles import MemoryRoles
from services.medication_list.store.memory_server import MemoryServer
from services.medication_list.store.memory_store import MemoryStore
from services.medication_list.store.port import PartitionWrite, PatientChange
from services.medication_list.store.roles import Attending, WorkerKind
from services.medication_list.stored.packing import pack_field, pack_memory
from services.replay import order as codes
from services.replay import retiring, switching
from services.replay.bulk import Bounded, ReplayWorker
from services.replay.cli import app as replay
from services.replay.compare import compare
from services.replay.crew import Crew
from services.replay.differences import differences
from services.replay.order import Order, Pacing, Told
from services.replay.pace import Pace, Throttle
from services.replay.place import Place
from services.replay.starting import Doing, begin, plan, refuse_beyond, to_follow
from services.replay.watching import Watch

NOWHERE = {"MEDCHAIN_KAFKA": "127.0.0.1:1", "MEDCHAIN_REDIS": "redis://127.0.0.1:1"}
ANNA, BERIT = "a" * 32, "b" * 32
OLD, NEW = GenerationRecord(3, "0.1.0", 0), GenerationRecord(4, "0.2.0", 0)
APPLIED, REFUSED = 0, 2


class World:
    """A store in memory with a live generation and one beside it, and a clock that moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.server = MemoryServer(lambda: int(self.now_s * 1000))
        roles, log = MemoryRoles(self.server), MemorySourceLog(log_ends={0: 0})
        self.old = enter(roles, log, OLD)
        self.new = begin_beside(roles, log, NEW)
        self.inventory = MemoryInventory(self.server)
        self.place = Place(roles, log, self.inventory, lambda generation: MemoryStore(self.server, generation), 1)

    def monotonic(self) -> float:
        """The clock."""
        return self.now_s

    def sleep(self, seconds: float) -> None:
        """Time passes."""
        self.now_s += seconds

    def attend(self, generation: str, kind: WorkerKind = WorkerKind.PROCESSOR) -> None:
        """Somebody works on a generation for a while."""
        self.place.roles.attend(generation, Attending(kind, "here"), 6_000)

    def judge(self, generation: str, offset: int, *changes: PatientChange) -> None:
        """A record is judged by a generation."""
        self.place.store_of(generation).write([PartitionWrite(0, offset, 0, offset + 1, changes)])

    def switch_to(self, generation: str) -> None:
        """The pointer says so."""
        pointer = self.place.pointer()
        self.place.roles.point(pointer, replace(pointer, generation=generation, epoch=pointer.epoch + 1))

    def switch(self, generation: str) -> switching.Switched:
        """As the operator's command does it."""
        return switching.switch(self.place, generation, sleep=self.sleep, monotonic=self.monotonic)


@pytest.fixture
def world() -> World:
    return World()


def patient(name: str, offset: int, substance: str = "Latex", outcome: int = APPLIED) -> PatientChange:
    recorded = ev.AllergyRecorded(allergy="00000000-0000-4000-a000-000000000001", substance=substance)
    memory = pack_memory(Remembered(offset, b"digest", outcome))
    return PatientChange(
        name,
        {META: pack_field(Meta(offset, offset + 1)), "claim:1": pack_field(recorded.substance or "")},
        (),
        {b"e" + bytes([offset]) * 8: memory},
    )


# --- Pace --------------------------------------------------------------------------------------------------------


async def test_a_worker_rests_so_that_its_processor_time_is_the_share_of_all_time() -> None:
    worked, rested = 0.0, 0.0

    async def pause(seconds: float) -> None:
        nonlocal rested
        rested += seconds

    pace = Pace(0.25, lambda: worked, pause)
    for _ in range(10):
        worked += 0.3
        await pace.rest()
    assert worked / (worked + rested) == pytest.approx(0.25)
    pace.share = 1.0
    worked += 5
    before = rested
    await pace.rest()
    assert rested == before


async def test_a_worker_that_rests_goes_by_the_share_that_holds_now() -> None:
    worked, rested = 0.0, 0.0

    async def pause(seconds: float) -> None:
        nonlocal rested
        rested += seconds
        pace.share = 0.5

    pace = Pace(0.02, lambda: worked, pause)
    worked = 0.5
    await pace.rest()
    assert rested == pytest.approx(0.2 + 0.5 - 0.2 * 0.02 / 0.98), (
        "and not 24.5, as it would be at the share of its beginning"
    )


async def test_a_paused_worker_rests_until_it_is_told_to_go_on() -> None:
    pauses = 0

    async def pause(_seconds: float) -> None:
        nonlocal pauses
        pauses += 1
        pace.is_paused = pauses < 4

    pace = Pace(1.0, lambda: 0.0, pause)
    pace.is_paused = True
    await pace.rest()
    assert pauses == 4


def test_the_share_falls_while_the_live_view_lags_and_comes_back_when_it_does_not() -> None:
    throttle = Throttle(0.8, lag_tolerated=2)
    assert throttle.look({0: 100}, {0: 100}) == 0.8
    assert throttle.look({0: 200}, {0: 150}) == 0.8, "what came since the last look is no lag"
    assert throttle.look({0: 300}, {0: 160}) == 0.4
    assert throttle.look({0: 400}, {0: 170}) == 0.2
    assert throttle.look({0: 400}, {0: 400}) == pytest.approx(0.25)
    for _ in range(20):
        throttle.look({0: 400}, {0: 400})
    assert throttle.share == 0.8
    for _ in range(20):
        throttle.look({0: 900}, {0: 400})
    assert throttle.share == 0.02


# --- Bounds ------------------------------------------------------------------------------------------------------


class Judging(Worker):
    """A worker that takes every batch, and keeps what it was given."""

    def __init__(self) -> None:
        self.taken: list[PartitionBatch] = []

    def process(self, fetch: Fetch) -> Mapping[int, Verdict]:
        """Take it."""
        self.taken += fetch.batches
        return {batch.partition: Applied(batch.next_offset) for batch in fetch.batches}


def a_reader(world: World, made: str) -> ReplayWorker:
    """A bulk reader of the replay that made this generation, at a release whose fold made both."""
    record = GenerationRecord(VERSION, "0.2.0", 0)
    for generation in (world.old, world.new):
        pointer = world.place.pointer()
        world.place.roles.point(pointer, replace(pointer, records={generation: msgspec.msgpack.encode(record)}))
    return ReplayWorker(
        world.place.roles, world.place.log, world.place.store_of, 1, made, world.place.framing, Patience()
    )


def test_readers_of_what_was_retired_end_and_do_not_go_over_to_the_next_replays_view(world: World) -> None:
    worker = a_reader(world, world.new)
    world.attend(world.old)
    mark(world.place.roles, world.new, GenerationState.RETIRED)
    begin_beside(world.place.roles, world.place.log, GenerationRecord(VERSION, "0.2.0", 0))
    assert worker.mine(world.place.pointer()) is None


def test_after_a_switch_readers_feed_what_processors_are_about_to_leave(world: World) -> None:
    old, new = world.old, world.new
    worker = a_reader(world, new)
    world.attend(old)
    assert worker.mine(world.place.pointer()) == new, "the live one has processors"
    world.attend(new, WorkerKind.REPLAY)
    world.switch_to(new)
    assert worker.mine(world.place.pointer()) == new, "no processor has come over yet"
    world.attend(new)
    assert worker.mine(world.place.pointer()) == old, "one of the processors is still seen there"
    world.attend(old, WorkerKind.PINNED)
    assert worker.mine(world.place.pointer()) is None


def test_a_replay_does_not_go_beyond_the_offset_that_it_was_told() -> None:
    worker = Judging()
    bounded = Bounded(worker, {0: 5})
    whole = Fetch((PartitionBatch(0, 3, 9, (), 1), PartitionBatch(1, 3, 9, (), 1)))
    assert bounded.process(whole) == {0: Applied(5), 1: Applied(9)}
    assert [(each.partition, each.next_offset) for each in worker.taken] == [(0, 5), (1, 9)]
    assert bounded.process(Fetch((PartitionBatch(0, 5, 9, (), 2),))) == {0: Rewind(5)}


# --- Comparison --------------------------------------------------------------------------------------------------


def test_equal_generations_have_no_differences(world: World) -> None:
    for generation in (world.old, world.new):
        world.judge(generation, 0, patient(ANNA, 0), patient(BERIT, 0))
    found = compare(world.place, world.old, world.new, sleep=world.sleep, monotonic=world.monotonic)
    assert (found.compared, found.equal, found.is_clean, found.is_whole) == (2, 2, True, True)


def test_differences_are_counted_by_kind_and_hidden_unless_they_are_asked_for(world: World) -> None:
    world.judge(world.old, 0, patient(ANNA, 0), patient(BERIT, 0, outcome=REFUSED))
    world.judge(world.new, 0, patient(ANNA, 0, substance="Nickel"), patient(BERIT, 0))
    found = compare(world.place, world.old, world.new, sleep=world.sleep, monotonic=world.monotonic)
    assert (found.differing, found.equal, found.is_clean) == (2, 0, False)
    assert {name: kind.count for name, kind in found.kinds.items()} == {"claim": 1, "outcome: refused -> applied": 1}
    hidden, shown = found.as_plain(show=False)["kinds"]["claim"], found.as_plain(show=True)["kinds"]["claim"]
    assert hidden["examples"] == [{"patient": ANNA, "before": "(hidden)", "after": "(hidden)"}]
    assert shown["examples"] == [{"patient": ANNA, "before": "Latex", "after": "Nickel"}]


@pytest.fixture
def comparing(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Calls `replay compare` on two generations of which Anna's values differ; the access record is `access.jsonl`."""
    world.judge(world.old, 0, patient(ANNA, 0), patient(BERIT, 0, outcome=REFUSED))
    world.judge(world.new, 0, patient(ANNA, 0, substance="Nickel"), patient(BERIT, 0))
    monkeypatch.setattr("services.replay.cli.open_place", lambda: nullcontext(world.place))

    def called(*words: str, record: str = "access.jsonl") -> Result:
        told = {"MEDCHAIN_ACCESS_RECORD": str(tmp_path / record)}
        return CliRunner().invoke(replay, ["compare", world.new, *words], env=told)

    return called


def test_values_that_a_comparison_shows_are_a_look_at_those_patients_and_recorded(
    comparing: Callable[..., Result], tmp_path: Path
) -> None:
    record = tmp_path / "access.jsonl"
    assert "Nickel" not in comparing().output
    assert not record.exists()
    said = comparing("--show", "--reason", "review of version 4", "--operator", "Kari Vakt", "--json")
    assert said.exit_code == 1
    assert json.loads(said.stdout)["kinds"]["claim"]["examples"][0]["after"] == "Nickel"
    looks = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    assert [(look["action"], look.get("patient"), look["operator"]) for look in looks] == [
        ("replay compare", None, "Kari Vakt"),
        ("replay compare", ANNA, "Kari Vakt"),
    ]


def test_a_comparison_shows_no_value_where_the_look_cannot_be_recorded(
    comparing: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    why = ("--reason", "review of version 4")
    for words, record in ((["--show"], "access.jsonl"), (["--show", *why], "file/access.jsonl")):
        said = comparing(*words, "--json", record=record)
        assert (said.exit_code, json.loads(said.stdout)["exit"]) == (2, 2)
        assert "Nickel" not in said.output


def test_where_a_patient_stands_in_the_log_is_told_and_that_the_patient_died_is_not() -> None:
    before = Meta(version=1, position=2)
    after = Meta(version=3, position=2, death=Death(date(2026, 3, 2), 3, 0, By("910000001", "journal", "doctor")))
    one, other = ({META.encode(): pack_field(each)} for each in (before, after))
    found = {each.kind: each.told(show=False) for each in differences(Sides(ANNA, one, {}, other, {}))}
    assert found == {"meta.version": ("1", "3"), "meta.death": ("(hidden)", "(hidden)")}


def test_a_patient_whom_only_the_later_generation_knows_is_found(world: World) -> None:
    world.judge(world.old, 0)
    world.judge(world.new, 0, patient(ANNA, 0))
    found = compare(world.place, world.old, world.new, sleep=world.sleep, monotonic=world.monotonic)
    assert found.differing == 1
    assert "claim only after" in found.kinds


def test_who_is_behind_is_looked_at_again_and_then_counted(world: World) -> None:
    world.judge(world.old, 0, patient(ANNA, 0))
    found = compare(world.place, world.old, world.new, sleep=world.sleep, monotonic=world.monotonic)
    assert (found.behind, found.differing, found.compared) == (1, 0, 0)
    assert not found.is_clean

    def catch_up(seconds: float) -> None:
        if world.place.offsets(world.new)[0] == 0:
            world.judge(world.new, 0, patient(ANNA, 0))
        world.sleep(seconds)

    found = compare(world.place, world.old, world.new, sleep=catch_up, monotonic=world.monotonic)
    assert (found.behind, found.differing, found.compared, found.is_clean) == (0, 0, 1, True)


@pytest.mark.parametrize(("substance", "differing"), [("Latex", 0), ("Nickel", 1)], ids=["equal", "differing"])
def test_who_has_events_sooner_than_the_later_side_comes_there_is_compared_where_one_side_stood_before(
    world: World, substance: str, differing: int
) -> None:
    ahead, late = world.old, world.new
    for offset in range(3):
        world.judge(ahead, offset, patient(ANNA, offset))

    def go_on(seconds: float) -> None:
        """Both take one record, and the later side stays three behind."""
        offsets = world.place.offsets(ahead)[0], world.place.offsets(late)[0]
        assert None not in offsets
        world.judge(ahead, offsets[0] or 0, patient(ANNA, offsets[0] or 0))
        world.judge(late, offsets[1] or 0, patient(ANNA, offsets[1] or 0, substance))
        world.sleep(seconds)

    found = compare(world.place, world.old, world.new, sleep=go_on, monotonic=world.monotonic)
    assert (found.behind, found.compared, found.differing, found.equal) == (0, 1, differing, 1 - differing)
    assert set(found.kinds) == ({"claim"} if differing else set())


# --- Switch ------------------------------------------------------------------------------------------------------


def test_a_switch_and_the_way_back_are_the_same_move(world: World) -> None:
    for generation in (world.old, world.new):
        world.attend(generation)
        world.judge(generation, 0)
    assert world.switch(world.new).live == world.new
    assert switching.way_back(world.place) == world.old
    assert world.switch(world.old).live == world.old
    assert switching.way_back(world.place) == world.new


def test_a_switch_that_takes_too_long_leaves_everything_as_it_was(world: World) -> None:
    world.attend(world.new)
    world.judge(world.old, 0)
    with pytest.raises(GenerationRefusedError, match="everything is as it was"):
        world.switch(world.new)
    assert 0.8 < world.now_s < 1.0
    assert world.place.pointer().generation == world.old
    world.judge(world.old, 1)


def test_a_switch_does_not_leave_unsent_what_the_live_one_has_parked(world: World) -> None:
    world.attend(world.new)
    world.attend(world.old)
    world.place.store_of(world.old).write([PartitionWrite(0, 0, 0, 1, [], parked={0: b"note"})])
    world.judge(world.new, 0, patient(ANNA, 0))
    with pytest.raises(GenerationRefusedError, match=r"1 records lie parked in the live .* --leave-unsent"):
        world.switch(world.new)
    assert world.place.pointer().generation == world.old
    assert switching.switch(
        world.place, world.new, sleep=world.sleep, monotonic=world.monotonic, leave_unsent=True
    ).live == (world.new)
    assert world.switch(world.old).live == world.old, "what the other one has parked keeps nobody from the way back"


def test_what_is_parked_after_the_first_look_is_found_while_writes_are_frozen(world: World) -> None:
    world.attend(world.new)
    looks = iter([False, True])

    class Parking(MemoryStore):
        """One that parks a record when it is asked a second time."""

        def parked(self, partition: int) -> Mapping[int, bytes]:
            if next(looks):
                park_in_live(world)
            return super().parked(partition)

    def store_of(generation: str) -> MemoryStore:
        return (Parking if generation == world.old else MemoryStore)(world.server, generation)

    world.place = replace(world.place, store_of=store_of)
    with pytest.raises(GenerationRefusedError, match="lie parked"):
        world.switch(world.new)
    assert world.place.pointer().generation == world.old


def park_in_live(world: World) -> None:
    """As a worker does in the last moment before the freeze."""
    image = world.server.save()
    image.hashes[GenerationKeys(world.old, 0).parked] = {b"0": b"note"}
    world.server.roll_back(image)


def test_a_switch_needs_processors_that_will_feed_the_generation(world: World) -> None:
    with pytest.raises(GenerationRefusedError, match="Nobody works on"):
        world.switch(world.new)
    world.attend(world.new, WorkerKind.REPLAY)
    with pytest.raises(GenerationRefusedError, match="No processor of fold version 4 runs"):
        world.switch(world.new)
    world.attend(world.new, WorkerKind.PINNED)
    assert world.switch(world.new).live == world.new


# --- Start and retirement ----------------------------------------------------------------------------------------


def test_a_start_is_refused_without_room_and_says_how_much_there_is(world: World) -> None:
    world.judge(world.old, 0, patient(ANNA, 0, substance="L" * 900))
    retiring.retire(world.place, world.new, sleep=world.sleep)
    assert plan(world.place, 0.1, 4).doing is Doing.BEGIN
    world.inventory.limit = 1_500
    with pytest.raises(GenerationRefusedError, match="no room for a second view"):
        plan(world.place, 0.1, 4)


@pytest.mark.parametrize(
    "until",
    ["nonsense", "3-", "2026-11-26T08:00", "1969-12-31T00:00Z"],
    ids=["neither", "half a position", "no zone", "before there were clocks"],
)
@pytest.mark.parametrize("yes", [[], ["--yes"]], ids=["asked", "done"])
def test_a_stop_that_is_none_is_refused_before_anything_is_begun_or_even_reached(until: str, yes: list[str]) -> None:
    said = CliRunner().invoke(replay, ["start", "--until", until, *yes], env=NOWHERE)
    assert said.exit_code == 2
    assert said.stderr.startswith("--until"), said.stderr


def test_what_was_made_further_than_the_stop_is_not_taken_for_the_view_of_then(world: World) -> None:
    for generation in (world.old, world.new):
        for offset in range(3):
            world.judge(generation, offset)
    mark(world.place.roles, world.new, GenerationState.FILLING)
    planned = plan(world.place, 0.1, 4)
    refuse_beyond(world.place, planned, {0: 3})
    with pytest.raises(GenerationRefusedError, match=f"offset 3: `replay retire {world.new}` first"):
        refuse_beyond(world.place, planned, {0: 2})


def test_of_two_replays_that_are_started_in_one_moment_the_later_one_gives_way() -> None:
    world = World()
    retiring.retire(world.place, world.new, sleep=world.sleep)
    both = [plan(world.place, 0.1, 4) for _ in range(2)]
    first = begin(world.place, both[0])
    with pytest.raises(GenerationRefusedError, match=f"Another replay, into {first}, was started in the same moment"):
        begin(world.place, both[1])
    again = plan(world.place, 0.1, 4)
    assert (again.doing, again.generation) == (Doing.RESUME, first)
    assert [key for key in world.server.content() if key.endswith(":offset")] == [
        f"{each}:{{0}}:offset" for each in (world.old, first)
    ]


def test_a_generation_to_be_followed_is_one_that_is_not_live(world: World) -> None:
    assert to_follow(world.place, 4) == world.new
    with pytest.raises(GenerationRefusedError, match="No whole generation is of fold version 7"):
        to_follow(world.place, 7)


# --- The crew ----------------------------------------------------------------------------------------------------


class Started:
    """A bulk reader that does what a test says."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.ended_with: int | None = None
        self.heard: list[Pacing] = []
        self.told = Told(cpu_s=1.0)

    def code(self) -> int | None:
        """What it was told to have ended with."""
        return self.ended_with

    def tell(self, pacing: Pacing) -> None:
        """Keep it."""
        self.heard.append(pacing)

    def leave(self) -> None:
        """End in order."""
        self.ended_with = codes.DONE

    def end(self, within_ms: int) -> None:
        """It has ended by then."""
        assert within_ms > 0
        assert self.ended_with is not None

    def last_words(self) -> str:
        """A sentence."""
        return "It must not work."


def test_readers_that_die_are_started_again_soon_and_those_that_are_done_only_while_others_go_on() -> None:
    clock, started = ManualClock(0), list[Started]()

    def start(_number: int, order: Order) -> Started:
        started.append(Started(order))
        return started[-1]

    with Crew("g2-00000a", 3, 2, {0: 7}, clock, start) as crew:
        crew.start(0.5)
        assert [list(each.order.partitions) for each in started] == [[0, 2], [1]]
        started[0].ended_with, started[1].ended_with = -9, codes.DONE
        crew.look_after()
        crew.look_after()
        assert (len(started), crew.restarts, crew.is_done) == (2, 0, False)
        clock.advance(1_001)
        crew.look_after()
        assert (len(started), crew.restarts, crew.cpu_s) == (3, 1, 3.0)
        assert started[2].order == Order("g2-00000a", [0, 2], 0.5, {0: 7})
        clock.advance(9_000)
        crew.look_after()
        assert (len(started), crew.restarts) == (4, 2), "the one that was done, since the other one goes on"
        assert list(started[3].order.partitions) == [1]
        crew.tell(0.25, is_paused=True)
        assert started[2].heard == [Pacing(0.25, is_paused=True)]
        started[2].ended_with = codes.REFUSED
        with pytest.raises(GenerationRefusedError, match="It must not work"):
            crew.look_after()


@pytest.mark.parametrize("made_is_live", [False, True], ids=["made", "left"])
def test_what_a_crew_feeds_begins_anew_where_it_was_lost_be_it_what_it_made_or_what_a_switch_left(
    world: World, *, made_is_live: bool
) -> None:
    for generation in (world.old, world.new):
        world.judge(generation, 0)
        if generation != world.place.pointer().generation:
            mark(world.place.roles, generation, GenerationState.WHOLE)
    if made_is_live:
        world.attend(world.new)
        world.switch(world.new)
    fed = world.old if made_is_live else world.new
    assert world.inventory.forget(0, fed)
    assert world.place.offsets(fed) == {0: None}
    clock = ManualClock(0)
    with Crew(world.new, 1, 1, {}, clock, lambda _, order: Started(order)) as crew:
        crew.start(1.0)
        watch = Watch(world.place, world.place.log, crew, world.new, 1.0, 0, {}, world.sleep)
        next(iter(watch.looks(follow=True)))
    assert world.place.offsets(fed) == {0: 0}


def test_an_order_is_the_same_after_its_way_to_the_reader() -> None:
    order = Order("g2-00000a", [0, 2], 0.5, {0: 7})
    assert msgspec.json.decode(msgspec.json.encode(order), type=Order) == order


def test_a_retired_generation_is_gone_but_for_its_name(world: World) -> None:
    world.judge(world.old, 0, patient(ANNA, 0))
    world.judge(world.new, 0, patient(ANNA, 0))
    with pytest.raises(GenerationRefusedError, match="switch to another generation"):
        retiring.retire(world.place, world.old)
    assert retiring.retire(world.place, world.new, sleep=world.sleep) > 0
    assert retiring.retire(world.place, world.new, sleep=world.sleep) == 0
    assert not [key for key in world.server.content() if key.startswith(world.new)]
    assert world.new in world.place.pointer().records
    with pytest.raises(GenerationRefusedError, match="was retired"):
        world.switch(world.new)
