"""A patient's list for an operator: as it is now, or folded from the records that the broker had at an earlier time."""

from services.casework.desk import Desk
from services.casework.timeline import unpacked
from services.medication_list.fold.state import META, Meta
from services.medication_list.log.record_log import all_of
from services.medication_list.read_api.as_of import folded
from services.medication_list.read_api.list_answer import ListAnswer, stood
from services.medication_list.read_api.list_answer import answered as as_answered
from services.medication_list.read_api.log_lookup import unframed
from services.medication_list.read_api.view import show
from services.medication_list.stored.event_index import places_of


def list_of(desk: Desk, patient: str, as_of_ms: int | None) -> ListAnswer:
    """The list now, or as it was known then. Raises NotCurrentError, LogLookupError, StoreUnavailableError."""
    partition = desk.partition_of(patient)
    desk.await_current(partition)
    whole = desk.store.read_whole(partition, patient, with_index=as_of_ms is not None)
    if as_of_ms is None:
        fields = unpacked(whole.fields)
        meta = fields.get(META)
        offset = meta.position if isinstance(meta, Meta) else 0
        last = desk.records.read(partition, [offset - 1] if offset else []).get(offset - 1)
    else:
        known = places_of(whole.fields, whole.remembered)
        records = all_of(patient, partition, known, desk.records.read(partition, list(known)))
        then = [
            (unframed(record, desk.framing), known[offset])
            for offset, record in sorted(records.items())
            if record.timestamp <= as_of_ms
        ]
        fields = dict(folded(then))
        last = then[-1][0] if then else None
        offset = 0 if last is None else last.offset + 1
    at_ms = desk.clock.now_ms() if as_of_ms is None else as_of_ms
    stands = stood(desk.generation, partition, offset, None if last is None else last.timestamp, fields)
    return as_answered(show(fields, at_ms), stands, as_of_ms=at_ms, read_token=None)
