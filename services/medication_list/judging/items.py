"""One record of the log: the event in it or why it cannot be judged, and what judging it gives."""

from collections.abc import Callable
from functools import lru_cache
from typing import cast

import msgspec
from msgspec.structs import replace

from schemas.codec import UndecodableError, UnknownSchemaError, decode, digest_of
from schemas.events import Event, ParkedRecordClosed, PrescriptionIssued
from schemas.framing import Framing, RegistryUnavailableError
from schemas.reasons import ParkReason
from services.canonical_log import get_logger
from services.medication_list.fold import Judgement, LogEntry, NotLoadedError, Patient, entry_of, evolve, park
from services.medication_list.fold.judgement import ReceiptDue
from services.medication_list.fold.state import META, Meta
from services.medication_list.log.record import Record
from services.medication_list.stored.parked_note import ParkedNote, pack_note
from services.publishing.log import SUBMISSION_HEADER
from services.publishing.partitioning import partition_of

PATIENT_KEY_BYTES = 32
_HEX = frozenset(b"0123456789abcdef")
_log = get_logger()


class Readable(msgspec.Struct, frozen=True, gc=False):
    """A record that holds an event of the patient in its key."""

    record: Record
    patient: str
    entry: LogEntry


class Unreadable(msgspec.Struct, frozen=True, gc=False):
    """A record that cannot be judged, and the patient that it belongs to, if known."""

    record: Record
    patient: str | None
    reason: ParkReason
    schema: str | None = None


Item = Readable | Unreadable


def item_of(record: Record, partition: int, partitions: int, framing: Framing) -> Item:
    """What a record of this partition is: an event of the patient in its key, or the reason why it cannot be judged.

    Raises RegistryUnavailableError when nobody can tell before the registry is back.
    """
    key = record.key
    if not key:
        return Unreadable(record, None, ParkReason.NO_KEY)
    patient = _patient_of(key)
    if patient is None:
        return Unreadable(record, None, ParkReason.WRONG_KEY)
    if partition_of(key, partitions) != partition:
        return Unreadable(record, None, ParkReason.WRONG_PARTITION)
    try:
        return _item_of(record, patient, framing)
    except UndecodableError as error:
        schema = error.schema if isinstance(error, UnknownSchemaError) else None
        return Unreadable(record, patient, error.reason, schema)
    except RegistryUnavailableError:
        raise
    except Exception as error:  # noqa: BLE001 - as where it is judged
        return _not_judged(record, patient, partition, error)


def _item_of(record: Record, patient: str, framing: Framing) -> Item:
    value = framing.from_topic(record.value)
    event = decode(value)
    if not isinstance(event, Event):
        return Unreadable(record, patient, ParkReason.INVALID_CONTENT)
    if event.patient != patient:
        return Unreadable(record, patient, ParkReason.WRONG_KEY)
    digest = digest_of(event)
    return Readable(record, patient, entry_of(event, record.offset, digest, cast("bytes", value)))


@lru_cache(maxsize=65_536)
def _patient_of(key: bytes) -> str | None:
    """The pseudonym that a key is, None if it is none."""
    return key.decode() if len(key) == PATIENT_KEY_BYTES and _HEX.issuperset(key) else None


def judged(partition: int, patient: Patient, item: Item, load: Callable[[str], None]) -> tuple[Item, Judgement]:
    """Judge one item of this patient; what it sends out includes the receipt of what came as a submission.

    What no rule can judge is parked, and stops nobody: the item says so then. `load` brings a field that the judgement asks for; what it raises is raised.
    """
    if isinstance(item, Readable):
        while True:
            try:
                return item, with_receipt(item, evolve(patient, item.entry))
            except NotLoadedError as error:
                load(error.field)
            except Exception as error:  # noqa: BLE001 - one event must not stop a partition: it is parked with an alarm
                item = _not_judged(item.record, item.patient, partition, error)
                break
    meta = cast("Meta | None", patient.fields.get(META))
    return item, park(meta, item.record.offset, item.record.timestamp, item.reason.code)


def _not_judged(record: Record, patient: str, partition: int, error: Exception) -> Unreadable:
    _log.error("event_not_judged", partition=partition, offset=record.offset, error_type=type(error).__name__)
    return Unreadable(record, patient, ParkReason.NOT_JUDGED)


def note_of(item: Unreadable) -> bytes:
    """What a parked record is listed by."""
    return pack_note(ParkedNote(item.reason, item.patient, item.record.timestamp, item.schema))


def closed_by(patient: Patient, item: Readable, judgement: Judgement) -> dict[int, bytes]:
    """The note of a parked record that an operator closed just now; `patient` is as it was before."""
    body = item.entry.event.body
    if judgement.verdict.outcome != "applied" or not isinstance(body, ParkedRecordClosed):
        return {}
    meta = cast("Meta", patient.fields[META])
    parked = next(each for each in meta.parked if each.place == body.offset)
    note = ParkedNote(ParkReason.from_code(parked.reason), item.patient, parked.at_ms, None, item.entry.offset)
    return {body.offset: pack_note(note)}


def opened_by(item: Readable, judgement: Judgement) -> tuple[str, ...]:
    """The ids under which a prescription is found from now on."""
    body = item.entry.event.body
    return ids_of(body) if judgement.verdict.outcome == "applied" and isinstance(body, PrescriptionIssued) else ()


def ids_of(issued: PrescriptionIssued) -> tuple[str, ...]:
    """What a prescription is found by."""
    return tuple(name for name in (issued.prescription, issued.reference_number) if name is not None)


def with_receipt(item: Readable, judgement: Judgement) -> Judgement:
    """The judgement of what came as a submission sends its receipt too."""
    receipt = _receipt_of(item, judgement)
    return judgement if receipt is None else replace(judgement, effects=(*judgement.effects, receipt))


def _receipt_of(item: Readable, judgement: Judgement) -> ReceiptDue | None:
    message_id = None
    for name, value in item.record.headers:
        if name == SUBMISSION_HEADER:
            message_id = value
            break
    if message_id is None:
        return None
    verdict, event = judgement.verdict, item.entry.event
    return ReceiptDue(
        event.source.system,
        # It was written into the log by hand; what happened still counts, and its sender is told.
        message_id.decode(errors="replace"),
        event.event_id,
        verdict.outcome,
        verdict.reason,
        verdict.flags,
        verdict.named,
    )
