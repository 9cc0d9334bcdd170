"""One prescription id or reference number under two patients: the first stays, flagged; the second is shown to nobody.

Each partition's index knows the patients under whom a number came there; readers put all of them together, since no
partition sees another's records. The first is the one that the broker took first.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, cast

from msgspec.structs import replace

from schemas.codec import decode
from schemas.events import Event, PrescriptionIssued
from services.medication_list.fold.state import META, Meta, PrescriptionState, signed_field
from services.medication_list.judging.alarms import tell_number_conflict
from services.medication_list.log.record_log import all_of
from services.medication_list.read_api.as_of import folded
from services.medication_list.read_api.log_lookup import LogLookup
from services.medication_list.read_api.stored_events import fields_of, places_of
from services.medication_list.read_api.view import Fields
from services.medication_list.store.reading import Found, NotReadyError, ViewReader

_ALARMS_REMEMBERED: Final = 10_000
_PREFIX: Final = "rx:"


class PatientView(NamedTuple):
    """What may be shown of a patient. `flagged` and `hidden`: see `Settled`."""

    found: Found
    fields: Fields
    flagged: frozenset[str]
    hidden: frozenset[int]


class Owner(NamedTuple):
    """Whose a number is. `not_asked`: a partition that cannot be shown now, where it may be somebody's; see `Owners`."""

    patient: str | None
    not_asked: NotReadyError | None


class Settled(NamedTuple):
    """Offsets at which this patient came second with a number, and the prescriptions with which it came first."""

    hidden: frozenset[int] = frozenset()
    flagged: frozenset[str] = frozenset()


class _Issue(NamedTuple):
    """When and where a prescription came with a number; in this order the first one is the owner's."""

    at_ms: int
    partition: int
    offset: int
    patient: str
    prescription: str


class NumberConflicts:
    """Finds out whose a number is, and hides what came second. Each conflict raises an alarm, once a process."""

    def __init__(self, reader: ViewReader, log: LogLookup, told: Callable[[], None] = lambda: None) -> None:
        """`told`: called with each alarm."""
        self._tell = told
        self._reader = reader
        self._log = log
        self._told: dict[str, None] = {}

    async def owner_of(self, name: str) -> Owner:
        """Whose a prescription id or reference number is: of several, the first one's. Raises as `known_owners`."""
        came = await self._reader.owners_of([name])
        return Owner((await self._first_ones(came.patients)).get(name), came.not_asked)

    async def known_owners(self, names: Sequence[str]) -> Mapping[str, str]:
        """The patient of each prescription id or reference number that is known now: of several, the first one.

        For a door that turns away what is known to be another's: a partition that cannot be shown is left out, so that no
        write waits for it. That a number is not here does not say that it is nobody's; `owner_of` does.
        Raises StoreUnavailableError, LogLookupError; NotReadyError only where a conflict cannot be settled.
        """
        return await self._first_ones((await self._reader.owners_of(names)).patients)

    async def _first_ones(self, came: Mapping[str, Collection[str]]) -> Mapping[str, str]:
        owners: dict[str, str] = {}
        disputed: dict[str, Collection[str]] = {}
        for name, patients in came.items():
            if len(patients) > 1:
                disputed[name] = patients
            else:
                owners |= dict.fromkeys([name], *patients)
        if disputed:
            owners |= {name: min(issues).patient for name, issues in (await self._issues(disputed)).items()}
        return owners

    async def shown(self, patient: str, of: Collection[str] | None = None) -> PatientView:
        """What may be shown of a patient now. `of`: only these prescriptions are looked at for conflicts.

        Raises NotReadyError, StoreUnavailableError, LogLookupError.
        """
        return await self.settled(await self._reader.read_list(patient), patient, of)

    async def settled(self, found: Found, patient: str, of: Collection[str] | None = None) -> PatientView:
        """As `shown`, of a patient's list that was read already."""
        fields: Fields = fields_of(found.values)
        hidden, flagged = await self._told_apart(patient, fields, of)
        if hidden:
            fields = await self._without(patient, hidden, fields)
        return PatientView(found, fields, flagged, hidden)

    async def told_apart(self, patient: str, as_of_ms: int | None) -> Settled:
        """What is hidden and what is flagged of a patient, as it was known then; None: as it is now. Raises as `shown`."""
        found = await self._reader.read_list(patient)
        return await self._told_apart(patient, fields_of(found.values), None, as_of_ms)

    async def _told_apart(
        self, patient: str, fields: Fields, of: Collection[str] | None, as_of_ms: int | None = None
    ) -> Settled:
        names = numbers_of(fields, of)
        if not names:
            return Settled()
        # What only a partition knows that cannot be shown now is not hidden for as long: it would keep back all lists.
        came = await self._reader.owners_of(list(names))
        disputed = others_too(patient, came.patients)
        return _settled(patient, await self._issues(disputed), as_of_ms) if disputed else Settled()

    async def _issues(self, disputed: Mapping[str, Collection[str]]) -> Mapping[str, Sequence[_Issue]]:
        """Every prescription that came with each of these numbers."""
        found: defaultdict[str, list[_Issue]] = defaultdict(list)
        for patient in {patient for patients in disputed.values() for patient in patients}:
            listed = await self._reader.read_list(patient)
            fields = fields_of(listed.values)
            numbers = numbers_of(fields)
            places = [
                (name, prescription, cast("PrescriptionState", fields[_PREFIX + prescription]).place)
                for name in disputed
                for prescription in numbers.get(name, ())
            ]
            offsets = {offset for _, _, offset in places}
            records = all_of(patient, listed.partition, offsets, await self._log.read(listed.partition, offsets))
            for name, prescription, offset in places:
                at_ms = records[offset].timestamp
                found[name].append(_Issue(at_ms, listed.partition, offset, patient, prescription))
        for name, issues in found.items():
            if len({issue.patient for issue in issues}) > 1:
                self._alarm(name, max(issues).partition)
        return found

    async def _without(self, patient: str, hidden: frozenset[int], stood: Fields) -> Fields:
        """The patient as if what came at these offsets had never come; the list's version stays."""
        listed, index = await self._reader.list_and_index(patient)
        known = places_of(listed, index)
        wanted = [offset for offset in known if offset not in hidden]
        records = all_of(patient, index.partition, wanted, await self._log.read(index.partition, wanted))
        fields = dict(folded((record, known[offset]) for offset, record in sorted(records.items())))
        meta, anew = cast("Meta", stood[META]), cast("Meta | None", fields.get(META)) or Meta()
        fields[META] = replace(anew, version=meta.version, position=meta.position)
        return fields

    def _alarm(self, name: str, partition: int) -> None:
        if name in self._told:
            return
        if len(self._told) >= _ALARMS_REMEMBERED:
            del self._told[next(iter(self._told))]
        self._told[name] = None
        tell_number_conflict(partition, name)
        self._tell()


def numbers_of(fields: Fields, of: Collection[str] | None = None) -> Mapping[str, Sequence[str]]:
    """Prescription ids and reference numbers of a patient, with the prescriptions that have them."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for field, value in fields.items():
        prescription = field.removeprefix(_PREFIX)
        if not isinstance(value, PrescriptionState) or (of is not None and prescription not in of):
            continue
        found[prescription].append(prescription)
        signed = cast("Event[PrescriptionIssued]", decode(cast("bytes", fields[signed_field(prescription)])))
        if signed.body.reference_number is not None:
            found[signed.body.reference_number].append(prescription)
    return found


def others_too(patient: str, owners: Mapping[str, Collection[str]]) -> Mapping[str, Collection[str]]:
    """Those of these numbers that came under somebody else as well."""
    return {name: {patient, *whose} for name, whose in owners.items() if any(each != patient for each in whose)}


def _settled(patient: str, issues: Mapping[str, Iterable[_Issue]], as_of_ms: int | None) -> Settled:
    """Who came first with each number; as_of_ms: of those that had come by then."""
    hidden: set[int] = set()
    flagged: set[str] = set()
    for each in issues.values():
        come = [issue for issue in each if as_of_ms is None or issue.at_ms <= as_of_ms]
        if not come:
            continue
        first, *later = sorted(come)
        hidden |= {issue.offset for issue in later if issue.patient == patient != first.patient}
        if first.patient == patient and any(issue.patient != patient for issue in later):
            flagged.add(first.prescription)
    return Settled(frozenset(hidden), frozenset(flagged))
