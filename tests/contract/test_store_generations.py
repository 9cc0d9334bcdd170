"""How generations begin, are refused and are switched; on both stores."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import pytest
import redis

from schemas.events import RelayProgress, UnsentRecord
from services.medication_list.generations import (
    NAME,
    GenerationRecord,
    GenerationRefusedError,
    GenerationState,
    begin_again,
    begin_beside,
    enter,
    mark,
    partitions_to_begin,
)
from services.medication_list.log.source_log import LogIdentity, MemorySourceLog
from services.medication_list.store.inventory import Inventory
from services.medication_list.store.link import Link
from services.medication_list.store.memory_inventory import MemoryInventory
from services.medication_list.store.memory_roles import MemoryRoles
from services.medication_list.store.memory_server import MemoryServer
from services.medication_list.store.memory_store import MemoryStore
from services.medication_list.store.port import (
    PartitionWrite,
    PatientRewrite,
    Refused,
    Store,
    StoreUnavailableError,
    Written,
)
from services.medication_list.store.redis_inventory import RedisInventory
from services.medication_list.store.redis_roles import RedisRoles
from services.medication_list.store.redis_store import RedisStore
from services.medication_list.store.roles import Beginning, Role, Roles, RoleState
from services.medication_list.switch_protocol import flip, follow, freeze, give_up, has_reached

NOBODY = "00000000-0000-4000-8000-000000000000"
RECORD = GenerationRecord(fold_version=3, release="0.1.0", made_at_ms=1_700_000_000_000)


class Place:
    """A store of either kind: its roles, and its stores by generation."""

    def __init__(self, url: str | None) -> None:
        self._url = url
        self._link = None if url is None else Link(url)
        self._server = MemoryServer()
        self.roles: Roles = MemoryRoles(self._server) if self._link is None else RedisRoles(self._link)

    def store(self, generation: str) -> Store:
        """The store of one generation."""
        return MemoryStore(self._server, generation) if self._link is None else RedisStore(self._link, generation)

    def forget(self, generation: str, partition: int) -> None:
        """Lose what says how far a generation has come."""
        inventory: Inventory = MemoryInventory(self._server) if self._link is None else RedisInventory(self._link)
        assert inventory.forget(partition, generation)

    def empty(self) -> None:
        """Lose everything."""
        if self._url is None:
            self._server.flush()
            return
        with redis.Redis.from_url(self._url) as client:
            client.flushall()

    def close(self) -> None:
        """Let go of the connections."""
        if self._link is not None:
            self._link.close()


@dataclass
class LogWithMishap(MemorySourceLog):
    """Something happens, once, right after the log's ends were asked for and before what was relayed is known."""

    mishap: Callable[[], object] | None = None

    def relayed(self) -> Mapping[int, RelayProgress]:
        """See `SourceLog.relayed`."""
        mishap, self.mishap = self.mishap, None
        if mishap is not None:
            mishap()
        return super().relayed()


def noted(source_offset: int, *unsent: UnsentRecord) -> RelayProgress:
    """What the relay has come to in partition 0."""
    return RelayProgress(partition=0, source_offset=source_offset, effect_id=NOBODY, unsent=unsent)


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.integration)])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    url = None
    if request.param == "redis":
        url = request.getfixturevalue("redis_url")
    made = Place(url)
    made.empty()
    yield made
    made.close()


@pytest.fixture
def log() -> MemorySourceLog:
    return MemorySourceLog(log_ends={0: 0, 1: 0})


def test_the_first_worker_begins_and_the_others_join(place: Place, log: MemorySourceLog) -> None:
    name = enter(place.roles, log, RECORD)
    assert NAME.fullmatch(name)
    assert enter(place.roles, log, RECORD) == name
    assert place.store(name).next_offsets([0, 1]) == {0: 0, 1: 0}
    assert {role.state for role in place.roles.roles([0, 1]).values() if role} == {RoleState.LIVE}


def test_after_a_loss_it_builds_up_to_the_logs_end_and_sends_from_what_was_relayed(
    place: Place, log: MemorySourceLog
) -> None:
    log.log_ends, log.log_relayed = {0: 50, 1: 0}, {0: noted(30)}
    enter(place.roles, log, RECORD)
    roles = place.roles.roles([0, 1])
    assert roles[0] is not None
    assert roles[1] is not None
    assert (roles[0].state, roles[0].until, roles[0].effects_from) == (RoleState.BUILDING, 50, 30)
    assert roles[1].state is RoleState.LIVE


def test_after_a_loss_it_parks_again_what_was_unsent_until_it_is_whole(place: Place, log: MemorySourceLog) -> None:
    log.log_ends = {0: 50, 1: 0}
    log.log_relayed = {0: noted(30, UnsentRecord(offset=7, reason="unknown_schema"))}
    store = place.store(enter(place.roles, log, RECORD))
    assert store.read({0: [], 1: []})[0].withheld == {7: "unknown_schema"}
    assert store.read({0: [], 1: []})[1].withheld == {}
    epoch = store.read({0: []})[0].epoch
    store.write([PartitionWrite(0, 0, epoch, 20, parked={7: b"note"})])
    assert store.read({0: []})[0].withheld == {7: "unknown_schema"}
    store.write([PartitionWrite(0, 20, epoch, 50)])
    assert store.read({0: []})[0].withheld == {}


def test_what_was_unsent_lies_before_the_end_that_must_be_reached(place: Place, log: MemorySourceLog) -> None:
    """The log's end was asked for before another worker judged on, and the relay noted what it parked."""
    log.log_ends, log.log_relayed = {0: 5}, {0: noted(9, UnsentRecord(offset=7, reason="unreadable"))}
    enter(place.roles, log, RECORD)
    role = place.roles.roles([0])[0]
    assert role is not None
    assert (role.state, role.until, role.effects_from) == (RoleState.BUILDING, 8, 9)


def test_a_generation_beside_the_live_one_withholds_nothing(place: Place, log: MemorySourceLog) -> None:
    log.log_ends, log.log_relayed = {0: 50}, {0: noted(30, UnsentRecord(offset=7, reason="unreadable"))}
    enter(place.roles, log, RECORD)
    assert place.store(begin_beside(place.roles, log, RECORD)).read({0: []})[0].withheld == {}


def test_what_was_begun_with_an_end_from_before_the_loss_is_begun_again(place: Place) -> None:
    def lost_meanwhile() -> None:
        """The worker is stopped between the log's end and its beginning; the view grows, is lost, and it goes on."""
        stopped.log_ends = {0: 50, 1: 0}
        place.empty()

    stopped = LogWithMishap(log_ends={0: 30, 1: 0}, mishap=lost_meanwhile)
    name = enter(place.roles, stopped, RECORD)
    role = place.roles.roles([0])[0]
    assert role is not None
    assert (role.live, role.state, role.until) == (name, RoleState.BUILDING, 50)
    assert enter(place.roles, stopped, RECORD) == name


def test_what_another_worker_begins_in_between_for_a_view_that_is_gone_is_begun_again(place: Place) -> None:
    """One that read the pointer before the loss begins partition 0 after another one has looked there and found no role."""
    late = LogWithMishap(
        log_ends={0: 50, 1: 0},
        mishap=lambda: place.roles.begin({0: Beginning("g1-0ddba1", epoch=1, until=30, effects_from=0)}),
    )
    name = enter(place.roles, late, RECORD)
    stands = {partition: role and (role.live, role.until) for partition, role in place.roles.roles([0, 1]).items()}
    assert stands == {0: (name, 50), 1: (name, 0)}


def test_a_partition_that_was_lost_alone_is_built_again(place: Place, log: MemorySourceLog) -> None:
    name = enter(place.roles, log, RECORD)
    log.log_ends = {0: 0, 1: 0, 2: 40}
    assert enter(place.roles, log, RECORD) == name
    role = place.roles.roles([2])[2]
    assert role is not None
    assert (role.state, role.until) == (RoleState.BUILDING, 40)


def test_an_epoch_never_comes_twice_so_what_was_read_before_an_older_copy_came_back_is_stale(
    place: Place, log: MemorySourceLog
) -> None:
    """Two views stand for one that goes on and the same one that went back: the offset is the same, and each is refolded."""
    live = enter(place.roles, log, RECORD)
    epochs = set()
    for name in (live, begin_beside(place.roles, log, RECORD)):
        store = place.store(name)
        assert isinstance(store.rewrite(PatientRewrite(0, "p", 0, 0, {})), Written)
        epochs.add(store.read({0: []})[0].epoch)
        assert isinstance(store.note_parked(1, 0, {}), Written)
        epochs.add(store.read({1: []})[1].epoch)
    assert len(epochs) == 4
    assert min(epochs) > 0


def test_a_partition_that_is_lost_and_begun_again_has_another_epoch(place: Place) -> None:
    """What was read of it before the loss must not be written after it, though it stands where it stood."""
    log = MemorySourceLog(log_ends={0: 9})
    epochs = set()
    for _ in range(2):
        place.empty()
        epochs.add(place.store(enter(place.roles, log, RECORD)).read({0: []})[0].epoch)
    beside = begin_beside(place.roles, log, RECORD)
    epochs.add(place.store(beside).read({0: []})[0].epoch)
    place.forget(beside, 0)
    begin_again(place.roles, beside, [0])
    epochs.add(place.store(beside).read({0: []})[0].epoch)
    assert len(epochs) == 4


def test_a_generation_that_another_one_keeps_from_beginning_holds_nothing_there(place: Place) -> None:
    """Its workers would fill it, capped and without effects, and it would be the live one afterwards with all that left out."""
    place.roles.begin({0: Beginning("g1-0ddba1", epoch=1, until=30, effects_from=0)})
    assert not place.roles.begin({0: Beginning("g1-aaaaaa", epoch=1, until=50, effects_from=0)})
    assert place.roles.offsets("g1-aaaaaa", [0]) == {0: None}


def test_what_was_begun_in_a_store_that_was_emptied_a_moment_before_keeps_nobody_from_beginning(
    place: Place, log: MemorySourceLog
) -> None:
    """Whoever began it was killed before it could set a pointer; nothing of it was ever shown."""
    log.log_ends = {0: 50, 1: 0}
    place.roles.begin({0: Beginning("g1-0ddba1", 1, 30, 0), 1: Beginning("g1-0ddba1", 1, 0, 0)})
    name = enter(place.roles, log, RECORD)
    assert {role and role.live for role in place.roles.roles([0, 1]).values()} == {name}


def test_a_view_that_is_shown_and_has_lost_its_pointer_is_for_an_operator(place: Place, log: MemorySourceLog) -> None:
    log.log_ends = {0: 5, 1: 0}
    place.roles.begin({0: Beginning("g1-0ddba1", 1, 0, 0), 1: Beginning("g1-0ddba1", 1, 0, 0)})
    place.store("g1-0ddba1").write([PartitionWrite(0, 0, 0, 5)])
    with pytest.raises(GenerationRefusedError, match="lost its pointer, though partitions are live with g1-0ddba1"):
        enter(place.roles, log, RECORD)


def test_a_partition_that_is_built_by_what_was_live_before_a_switch_is_begun_by_what_is_live_now(
    place: Place, log: MemorySourceLog
) -> None:
    """It was lost alone, and begun by a worker that had read the pointer before the switch: nobody feeds that one."""
    live, beside = chase(place, log, upto=1)
    assert flip(place.roles, 2, freeze(place.roles, 2), beside)
    pointer = place.roles.pointer()
    assert pointer is not None
    late = MemorySourceLog(log_ends={0: 1, 1: 1, 2: 40})
    place.roles.begin({2: Beginning(live, 1, 30, 0)})
    assert partitions_to_begin(place.roles.roles([0, 1, 2]), pointer) == [2]
    assert enter(place.roles, late, GenerationRecord(4, "0.2.0", 0)) == beside
    role = place.roles.roles([2])[2]
    assert role is not None
    assert (role.live, role.until) == (beside, 40)


def test_another_log_is_refused_with_one_sentence(place: Place, log: MemorySourceLog) -> None:
    enter(place.roles, log, RECORD)
    for other in (LogIdentity("cluster", "made-again"), LogIdentity("elsewhere", "topic")):
        log.log_identity = other
        with pytest.raises(GenerationRefusedError, match="view of another log"):
            enter(place.roles, log, RECORD)


def test_an_offset_beyond_the_logs_end_is_refused(place: Place, log: MemorySourceLog) -> None:
    name = enter(place.roles, log, RECORD)
    log.log_ends = {0: 7, 1: 0}
    place.store(name).write([PartitionWrite(0, 0, 0, 8)])
    with pytest.raises(GenerationRefusedError, match="offset 8 of partition 0, and the log ends at 7"):
        enter(place.roles, log, RECORD)


def test_what_others_judge_while_one_enters_is_not_beyond_the_log(place: Place) -> None:
    class BusyLog(MemorySourceLog):
        """One that grows with every look, and whose newest record is judged at once."""

        def ends(self) -> Mapping[int, int]:
            """See `SourceLog.ends`."""
            before = super().ends()
            self.log_ends[0] += 1
            place.store(name).write([PartitionWrite(0, before[0], 0, before[0] + 1)])
            return before

    name = enter(place.roles, MemorySourceLog(log_ends={0: 0, 1: 0}), RECORD)
    assert enter(place.roles, BusyLog(log_ends={0: 0, 1: 0}), RECORD) == name


def test_another_version_of_the_fold_is_refused(place: Place, log: MemorySourceLog) -> None:
    enter(place.roles, log, RECORD)
    with pytest.raises(GenerationRefusedError, match="version 3 of the fold, and this is version 4"):
        enter(place.roles, log, GenerationRecord(4, "0.2.0", 0))


def test_an_unknown_generation_is_refused(place: Place, log: MemorySourceLog) -> None:
    enter(place.roles, log, RECORD)
    with pytest.raises(GenerationRefusedError, match="no generation g9-abcdef"):
        enter(place.roles, log, RECORD, "g9-abcdef")


@pytest.mark.integration
def test_a_redis_that_may_evict_is_refused(redis_url: str, log: MemorySourceLog) -> None:
    link = Link(redis_url)
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
        client.config_set("maxmemory", "1gb")
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            with pytest.raises(GenerationRefusedError, match="noeviction"):
                enter(RedisRoles(link), log, RECORD)
        finally:
            client.config_set("maxmemory", "0")
            client.config_set("maxmemory-policy", "noeviction")
    link.close()


def chase(place: Place, log: MemorySourceLog, *, upto: int) -> tuple[str, str]:
    """A live generation at an offset in both partitions, and another one beside it that has come as far."""
    live = enter(place.roles, log, RECORD)
    beside = begin_beside(place.roles, log, GenerationRecord(4, "0.2.0", 0))
    for name in (live, beside):
        place.store(name).write([PartitionWrite(each, 0, 0, upto) for each in (0, 1)])
    return live, beside


def test_a_switch_makes_the_other_generation_live_at_once(place: Place, log: MemorySourceLog) -> None:
    live, beside = chase(place, log, upto=5)
    announced = freeze(place.roles, 2)
    assert isinstance(place.store(live).write([PartitionWrite(0, 5, 0, 6)])[0], Refused)
    assert has_reached(place.roles, 2, announced, beside)
    assert flip(place.roles, 2, announced, beside)
    pointer = place.roles.pointer()
    assert pointer is not None
    assert (pointer.generation, set(pointer.records)) == (beside, {live, beside})
    for role in place.roles.roles([0, 1]).values():
        assert role is not None
        assert (role.live, role.state, role.effects_from) == (beside, RoleState.LIVE, 5)
    assert not isinstance(place.store(beside).write([PartitionWrite(0, 5, 0, 6)])[0], Refused)
    assert not isinstance(place.store(live).write([PartitionWrite(0, 5, 0, 6)])[0], Refused)
    back = freeze(place.roles, 2)
    assert flip(place.roles, 2, back, live)


def test_a_worker_that_was_stopped_while_a_switch_was_made_takes_nothing_from_who_is_live(
    place: Place, log: MemorySourceLog
) -> None:
    chase(place, log, upto=5)
    log = MemorySourceLog(log_ends={0: 5, 1: 5})
    seen_by_one_who_was_stopped = iter([place.roles.pointer()])
    third = begin_beside(place.roles, log, RECORD)
    place.store(third).write([PartitionWrite(each, 0, 0, 5) for each in (0, 1)])
    assert flip(place.roles, 2, freeze(place.roles, 2), third)
    roles, look = place.roles, place.roles.pointer
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(roles, "pointer", lambda: next(seen_by_one_who_was_stopped, None) or look())
        with pytest.raises(StoreUnavailableError, match="ask again"):
            enter(roles, log, RECORD)
        assert enter(roles, log, RECORD) == third
    for role in roles.roles([0, 1]).values():
        assert role is not None
        assert role.live == third


def test_what_each_generation_has_parked_is_told_while_writes_are_frozen(place: Place, log: MemorySourceLog) -> None:
    live, beside = chase(place, log, upto=5)
    place.store(live).write([PartitionWrite(0, 5, 0, 6, parked={5: b"note"})])
    freeze(place.roles, 2)
    assert [dict(place.store(each).parked(0)) for each in (live, beside)] == [{5: b"note"}, {}]


def test_a_generation_that_has_not_come_as_far_does_not_become_live(place: Place, log: MemorySourceLog) -> None:
    live, beside = chase(place, log, upto=5)
    place.store(live).write([PartitionWrite(1, 5, 0, 6)])
    announced = freeze(place.roles, 2)
    assert not flip(place.roles, 2, announced, beside)
    place.store(beside).write([PartitionWrite(1, 5, 0, 6)])
    assert flip(place.roles, 2, announced, beside)


def test_a_switch_given_up_unfreezes_and_cannot_be_flipped(place: Place, log: MemorySourceLog) -> None:
    live, beside = chase(place, log, upto=5)
    announced = freeze(place.roles, 2)
    with pytest.raises(GenerationRefusedError, match="Another switch"):
        freeze(place.roles, 2)
    follow(place.roles, 2)
    assert isinstance(place.store(live).write([PartitionWrite(0, 5, 0, 6)])[0], Refused)
    assert give_up(place.roles, 2, announced)
    assert not flip(place.roles, 2, announced, beside)
    assert not give_up(place.roles, 2, announced)
    assert not isinstance(place.store(live).write([PartitionWrite(0, 5, 0, 6)])[0], Refused)


def test_a_freeze_whose_announcement_an_older_copy_took_back_thaws(place: Place, log: MemorySourceLog) -> None:
    live, beside = chase(place, log, upto=5)
    before = place.roles.pointer()
    announced = freeze(place.roles, 2)
    assert before is not None
    assert place.roles.point(announced, before), "as a store does that comes back with an older file"
    follow(place.roles, 2)
    assert not isinstance(place.store(live).write([PartitionWrite(0, 5, 0, 6)])[0], Refused)
    assert not flip(place.roles, 2, announced, beside)


def go_astray(place: Place, beside: str) -> None:
    """An older copy takes a decision back while whoever made it goes on and thaws partition 0; the switch is given up."""
    announced = freeze(place.roles, 2)
    role = place.roles.roles([0])[0]
    assert role is not None
    assert place.roles.turn(0, role, Role(2, beside, RoleState.LIVE, "", role.until, 5))
    assert place.roles.point(announced, replace(announced, epoch=2, token="", records={})), "nobody has followed yet"


def test_a_partition_that_went_over_by_a_decision_that_was_taken_back_comes_back(
    place: Place, log: MemorySourceLog
) -> None:
    live, beside = chase(place, log, upto=5)
    go_astray(place, beside)
    assert isinstance(place.store(live).write([PartitionWrite(0, 5, 0, 6)])[0], Refused)
    for _ in range(2):
        follow(place.roles, 2)
    assert not isinstance(place.store(live).write([PartitionWrite(0, 5, 0, 6)])[0], Refused)
    place.store(beside).write([PartitionWrite(0, 5, 0, 6)])
    assert flip(place.roles, 2, freeze(place.roles, 2), beside), "an operator can switch again"


def test_a_partition_that_went_over_and_went_on_comes_back_once_the_live_generation_has_come_as_far(
    place: Place, log: MemorySourceLog
) -> None:
    live, beside = chase(place, log, upto=5)
    go_astray(place, beside)
    # Somebody was told to feed the other one, and did.
    assert not isinstance(place.store(beside).write([PartitionWrite(0, 5, 0, 8)])[0], Refused)
    follow(place.roles, 2)
    assert place.store(live).write([PartitionWrite(0, 5, 0, 8)])[0] == Written(8, {})
    assert not isinstance(place.store(beside).write([PartitionWrite(0, 8, 0, 9)])[0], Refused)
    assert place.store(live).write([PartitionWrite(0, 8, 0, 9)])[0] == Written(9, {})
    follow(place.roles, 2)
    assert isinstance(place.store(beside).write([PartitionWrite(0, 9, 0, 10)])[0], Refused)
    follow(place.roles, 2)
    role = place.roles.roles([0])[0]
    assert role is not None
    assert (role.live, role.state, role.epoch, role.effects_from) == (live, RoleState.LIVE, 2, 9)


def test_what_was_written_just_before_a_partition_froze_is_not_taken_back(place: Place, log: MemorySourceLog) -> None:
    live, beside = chase(place, log, upto=5)
    go_astray(place, beside)
    roles, turn = place.roles, place.roles.turn

    def turn_late(partition: int, seen: Role, shall: Role) -> bool:
        place.store(beside).write([PartitionWrite(0, 5, 0, 6)])
        return turn(partition, seen, shall)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(roles, "turn", turn_late)
        follow(roles, 2)
    follow(roles, 2)
    role = roles.roles([0])[0]
    assert role is not None
    assert (role.live, role.state) == (beside, RoleState.FROZEN)
    place.store(live).write([PartitionWrite(0, 5, 0, 6)])
    follow(roles, 2)
    assert not isinstance(place.store(live).write([PartitionWrite(0, 6, 0, 7)])[0], Refused)


def test_a_freeze_that_was_announced_since_the_pointer_was_read_stays(place: Place, log: MemorySourceLog) -> None:
    live, _ = chase(place, log, upto=5)
    seen_before = iter([place.roles.pointer()])
    freeze(place.roles, 2)
    look = place.roles.pointer
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(place.roles, "pointer", lambda: next(seen_before, None) or look())
        follow(place.roles, 2)
    assert isinstance(place.store(live).write([PartitionWrite(0, 5, 0, 6)])[0], Refused)


def test_what_a_generation_lost_of_one_partition_is_begun_anew_unless_it_was_retired(
    place: Place, log: MemorySourceLog
) -> None:
    _, beside = chase(place, log, upto=5)
    place.forget(beside, 1)
    assert place.roles.offsets(beside, [0, 1]) == {0: 5, 1: None}
    begin_again(place.roles, beside, [1])
    begin_again(place.roles, beside, [0, 1])
    assert place.roles.offsets(beside, [0, 1]) == {0: 5, 1: 0}
    mark(place.roles, beside, GenerationState.RETIRED)
    place.forget(beside, 1)
    begin_again(place.roles, beside, [1])
    assert place.roles.offsets(beside, [1]) == {1: None}


def test_a_partition_that_is_being_built_cannot_be_switched(place: Place, log: MemorySourceLog) -> None:
    log.log_ends = {0: 0, 1: 9}
    live = enter(place.roles, log, RECORD)
    with pytest.raises(GenerationRefusedError, match="Partition 1 is not live"):
        freeze(place.roles, 2)
    assert not isinstance(place.store(live).write([PartitionWrite(0, 0, 0, 1)])[0], Refused)
