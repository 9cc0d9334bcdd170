"""Protections of replays taken out, one at a time; `mutants.py` lists them with all others."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Final
from unittest.mock import patch

from services.medication_list.store import memory_server
from services.medication_list.store.keys import GenerationKeys
from services.medication_list.store.memory_roles import MemoryRoles
from services.medication_list.store.memory_store import MemoryStore
from services.medication_list.store.port import PartitionWrite, Standing, ViewLostError
from services.replay import compare, starting
from services.replay.bulk import Bounded, BulkReader
from services.replay.crew import Crew
from services.replay.watching import Phase, Watch
from tests.simulation.ports import SimulatedStore

Change = Callable[[ExitStack], None]
REPLAY_MUTANTS: Final[dict[str, Change]] = {}


KINDS_OF: Final[Mapping[str, str]] = {
    "replay_epoch_not_compared": "mended_beside",
    "replay_notices_no_rollback": "set_back",
}
"""In which kind of schedules one shows, where that is not in those that are replayed (`schedule.KINDS`)."""


def mutant(change: Change) -> Change:
    """List it by its name."""
    REPLAY_MUTANTS[change.__name__] = change
    return change


def _instead(stack: ExitStack, of: Any, name: str, other: Any) -> None:
    stack.enter_context(patch.object(of, name, other))


def _is_live(store: Any, content: Any, partition: int) -> bool:
    role = memory_server.role_at(content, partition)
    return role is None or role.live == store.generation


def _writing(stack: ExitStack, change: Callable[[PartitionWrite, int, int], PartitionWrite]) -> None:
    """Every write of what is not live is changed; `change` is told offset and epoch that stand."""
    original = MemoryStore._write

    def write(self: Any, content: Any, write: PartitionWrite) -> Any:
        try:
            stands = self._stands(content, write.partition)
        except ViewLostError:
            return original(self, content, write)
        return original(self, content, write if _is_live(self, content, write.partition) else change(write, *stands))

    _instead(stack, MemoryStore, "_write", write)


@mutant
def replay_offset_not_compared(stack: ExitStack) -> None:
    """A bulk reader's write stands wherever its generation has come to meanwhile."""
    _writing(stack, lambda write, offset, _epoch: replace(write, expected_offset=offset))


@mutant
def replay_epoch_not_compared(stack: ExitStack) -> None:
    """A bulk reader's write stands though a patient of its generation was folded anew since it was read."""
    _writing(stack, lambda write, _offset, epoch: replace(write, epoch=epoch))


@mutant
def replay_loses_a_batch_when_killed(stack: ExitStack) -> None:
    """A bulk reader notes how far it is, and then what it made of that."""
    original = SimulatedStore.write

    def write(self: Any, writes: Any) -> Any:
        content = self._link.server.content_now
        for each in writes:
            if not _is_live(self, content, each.partition):
                nothing = replace(each, changes=(), effects=(), opened=(), parked={})
                original(self, [nothing])
        return original(self, writes)

    _instead(stack, SimulatedStore, "write", write)


@mutant
def replay_resumes_from_the_beginning(stack: ExitStack) -> None:
    """A bulk reader that is started begins where the log does, wherever its generation stands."""
    original = BulkReader.__init__

    def begin(self: Any, consumer: Any, positions: Any, partitions: Any, *more: Any) -> None:
        original(self, consumer, _First(positions, dict.fromkeys(partitions, 0)), partitions, *more)

    _instead(stack, BulkReader, "__init__", begin)


@mutant
def replay_begins_at_the_logs_end(stack: ExitStack) -> None:
    """A generation is begun where the log ends: what came before is not in it."""
    original = MemoryRoles.begin

    def begin(self: Any, beginnings: Any) -> Any:
        refused = original(self, beginnings)
        content = self._server.content_now
        for partition, what in beginnings.items():
            if what.beside and partition not in refused:
                role = memory_server.role_at(content, partition)
                live = content.hashes.get(GenerationKeys(role.live, partition).offset, {}) if role else {}
                content.hashes[GenerationKeys(what.generation, partition).offset][b"offset"] = live.get(b"offset", b"0")
        return refused

    _instead(stack, MemoryRoles, "begin", begin)


@mutant
def replay_reads_past_the_live_one(stack: ExitStack) -> None:
    """A generation beside the live one goes as far as the log does."""
    original = MemoryStore._limit

    def limit(self: Any, content: Any, partition: int, role: Any) -> int | None:
        return original(self, content, partition, role) if role.live == self.generation else None

    _instead(stack, MemoryStore, "_limit", limit)


@mutant
def replay_sends_effects(stack: ExitStack) -> None:
    """What follows from a record goes out whichever generation judged it."""
    original = MemoryStore._apply

    def apply(self: Any, content: Any, write: Any, role: Any, *, own: bool) -> Any:
        return original(self, content, write, role, own=own or True)

    _instead(stack, MemoryStore, "_apply", apply)


@mutant
def replay_reads_past_its_bound(stack: ExitStack) -> None:
    """A replay that was told where to stop goes on."""
    original = Bounded.__init__

    def boundless(self: Any, worker: Any, _until: Any) -> None:
        original(self, worker, {})

    _instead(stack, Bounded, "__init__", boundless)


@mutant
def replay_notices_no_rollback(stack: ExitStack) -> None:
    """A bulk reader does not look whether the store went back while nothing comes."""

    async def look(_self: Any) -> None:
        return None

    _instead(stack, BulkReader, "_check_store", look)


@mutant
def replay_leaves_its_dead(stack: ExitStack) -> None:
    """A bulk reader that died is not started again."""
    original = Crew._ended

    def ended(self: Any, member: Any, reader: Any, code: int) -> None:
        original(self, member, reader, code)
        member.ended_at_ms = 10**12

    _instead(stack, Crew, "_ended", ended)


@mutant
def replay_called_whole_too_early(stack: ExitStack) -> None:
    """A generation is called whole at the first look, wherever it stands."""

    def find(self: Any, _ours: Any, *, is_live: bool) -> None:  # noqa: ARG001  the signature
        self._phase = Phase.WHOLE

    _instead(stack, Watch, "_find_phase", find)


@mutant
def two_replays_at_once(stack: ExitStack) -> None:
    """Two that are started in the same moment both go on."""
    _instead(stack, starting, "_give_way", lambda *_: None)


@mutant
def comparison_of_unequal_positions(stack: ExitStack) -> None:
    """A patient whose last event one side has yet to judge counts as one who differs."""
    _instead(stack, compare, "_is_behind", lambda *_: False)


class _First:
    """Says for each partition once what it was told to, and then what is so."""

    def __init__(self, positions: Any, first: dict[int, int]) -> None:
        self._positions = positions
        self._first = first

    def standing(self, partitions: Any) -> Mapping[int, Standing]:
        """See `Positions.standing`."""
        found: Mapping[int, Standing] = self._positions.standing(partitions)
        return {each: Standing(self._first.pop(each)) if each in self._first else s for each, s in found.items()}
