"""The readers' side of the view: whole lists and indexes, or single entries, each with the offset that it shows; async.

A reader is shown nothing that is less than what was lost: where a partition is still being built, or has not come back
to where the log ended when this reader first saw the server, it gets NotReadyError and not an empty list.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple, Protocol

from services.identity.pseudonym import PSEUDONYM_CHARACTERS
from services.medication_list.store.keys import GenerationKeys, disputed_name
from services.medication_list.store.port import StoreUnavailableError
from services.medication_list.store.roles import RoleState
from services.publishing.partitioning import partition_of

_ATTEMPTS: Final = 4
_READ_AGAIN_S: Final = 1.0
_RESUBSCRIBE_S: Final = 0.2
_HEARD_WITHIN_S: Final = 0.03
"""How long an announcement is waited for before the first look; then a look is worth its cost anyhow."""

Fields = Sequence[str | bytes]


class NotReadyError(Exception):
    """The partition cannot be shown yet. `offset` is how far it has come, `until` how far it must; None: not begun."""

    def __init__(self, partition: int, offset: int | None, until: int | None) -> None:
        super().__init__(f"partition {partition} stands at {offset} and is shown from {until} on")
        self.partition = partition
        self.offset = offset
        self.until = until


class Look(NamedTuple):
    """One hash to look into: fields of it in this order, or (None) all of it."""

    key: str
    fields: Fields | None


class Looked(NamedTuple):
    """What one partition's hashes held at one moment. `server` is the run id of the server that answered.

    `last`: the mark of the record that was judged last (see `port.Standing`), empty where none is known. `state` is None where the view is lost. `values`: a list in the order asked, or the flat names and values of a hash.
    """

    server: str
    live: str
    offset: int
    epoch: int
    state: RoleState | None
    until: int
    last: bytes
    values: Sequence[Sequence[bytes | None]]


class Asked(NamedTuple):
    """Which hashes of a partition to look into, of the generation that is believed to be live."""

    partition: int
    generation: str
    looks: Sequence[Look]


class Views(Protocol):
    """Where a reader looks. Raises StoreUnavailableError."""

    async def look(self, asked: Sequence[Asked]) -> list[Looked]:
        """Look into hashes of partitions, each of one moment, all in one round trip.

        Where another generation is live, `live` names it and there are no values; an empty one asks only which is live.
        """
        ...

    def announcements(self, partitions: Collection[int]) -> AsyncGenerator[tuple[int, int] | None, None]:
        """Each new offset of the live generation with its partition, until the connection breaks.

        None comes first, when the subscription stands.
        """
        ...

    async def close(self) -> None:
        """Let go of everything."""
        ...


class Found(NamedTuple):
    """What a reader is shown, and what it shows: generation, partition, next offset and epoch of that moment.

    `last`: the mark of the record before that offset, empty where none is known.
    """

    generation: str
    partition: int
    offset: int
    epoch: int
    last: bytes
    values: Mapping[bytes, bytes]


class Owners(NamedTuple):
    """The patients under whom numbers came, in the partitions that could be asked.

    `patients`: by number, every patient under whom it came. `not_asked`: one of the partitions that cannot be shown now,
    where more may be known; None: all were asked, and a number that is not here is nobody's.
    """

    patients: Mapping[str, Collection[str]]
    not_asked: NotReadyError | None


class ViewReader:
    """Reads what the live generation shows. One for a process; `close` it."""

    def __init__(
        self,
        views: Views,
        partitions: int,
        log_ends: Callable[[], Awaitable[Mapping[int, int]]],
        waited: Callable[[float, bool], None] | None = None,
    ) -> None:
        """`partitions`: the declared number. `log_ends`: where the log ends now; asked when a new server is seen.

        `waited`: told of each wait for an offset how many seconds it took, and whether the offset was reached.
        """
        self._waited = waited
        self._views = views
        self._partitions = partitions
        self._log_ends = log_ends
        self._server = ""
        self._required: dict[int, int] = {}
        self._shown: dict[int, int] = {}
        self._asking: asyncio.Task[Mapping[int, int] | Exception] | None = None
        self._live: dict[int, str] = {}
        self._waiting: defaultdict[int, dict[asyncio.Future[bool], int]] = defaultdict(dict)
        self._listener: asyncio.Task[None] | None = None
        # What was announced last, while the subscription stands; nothing, where it does not.
        self._heard: dict[int, int] = {}

    def partition_of(self, patient: str) -> int:
        """Where a patient's list is."""
        return partition_of(patient.encode(), self._partitions)

    async def read_list(self, patient: str) -> Found:
        """A patient's whole hash; nothing in it where there is no list. Raises NotReadyError, StoreUnavailableError."""
        return await self._patient(patient, GenerationKeys.list_key, None)

    async def remembered(self, patient: str, entries: Sequence[bytes]) -> Found:
        """Those of these entries of a patient's event index that are there."""
        return await self._patient(patient, GenerationKeys.events_key, entries)

    async def list_and_index(self, patient: str) -> tuple[Found, Found]:
        """Both whole, of one moment."""
        partition = self.partition_of(patient)
        listed, index = await self._look(
            partition, lambda keys: [Look(keys.list_key(patient), None), Look(keys.events_key(patient), None)]
        )
        return listed, index

    async def owners_of(self, names: Sequence[str]) -> Owners:
        """Every patient under whom each of these prescription ids or reference numbers came. Raises StoreUnavailableError.

        That one partition is lost must not keep the lists of all others back: it is named, and what it would mean is for
        the caller to say.
        """
        asked = (*names, *map(disputed_name, names))
        patients: defaultdict[str, dict[str, None]] = defaultdict(dict)
        not_asked: NotReadyError | None = None
        for looked in await self._look_at(range(self._partitions), lambda keys: [Look(keys.rx, asked)]):
            if isinstance(looked, NotReadyError):
                not_asked = not_asked or looked
                continue
            for name, packed in looked[0].values.items():
                patients[name.decode().removeprefix("!")] |= dict.fromkeys(patients_in(packed.decode()))
        return Owners(patients, not_asked)

    async def offset_of(self, partition: int) -> int:
        """How far the live generation has come."""
        return (await self._stand(partition)).offset

    async def await_offset(self, partition: int, offset: int, timeout_ms: int) -> bool:
        """Wait until the live generation has come to `offset` (its next one), at most this long. Returns whether it has.

        A waiting reader first subscribes, then reads, and reads again after each reconnect and every second: an
        announcement can be lost, a stored offset cannot. An announcement that came is believed: what is read next has
        its own offset.
        """
        began = time.monotonic()
        reached = await self._reached(partition, offset, timeout_ms)
        if self._waited is not None:
            self._waited(time.monotonic() - began, reached)
        return reached

    async def _reached(self, partition: int, offset: int, timeout_ms: int) -> bool:
        self._listen()
        deadline = self._loop_time() + timeout_ms / 1000
        while True:
            with self._waking(partition, offset) as woken:
                if (await self._stand(partition)).offset >= offset:
                    return True
                left = deadline - self._loop_time()
                if left <= 0:
                    return False
                if await _given(woken, min(left, _READ_AGAIN_S)):
                    return True

    async def shown_from(
        self, patient: str, entries: Sequence[bytes], offset: int, timeout_ms: int
    ) -> tuple[Found, Found] | None:
        """A patient's whole hash and those of these entries of the event index that are there, both of one moment.

        It is one at which the live generation has come to `offset`; that is waited for as `await_offset` does, and None
        says that it did not come. The caller has just appended, and an immediate look would usually be too early, so the
        announcement is awaited briefly first. A loss may have followed the announcement: the look itself decides.
        """
        began = time.monotonic()
        shown = await self._shown_from(patient, entries, offset, timeout_ms)
        if self._waited is not None:
            self._waited(time.monotonic() - began, shown is not None)
        return shown

    async def _shown_from(
        self, patient: str, entries: Sequence[bytes], offset: int, timeout_ms: int
    ) -> tuple[Found, Found] | None:
        self._listen()
        partition = self.partition_of(patient)
        deadline = self._loop_time() + timeout_ms / 1000
        patience_s = 0.0 if self._heard.get(partition, offset) >= offset else _HEARD_WITHIN_S
        while True:
            with self._waking(partition, offset) as woken:
                if patience_s:
                    await _given(woken, min(patience_s, max(0.0, deadline - self._loop_time())))
                listed, index = await self._look(
                    partition,
                    lambda keys: [Look(keys.list_key(patient), None), Look(keys.events_key(patient), entries)],
                )
                if listed.offset >= offset:
                    return listed, index
                left = deadline - self._loop_time()
                if left <= 0:
                    return None
                if not woken.done():
                    await _given(woken, min(left, _READ_AGAIN_S))
                patience_s = 0.0

    @contextmanager
    def _waking(self, partition: int, offset: int) -> Iterator["asyncio.Future[bool]"]:
        """A future that is given whether the offset was announced (or only may have been passed)."""
        woken: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[partition][woken] = offset
        try:
            yield woken
        finally:
            del self._waiting[partition][woken]

    def _loop_time(self) -> float:
        return asyncio.get_running_loop().time()

    async def close(self) -> None:
        """Stop listening and let go of every connection."""
        for task in (self._listener, self._asking):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        await self._views.close()

    # --- Looking --------------------------------------------------------------------------------------------------

    async def _patient(self, patient: str, key: Callable[[GenerationKeys, str], str], fields: Fields | None) -> Found:
        return (await self._look(self.partition_of(patient), lambda keys: [Look(key(keys, patient), fields)]))[0]

    async def _look(self, partition: int, looks: Callable[[GenerationKeys], Sequence[Look]]) -> list[Found]:
        (answer,) = await self._look_at([partition], looks)
        if isinstance(answer, NotReadyError):
            raise answer
        return answer

    async def _look_at(
        self, partitions: Sequence[int], looks: Callable[[GenerationKeys], Sequence[Look]]
    ) -> list[list[Found] | NotReadyError]:
        """What each partition shows, in this order; where another generation is live than was believed, it asks again."""
        answers: dict[int, list[Found] | NotReadyError] = {}
        for _ in range(_ATTEMPTS):
            left = [each for each in partitions if each not in answers]
            asked = [self._asked(each, looks) for each in left]
            shown = dict(self._shown)
            for each, looked in zip(asked, await self._views.look(asked), strict=True):
                if looked.state is not None and looked.live != each.generation:
                    self._live[each.partition] = looked.live
                else:
                    answers[each.partition] = await self._answer(each, looked, shown.get(each.partition, 0))
            if len(answers) == len(partitions):
                return [answers[each] for each in partitions]
        raise StoreUnavailableError("the role of a partition does not come to rest")

    def _asked(self, partition: int, looks: Callable[[GenerationKeys], Sequence[Look]]) -> Asked:
        generation = self._live.get(partition, "")
        return Asked(partition, generation, looks(GenerationKeys(generation, partition)))

    async def _answer(self, asked: Asked, looked: Looked, shown_before: int) -> list[Found] | NotReadyError:
        if looked.state is None:
            return NotReadyError(asked.partition, None, None)
        try:
            await self._refuse_unready(asked.partition, looked, shown_before)
        except NotReadyError as error:
            return error
        return [
            Found(asked.generation, asked.partition, looked.offset, looked.epoch, looked.last, _named(each, values))
            for each, values in zip(asked.looks, looked.values, strict=True)
        ]

    async def _stand(self, partition: int) -> Found:
        return (await self._look(partition, lambda keys: [Look(keys.parked, ())]))[0]

    async def _refuse_unready(self, partition: int, looked: Looked, shown_before: int) -> None:
        """Raises NotReadyError for what is less than was lost. `shown_before`: what had been shown when this was asked."""
        if looked.server != self._server:
            await self._note(looked.server)
        required = self._required.get(partition)
        if looked.state == RoleState.BUILDING:
            raise NotReadyError(partition, looked.offset, max(looked.until, required or 0))
        if looked.offset < shown_before:
            required = await self._require_end(partition)
        if required is not None:
            if looked.offset < required:
                raise NotReadyError(partition, looked.offset, required)
            self._required.pop(partition, None)
        self._shown[partition] = max(looked.offset, self._shown.get(partition, 0))

    async def _require_end(self, partition: int) -> int:
        """The view went back though the same server answers (an operator emptied it): it must come to the log's end."""
        if self._asking is not None:
            await _answer_of(self._asking)  # begun before this loss was seen: only that it fails is of use
        if partition not in self._required:
            ends = await self._ends()
            self._required.setdefault(partition, ends[partition])
        return self._required[partition]

    async def _note(self, server: str) -> None:
        """A server seen for the first time may have come back with less: what it must reach is where the log ends."""
        while self._server != server:
            await self._ends(server)

    async def _ends(self, server: str | None = None) -> Mapping[int, int]:
        """Where the log ends: one question at a time, whose answer, or failure, is told to all who wait for it.

        `server`: for which it is noted, where the question is not another's.
        """
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask(server), name="log-ends")
        return await _answer_of(self._asking)

    async def _ask(self, server: str | None) -> Mapping[int, int] | Exception:
        try:
            ends = await self._log_ends()
        except Exception as error:  # noqa: BLE001 - each of those who wait raises it
            return error
        finally:
            self._asking = None
        if server is not None:
            self._required, self._server = dict(ends), server
        return ends

    # --- Listening ------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        if self._listener is None:
            self._listener = asyncio.create_task(self._hear(), name="offset-announcements")

    async def _hear(self) -> None:
        while True:
            with suppress(StoreUnavailableError):
                async for heard in self._views.announcements(range(self._partitions)):
                    if heard is None:
                        self._heard = dict.fromkeys(range(self._partitions), 0)
                        self._wake_all()
                    else:
                        self._wake(*heard)
            self._heard = {}
            await asyncio.sleep(_RESUBSCRIBE_S)

    def _wake(self, partition: int, offset: int) -> None:
        self._heard[partition] = offset
        for woken, wanted in self._waiting[partition].items():
            if offset >= wanted and not woken.done():
                woken.set_result(True)

    def _wake_all(self) -> None:
        for waiting in self._waiting.values():
            for woken in waiting:
                if not woken.done():
                    woken.set_result(False)


async def _answer_of(asking: "asyncio.Task[Mapping[int, int] | Exception]") -> Mapping[int, int]:
    """What a question brought to light, which goes on when one of those who wait for it is gone. Raises what it raised."""
    answer = await asyncio.shield(asking)
    if isinstance(answer, Exception):
        raise answer.with_traceback(None)  # with one that grew by everybody's frames it would hold a thousand requests
    return answer


async def _given(woken: "asyncio.Future[bool]", timeout_s: float) -> bool:
    """Wait for a future's result, at most this long. Returns whether it is True; on a timeout the future is unchanged."""
    await asyncio.wait([woken], timeout=timeout_s)
    return woken.done() and woken.result()


def patients_in(packed: str) -> list[str]:
    """The pseudonyms that stand end to end in an entry of the index."""
    return [packed[at : at + PSEUDONYM_CHARACTERS] for at in range(0, len(packed), PSEUDONYM_CHARACTERS)]


def _named(look: Look, values: Sequence[bytes | None]) -> dict[bytes, bytes]:
    names: Sequence[bytes | None]
    if look.fields is None:
        names, values = values[::2], values[1::2]
    else:
        names = [each.encode() if isinstance(each, str) else each for each in look.fields]
    return {n: v for n, v in zip(names, values, strict=True) if n is not None and v is not None}
