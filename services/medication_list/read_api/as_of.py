"""The list as it was known at an earlier time: the patient's records that the broker had then, folded in memory."""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple, cast

from schemas.codec import digest_of
from services.medication_list.fold import Memory, Patient, entry_of, evolve, park
from services.medication_list.fold.state import META, Meta, Remembered, State
from services.medication_list.log.record import Record
from services.medication_list.log.record_log import LogLookupError, all_of
from services.medication_list.read_api.log_lookup import LogLookup
from services.medication_list.read_api.stored_events import event_of, places_of
from services.medication_list.read_api.view import Fields
from services.medication_list.store.reading import ViewReader
from services.medication_list.stored.event_index import is_parked


class Past(NamedTuple):
    """A patient's fields as they were, of which generation and partition, and which record is the last in them.

    Of that, the offset (-1: none) and when the log took it.
    """

    fields: Fields
    generation: str
    partition: int
    offset: int
    recorded_at_ms: int | None


async def past_of(
    reader: ViewReader, log: LogLookup, patient: str, as_of_ms: int, hidden: Collection[int] = ()
) -> Past:
    """The patient as the records that the broker took up to `as_of_ms` tell, by today's rules; not those at `hidden` offsets.

    Raises NotReadyError, StoreUnavailableError, LogLookupError.
    """
    listed, index = await reader.list_and_index(patient)
    known = places_of(listed, index)
    records = all_of(patient, index.partition, known, await log.read(index.partition, known))
    then = [(record, known[offset]) for offset, record in sorted(records.items()) if record.timestamp <= as_of_ms]
    fields = await asyncio.to_thread(folded, [each for each in then if each[0].offset not in hidden])
    last = then[-1][0] if then else None
    offset, recorded_at_ms = (-1, None) if last is None else (last.offset, last.timestamp)
    return Past(fields, index.generation, index.partition, offset, recorded_at_ms)


def folded(records: Iterable[tuple[Record, Remembered | None]]) -> Mapping[str, State]:
    """What the fold makes of these records, in their order; what is parked now was parked then."""
    patient = Patient({}, cast("dict[bytes, Memory | None]", defaultdict(lambda: None)), complete=True)
    for record, known in records:
        if known is not None and is_parked(known):
            meta = cast("Meta | None", patient.fields.get(META))
            judgement = park(meta, record.offset, record.timestamp, known.reason)
        else:
            event = event_of(record)
            if event is None:
                raise LogLookupError("the log holds a record that was judged and cannot be read any more")
            judgement = evolve(patient, entry_of(event, record.offset, digest_of(event), record.value or b""))
        patient.fields.update(judgement.puts)
        patient.memory.update(judgement.remember)
    return {name: value for name, value in patient.fields.items() if value is not None}
