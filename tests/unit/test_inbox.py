"""An inbox between two rounds: what is held back is read again, and what was taken behind it is not taken again."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from services.publishing.log import LogUnavailable
from services.submissions.inbox import TakenBehind, take
from services.submissions.reception import Received

TOPIC = "prescription-submissions.journal"


def records(*keys: bytes | None) -> list[Received]:
    return [Received(TOPIC, 0, offset, key, b"") for offset, key in enumerate(keys)]


class Held:
    """Receives all but one offset, for as long as that is held back, and notes what it received in which order."""

    def __init__(self, offset: int | None) -> None:
        self.offset = offset
        self.done: list[int] = []

    async def __call__(self, received: Received) -> None:
        """See `inbox.Receive`."""
        await asyncio.sleep(0)
        if received.offset == self.offset:
            raise LogUnavailable("away")
        self.done.append(received.offset)


async def test_what_lies_behind_a_held_record_is_taken_once_and_nothing_is_committed_past_what_was_not_taken() -> None:
    batch, behind, receive = records(b"a", b"b", b"a", b"b", b"c"), TakenBehind(), Held(1)
    for _ in range(3):
        assert await take(batch[1:], receive, behind) == ({(TOPIC, 0): 1}, False)
    assert receive.done == [2, 4]
    receive.offset = 3
    assert await take(batch[1:], receive, behind) == ({(TOPIC, 0): 3}, False)
    assert receive.done == [2, 4, 1]
    receive.offset = None
    assert await take(batch[3:], receive, behind) == ({(TOPIC, 0): 5}, True)
    assert receive.done == [2, 4, 1, 3]
    assert len(behind) == 0


async def test_what_another_process_may_have_read_since_is_taken_again() -> None:
    batch, behind, receive = records(b"a", b"b"), TakenBehind(), Held(0)
    await take(batch, receive, behind)
    behind.forget_others({(TOPIC, 0)})
    await take(batch, receive, behind)
    assert receive.done == [1]
    behind.forget_others({(TOPIC, 1)})
    await take(batch, receive, behind)
    assert receive.done == [1, 1]


async def test_another_record_at_an_offset_that_was_taken_is_not_taken_for_it() -> None:
    """A topic that is deleted and made again counts from 0 again."""
    batch, behind, receive = records(b"a", b"b"), TakenBehind(), Held(0)
    await take(batch, receive, behind)
    for changed in ({"value": b"other"}, {"sent_at_ms": 1}):
        receive.done.clear()
        await take([batch[0], batch[1]._replace(**changed)], receive, behind)
        assert receive.done == [1]


@given(st.data())
async def test_a_key_keeps_its_order_and_nothing_is_lost_whatever_fails_and_however_much_is_read(
    data: st.DataObject,
) -> None:
    """Each record comes through once, after all of its key, and the committed offset never passes one that did not."""
    batch = records(*data.draw(st.lists(st.sampled_from([b"a", b"b", None]), min_size=1, max_size=12), label="keys"))
    behind, done, at = TakenBehind(), list[int](), 0
    failing: set[int] = set()

    async def receive(received: Received) -> None:
        await asyncio.sleep(0)
        if received.offset in failing:
            raise LogUnavailable("away")
        assert [each for each in done if batch[each].key == received.key] == [
            each.offset for each in batch[: received.offset] if each.key == received.key
        ]
        done.append(received.offset)

    while at < len(batch):
        failing = data.draw(st.sets(st.integers(0, len(batch) - 1), max_size=3), label="failing")
        read = batch[at : at + data.draw(st.integers(1, 12), label="read")]
        taken = await take(read, receive, behind)
        assert taken.is_complete == (not failing & {each.offset for each in read} - set(done))
        at = taken.next_offsets[TOPIC, 0]
        assert set(range(at)) <= set(done)
        assert len(behind) == len([each for each in done if each >= at])
    assert sorted(done) == list(range(len(batch)))
