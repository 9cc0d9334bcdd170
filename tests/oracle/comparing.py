"""Compares what the oracle comes to with what the platform holds: every outcome, and every patient's list."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any, Final, Protocol

import msgspec

from schemas.events import Event
from schemas.medication_list import MedicationList, ShownDosing
from tests.oracle.history import LogRecord, Unreadable, Verdict
from tests.oracle.naive import Ownership, Told, fold, show_told
from tests.oracle.reader import Log, ownership
from tests.oracle.treatments import is_known

NOT_COMPARED: Final = frozenset({"text", "texts_differ"})
"""Of a dosing in force: made by one function of the platform, which has tests of its own."""
NOT_COMPARED_FLAG: Final = "dosing_text_differs"
MISSING: Final = "(nothing)"
HIDDEN: Final = "(hidden)"
Outcome = tuple[str, str | None, frozenset[str]]


class Held(Protocol):
    """What the platform holds. Partitions by number, patients by pseudonym."""

    def offset(self, partition: int) -> int | None:
        """The next offset that the view will fold; None when it has nothing of that partition."""

    def list_of(self, patient: str, at_ms: int) -> MedicationList:
        """The patient's list for a reader's clock; an empty one for a patient without any event."""

    def outcomes_of(self, patient: str, events: Collection[str]) -> Mapping[str, Outcome]:
        """First outcome, its reason, its flags, of those of these events that were judged."""

    def judged(self, patient: str) -> int:
        """How many events of the patient were judged."""

    def parked(self, partition: int) -> Mapping[int, str]:
        """Offset -> reason, of every record of the partition that was set aside."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as the oracle has it. `patient` is a pseudonym, or the partition of what has none."""

    patient: str
    path: str
    expected: str
    found: str
    is_clinical: bool = False
    """Whether expected and found are a patient's values, and not words of the rules."""

    def as_plain(self, *, show: bool) -> dict[str, str]:
        """For JSON; values only where they may be shown."""
        told = (self.expected, self.found) if show or not self.is_clinical else (HIDDEN, HIDDEN)
        return {"patient": self.patient, "path": self.path, **dict(zip(("expected", "found"), told, strict=True))}


@dataclass(slots=True)
class Counts:
    """What was compared. `lost`: records in the compared part of the log that the platform has no outcome for."""

    accepted: int = 0
    applied: int = 0
    duplicate: int = 0
    refused: int = 0
    parked: int = 0
    flagged: int = 0
    patients: int = 0
    treatments: int = 0
    lost: int = 0

    def count(self, verdict: Verdict) -> None:
        """Add one record's outcome."""
        self.accepted += 1
        setattr(self, verdict.outcome, getattr(self, verdict.outcome) + 1)
        self.flagged += bool(verdict.flags)


@dataclass(slots=True)
class Report:
    """The comparison. `behind`: partition -> records of the log that the view has not folded yet."""

    counts: Counts = field(default_factory=Counts)
    differences: list[Difference] = field(default_factory=list)
    behind: dict[int, int] = field(default_factory=dict)

    @property
    def is_clean(self) -> bool:
        """Nothing differs and nothing is lost."""
        return not self.differences and self.counts.lost == 0

    def whose_values(self) -> Sequence[str]:
        """The patients of whom values are among the differences, by pseudonym."""
        return sorted({each.patient for each in self.differences if each.is_clinical})

    def as_plain(self, *, show: bool) -> dict[str, Any]:
        """For JSON: the counts, the number of mismatches, how far behind the view is, and each difference."""
        return {
            **asdict(self.counts),
            "mismatches": len(self.differences),
            "behind": sum(self.behind.values()),
            "differences": [difference.as_plain(show=show) for difference in self.differences],
        }


def compare(log: Log, held: Held, clocks_ms: Sequence[int], sample: int | None = None) -> Report:
    """Compare the part of the log that the view has folded, at each of these clocks; `sample`: so many patients only."""
    report = Report()
    folded = {partition: min(end, held.offset(partition) or 0) for partition, end in log.ends.items()}
    compared = log.before(folded)
    _note_lag(report, log, compared)
    owners = ownership(compared)
    parked = {partition: held.parked(partition) for partition in log.ends}
    chosen = _sampled(sorted(compared.patients), sample)
    for patient in chosen:
        checker = _Patient(patient, compared.patients[patient], held, report, owners.get(patient, Ownership()))
        checker.check(clocks_ms, parked)
    for record in compared.unowned:
        assert isinstance(record.event, Unreadable), "only what cannot be read has no patient"
        _check_parked(report, f"partition {record.partition}", record, record.event, parked)
        report.counts.count(Verdict(record, "parked", record.event.reason))
    report.counts.patients = len(chosen)
    return report


def _note_lag(report: Report, log: Log, compared: Log) -> None:
    for partition, end in log.ends.items():
        behind = end - compared.ends[partition]
        if behind:
            report.behind[partition] = behind


def _sampled(patients: list[str], sample: int | None) -> list[str]:
    """So many of them, evenly over the alphabet of pseudonyms, which are a keyed hash: as good as by chance."""
    if sample is None or sample >= len(patients):
        return patients
    return [patients[index * len(patients) // sample] for index in range(sample)]


@dataclass(slots=True)
class _Patient:
    """The comparison of one patient."""

    patient: str
    records: list[LogRecord]
    held: Held
    report: Report
    ownership: Ownership

    def check(self, clocks_ms: Sequence[int], parked: Mapping[int, Mapping[int, str]]) -> None:
        told = fold(self.records)
        self._check_outcomes(told, parked)
        for at_ms in clocks_ms:
            expected = show_told(told, self.records, at_ms, self.ownership)
            found = self.held.list_of(self.patient, at_ms)
            for path, wanted, got in differences(comparable(expected), comparable(found)):
                self._differ(f"list at {at_ms}: {path}", wanted, got, is_clinical=True)
        self.report.counts.treatments += sum(
            1 for kind, name in list(told.chart.about) if kind == "t" and is_known(told.chart, name)
        )

    def _check_outcomes(self, told: Told, parked: Mapping[int, Mapping[int, str]]) -> None:
        ids = {each.record.event.event_id for each in told.verdicts if not isinstance(each.record.event, Unreadable)}
        held, judged = self.held.outcomes_of(self.patient, ids), set[str]()
        for verdict in told.verdicts:
            self.report.counts.count(verdict)
            event = verdict.record.event
            if isinstance(event, Unreadable):
                _check_parked(self.report, self.patient, verdict.record, event, parked)
            elif event.event_id in held:
                if event.event_id not in judged:
                    self._check_outcome(event, verdict, held[event.event_id])
                judged.add(event.event_id)
            else:
                self.report.counts.lost += 1
                self._differ(f"event {event.event_id}", verdict.outcome, MISSING)
        if self.held.judged(self.patient) != len(judged):
            self._differ("events judged", str(len(judged)), str(self.held.judged(self.patient)))

    def _check_outcome(self, event: Event[Any], verdict: Verdict, found: Outcome) -> None:
        flags = frozenset(map(str, verdict.flags))
        expected = (verdict.outcome, None if verdict.reason is None else str(verdict.reason), flags)
        outcome, reason, found_flags = found
        if expected != (outcome, reason, found_flags - {NOT_COMPARED_FLAG}):
            path = f"event {event.event_id} ({type(event.body).__name__} at {verdict.record.offset})"
            self._differ(path, _told(expected), _told(found))

    def _differ(self, path: str, expected: str, found: str, *, is_clinical: bool = False) -> None:
        self.report.differences.append(Difference(self.patient, path, expected, found, is_clinical))


def _told(outcome: Outcome) -> str:
    reason = f"({outcome[1]})" if outcome[1] else ""
    return " ".join([f"{outcome[0]}{reason}", *sorted(outcome[2])])


def _check_parked(
    report: Report, whose: str, record: LogRecord, expected: Unreadable, parked: Mapping[int, Mapping[int, str]]
) -> None:
    found = parked[record.partition].get(record.offset)
    if found is None:
        report.counts.lost += 1
    if found != expected.reason:
        path = f"record {record.partition}/{record.offset}"
        report.differences.append(Difference(whose, path, f"parked({expected.reason})", found or MISSING))


# --- Lists, field by field --------------------------------------------------------------------------------------------


def comparable(value: Any) -> Any:
    """A list as plain mappings and sequences, without what is not compared."""
    if isinstance(value, msgspec.Struct):
        kept = {name: getattr(value, name) for name in value.__struct_fields__}
        if isinstance(value, ShownDosing):
            kept = {name: member for name, member in kept.items() if name not in NOT_COMPARED}
        if "flags" in kept:
            kept["flags"] = tuple(flag for flag in kept["flags"] if flag != NOT_COMPARED_FLAG)
        return {name: comparable(member) for name, member in kept.items()} | {"": type(value).__name__}
    return [comparable(member) for member in value] if isinstance(value, tuple | list) else value


def differences(expected: Any, found: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Path, expected and found, of everything that differs."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for name in {**expected, **found}:
            here = f"{path}.{name}" if path and name else path or name
            yield from differences(expected.get(name, MISSING), found.get(name, MISSING), here)
    elif isinstance(expected, list) and isinstance(found, list):
        for index in range(max(len(expected), len(found))):
            wanted = expected[index] if index < len(expected) else MISSING
            got = found[index] if index < len(found) else MISSING
            yield from differences(wanted, got, f"{path}[{index}]")
    elif expected != found:
        yield path, _short(expected), _short(found)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        named = next((str(value[name]) for name in ("treatment", "prescription", "dispense") if name in value), "")
        return f"{value.get('', 'entry')} {named}".strip()
    return f"{value.normalize():f}" if isinstance(value, Decimal) else str(value)
