"""Other releases of a process, and processes with a protection taken out: the checker must find what these do.

Each entry changes the classes that a process is made of, before it starts. Nothing here is imported by production code.
"""

import asyncio
import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from services.medication_list import fold
from services.medication_list.judging import judge
from services.medication_list.judging.items import Readable
from services.medication_list.judging.judge import Judge
from services.medication_list.store import library
from services.medication_list.store.port import PartitionWrite, Refused, Written
from services.medication_list.store.reading import ViewReader
from services.medication_list.store.roles import Role
from services.publishing.kafka_log import KafkaLog
from services.publishing.log import LogRecord, Position


def apply(release: str, mutant: str) -> None:
    """Change this process. Raises KeyError for a name that is not listed."""
    if release:
        RELEASES[release]()
    if mutant:
        MUTANTS[mutant]()


# --- Releases ---------------------------------------------------------------------------------------------------------


def _next_release() -> None:
    """The same fold with another text of the store's functions: both libraries stand in Redis side by side."""
    _load_text(lambda text: f"{text}\n-- the next release\n")


def _another_fold() -> None:
    """A fold of another version, which may not work on this generation."""
    fold.VERSION = fold.VERSION + 1


RELEASES: Final[Mapping[str, Callable[[], None]]] = {"next": _next_release, "another_fold": _another_fold}


def _load_text(change: Callable[[str], str]) -> None:
    """Before anything else has taken the text, or the functions' names that follow from it, for its own."""
    assert "services.medication_list.store.link" not in sys.modules, "this process has the other text already"
    text = change(library._TEXT)  # noqa: SLF001  the text of the functions, as a release has it
    release = hashlib.sha256(text.encode()).hexdigest()[:12]
    for name, value in {
        "RELEASE": release,
        "LIBRARY": f"medchain_{release}",
        "CODE": text.replace("@RELEASE@", release),
    }.items():
        setattr(library, name, value)


# --- Mutants ----------------------------------------------------------------------------------------------------------


def _no_compare_and_set() -> None:
    """Neither the offset nor the epoch of what was read is compared: not by the store's function, nor before it."""

    def without(text: str) -> str:
        for why in ("elseif tonumber(now.offset) ~= expected then", "elseif now.epoch ~= args[4] then"):
            assert text.count(why) == 1, why
            text = text.replace(why, "elseif false then")
        return text

    _load_text(without)
    read_first = Judge._read_first  # noqa: SLF001  a mutant is made inside

    def trusting(self: Any, works: Any, verdicts: Any) -> Any:
        store = self._store
        read = store.read

        def as_asked(requests: Any) -> Any:
            begins = {work.batch.partition: work.batch.first_offset for work in works}
            return {
                partition: snapshot._replace(offset=begins[partition]) if partition in begins else snapshot
                for partition, snapshot in read(requests).items()
            }

        store.read = as_asked
        try:
            return read_first(self, works, verdicts)
        finally:
            store.read = read

    Judge._read_first = trusting  # type: ignore[method-assign]  # noqa: SLF001


def _no_event_index() -> None:
    """Nobody remembers which events were judged before: the same event takes effect again."""
    keep = judge._keep  # noqa: SLF001

    def forgetful(work: Any, wanted: Any, fields: Any, remembered: Any) -> None:
        keep(work, wanted, fields, [[None] * len(memories) for memories in remembered])

    judge._keep = forgetful  # noqa: SLF001


def _errors_swallowed() -> None:
    """What cannot be read is left out, and nobody is told."""
    original = Judge._judge  # noqa: SLF001

    def lenient(self: Judge, work: Any, item: Any) -> str:
        return original(self, work, item) if isinstance(item, Readable) else "parked"

    Judge._judge = lenient  # type: ignore[method-assign]  # noqa: SLF001


def _deletes_before_the_ack() -> None:
    """The relay takes every send for confirmed at once, and so deletes what may never arrive."""
    append_many = KafkaLog.append_many
    under_way: set[Any] = set()

    async def hopeful(self: KafkaLog, records: Sequence[LogRecord]) -> Sequence[Position | Exception]:
        sending = asyncio.create_task(_late(append_many, self, records))
        under_way.add(sending)
        sending.add_done_callback(under_way.discard)
        return [Position(0, 0, 0) for _ in records]

    KafkaLog.append_many = hopeful  # type: ignore[method-assign]


async def _late(append_many: Any, log: KafkaLog, records: Sequence[LogRecord]) -> None:
    """The sends go out a moment after the deletion, as they do from a buffer."""
    await asyncio.sleep(0.5)
    await append_many(log, records)


def _no_barrier() -> None:
    """Readers are shown whatever stands, also less than what was lost."""

    async def ready(*_: Any) -> None:
        return None

    ViewReader._refuse_unready = ready  # type: ignore[assignment, method-assign]  # noqa: SLF001


def _offset_before_state() -> None:
    """A batch's offset is noted first, and what was made of the batch after that: a store compares, and takes no second."""
    from services.medication_list.store.redis_store import RedisStore  # noqa: PLC0415  see `_load_text`

    write = RedisStore.write

    def apart(self: RedisStore, writes: Sequence[PartitionWrite]) -> Mapping[int, Written | Refused]:
        noted = write(self, [replace(each, changes=(), effects=(), opened=(), parked={}) for each in writes])
        return write(self, writes) if any(isinstance(each, Refused) for each in noted.values()) else noted

    RedisStore.write = apart  # type: ignore[method-assign]


def _switch_skips_effects() -> None:
    """The generation that becomes live lets nothing out of the records that it is given next."""
    from services.medication_list.store.redis_roles import RedisRoles  # noqa: PLC0415  see `_load_text`

    turn = RedisRoles.turn

    def silent(self: RedisRoles, partition: int, seen: Role, shall: Role) -> bool:
        if seen.live != shall.live:
            shall = shall._replace(effects_from=shall.effects_from + 1_000)
        return turn(self, partition, seen, shall)

    RedisRoles.turn = silent  # type: ignore[method-assign]


MUTANTS: Final[Mapping[str, Callable[[], None]]] = {
    "no_compare_and_set": _no_compare_and_set,
    "no_event_index": _no_event_index,
    "errors_swallowed": _errors_swallowed,
    "deletes_before_the_ack": _deletes_before_the_ack,
    "no_barrier": _no_barrier,
    "offset_before_state": _offset_before_state,
    "next_live_one_is_silent": _switch_skips_effects,
}
