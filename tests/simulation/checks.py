"""The promises, looked at after every step that could break one; the names are those of the table in docs/reliability.md."""

from collections import defaultdict
from collections.abc import Collection, Mapping

from schemas.codec import decode
from schemas.events import DispenseOrder, Notice, RelayProgress, SubmissionReceipt
from services.medication_list.log.source_log import PROGRESS_TOPIC
from services.medication_list.store.keys import LIVE, GenerationKeys, PartitionKeys
from services.medication_list.store.memory_server import Content
from services.medication_list.store.reading import Found
from services.medication_list.stored.answered import ANSWERED
from services.topics.registry import EVENTS_TOPIC
from tests.simulation.broker import Stored
from tests.simulation.corrections import Corrections
from tests.simulation.expected import Due, Expected, Hash
from tests.simulation.world import World

_ANSWERED = ANSWERED.encode()
_EFFECTS = ("notices.", "dispense-orders.", "submission-receipts.")


class Checks:
    """Watches one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.expected = Expected(world.broker, world.partitions)
        self.delivered: set[str] = set()
        self._last_first: dict[tuple[str, int], tuple[int, int]] = {}
        self.asides: defaultdict[int, set[frozenset[int]]] = defaultdict(set)
        self._frozen: dict[int, tuple[str, int, int]] = {}
        self._unsent: dict[int, frozenset[int]] = {}
        """What the relay noted last as unsent, by partition."""
        self.corrections = Corrections(world, self.expected)
        self.highest: defaultdict[int, int] = defaultdict(int)
        """How far the store ever came, by partition."""
        self.bounds: Mapping[str, Mapping[int, int]] = {}
        """How far generations may be made, by name and partition, where a replay was told where to stop."""
        self.counts = defaultdict[str, int](int)
        world.after_store.append(self.after_store)
        world.on_belief = self.check_belief
        world.on_rewrite = self.corrections.after_rewrite
        world.broker.on_append.append(self.after_append)

    # --- The store -----------------------------------------------------------------------------------------------

    def after_store(self, call: str, partition: int | None) -> None:
        """Something may have been written."""
        if partition is None:
            return
        content = self._world.server.content_now
        for generation in self.generations(content):
            keys = GenerationKeys(generation, partition)
            stands = content.hashes.get(keys.offset)
            if stands is not None:
                self._compare(content, generation, partition, int(stands[b"offset"]))
        self._check_roles(content, call, partition)

    def generations(self, content: Content) -> list[str]:
        """All that the store holds anything of."""
        return list(dict.fromkeys(key.partition(":")[0] for key in content.hashes if key.endswith("}:offset")))

    def aside(self, content: Content, generation: str, partition: int) -> frozenset[int]:
        """What lies parked there though some release could read it."""
        parked = content.hashes.get(GenerationKeys(generation, partition).parked, {})
        return frozenset(map(int, parked)) - self.expected.unreadable[partition]

    def _compare(self, content: Content, generation: str, partition: int, offset: int) -> None:
        """I3, I4, I9: what stands is what the log says, up to the offset that stands with it."""
        expected = self.expected
        keys = GenerationKeys(generation, partition)
        unreadable = expected.parked(partition, offset)
        parked = {int(each) for each in content.hashes.get(keys.parked, {})}
        aside = frozenset(parked - unreadable)
        self.asides[partition].add(aside)
        if content.hashes.get(PartitionKeys(partition).role, {}).get(b"live") == generation.encode():
            self.corrections.parked(partition, aside)
        self.counts["compared"] += 1
        self.highest[partition] = max(offset, self.highest[partition])
        if offset > self.bounds.get(generation, {}).get(partition, offset):
            self._broken(
                "I9", f"{generation} p{partition} was made up to {offset}, beyond where the replay was to stop"
            )
        if not unreadable <= parked or any(each >= offset for each in parked):
            self._broken(
                "I7",
                f"{generation} p{partition} at {offset}: parked are {sorted(parked)}, should be {sorted(unreadable)}",
            )
        for patient in expected.patients(partition):
            fields, index = expected.hashes(partition, patient, offset, expected.aside_of(partition, patient, aside))
            self._same(
                "I3",
                f"{generation} p{partition} at {offset}: list of {patient[:4]}",
                fields,
                content.hashes.get(keys.list_key(patient), {}),
            )
            self._same(
                "I2",
                f"{generation} p{partition} at {offset}: index of {patient[:4]}",
                index,
                content.hashes.get(keys.events_key(patient), {}),
            )
        numbers = expected.numbers(partition, offset, aside)
        self._same("I3", f"{generation} p{partition} at {offset}: numbers", numbers, content.hashes.get(keys.rx, {}))

    def _same(self, invariant: str, where: str, expected: Hash, found: Hash) -> None:
        if expected == found:
            return
        found = {name: value for name, value in found.items() if name != _ANSWERED}
        if expected != found:
            differs = sorted(n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n))
            self._broken(invariant, f"{where} differs in {differs[:3]}")

    def _check_roles(self, content: Content, call: str, partition: int) -> None:
        """I5: nobody writes what is frozen, and nobody goes further than the live generation."""
        role = content.hashes.get(PartitionKeys(partition).role)
        if role is None:
            self._frozen.pop(partition, None)
            return
        live = role[b"live"].decode()
        stands = {
            each: (int(held[b"offset"]), int(held[b"epoch"]))
            for each in self.generations(content)
            if (held := content.hashes.get(GenerationKeys(each, partition).offset)) is not None
        }
        if live not in stands:
            return
        known = content.hashes.get(LIVE, {})
        ahead = [
            each
            for each, (offset, _) in stands.items()
            if offset > stands[live][0] and f"g:{each}".encode() in known and f"g:{live}".encode() in known
        ]
        if ahead:
            self._broken("I5", f"p{partition}: {ahead[0]} went beyond the live {live} by {call}")
        if role[b"state"] != b"frozen":
            self._frozen.pop(partition, None)
            return
        token = role[b"token"].decode()
        before = self._frozen.get(partition)
        if before is not None and before[0] == token and before[1:] != stands[live]:
            self._broken("I5", f"p{partition} was written by {call} while it was frozen")
        self._frozen[partition] = token, *stands[live]

    def forget(self, partition: int, live: str, *, is_set_back: bool) -> None:
        """What the store holds of a partition is about to be lost, all of it or what came since an older copy."""
        self._frozen.clear()
        content = self._world.server.content_now
        released = content.hashes.get(PartitionKeys(partition).released, {})
        owed = self.aside(content, live, partition) | frozenset(map(int, released))
        noted = self._unsent.get(partition, frozenset())
        self.corrections.forget(partition, self.highest[partition], owed, None if is_set_back else noted)

    def check_belief(self, who: str, believed: Mapping[int, tuple[int, int]]) -> None:
        """I4: no worker takes for applied what the store never took."""
        for partition, (_, applied) in believed.items():
            if applied > self.highest[partition]:
                self._broken(
                    "I4",
                    f"{who} believes p{partition} at {applied}, and the store never came beyond {self.highest[partition]}",
                )

    # --- The log -------------------------------------------------------------------------------------------------

    def after_append(self, stored: Stored) -> None:
        """Something lies in the log."""
        if stored.topic == EVENTS_TOPIC:
            for waiter in self._world.fetch_waiters:
                if not waiter.done():
                    waiter.set_result(None)
            self._world.fetch_waiters.clear()
        elif stored.topic == PROGRESS_TOPIC:
            self._check_progress(stored)
        elif stored.topic.startswith(_EFFECTS):
            self._check_effect(stored)

    def _check_effect(self, stored: Stored) -> None:
        """Effects: known, and for the first time in their order."""
        assert stored.value is not None
        effect = decode(stored.value)
        assert isinstance(effect, Notice | DispenseOrder | SubmissionReceipt)
        if effect.effect_id in self.delivered or (
            isinstance(effect, SubmissionReceipt) and effect.outcome == "rejected"
        ):
            return
        self.delivered.add(effect.effect_id)
        self.corrections.after_delivery(effect)
        self.counts["effects"] += 1
        due = self.expected.due.get(effect.effect_id)
        if due is None:
            self._collect_due()
            due = self.expected.due.get(effect.effect_id)
        if due is None:
            if not self.corrections.is_one(effect):
                self._broken(
                    "effects", f"{stored.topic} was sent {effect.effect_id}, which nothing in the log brings about"
                )
            return
        if due.topic != stored.topic:
            self._broken("effects", f"{effect.effect_id} is for {due.topic}, and was sent to {stored.topic}")
        if self._may_be_mended(due.patient, due.partition):
            return
        last = self._last_first.get((due.topic, due.partition), (-1, -1))
        if due.place < last:
            self._broken("effects", f"{due.topic}: p{due.partition} {due.place} came for the first time after {last}")
        self._last_first[due.topic, due.partition] = max(due.place, last)

    def _check_progress(self, stored: Stored) -> None:
        """Progress is never ahead of delivery."""
        assert stored.value is not None
        noted = decode(stored.value)
        assert isinstance(noted, RelayProgress)
        self._unsent[noted.partition] = frozenset(each.offset for each in noted.unsent)
        self._check_unsent(noted)
        for aside in self._asides_of(noted.partition):
            for due in self.expected.all_due(noted.partition, aside):
                is_before = due.place[0] < noted.source_offset or due.effect_id == noted.effect_id
                if (
                    is_before
                    and due.effect_id not in self.delivered
                    and not self._may_be_mended(due.patient, due.partition)
                ):
                    self._broken(
                        "effects",
                        f"progress of p{noted.partition} is at {noted.source_offset}, and {due.topic} lacks {due.place}",
                    )
                    return

    def _check_unsent(self, noted: RelayProgress) -> None:
        """Whoever lacks an effect of what lies before the progress has a record among those that are noted as unsent."""
        partition = noted.partition
        for patient in self.expected.patients(partition):
            if self.expected.aside_of(partition, patient, self._unsent[partition]):
                continue
            for due in self._final(partition, patient):
                if due.place[0] < noted.source_offset and due.effect_id not in self.delivered:
                    self._broken(
                        "effects",
                        f"progress of p{partition} is at {noted.source_offset}, {due.topic} lacks {due.place}, and nothing "
                        f"of {patient[:4]} is noted as unsent",
                    )
                    return

    def _final(self, partition: int, patient: str) -> list[Due]:
        """What must be delivered in the end; no receipt of who was folded anew, whose outcome had been answered otherwise."""
        variants = {self.expected.aside_of(partition, patient, aside) for aside in self.asides[partition]}
        due = self.expected.fold(partition, patient, frozenset()).due
        return [each for each in due if not (each.is_receipt and len(variants) > 1)]

    def _may_be_mended(self, patient: str, partition: int) -> bool:
        """Whether some record of this patient was parked by one release and could be read by another."""
        return any(
            item.record.offset in aside
            for aside in self.asides[partition]
            if aside
            for item in self.expected.items[partition, patient]
        )

    def _asides_of(self, partition: int) -> set[frozenset[int]]:
        return self.asides[partition] or {frozenset()}

    def _collect_due(self) -> None:
        for partition in range(self._world.partitions):
            for aside in self._asides_of(partition):
                for _ in self.expected.all_due(partition, aside):
                    pass

    # --- A reader ------------------------------------------------------------------------------------------------

    def check_read(self, who: str, patient: str, found: Found, *, is_index: bool) -> None:
        """I11: what a reader is shown is one state of the patient, that of the offset that it comes with."""
        self.counts["reads"] += 1
        values = {name: value for name, value in found.values.items() if name != _ANSWERED}
        for aside in self._asides_of(found.partition) | {frozenset[int]()}:
            of = self.expected.aside_of(found.partition, patient, aside)
            if values == self.expected.hashes(found.partition, patient, found.offset, of)[is_index]:
                return
        what = "an empty list" if not values else "something"
        self._broken("I11", f"{who} was shown {what} of {patient[:4]} at {found.offset} that the log does not say")

    def _broken(self, invariant: str, what: str) -> None:
        self._world.history.broken(invariant, what)

    # --- The end -------------------------------------------------------------------------------------------------

    def check_end(self) -> None:
        """Everything was judged once, and everything that is due was delivered."""
        for partition in range(self._world.partitions):
            consumed = len(self._world.broker.records[EVENTS_TOPIC, partition])
            judged = len(self.expected.items[partition, None])
            for patient in self.expected.patients(partition):
                fold = self.expected.fold(partition, patient, frozenset())
                judged += len(fold.outcomes)
                for outcome in fold.outcomes:
                    self.counts[outcome] += 1
                self._check_delivered(partition, patient)
            self.corrections.check_end(partition)
            if judged != consumed:
                self._broken("I7", f"p{partition}: {consumed} records, {judged} outcomes")

    def check_equal(self, standing: Collection[str]) -> None:
        """I9: generations side by side are equal, byte for byte, but for what was answered otherwise before a refold."""
        content = self._world.server.content_now
        for partition in range(self._world.partitions):
            live = content.hashes[PartitionKeys(partition).role][b"live"].decode()
            ours = self._flat(content, live, partition)
            for other in standing:
                if self.aside(content, other, partition):
                    continue  # a release that is gone had parked there what could be read, and nobody mends it there
                theirs = self._flat(content, other, partition)
                for name in sorted(ours.keys() | theirs.keys()):
                    if ours.get(name) != theirs.get(name):
                        self._broken("I9", f"{live} and {other} of p{partition} differ in {name[:12]}")

    def _flat(self, content: Content, generation: str, partition: int) -> dict[str, Hash]:
        """Every hash of a generation by its name without it, but for what tells how it was made: its epoch, for one."""
        keys = GenerationKeys(generation, partition)
        start = keys.offset.removesuffix("offset")
        own = keys.offset, keys.withheld
        return {
            key.removeprefix(start): {name: value for name, value in held.items() if name != _ANSWERED}
            for key, held in content.hashes.items()
            if key.startswith(start) and key not in own
        }

    def _check_delivered(self, partition: int, patient: str) -> None:
        """Every effect, whatever was parked, refolded or lost in between."""
        for due in self._final(partition, patient):
            if due.effect_id not in self.delivered:
                self._broken("effects", f"{due.topic} never had {due.place} of p{partition}")
