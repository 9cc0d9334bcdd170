"""A patient's list for an operator, as readers are shown it: now, or folded from the records that the broker had at an earlier time."""

from services.casework.desk import Desk
from services.casework.shown_view import Readers, read_as_readers_do
from services.medication_list.fold.state import META, Meta
from services.medication_list.read_api.as_of import past_of
from services.medication_list.read_api.list_answer import ListAnswer, stood
from services.medication_list.read_api.list_answer import answered as as_answered
from services.medication_list.read_api.view import show


def list_of(desk: Desk, patient: str, as_of_ms: int | None) -> ListAnswer:
    """The list now, or as it was known then; what is hidden because its number is another patient's is not in it.

    Raises NotCurrentError, NotReadyError, LogLookupError, StoreUnavailableError.
    """
    desk.await_current(desk.partition_of(patient))
    if as_of_ms is None:
        return read_as_readers_do(desk, lambda readers: _present(desk, readers, patient))
    return read_as_readers_do(desk, lambda readers: _past(readers, patient, as_of_ms))


async def _present(desk: Desk, readers: Readers, patient: str) -> ListAnswer:
    found, fields, flagged, _ = await readers.numbers.shown(patient)
    meta, now_ms = fields.get(META), desk.clock.now_ms()
    offset = meta.position if isinstance(meta, Meta) else 0
    last = (await readers.log.read(found.partition, [offset - 1] if offset else [])).get(offset - 1)
    stands = stood(found.generation, found.partition, offset, None if last is None else last.timestamp, fields)
    return as_answered(show(fields, now_ms, flagged), stands, as_of_ms=now_ms, read_token=None)


async def _past(readers: Readers, patient: str, as_of_ms: int) -> ListAnswer:
    hidden, flagged = await readers.numbers.told_apart(patient, as_of_ms)
    past = await past_of(readers.reader, readers.log, patient, as_of_ms, hidden)
    stands = stood(past.generation, past.partition, past.offset + 1, past.recorded_at_ms, past.fields)
    return as_answered(show(past.fields, as_of_ms, flagged), stands, as_of_ms=as_of_ms, read_token=None)
