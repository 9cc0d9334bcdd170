"""One suite for both stores: what the port promises, and that Redis and memory answer and keep the same, key by key."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.reasons import NoticeKind
from services.medication_list.fold.judgement import NoticeDue
from services.medication_list.store.link import Link
from services.medication_list.store.memory_outbox import MemoryOutbox
from services.medication_list.store.memory_roles import MemoryRoles
from services.medication_list.store.memory_server import MemoryServer
from services.medication_list.store.memory_store import MemoryStore
from services.medication_list.store.port import (
    PartitionWrite,
    PatientChange,
    PatientRewrite,
    Refused,
    RefusedWhy,
    Standing,
    Store,
    StoreUnavailableError,
    ViewLostError,
    Wanted,
    Written,
)
from services.medication_list.store.redis_outbox import RedisOutbox
from services.medication_list.store.redis_roles import RedisRoles
from services.medication_list.store.redis_store import RedisStore
from services.medication_list.store.roles import Beginning, Pointer, Role, Roles, RoleState
from services.medication_list.store.waiting import FIRST, Outbox, Unsent
from services.medication_list.stored.packing import pack_effect

G1, G2 = "g1-aaaaaa", "g2-bbbbbb"
ANNA, BJORN = "a" * 32, "b" * 32
Content = dict[str, dict[bytes, bytes] | list[bytes]]


def one_by_one() -> int:
    """What an epoch rises by where the two stores are compared; otherwise each takes a number by chance."""
    return 1


@dataclass
class Place:
    """One store of either kind, with all its ports."""

    store: Callable[[str], Store]
    roles: Roles
    outbox: Outbox
    content: Callable[[], Content]

    def begin(self, generation: str = G1, *, until: int = 0, effects_from: int = 0) -> Store:
        """Begin a generation in partitions 0 to 2, the first one as the live one, and return its store."""
        beside = int(any(self.roles.roles(range(3)).values()))
        assert not self.roles.begin(dict.fromkeys(range(3), Beginning(generation, 1, until, effects_from, "", beside)))
        return self.store(generation)


def without_entry(key: str, held: Any) -> Any:
    """What was released names an entry of the outbox, and each server numbers those by its own clock."""
    return {offset: each.split(b" ", 1)[1] for offset, each in held.items()} if key.endswith(":released") else held


def in_memory() -> Place:
    server = MemoryServer()
    return Place(
        lambda generation: MemoryStore(server, generation, one_by_one),
        MemoryRoles(server),
        MemoryOutbox(server),
        lambda: {key: without_entry(key, held) for key, held in server.content().items()},
    )


def in_redis(url: str) -> Iterator[Place]:
    link = Link(url)
    with redis.Redis.from_url(url) as client:
        client.flushall()

        def content() -> Content:
            held = {each: value(each) for each in client.scan_iter("*") if b":relay" not in each}
            # A stream stays behind when its last entry is deleted, and nobody can tell it from none.
            return {key.decode(): without_entry(key.decode(), each) for key, each in held.items() if each != []}

        def value(key: bytes) -> Any:
            if client.type(key) == b"stream":
                return [fields[b"e"] for _, fields in client.xrange(key)]
            return client.hgetall(key)

        yield Place(
            lambda generation: RedisStore(link, generation, one_by_one), RedisRoles(link), RedisOutbox(link), content
        )
    link.close()


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.integration)])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    if request.param == "memory":
        yield in_memory()
    else:
        yield from in_redis(request.getfixturevalue("redis_url"))


def effect(source_offset: int, name: str = "n") -> bytes:
    return pack_effect(source_offset, ANNA, NoticeDue(NoticeKind.ORDER_VOID, "974761076", name, 0))


def written(answer: Written | Refused) -> Written:
    assert isinstance(answer, Written), answer
    return answer


def refused(answer: Written | Refused) -> Refused:
    assert isinstance(answer, Refused), answer
    return answer


def test_what_was_written_is_read_with_its_offset_and_in_the_order_asked(place: Place) -> None:
    store = place.begin()
    change = PatientChange(ANNA, {"meta": b"1", "t:1": b"\x00\xff"}, (), {b"\x00id": b"\xffpacked"})
    assert written(store.write([PartitionWrite(1, 0, 0, 3, [change])])[1]).next_offset == 3
    snapshot = store.read(
        {1: [Wanted(BJORN, ["meta"], [b"x"]), Wanted(ANNA, ["t:1", "rx:9", "meta"], [b"n", b"\x00id"])]}
    )[1]
    assert snapshot == (3, 0, None, [[None], [b"\x00\xff", None, b"1"]], [[None], [None, b"\xffpacked"]], {})
    assert store.next_offsets([0, 1]) == {0: 0, 1: 3}


def test_a_write_goes_on_where_the_view_stands_though_that_of_another_partition_is_lost(place: Place) -> None:
    """Also where the store has to ask once more, since another generation has become the live one."""
    place.roles.begin({0: Beginning(G1, 1, 0, 0), 1: Beginning(G1, 1, 0, 0)})
    place.roles.begin({0: Beginning(G2, 1, 0, 0, beside=1)})
    store = place.store(G2)
    assert isinstance(store.write([PartitionWrite(0, 0, 0, 1)])[0], Refused)
    place.roles.begin({0: Beginning(G2, 1, 0, 0, instead_of=G1)})
    with pytest.raises(ViewLostError, match="partition 1"):
        store.write([PartitionWrite(0, 0, 0, 1), PartitionWrite(1, 0, 0, 1)])
    assert store.next_offsets([0]) == {0: 1}


def test_what_was_judged_last_stands_with_the_offset_until_another_record_was_judged(place: Place) -> None:
    store = place.begin()
    assert store.standing([0]) == {0: Standing(0)}
    written(store.write([PartitionWrite(0, 0, 0, 3, last=b"2 a mark")])[0])
    written(store.write([PartitionWrite(0, 3, 0, 5)])[0])  # markers alone
    refused(store.write([PartitionWrite(0, 3, 0, 6, last=b"5 another")])[0])
    assert store.standing([0, 1]) == {0: Standing(5, b"2 a mark"), 1: Standing(0)}
    written(store.write([PartitionWrite(0, 5, 0, 7, [PatientChange(ANNA, {"meta": b"1"})], last=b"6 a third")])[0])
    assert store.standing([0]) == {0: Standing(7, b"6 a third")}


def test_a_write_from_another_offset_changes_nothing(place: Place) -> None:
    store = place.begin()
    written(store.write([PartitionWrite(0, 0, 0, 5)])[0])
    before = place.content()
    for expected in (0, 4, 6):
        late = PartitionWrite(
            0,
            expected,
            0,
            9,
            [PatientChange(ANNA, {"meta": b"1"})],
            [effect(7)],
            [("rx", b"a")],
            {},
            {7: b"unreadable"},
        )
        assert store.write([late])[0] == Refused(RefusedWhy.OFFSET, 5, 0, None)
    assert place.content() == before


def test_a_write_with_another_epoch_changes_nothing(place: Place) -> None:
    store = place.begin()
    before = place.content()
    assert store.write([PartitionWrite(0, 0, 1, 5, [PatientChange(ANNA, {"meta": b"1"})])])[0] == Refused(
        RefusedWhy.EPOCH, 0, 0, None
    )
    assert place.content() == before


def test_one_partition_that_is_refused_does_not_hold_up_the_others(place: Place) -> None:
    store = place.begin()
    answers = store.write([PartitionWrite(0, 1, 0, 2), PartitionWrite(1, 0, 0, 2)])
    assert refused(answers[0]).why is RefusedWhy.OFFSET
    assert written(answers[1]).next_offset == 2


def test_fields_are_put_dropped_and_remembered_in_one_step(place: Place) -> None:
    store = place.begin()
    store.write([PartitionWrite(0, 0, 0, 1, [PatientChange(ANNA, {"a": b"1", "b": b"2"}, (), {b"e1": b"x"})])])
    store.write([PartitionWrite(0, 1, 0, 2, [PatientChange(ANNA, {"c": b"3"}, ("a", "z"), {b"e2": b"y"})])])
    content = place.content()
    assert content[f"{G1}:{{0}}:p:{ANNA}"] == {b"b": b"2", b"c": b"3"}
    assert content[f"{G1}:{{0}}:e:{ANNA}"] == {b"e1": b"x", b"e2": b"y"}


def test_an_id_belongs_to_the_patient_who_had_it_first(place: Place) -> None:
    store = place.begin()
    assert not written(store.write([PartitionWrite(0, 0, 0, 1, opened=[("rx1", b"anna")])])[0]).taken
    second = written(store.write([PartitionWrite(0, 1, 0, 2, opened=[("rx1", b"bjorn"), ("rx2", b"bjorn")])])[0])
    assert second.taken == {"rx1": b"anna"}
    again = written(store.write([PartitionWrite(0, 2, 0, 3, opened=[("rx1", b"anna")], closed={"rx2": b"anna"})])[0])
    assert not again.taken
    assert place.content()[f"{G1}:{{0}}:rx"] == {b"rx1": b"anna", b"!rx1": b"bjorn", b"rx2": b"bjorn"}
    store.write([PartitionWrite(0, 3, 0, 4, closed={"rx1": b"anna", "rx2": b"bjorn"})])
    assert place.content()[f"{G1}:{{0}}:rx"] == {b"!rx1": b"bjorn"}


def test_parked_records_and_effects_stand_in_log_order(place: Place) -> None:
    store = place.begin()
    store.write([PartitionWrite(2, 0, 0, 300, [], [effect(1, "a"), effect(299, "b")], parked={7: b"unreadable"})])
    store.write([PartitionWrite(2, 300, 0, 301, [], [effect(300, "c")])])
    content = place.content()
    assert content["{2}:outbox"] == [effect(1, "a"), effect(299, "b"), effect(300, "c")]
    assert content[f"{G1}:{{2}}:parked"] == {b"7": b"unreadable"}


def test_another_generation_stops_at_the_live_ones_offset_and_sends_nothing(place: Place) -> None:
    live, chasing = place.begin(), place.begin(G2)
    assert chasing.read({0: []})[0].limit == 0
    live.write([PartitionWrite(0, 0, 0, 10)])
    assert chasing.write([PartitionWrite(0, 0, 0, 11)])[0] == Refused(RefusedWhy.CAPPED, 0, 0, 10)
    chased = PartitionWrite(0, 0, 0, 10, [PatientChange(ANNA, {"meta": b"1"})], [effect(4)])
    assert chasing.write([chased])[0] == Written(10, {}, None), "nothing of it is told"
    assert "{0}:outbox" not in place.content()
    assert place.content()[f"{G2}:{{0}}:p:{ANNA}"] == {b"meta": b"1"}
    assert live.read({0: []})[0].limit is None
    anew = PatientRewrite(0, ANNA, 0, 0, {"meta": b"1"}, {}, [effect(4)])
    assert chasing.rewrite(anew) == Written(10, {}, None)
    assert "{0}:outbox" not in place.content()


def test_nobody_writes_a_frozen_partition_beyond_its_offset(place: Place) -> None:
    live, chasing = place.begin(), place.begin(G2)
    live.write([PartitionWrite(0, 0, 0, 10)])
    seen = place.roles.roles([0])[0]
    assert seen == Role(1, G1, RoleState.LIVE, "", 0, 0)
    assert place.roles.turn(0, seen, Role(1, G1, RoleState.FROZEN, "token", 0, 0))
    assert not place.roles.turn(0, seen, Role(1, G1, RoleState.FROZEN, "other", 0, 0))
    assert live.write([PartitionWrite(0, 10, 0, 11)])[0] == Refused(RefusedWhy.ROLE, 10, 0, 10)
    assert live.read({0: []})[0].limit == 10
    written(chasing.write([PartitionWrite(0, 0, 0, 10)])[0])
    assert refused(chasing.write([PartitionWrite(0, 10, 0, 11)])[0]).why is RefusedWhy.CAPPED


def test_after_a_switch_the_new_generation_writes_and_the_old_one_chases(place: Place) -> None:
    old, new = place.begin(), place.begin(G2)
    old.write([PartitionWrite(0, 0, 0, 10)])
    new.write([PartitionWrite(0, 0, 0, 10)])
    seen = place.roles.roles([0])[0]
    assert seen is not None
    assert place.roles.turn(0, seen, Role(2, G2, RoleState.LIVE, "token", 0, 10))
    assert refused(old.write([PartitionWrite(0, 10, 0, 12)])[0]).why is RefusedWhy.CAPPED
    written(new.write([PartitionWrite(0, 10, 0, 12, [], [effect(11)])])[0])
    written(old.write([PartitionWrite(0, 10, 0, 12, [], [effect(11)])])[0])
    assert place.content()["{0}:outbox"] == [effect(11)]


def test_what_a_generation_was_to_send_that_is_replaced_goes_with_it_and_what_another_has_stays(place: Place) -> None:
    """It is made again; left in the outbox it would come before effects of older records."""
    store = place.begin()
    for partition in (0, 1):
        store.write([PartitionWrite(partition, 0, 0, 3, [], [effect(2)], parked={1: b"a"})])
        store.rewrite(PatientRewrite(partition, ANNA, 0, 0, {}, {}, [effect(1)], unparked=[1]))
    assert {"{0}:outbox", "{0}:released"} < place.content().keys()
    assert not place.roles.begin(
        {0: Beginning(G2, 1, 3, 0, instead_of=G1), 1: Beginning(G2, 1, 3, 0, instead_of="g1-0")}
    )
    content = place.content()
    assert "{0}:outbox" not in content
    assert "{0}:released" not in content
    assert content["{1}:outbox"] == [effect(2), effect(1)]
    assert content["{1}:released"] == {b"1": b"a"}


def test_what_is_not_made_again_stays_where_a_generation_replaces_another_and_has_come_far_itself(place: Place) -> None:
    """An older pointer came back that does not know the live one: another stands near the end, without effects of its own."""
    live, beside = place.begin(), place.begin(G2)
    live.write([PartitionWrite(0, 0, 0, 9, [], [effect(3), effect(6), effect(8)], parked={1: b"a"})])
    live.rewrite(PatientRewrite(0, ANNA, 0, 0, {}, {}, [effect(1)], unparked=[1]))
    beside.write([PartitionWrite(0, 0, 0, 6)])
    assert not place.roles.begin({0: Beginning(G2, 1, 9, 0, instead_of=G1)})
    content = place.content()
    assert content["{0}:outbox"] == [effect(3), effect(1)]
    assert content["{0}:released"] == {b"1": b"a"}


def test_a_generation_after_a_loss_turns_live_at_its_end_and_leaves_out_what_was_relayed(place: Place) -> None:
    store = place.begin(until=20, effects_from=70_000)
    assert place.content()["{0}:role"] == {
        b"epoch": b"1", b"live": G1.encode(), b"state": b"building", b"token": b"", b"until": b"20", b"effects_from": b"70000",
    }  # fmt: skip
    assert store.write([PartitionWrite(0, 0, 0, 19)]) == {0: Written(19, {}, 70_000)}
    assert place.roles.roles([0])[0] == Role(1, G1, RoleState.BUILDING, "", 20, 70_000)
    effects = [effect(each, str(each)) for each in (19, 127, 128, 65_535, 69_999, 70_000, 70_001, 2**33)]
    store.write([PartitionWrite(0, 19, 0, 2**33 + 1, [], effects)])
    assert place.roles.roles([0])[0] == Role(1, G1, RoleState.LIVE, "", 20, 70_000)
    assert place.content()["{0}:outbox"] == effects[-3:]


def test_a_lost_view_is_told_apart_from_an_empty_one(place: Place) -> None:
    store = place.store(G1)
    for call in (
        lambda: store.next_offsets([0]),
        lambda: store.read({0: []}),
        lambda: store.write([PartitionWrite(0, 0, 0, 1)]),
    ):
        with pytest.raises(ViewLostError, match="partition 0"):
            call()
    assert place.content() == {}


def test_a_generation_that_was_not_begun_cannot_be_written(place: Place) -> None:
    place.begin()
    with pytest.raises(ViewLostError):
        place.store(G2).write([PartitionWrite(0, 0, 0, 1)])


def test_one_partition_that_lost_its_view_does_not_undo_the_others(place: Place) -> None:
    store = place.begin()
    with pytest.raises(ViewLostError, match="partition 7"):
        store.write([PartitionWrite(7, 0, 0, 1), PartitionWrite(0, 0, 0, 1)])
    assert store.next_offsets([0]) == {0: 1}


def test_the_pointer_moves_only_from_what_was_seen(place: Place) -> None:
    assert place.roles.pointer() is None
    first = Pointer(1, G1, "", "cluster", "topic", {G1: b"\xffrecord"})
    second = Pointer(2, G2, "token", "cluster", "topic", {G1: b"\xffrecord", G2: b"x"})
    assert place.roles.point(None, first)
    assert not place.roles.point(None, second)
    assert place.roles.pointer() == first
    assert place.roles.point(first, second)
    assert not place.roles.point(first, second)
    assert place.roles.pointer() == second


def test_only_the_owner_of_the_lease_deletes_what_was_relayed(place: Place) -> None:
    store = place.begin()
    store.write([PartitionWrite(0, 0, 0, 3, [], [effect(0, "a"), effect(1, "b"), effect(2, "c")])])
    assert list(place.outbox.lease([0, 1], "one", 60_000)) == [0, 1]
    assert list(place.outbox.lease([0, 1], "two", 60_000)) == []
    entries = place.outbox.waiting({0: FIRST, 1: FIRST}, 2, 1)[0]
    assert [each.effect for each in entries] == [effect(0, "a"), effect(1, "b")]
    assert [each.effect for each in place.outbox.waiting({0: entries[1].entry_id}, 9, 1)[0]] == [effect(2, "c")]
    assert not place.outbox.relayed(0, "two", [entries[0].entry_id])
    assert place.outbox.relayed(0, "one", [entries[0].entry_id])
    assert place.content()["{0}:outbox"] == [effect(1, "b"), effect(2, "c")]
    assert not place.outbox.waiting({1: FIRST}, 2, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        [PartitionWrite(0, 0, 0, 1), PartitionWrite(0, 0, 0, 2)],
        [PartitionWrite(0, 3, 0, 3)],
        [PartitionWrite(0, -1, 0, 3)],
        [PartitionWrite(0, 0, 0, 3, opened=[("rx", b"a")], closed={"rx": b"b"})],
        [PartitionWrite(0, 0, 0, 3, [PatientChange(ANNA, {"a": b"1"}), PatientChange(ANNA, {"b": b"1"})])],
    ],
)
def test_a_write_that_contradicts_itself_is_turned_away(place: Place, wrong: list[PartitionWrite]) -> None:
    store = place.begin()
    before = place.content()
    with pytest.raises(ValueError, match=r"of one|partition"):
        store.write(wrong)
    assert place.content() == before


def test_thousands_of_fields_of_one_patient_fit_in_one_write(place: Place) -> None:
    store = place.begin()
    fields = {f"t:{n}": b"%d" % n for n in range(9_001)}
    index = {b"%d" % n: b"x" for n in range(9_001)}
    written(store.write([PartitionWrite(0, 0, 0, 1, [PatientChange(ANNA, fields, (), index)])])[0])
    snapshot = store.read({0: [Wanted(ANNA, list(fields), list(index))]})[0]
    assert snapshot.fields == [list(fields.values())]
    assert snapshot.remembered == [list(index.values())]
    store.write([PartitionWrite(0, 1, 0, 2, [PatientChange(ANNA, {}, list(fields))])])
    assert f"{G1}:{{0}}:p:{ANNA}" not in place.content()


def test_a_patient_folded_anew_takes_the_place_of_what_stood_and_makes_other_reads_stale(place: Place) -> None:
    store = place.begin()
    before = PatientChange(ANNA, {"meta": b"1", "t:1": b"2"}, (), {b"e1": b"parked", b"e2": b"x"})
    store.write([PartitionWrite(0, 0, 0, 3, [before], parked={1: b"unreadable", 2: b"unreadable"})])
    whole = store.read_whole(0, ANNA, with_index=True)
    assert whole == (3, 0, {"meta": b"1", "t:1": b"2"}, {b"e1": b"parked", b"e2": b"x"})
    assert not store.read_whole(0, ANNA).remembered
    assert not store.read_whole(0, BJORN).fields
    rewrite = PatientRewrite(0, ANNA, 0, 2, {"meta": b"9"}, {b"e1": b"applied"}, [effect(1)], {"rx": b"anna"}, {}, [1])
    assert store.rewrite(rewrite) == Written(3, {}, 0)
    content = place.content()
    assert content[f"{G1}:{{0}}:p:{ANNA}"] == {b"meta": b"9"}
    assert content[f"{G1}:{{0}}:e:{ANNA}"] == {b"e1": b"applied", b"e2": b"x"}
    assert content[f"{G1}:{{0}}:parked"] == {b"2": b"unreadable"}
    assert content["{0}:outbox"] == [effect(1)]
    assert store.write([PartitionWrite(0, 3, 0, 4)])[0] == Refused(RefusedWhy.EPOCH, 3, 1, None)
    assert store.rewrite(rewrite) == Refused(RefusedWhy.EPOCH, 3, 1, None)
    assert place.content() == content


def test_what_was_parked_and_sends_something_now_is_unsent_until_its_last_effect_is_gone(place: Place) -> None:
    store = place.begin()
    store.write([PartitionWrite(0, 0, 0, 3, [], [effect(2, "x")], parked={0: b"of nobody", 1: b"a", 2: b"b"})])
    assert store.rewrite(PatientRewrite(0, ANNA, 0, 0, {}, {}, [effect(1, "y"), effect(1, "z")], unparked=[1, 5])) == (
        Written(3, {}, 0)
    )
    assert store.rewrite(PatientRewrite(0, ANNA, 1, 0, {}, unparked=[2])) == Written(3, {}, 0)
    parked, released = {0: b"of nobody"}, {1: b"a"}
    assert place.content()["{0}:released"] == {b"1": b"a"}
    assert place.outbox.unsent({0: None, 7: None}, 9) == {
        0: Unsent(3, waits=True, notes=parked | released, withheld={}, in_all=2)
    }
    assert list(place.outbox.lease([0], "one", 60_000)) == [0]
    first, second, last = (each.entry_id for each in place.outbox.waiting({0: FIRST}, 9, 1)[0])
    assert place.outbox.relayed(0, "one", [second])
    assert place.outbox.relayed(0, "one", [first])
    assert place.outbox.unsent({0: last}, 9)[0] == Unsent(3, waits=True, notes=parked | released, withheld={}, in_all=2)
    assert not place.outbox.unsent({0: first}, 9)[0].waits
    assert not place.outbox.relayed(0, "another", [last])
    assert place.outbox.relayed(0, "one", [last])
    assert place.outbox.unsent({0: None}, 9) == {0: Unsent(3, waits=False, notes=parked, withheld={}, in_all=1)}
    assert "{0}:released" not in place.content()


def test_an_outbox_that_was_emptied_is_none(place: Place) -> None:
    store = place.begin()
    store.write([PartitionWrite(0, 0, 0, 1, [], [effect(0)])])
    assert list(place.outbox.lease([0], "one", 60_000)) == [0]
    assert place.outbox.relayed(0, "one", [place.outbox.waiting({0: FIRST}, 1, 1)[0][0].entry_id])
    assert "{0}:outbox" not in place.content()


def test_what_came_later_holds_nothing_up_that_was_released_before_it(place: Place) -> None:
    store = place.begin()
    store.write([PartitionWrite(0, 0, 0, 2, parked={0: b"a"})])
    store.rewrite(PatientRewrite(0, ANNA, 0, 0, {}, {}, [effect(0)], unparked=[0]))
    store.write([PartitionWrite(0, 2, 1, 3, [], [effect(2)])])
    assert list(place.outbox.lease([0], "one", 60_000)) == [0]
    place.outbox.relayed(0, "one", [place.outbox.waiting({0: FIRST}, 1, 1)[0][0].entry_id])
    assert place.outbox.unsent({0: None}, 9) == {0: Unsent(3, waits=True, notes={}, withheld={}, in_all=0)}


def test_what_is_not_live_releases_nothing(place: Place) -> None:
    place.begin().write([PartitionWrite(0, 0, 0, 3)])
    beside = place.begin(G2)
    beside.write([PartitionWrite(0, 0, 0, 3, parked={1: b"a"})])
    beside.rewrite(PatientRewrite(0, ANNA, 0, 0, {}, {}, [effect(1)], unparked=[1]))
    assert place.content().keys().isdisjoint({"{0}:released", "{0}:outbox"})
    assert place.outbox.unsent({0: None}, 9) == {0: Unsent(3, waits=False, notes={}, withheld={}, in_all=0)}


def test_a_rewrite_that_is_refused_releases_nothing(place: Place) -> None:
    store = place.begin()
    store.write([PartitionWrite(0, 0, 0, 3, parked={1: b"a"})])
    before = place.content()
    stale = PatientRewrite(0, ANNA, 1, 0, {}, {}, [effect(1)], unparked=[1])
    assert store.rewrite(stale) == Refused(RefusedWhy.EPOCH, 3, 0, None)
    assert place.content() == before


def test_nobody_is_folded_anew_while_the_view_is_being_made(place: Place) -> None:
    store = place.begin(until=3)
    store.write([PartitionWrite(0, 0, 0, 2, parked={1: b"a"})])
    before = place.content()
    anew = PatientRewrite(0, ANNA, 0, 0, {}, {}, [effect(1)], unparked=[1])
    assert store.rewrite(anew) == Refused(RefusedWhy.ROLE, 2, 0, None)
    assert place.content() == before
    store.write([PartitionWrite(0, 2, 0, 3)])
    assert store.rewrite(anew) == Written(3, {}, 0)


def test_what_is_withheld_is_unsent_until_it_is_parked(place: Place) -> None:
    place.roles.begin({0: Beginning(G1, 1, 9, 5, withheld={1: "unknown_schema", 6: "unreadable"})})
    assert place.outbox.unsent({0: None}, 9)[0].withheld == {1: "unknown_schema", 6: "unreadable"}
    store = place.store(G1)
    assert store.read({0: []})[0].withheld == {1: "unknown_schema", 6: "unreadable"}
    store.write([PartitionWrite(0, 0, 0, 3, parked={1: b"a"})])
    assert place.outbox.unsent({0: None}, 9) == {
        0: Unsent(3, waits=False, notes={1: b"a"}, withheld={6: "unreadable"}, in_all=1)
    }
    store.write([PartitionWrite(0, 3, 0, 9, parked={6: b"b"})])
    assert place.outbox.unsent({0: None}, 9) == {
        0: Unsent(9, waits=False, notes={1: b"a", 6: b"b"}, withheld={}, in_all=2)
    }
    assert store.read({0: []})[0].withheld == {}


def test_a_generation_that_begins_where_another_is_live_or_again_withholds_nothing(place: Place) -> None:
    place.begin()
    before = place.content()
    for generation, beside in ((G1, 0), (G1, 1)):
        assert not place.roles.begin({0: Beginning(generation, 1, 9, 5, beside=beside, withheld={1: "unreadable"})})
    assert place.content() == before


@pytest.mark.parametrize("wrong", [{-1: "unreadable"}, {1: "unreadable", -7: "unreadable"}])
@pytest.mark.integration
def test_a_beginning_that_contradicts_itself_is_turned_away(redis_url: str, wrong: dict[int, str]) -> None:
    for place in in_redis(redis_url):
        with pytest.raises(ValueError, match="contradict"):
            place.roles.begin({0: Beginning(G1, 1, 9, 5, withheld=wrong)})
        assert place.content() == {}


def test_the_unsent_of_a_generation_that_became_live_is_its_own(place: Place) -> None:
    old, new = place.begin(), place.begin(G2)
    old.write([PartitionWrite(0, 0, 0, 9, parked={1: b"a"})])
    new.write([PartitionWrite(0, 0, 0, 9, parked={1: b"a", 2: b"b"})])
    assert place.outbox.unsent({0: None}, 9)[0].notes == {1: b"a"}
    seen = place.roles.roles([0])[0]
    assert seen is not None
    place.roles.turn(0, seen, Role(2, G2, RoleState.LIVE, "", 0, 9))
    assert place.outbox.unsent({0: None}, 9)[0].notes == {1: b"a", 2: b"b"}


def test_of_very_many_that_are_parked_some_are_told_and_how_many_there_are(place: Place) -> None:
    store, notes = place.begin(), dict.fromkeys(range(3_000), b"n")
    store.write([PartitionWrite(0, 0, 0, 3_000, parked=notes)])
    found = place.outbox.unsent({0: None}, 1_000)[0]
    assert found.in_all == 3_000
    assert 500 < len(found.notes) < 2_000
    assert found.notes.items() <= notes.items()


def test_a_patient_whose_index_has_grown_is_not_rewritten(place: Place) -> None:
    store = place.begin()
    store.write([PartitionWrite(0, 0, 0, 3, [PatientChange(ANNA, {"meta": b"1"}, (), {b"e1": b"x", b"e2": b"y"})])])
    before = place.content()
    assert store.rewrite(PatientRewrite(0, ANNA, 0, 1, {"meta": b"9"})) == Refused(RefusedWhy.INDEX, 3, 0, None)
    assert place.content() == before


def test_a_patient_of_whom_the_index_keeps_nothing_new_is_not_rewritten_either(place: Place) -> None:
    """A duplicate, or a conflicting report under a known id, moves the patient and leaves no entry."""
    store = place.begin()
    store.write([PartitionWrite(0, 0, 0, 3, [PatientChange(ANNA, {"meta": b"1"}, (), {b"e1": b"x"})])])
    store.write([PartitionWrite(0, 3, 0, 4, [PatientChange(ANNA, {"meta": b"2"})])])
    before = place.content()
    stale = PatientRewrite(0, ANNA, 0, 1, {"meta": b"9"}, unchanged={"meta": b"1"})
    assert store.rewrite(stale) == Refused(RefusedWhy.INDEX, 4, 0, None)
    assert place.content() == before
    assert store.rewrite(PatientRewrite(0, ANNA, 0, 1, {"meta": b"9"}, unchanged={"meta": b"2"})) == Written(4, {}, 0)


def test_a_rewrite_forgets_entries_and_notes_what_is_still_parked(place: Place) -> None:
    store = place.begin()
    first = PatientChange(ANNA, {"meta": b"1"}, (), {b"p1": b"x", b"p2": b"y"})
    store.write([PartitionWrite(0, 0, 0, 3, [first], parked={1: b"unreadable", 2: b"unreadable"})])
    anew = PatientRewrite(
        *(0, ANNA, 0, 2, {"meta": b"9"}, {b"e1": b"z"}), unparked=[1], parked={2: b"not_judged"}, forget=[b"p1"]
    )
    assert store.rewrite(anew) == Written(3, {}, 0)
    assert store.parked(0) == {2: b"not_judged"}
    assert dict(store.read_whole(0, ANNA, with_index=True).remembered) == {b"e1": b"z", b"p2": b"y"}


def test_a_parked_record_gets_another_note_and_the_epoch_is_raised(place: Place) -> None:
    store = place.begin()
    store.write([PartitionWrite(0, 0, 0, 3, parked={1: b"no_key"})])
    assert store.note_parked(0, 1, {1: b"closed"}) == Refused(RefusedWhy.EPOCH, 3, 0, None)
    assert store.note_parked(0, 0, {1: b"closed", 2: b"was never parked"}) == Written(3, {})
    assert store.parked(0) == {1: b"closed"}
    assert store.write([PartitionWrite(0, 3, 0, 4)])[0] == Refused(RefusedWhy.EPOCH, 3, 1, None)


def test_a_store_in_memory_fails_as_it_is_told() -> None:
    server = MemoryServer()
    MemoryRoles(server).begin({0: Beginning(G1, 1, 0, 0)})
    store = MemoryStore(server, G1)
    image = server.save()
    server.lose_replies = 1
    with pytest.raises(StoreUnavailableError):
        store.write([PartitionWrite(0, 0, 0, 4)])
    assert store.next_offsets([0]) == {0: 4}
    server.roll_back(image)
    assert store.next_offsets([0]) == {0: 0}
    server.is_available = False
    with pytest.raises(StoreUnavailableError):
        store.read({0: []})
    server.is_available = True
    server.flush()
    with pytest.raises(ViewLostError):
        store.next_offsets([0])


# --- The same sequence of operations, on both ---------------------------------------------------------------------

partitions = st.integers(0, 1)
generations = st.sampled_from([G1, G2])
patients = st.sampled_from([ANNA, BJORN])
names = st.sampled_from(["meta", "t:1", "rx:ø", "waiting:9"])
values = st.binary(min_size=0, max_size=5)
offsets = st.integers(0, 6)
owners = st.dictionaries(st.sampled_from(["r1", "r2", "r3"]), st.sampled_from([b"a", b"b"]), max_size=2)
changes = st.builds(
    PatientChange,
    patients,
    st.dictionaries(names, values),
    st.lists(names, max_size=2),
    st.dictionaries(values, values),
)


@st.composite
def writes(draw: st.DrawFn) -> PartitionWrite:
    start = draw(offsets)
    end = start + draw(st.integers(1, 3))
    opened = draw(st.lists(st.tuples(st.sampled_from(["r1", "r2", "r3"]), st.sampled_from([b"a", b"b"])), max_size=3))
    return PartitionWrite(
        draw(partitions),
        start,
        draw(st.sampled_from([0, 0, 0, 1])),
        end,
        draw(st.lists(changes, max_size=2, unique_by=lambda change: change.patient)),
        [effect(draw(st.integers(start, end - 1))) for _ in range(draw(st.integers(0, 2)))],
        opened,
        {name: who for name, who in draw(owners).items() if name not in dict(opened)},
        {start: b"unreadable"} if draw(st.booleans()) else {},
        draw(st.sampled_from([b"", b"%d a mark" % start])),
    )


rewrites = st.builds(
    PatientRewrite,
    partitions,
    patients,
    st.integers(0, 1),
    st.integers(0, 2),
    st.dictionaries(names, values),
    st.dictionaries(values, values, max_size=2),
    st.lists(st.just(effect(1)), max_size=1),
    owners,
    st.just({}),
    st.lists(offsets, max_size=2),
    st.dictionaries(offsets, values, max_size=2),
    st.lists(values, max_size=2),
    st.dictionaries(names, values, max_size=1),
)
wanted = st.builds(Wanted, patients, st.lists(names, max_size=3), st.lists(values, max_size=3))
role_states = st.sampled_from([RoleState.LIVE, RoleState.FROZEN, RoleState.BUILDING])
roles = st.builds(Role, st.integers(1, 2), generations, role_states, st.sampled_from(["", "x"]), offsets, offsets)
beginnings = st.builds(
    Beginning,
    generations,
    st.just(1),
    offsets,
    offsets,
    st.sampled_from(["", G1, G2]),
    st.sampled_from([0, 0, 1]),
    st.dictionaries(offsets, st.sampled_from(["unreadable", "not_judged"]), max_size=2),
    st.integers(0, 2),
)
operations = st.one_of(
    st.tuples(st.just("write"), generations, st.lists(writes(), max_size=2, unique_by=lambda write: write.partition)),
    st.tuples(st.just("read"), generations, st.dictionaries(partitions, st.lists(wanted, max_size=2))),
    st.tuples(st.just("rewrite"), generations, rewrites),
    st.tuples(st.just("parked"), generations, partitions),
    st.tuples(st.sampled_from(["next_offsets", "standing"]), generations, st.lists(partitions, unique=True)),
    st.tuples(st.just("begin"), partitions, beginnings),
    st.tuples(st.just("turn"), partitions, roles),
    st.tuples(st.just("unsent"), partitions, st.just(1_000)),
    st.tuples(st.just("sent"), partitions, st.integers(1, 3)),
)
Operation = tuple[str, Any, Any]
begun: list[Operation] = [("begin", each, Beginning(G1, 1, 0, 0)) for each in (0, 1)]


def answer_of_outbox(outbox: Outbox, operation: Operation) -> object:
    kind, partition, how_many = operation
    if kind == "unsent":
        return outbox.unsent({partition: None}, how_many)
    outbox.lease([partition], "one", 60_000)
    entries = [each.entry_id for each in outbox.waiting({partition: FIRST}, how_many, 1).get(partition, ())]
    return bool(entries) and outbox.relayed(partition, "one", entries)


def answer(place: Place, stores: dict[str, Store], operation: Operation) -> object:
    kind, subject, argument = operation
    try:
        match kind:
            case "begin":
                return list(place.roles.begin({subject: argument}))
            case "turn":
                seen = place.roles.roles([subject])[subject]
                return seen, seen is not None and place.roles.turn(subject, seen, argument)
            case "unsent" | "sent":
                return answer_of_outbox(place.outbox, operation)
            case "write":
                return stores[subject].write(argument)
            case _:
                return getattr(stores[subject], kind)(argument)
    except ViewLostError as error:
        return str(error)


@pytest.mark.integration
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given_operations=st.lists(operations, min_size=1, max_size=25), starts_begun=st.booleans())
def test_the_same_operations_get_the_same_answers_and_leave_the_same_content(
    redis_url: str, given_operations: list[Operation], *, starts_begun: bool
) -> None:
    memory = in_memory()
    for real in in_redis(redis_url):
        stores = [{name: each.store(name) for name in (G1, G2)} for each in (memory, real)]
        for operation in (begun if starts_begun else []) + given_operations:
            assert answer(memory, stores[0], operation) == answer(real, stores[1], operation), operation
        assert memory.content() == real.content()
