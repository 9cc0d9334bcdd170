"""What a platform would hold of a log, in memory: to test the comparison with, and to damage in such tests."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from schemas.events import Event
from schemas.medication_list import MedicationList
from tests.oracle.comparing import Outcome
from tests.oracle.history import Unreadable
from tests.oracle.naive import Ownership, fold, show
from tests.oracle.reader import Log, ownership


@dataclass(slots=True)
class MemoryHeld:
    """Holds what the oracle makes of `log`, up to `offsets`; `lists` and `outcomes` are told instead where given."""

    log: Log
    offsets: dict[int, int] = field(default_factory=dict)
    lists: dict[str, MedicationList] = field(default_factory=dict)
    outcomes: dict[str, dict[str, Outcome]] = field(default_factory=dict)

    def offset(self, partition: int) -> int | None:
        """The next offset to fold."""
        return self.offsets.get(partition, self.log.ends.get(partition))

    def list_of(self, patient: str, at_ms: int) -> MedicationList:
        """The list that was given, else the one of the log."""
        if patient in self.lists:
            return self.lists[patient]
        folded = self._folded()
        return show(folded.patients.get(patient, []), at_ms, ownership(folded).get(patient, Ownership()))

    def outcomes_of(self, patient: str, events: Collection[str]) -> Mapping[str, Outcome]:
        """The outcomes of these events: those that were given, else those of the log."""
        return {event_id: found for event_id, found in self._all_outcomes(patient).items() if event_id in events}

    def judged(self, patient: str) -> int:
        """How many outcomes there are."""
        return len(self._all_outcomes(patient))

    def _all_outcomes(self, patient: str) -> Mapping[str, Outcome]:
        if patient in self.outcomes:
            return self.outcomes[patient]
        found: dict[str, Outcome] = {}
        for verdict in fold(self._folded().patients.get(patient, [])).verdicts:
            event = verdict.record.event
            if isinstance(event, Event):
                reason = None if verdict.reason is None else str(verdict.reason)
                found.setdefault(event.event_id, (verdict.outcome, reason, frozenset(map(str, verdict.flags))))
        return found

    def parked(self, partition: int) -> Mapping[int, str]:
        """Every record of the partition that could not be read."""
        folded = self._folded()
        every = [*folded.unowned, *(record for records in folded.patients.values() for record in records)]
        return {
            record.offset: record.event.reason
            for record in every
            if record.partition == partition and isinstance(record.event, Unreadable)
        }

    def _folded(self) -> Log:
        return self.log.before({partition: self.offset(partition) or 0 for partition in self.log.ends})
