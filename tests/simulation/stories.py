"""What is written to the simulated log: histories of a pool of patients, made once, and records that nobody can read."""

import random
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple, cast
from uuid import NAMESPACE_URL, UUID, uuid5

import msgspec

from schemas.codec import UnknownSchemaError, encode, newest
from schemas.events import Body, Event
from schemas.framing import Framing
from services.publishing.partitioning import partition_of
from tests.oracle.histories import history
from tests.oracle.history import Unreadable

POOL: Final = 48
LONGEST: Final = 24
_UUID: Final = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
NEW_TYPES: Final = (
    "TreatmentPaused",
    "AllergyRecorded",
    "UseReported",
    "ClaimRequested",
    "PrescriptionRecalled",
    "TreatmentDiscontinued",
    "TreatmentRecorded",
    "TreatmentChanged",
    "DispatchRequested",
    "MultidoseAssigned",
)
"""What an older release cannot read yet: also what decides how later events are answered."""
GARBAGE: Final = b"\xff\x00 nobody can read this"


class Told(NamedTuple):
    """One record of a patient: its bytes, its event's id, and whether an older release can read it."""

    key: bytes
    value: bytes
    event_id: str | None
    is_new: bool


@cache
def pseudonym(number: int) -> str:
    """One patient of the pool."""
    return uuid5(NAMESPACE_URL, f"simulation: patient {number}").hex


@cache
def story(number: int) -> Sequence[Told]:
    """The patient's history; the ids in it are nobody else's."""
    patient = pseudonym(number)
    told = []
    for record in history(number, LONGEST, patient):
        if isinstance(record.event, Unreadable):
            told.append(Told(patient.encode(), GARBAGE, None, is_new=False))
        else:
            event = _own(record.event, patient)
            is_new = type(event.body).__name__ in NEW_TYPES
            told.append(Told(patient.encode(), encode(event), event.event_id, is_new))
    return told


def _own(event: Event[Body], patient: str) -> Event[Body]:
    """The same with ids of this patient alone."""
    of: Any = Event[type(event.body)]  # type: ignore[misc]  # the type of a member of a closed union
    text = _UUID.sub(lambda found: str(uuid5(UUID(patient), found[0].decode())).encode(), msgspec.json.encode(event))
    return cast("Event[Body]", msgspec.json.decode(text, type=of))


class OlderRelease(Framing):
    """Reads as a release does that lacks some schemas."""

    def __init__(self) -> None:
        super().__init__()
        self._lacks = {newest(name).header for name in NEW_TYPES}

    def from_topic(self, value: bytes | None) -> bytes | None:
        """See `Framing.from_topic`."""
        if value is not None and value[:10] in self._lacks:
            raise UnknownSchemaError(value[2:10].hex())
        return value


class Poison(NamedTuple):
    """A record that nobody can read, and where it lies."""

    partition: int
    key: bytes | None
    value: bytes | None


def poison(dice: random.Random, patients: Sequence[str], partitions: int) -> Poison:
    """One of every kind: no key, no pseudonym, the wrong partition or patient, nothing, garbage, half a record."""
    patient, other = dice.choice(patients), dice.choice(patients)
    here = partition_of(patient.encode(), partitions)
    # What an older release cannot read either way, it would park for another reason.
    good = dice.choice([each for each in story_of(patient) if not each.is_new]).value
    kinds: Mapping[str, Poison] = {
        "no_key": Poison(here, None, good),
        "empty_key": Poison(here, b"", good),
        "no_pseudonym": Poison(here, b"12345678901", good),
        "wrong_partition": Poison((here + 1) % partitions, patient.encode(), good),
        "others_event": Poison(
            here, patient.encode(), next(each.value for each in story_of(other) if each.event_id and not each.is_new)
        ),
        "nothing": Poison(here, patient.encode(), None),
        "garbage": Poison(here, patient.encode(), GARBAGE),
        "half": Poison(here, patient.encode(), good[: len(good) // 2]),
        "unknown_mark": Poison(here, patient.encode(), b"\xc3\x01" + b"unknown!" + good[10:]),
        "wrong_magic": Poison(here, patient.encode(), b"\x07" + good[1:]),
    }
    return kinds[dice.choice(sorted(kinds))]


@cache
def _numbers() -> Mapping[str, int]:
    return {pseudonym(number): number for number in range(POOL)}


def story_of(patient: str) -> Sequence[Told]:
    """A patient's history by pseudonym."""
    return story(_numbers()[patient])
