"""Protections taken out, one at a time: the simulation must find what each of these does.

A mutant changes classes for the length of a schedule; nothing here is imported by production code.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from services.medication_list import switch_protocol
from services.medication_list.driver.app import FaustLog
from services.medication_list.judging import judge
from services.medication_list.judging.items import Readable
from services.medication_list.judging.judge import Judge
from services.medication_list.refolding import refolder
from services.medication_list.relay import relay
from services.medication_list.relay.relay import Relay
from services.medication_list.store.keys import PartitionKeys
from services.medication_list.store.memory_roles import MemoryRoles
from services.medication_list.store.memory_store import MemoryStore
from services.medication_list.store.port import PartitionWrite, PatientRewrite, ViewLostError
from services.medication_list.store.reading import ViewReader
from tests.simulation.ports import SimulatedStore
from tests.simulation.replay_mutants import KINDS_OF, REPLAY_MUTANTS
from tests.simulation.worker import SimulatedConsumer

Change = Callable[[ExitStack], None]
MUTANTS: dict[str, Change] = dict(REPLAY_MUTANTS)


def kind_of(name: str) -> str | None:
    """The kind of schedules that must catch it; None: any."""
    kinds = {
        rebuilt_view_judges_what_was_parked: "parked",
        refold_forgets_what_it_released: "released",
        rollback_loses_the_outbox: "switched",
        reset_policy_earliest: "switched",
    }
    for change, kind in kinds.items():
        if name == change.__name__:
            return kind
    return KINDS_OF.get(name, "replayed") if name in REPLAY_MUTANTS else None


@contextmanager
def applied(name: str | None) -> Iterator[None]:
    """Without this protection, for as long as this lasts."""
    with ExitStack() as stack:
        if name is not None:
            MUTANTS[name](stack)
        yield


def mutant(change: Change) -> Change:
    """List it by its name."""
    MUTANTS[change.__name__] = change
    return change


def _instead(stack: ExitStack, of: Any, name: str, other: Any) -> None:
    stack.enter_context(patch.object(of, name, other))


@mutant
def no_compare_and_set(stack: ExitStack) -> None:
    """A write stands whatever offset and epoch stand: the store does not compare them."""
    original = MemoryStore._write

    def write(self: Any, content: Any, write: PartitionWrite) -> Any:
        return original(self, content, _forced(self, content, write))

    _instead(stack, MemoryStore, "_write", write)


def _forced(store: Any, content: Any, write: PartitionWrite, *, offset: bool = True) -> PartitionWrite:
    from dataclasses import replace

    try:
        stands = store._stands(content, write.partition)
    except ViewLostError:
        return write
    return replace(write, epoch=stands[1], **({"expected_offset": stands[0]} if offset else {}))


@mutant
def epoch_not_compared(stack: ExitStack) -> None:
    """A write stands though a patient was folded anew since it was read."""
    original = MemoryStore._write

    def write(self: Any, content: Any, write: PartitionWrite) -> Any:
        return original(self, content, _forced(self, content, write, offset=False))

    _instead(stack, MemoryStore, "_write", write)


@mutant
def state_read_apart_from_its_offset(stack: ExitStack) -> None:
    """The fields are read first, and offset and epoch a moment later."""
    original = SimulatedStore.read

    def read(self: Any, requests: Any) -> Any:
        fields = original(self, requests)
        return {
            partition: stands._replace(fields=fields[partition].fields, remembered=fields[partition].remembered)
            for partition, stands in original(self, {partition: [] for partition in requests}).items()
        }

    _instead(stack, SimulatedStore, "read", read)


@mutant
def role_not_checked(stack: ExitStack) -> None:
    """Nobody asks whether a generation may write now."""
    _instead(stack, MemoryStore, "_limit", lambda *_: None)


@mutant
def batch_kept_after_a_rewind(stack: ExitStack) -> None:
    """What was queued before a rewind is folded all the same."""
    _instead(stack, FaustLog, "is_current", lambda *_: True)


@mutant
def no_event_index(stack: ExitStack) -> None:
    """Nobody remembers which events were judged before."""
    original = judge._keep

    def forgetful(work: Any, wanted: Any, fields: Any, remembered: Any) -> None:
        original(work, wanted, fields, [[None] * len(memories) for memories in remembered])

    _instead(stack, judge, "_keep", forgetful)


@mutant
def errors_swallowed(stack: ExitStack) -> None:
    """What cannot be judged is left out, and nobody is told."""
    original = Judge._judge

    def lenient(self: Any, work: Any, item: Any) -> str:
        return original(self, work, item) if isinstance(item, Readable) else "parked"

    _instead(stack, Judge, "_judge", lenient)


@mutant
def batch_skipped_after_an_error(stack: ExitStack) -> None:
    """A fetch that failed counts as done."""
    from services.medication_list.driver import pump
    from services.medication_list.driver.batches import Applied

    original = pump._answers

    def careless(log: Any, process: Any, fetch: Any, *more: Any) -> Any:
        answers = original(log, process, fetch, *more)
        return answers or {each.partition: Applied(each.next_offset) for each in fetch.batches}

    _instead(stack, pump, "_answers", careless)


@mutant
def relay_deletes_before_the_ack(stack: ExitStack) -> None:
    """The relay deletes what it is about to send."""
    original = Relay._send

    async def send(self: Any, batches: Any) -> None:
        for batch in batches:
            gone = [entry_id for entry_id, _ in batch.sends]
            if gone:
                await asyncio.to_thread(self._outbox.relayed, batch.partition, self._owner, gone)
        await original(self, batches)

    _instead(stack, Relay, "_send", send)


@mutant
def progress_noted_before_the_ack(stack: ExitStack) -> None:
    """The relay notes as sent what it is about to send."""
    original = Relay._send

    async def send(self: Any, batches: Any) -> None:
        for batch in batches:
            batch.done.update(entry_id for entry_id, _ in batch.sends)
        await self._note_progress(batches)
        for batch in batches:
            batch.done.difference_update(entry_id for entry_id, _ in batch.sends)
        await original(self, batches)

    _instead(stack, Relay, "_send", send)


@mutant
def reader_without_barrier(stack: ExitStack) -> None:
    """Readers are shown whatever stands."""

    async def ready(*_: Any) -> None:
        return None

    _instead(stack, ViewReader, "_refuse_unready", ready)


@mutant
def reset_policy_earliest(stack: ExitStack) -> None:
    """A consumer whose offset the log does not hold begins where the log does."""
    original = SimulatedConsumer.__init__

    def resetting(self: Any, *arguments: Any) -> None:
        original(self, *arguments)
        self.resets_to_start = True

    _instead(stack, SimulatedConsumer, "__init__", resetting)


@mutant
def lost_view_begun_as_new(stack: ExitStack) -> None:
    """A role that is lost is begun as that of an empty view, which is whole at once."""
    original = MemoryRoles.begin

    def begin(self: Any, beginnings: Any) -> Any:
        return original(self, {each: what._replace(until=0) for each, what in beginnings.items()})

    _instead(stack, MemoryRoles, "begin", begin)


@mutant
def index_growth_not_checked(stack: ExitStack) -> None:
    """A patient who was folded anew is put in place though another event has come since."""
    original = MemoryStore._rewrite

    def rewrite(self: Any, content: Any, rewrite: PatientRewrite) -> Any:
        from dataclasses import replace

        from services.medication_list.store.keys import GenerationKeys

        keys = GenerationKeys(self.generation, rewrite.partition)
        size = len(content.hashes.get(keys.events_key(rewrite.patient), {}))
        return original(self, content, replace(rewrite, index_size=size, unchanged={}))

    _instead(stack, MemoryStore, "_rewrite", rewrite)


@mutant
def refold_forgets_corrections(stack: ExitStack) -> None:
    """Answers change, and nobody who had them is told."""
    _instead(stack, refolder._Anew, "_corrections", staticmethod(lambda *_: []))


@mutant
def refold_forgets_what_was_parked(stack: ExitStack) -> None:
    """What follows from a record that had been parked does not go out."""
    _instead(stack, refolder._Anew, "_released", lambda *_: [])


@mutant
def refold_raises_no_epoch(stack: ExitStack) -> None:
    """A patient is put in place, and workers that have read the patient before do not notice."""
    original = MemoryStore._rewrite

    def rewrite(self: Any, content: Any, rewrite: PatientRewrite) -> Any:
        self._epoch_rises_by = lambda: 0
        return original(self, content, rewrite)

    _instead(stack, MemoryStore, "_rewrite", rewrite)


@mutant
def refold_keeps_what_is_parked(stack: ExitStack) -> None:
    """What was parked is judged, and stays parked all the same."""
    original = MemoryStore._rewrite

    def rewrite(self: Any, content: Any, rewrite: PatientRewrite) -> Any:
        from dataclasses import replace

        return original(self, content, replace(rewrite, unparked=()))

    _instead(stack, MemoryStore, "_rewrite", rewrite)


@mutant
def rebuilt_view_judges_what_was_parked(stack: ExitStack) -> None:
    """What lay parked when the store was lost is judged while the view is made again, and its effects are left out."""
    _instead(stack, judge, "_withheld", lambda item, _: item)


@mutant
def progress_without_what_is_unsent(stack: ExitStack) -> None:
    """The relay notes how far it has come, and not what lies before that and was not sent."""
    _instead(stack, relay, "unsent_records", lambda _: ())


@mutant
def refold_forgets_what_it_released(stack: ExitStack) -> None:
    """What was refolded counts as sent at once."""
    _instead(stack, MemoryStore, "_release", lambda *_: None)


@mutant
def switch_to_what_is_behind(stack: ExitStack) -> None:
    """A generation becomes the live one wherever it stands, though writes were frozen as they must be."""
    from services.replay import switching

    _instead(stack, switch_protocol, "has_reached", lambda *_: True)
    _instead(stack, switching, "has_reached", lambda *_: True)
    _instead(stack, switch_protocol, "_is_behind", lambda *_: False)


@mutant
def rollback_loses_the_outbox(stack: ExitStack) -> None:
    """What waits in the outbox is gone once another generation is live."""
    original = MemoryRoles.turn

    def turn(self: Any, partition: int, seen: Any, shall: Any) -> Any:
        turned = original(self, partition, seen, shall)
        if turned and seen.live != shall.live:
            self._server.content_now.outboxes.pop(PartitionKeys(partition).outbox, None)
        return turned

    _instead(stack, MemoryRoles, "turn", turn)


@mutant
def switch_skips_effects(stack: ExitStack) -> None:
    """The generation that becomes live lets nothing out of the records that it is given next."""
    original = MemoryRoles.turn

    def turn(self: Any, partition: int, seen: Any, shall: Any) -> Any:
        if seen.live != shall.live:
            shall = shall._replace(effects_from=shall.effects_from + 1_000)
        return original(self, partition, seen, shall)

    _instead(stack, MemoryRoles, "turn", turn)


@mutant
def switch_without_freeze(stack: ExitStack) -> None:
    """A switch is announced and decided, and writes go on all the while."""
    _instead(stack, switch_protocol, "_frozen", lambda role, _token: role)
    original = switch_protocol.follow

    def follow(roles: Any, partitions: int) -> None:
        pointer = roles.pointer()
        for partition, role in roles.roles(range(partitions)).items():
            if (
                pointer is not None
                and role is not None
                and role.live != pointer.generation
                and role.epoch < pointer.epoch
            ):
                roles.turn(partition, role, role._replace(live=pointer.generation, epoch=pointer.epoch))
        original(roles, partitions)

    _instead(stack, switch_protocol, "follow", follow)
    from services.medication_list.processor import worker

    _instead(stack, worker, "follow", follow)
    _instead(stack, switch_protocol, "has_reached", lambda *_: True)
    from services.replay import switching

    _instead(stack, switching, "has_reached", lambda *_: True)
