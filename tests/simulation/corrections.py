"""What a refold owes those whose answers it changes: each is told once, whatever fails in between."""

from collections import defaultdict
from typing import Final

from schemas.events import Notice
from schemas.reasons import Reason
from services.medication_list.fold.remembering import recollect
from services.medication_list.fold.state import Remembered
from services.medication_list.judging.items import Readable
from services.medication_list.store.keys import GenerationKeys, PartitionKeys
from services.medication_list.store.memory_server import Hash
from services.medication_list.stored.event_index import is_parked
from services.medication_list.stored.packing import unpack_memory
from tests.simulation.expected import Expected
from tests.simulation.world import World

_CHANGED: Final = "outcome_changed"
Answer = tuple[str, str | None]
"""An outcome and its reason."""


class Corrections:
    """Compares the index before and after each rewrite, and what is sent with what follows from that."""

    def __init__(self, world: World, expected: Expected) -> None:
        self._world = world
        self._expected = expected
        self._due: dict[tuple[int, str, str], str] = {}
        """By partition, patient and event: the outcome that its sender has to be told."""
        self._made_again: dict[tuple[int, str, str], tuple[int, frozenset[int]]] = {}
        """Of each of these that a refold is to make again: how far the lost view had come, and what of it is parked again."""
        self._changes: defaultdict[str, int] = defaultdict(int)
        """How often the answer to an event was changed, in all."""
        self._told: defaultdict[str, dict[str, str]] = defaultdict(dict)
        """By event: what was sent, by id."""
        self.counted = 0

    def after_rewrite(self, generation: str, partition: int, patient: str, before: Hash) -> None:
        """A patient was put in place: what had been answered otherwise is due."""
        content = self._world.server.content_now
        role = content.hashes.get(PartitionKeys(partition).role, {})
        if role.get(b"live", b"").decode() != generation:
            return
        after = content.hashes.get(GenerationKeys(generation, partition).events_key(patient), {})
        for key, known in _judged(before).items():
            now = unpack_memory(key, after[key])
            assert isinstance(now, Remembered), "what was judged stays judged"
            outcome = _answer_to(known, now)
            if outcome != _answer(known):
                event_id = self._event_at(partition, patient, known.offset)
                self._changes[event_id] += 1
                self._due[partition, patient, event_id] = outcome[0]
                self._made_again.pop((partition, patient, event_id), None)
                self.counted += 1

    def _event_at(self, partition: int, patient: str, offset: int) -> str:
        self._expected.fold(partition, patient, frozenset())
        items = self._expected.items[partition, patient]
        found = next(item for item in items if item.record.offset == offset)
        assert isinstance(found, Readable), "what was answered can be read"
        return found.entry.event.event_id

    def forget(self, partition: int, came_to: int, owed: frozenset[int], noted: frozenset[int] | None) -> None:
        """The store lost this partition, and with its outbox what nobody had been told yet: a refold makes it once more.

        `owed`: what was parked, or refolded and not sent. Where the relay had not noted that, nobody parks it again; nor in
        a copy of the store (`noted` is None) from before it was judged at all.
        """
        for each in [each for each in self._due if each[0] == partition]:
            if noted is None or not self._expected.aside_of(partition, each[1], owed) <= noted:
                self._drop(each)
            else:
                self._made_again[each] = came_to, self._expected.aside_of(partition, each[1], noted)

    def parked(self, partition: int, aside: frozenset[int]) -> None:
        """This lies parked in the live generation: where it is more than is parked again, an older release makes the view.

        What it answers otherwise by that, or not at all, it answers anew.
        """
        for each, (came_to, again) in list(self._made_again.items()):
            own = self._expected.aside_of(partition, each[1], aside) if each[0] == partition else again
            if any(offset < came_to for offset in own - again):
                self._drop(each)

    def _drop(self, each: tuple[int, str, str]) -> None:
        del self._due[each]
        self._made_again.pop(each, None)

    def after_delivery(self, effect: object) -> None:
        """Something was sent for the first time."""
        if isinstance(effect, Notice) and effect.kind == _CHANGED:
            self._told[effect.source_event][effect.effect_id] = effect.outcome or ""

    def is_one(self, effect: object) -> bool:
        """Whether this notice is a correction that is due, and not one more than there were changes."""
        if not isinstance(effect, Notice) or effect.kind != _CHANGED:
            return False
        own = [each for each in self._told[effect.source_event] if each not in self._expected.due]
        return len(own) <= self._changes[effect.source_event]

    def check_end(self, partition: int) -> None:
        """Every sender whose answer was changed has been told what it is now."""
        for (place, _, event_id), outcome in self._due.items():
            told = self._told[event_id]
            is_told = outcome in told.values() or any(each in self._expected.due for each in told)
            if place == partition and not is_told:
                self._world.history.broken("effects", f"nobody was told that {event_id} is {outcome} by now")


def _judged(index: Hash) -> dict[bytes, Remembered]:
    """What became of each event that was answered, by its entry."""
    memories = ((key, unpack_memory(key, packed)) for key, packed in index.items())
    return {key: each for key, each in memories if isinstance(each, Remembered) and not is_parked(each)}


def _answer(known: Remembered) -> Answer:
    verdict = recollect(known)
    return verdict.outcome, verdict.reason


def _answer_to(known: Remembered, now: Remembered) -> Answer:
    """What a record is answered now: as the one under the same id that had been parked before it, if it says the same."""
    if now.offset != known.offset and now.digest != known.digest:
        return "refused", Reason.CONFLICTING_DUPLICATE
    return _answer(now)
