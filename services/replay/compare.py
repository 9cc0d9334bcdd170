"""Compares two generations patient by patient, in bounded memory, while both go on.

The two sides of a patient are read in one step. They are compared once both generations have judged the patient's last
event that either knows; until then the patient is looked at again, and finally counted as behind. A patient whose next
event always comes before the later side has judged the last would never be comparable; so the live side's copy is kept
until the other reaches the same event.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from services.medication_list.store.inventory import Compared, Sides
from services.replay.differences import Difference, differences, last_position, position
from services.replay.place import Place

_SCANNED: Final = 2_000
_AT_ONCE: Final = 40
"""Patients of one step: the store does nothing else during it, for two milliseconds or so."""
_LATER_AT_MOST: Final = 20_000
_KEPT_AT_MOST: Final = 500
"""For how many patients the live side's hash and event index are kept until the other side reaches the same event."""
_AGAIN_S: Final = 0.1
_EXAMPLES: Final = 3
_KINDS_AT_MOST: Final = 1_000
OTHER_KINDS: Final = "(other kinds)"

Behind = dict[tuple[int, str], Sides | None]
"""Partition and pseudonym of who must be looked at again, and how that patient stood at an earlier look (None: not kept)."""


@dataclass
class Kind:
    """Differences of one kind: how many, in how many patients, and some examples by pseudonym."""

    count: int = 0
    patients: int = 0
    examples: list[tuple[str, Difference]] = field(default_factory=list)


@dataclass
class Comparison:
    """What came of it. `behind`: patients whose last event one side had not judged yet."""

    before: str
    after: str
    compared: int = 0
    equal: int = 0
    differing: int = 0
    behind: int = 0
    kinds: dict[str, Kind] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    is_whole: bool = True

    @property
    def is_clean(self) -> bool:
        """Whether nothing differs and no patient was left out."""
        return not (self.differing or self.behind or self.notes)

    def whose_values(self) -> Collection[str]:
        """The patients with values among the examples, by pseudonym."""
        examples = (each for kind in self.kinds.values() for each in kind.examples)
        return sorted({patient for patient, difference in examples if difference.is_clinical})

    def as_plain(self, *, show: bool) -> dict[str, Any]:
        """For a program to read; values of patients only where they may be shown."""
        return {
            "before": self.before,
            "after": self.after,
            "is_whole": self.is_whole,
            "compared": self.compared,
            "equal": self.equal,
            "differing": self.differing,
            "behind": self.behind,
            "notes": self.notes,
            "seconds": round(self.seconds, 3),
            "kinds": {
                name: {
                    "differences": kind.count,
                    "patients": kind.patients,
                    "examples": [
                        {"patient": who, **dict(zip(("before", "after"), each.told(show=show), strict=True))}
                        for who, each in kind.examples
                    ],
                }
                for name, kind in sorted(self.kinds.items(), key=lambda each: -each[1].count)
            },
        }


def compare(
    place: Place,
    before: str,
    after: str,
    sample: int | None = None,
    patience_s: float = 20.0,
    told: Callable[[int], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> Comparison:
    """Compare every patient of two generations, or about that many. Raises StoreUnavailableError.

    `patience_s`: how long to look again at those who are behind. `told`: called now and then with how many are compared.
    """
    began_s, found = monotonic(), Comparison(before, after)
    behind = _compare_all(place, found, sample, told)
    until_s = monotonic() + patience_s
    while behind and monotonic() < until_s:
        sleep(_AGAIN_S)
        behind = _compared_again(place, found, behind)
    found.behind += len(behind)
    if found.is_whole:
        found.notes = _notes(place, before, after, until_s, sleep, monotonic)
    found.seconds = monotonic() - began_s
    return found


def _compare_all(place: Place, found: Comparison, sample: int | None, told: Callable[[int], None]) -> Behind:
    """One walk through the store; returns those who must be looked at again."""
    behind: Behind = {}
    cursor, seen = 0, 0
    while True:
        cursor, patients = place.inventory.patients(cursor, _SCANNED)
        # Both generations' keys come by: the later one's alone matters for those whom the other has not.
        places = {(each.partition, each.patient) for each in patients if each.generation == found.before}
        places |= _unknown_before(place, found, patients)
        for slice_ in _slices(sorted(places)):
            for where in _compare_some(place, found, *slice_, earlier=behind):
                if where in behind or len(behind) < _LATER_AT_MOST:
                    behind[where] = None
                else:
                    found.behind += 1
        seen += len(places)
        told(found.compared)
        if sample is not None and seen >= sample and cursor != 0:
            found.is_whole = False
            return behind
        if cursor == 0:
            return behind


def _compared_again(place: Place, found: Comparison, behind: Behind) -> Behind:
    """Look again at those that were behind. Returns those that still are."""
    still: Behind = {}
    for slice_ in _slices(behind):
        for where, sides in _compare_some(place, found, *slice_, earlier=behind).items():
            earlier = behind[where]
            if earlier is not None and position(sides.other) < position(earlier.one):
                still[where] = earlier  # it has yet to come there
            else:
                still[where] = sides if len(still) < _KEPT_AT_MOST else None
    return still


def _unknown_before(place: Place, found: Comparison, patients: Iterable[Any]) -> set[tuple[int, str]]:
    """Those of the later generation that the one before does not know at all."""
    theirs = {(each.partition, each.patient) for each in patients if each.generation == found.after}
    return {
        (partition, patient)
        for partition, those in _slices(sorted(theirs))
        for patient in place.inventory.strangers(partition, found.before, those)
    }


def _compare_some(
    place: Place, found: Comparison, partition: int, patients: list[str], *, earlier: Behind
) -> dict[tuple[int, str], Sides]:
    """Compare those who can be compared; returns the others, as they stand. `earlier`: how some of them stood before."""
    compared = place.inventory.compare(partition, found.before, found.after, patients)
    behind: dict[tuple[int, str], Sides] = {}
    differing = 0
    for sides in compared.differing:
        where = partition, sides.patient
        at_one_place = _at_one_place(earlier.get(where), sides) if _is_behind(compared, sides) else sides
        if at_one_place is None:
            behind[where] = sides
        elif not at_one_place.are_equal:
            differing += 1
            _note(found, at_one_place)
    found.differing += differing
    found.compared += len(patients) - len(behind)
    found.equal += len(patients) - len(behind) - differing
    return behind


def _is_behind(compared: Compared, sides: Sides) -> bool:
    last = last_position(sides)
    return any(offset is None or offset < last for offset in (compared.one_offset, compared.other_offset))


def _at_one_place(earlier: Sides | None, now: Sides) -> Sides | None:
    """The live side as it stood at the earlier look, if the other one has come to just that place of the patient's by now.

    It is the other one that is late: it may not go beyond the live one.
    """
    if earlier is None or position(now.other) != position(earlier.one):
        return None
    return now._replace(one=earlier.one, one_index=earlier.one_index)


def _note(found: Comparison, sides: Sides) -> None:
    of_patient: set[str] = set()
    for each in differences(sides):
        name = each.kind if each.kind in found.kinds or len(found.kinds) < _KINDS_AT_MOST else OTHER_KINDS
        kind = found.kinds.setdefault(name, Kind())
        kind.count += 1
        kind.patients += name not in of_patient
        of_patient.add(name)
        if len(kind.examples) < _EXAMPLES:
            kind.examples.append((sides.patient, each))


def _notes(
    place: Place,
    before: str,
    after: str,
    until_s: float,
    sleep: Callable[[float], None],
    monotonic: Callable[[], float],
) -> dict[str, int]:
    """How many numbers and parked records differ for good: what differs for a moment is under way."""
    standing: dict[int, set[tuple[str, str]]] = {
        each: set(place.inventory.differing_notes(each, before, after)) for each in range(place.partitions)
    }
    while any(standing.values()) and monotonic() < until_s:
        sleep(_AGAIN_S)
        for partition, seen in standing.items():
            if seen:
                standing[partition] = seen & set(place.inventory.differing_notes(partition, before, after))
    counts: dict[str, int] = {}
    for seen in standing.values():
        for kind, _ in sorted(seen):
            counts[kind] = counts.get(kind, 0) + 1
    return counts


def _slices(places: Iterable[tuple[int, str]]) -> Iterable[tuple[int, list[str]]]:
    """Partition by partition, this many patients at once."""
    for partition, group in groupby(sorted(places), key=itemgetter(0)):
        patients = [patient for _, patient in group]
        for start in range(0, len(patients), _AT_ONCE):
            yield partition, patients[start : start + _AT_ONCE]


def kinds_of(counted: Mapping[str, Kind]) -> list[tuple[str, Kind]]:
    """The commonest first."""
    return sorted(counted.items(), key=lambda each: -each[1].count)
