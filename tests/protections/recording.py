"""I1 and I13: what a success waits for, and what makes one key one event."""

from importlib import import_module
from typing import Any, Final
from uuid import UUID, uuid5

import msgspec

from schemas import codec
from schemas.reasons import Reason
from services.admission import completion
from services.admission.completion import event_id_of as by_system
from services.medication_list.fold import Judgement, Verdict
from services.publishing.kafka_log import KafkaLog
from services.publishing.log import LogUnavailable, Position
from services.recording import composition, keys, recorder
from services.recording.keys import KeyMemory
from services.recording.outcomes import MedicationListClient
from services.recording.recorder import Recorder
from services.submissions import inbox
from tests.protections.registry import instead, mutant

_OVER_HTTP: Final = "tests/integration/test_services_prescriber.py::"
_NOBODY_THERE: Final = "tests/contract/test_log_port.py::test_a_broker_that_is_not_there_is_told_in_time"
_SOMEWHERE: Final = Position(0, 0, 0)


# --- I1 ---------------------------------------------------------------------------------------------------------------


@mutant("I1", f"{_OVER_HTTP}test_without_the_log_nothing_is_taken_and_the_same_key_works_later")
def failed_append_answered_as_done() -> None:
    """A service that was told that the log does not take a record answers as if it had."""
    original = composition.append

    async def append(*arguments: Any) -> Position:
        try:
            return await original(*arguments)
        except LogUnavailable:
            return _SOMEWHERE

    instead(recorder, "append", append)


@mutant("I1", _NOBODY_THERE)
def answered_before_the_ack() -> None:
    """A record that was handed to the producer counts as one that the broker has."""

    async def at_once(self: KafkaLog, batch: Any) -> Any:
        self._thread.submit(self._send_all, batch)
        return [_SOMEWHERE for _ in batch.records]

    instead(KafkaLog, "_answered", at_once)


@mutant("I1", _NOBODY_THERE)
def failed_delivery_taken_for_an_ack() -> None:
    """The producer's error ends the wait as its confirmation does."""
    instead(KafkaLog, "_failed", lambda *_: _SOMEWHERE)


@mutant("I1", "tests/integration/test_services_submissions.py::test_a_failure_holds_its_key_and_is_read_again_but_no_other_key_waits")  # fmt: skip
def failed_submission_committed() -> None:
    """An inbox goes on past what the log did not take."""

    async def take_queue(queue: Any, receive: Any) -> None:
        for received in queue:
            try:
                await receive(received)
            except LogUnavailable:
                continue

    instead(inbox, "_take_queue", take_queue)


# --- I13 --------------------------------------------------------------------------------------------------------------


@mutant("I13", f"{_OVER_HTTP}test_a_key_used_again_with_another_body_is_turned_away")
def content_under_a_key_not_compared() -> None:
    """A known key is the same write, whatever it says."""
    instead(keys, "_content_of", lambda _written: b"")


@mutant("I13", f"{_OVER_HTTP}test_a_repetition_is_the_same_event_even_where_time_was_filled_in")
def time_of_receipt_is_content() -> None:
    """A repetition that comes later says something else."""
    original = keys._content_of

    def content_of(written: codec.Written) -> bytes:
        return original(written) + str(written.event.received_at_ms).encode()

    instead(keys, "_content_of", content_of)


@mutant("I13", f"{_OVER_HTTP}test_a_repetition_is_the_same_event_even_where_time_was_filled_in")
def filled_in_time_forgotten() -> None:
    """The time that a sender left out is filled in anew with each repetition."""
    instead(KeyMemory, "occurred_at_ms", lambda *_: None)


@mutant("I13", f"{_OVER_HTTP}test_a_repetition_to_a_service_that_was_started_again_is_the_same_event_at_the_same_time")
def list_not_asked_for_the_first_time() -> None:
    """A service that was started again fills in its own time."""

    async def unknown(*_: Any) -> None:
        return None

    instead(MedicationListClient, "occurred_at_ms", unknown)


@mutant("I13", f"{_OVER_HTTP}test_the_same_key_at_the_same_time_with_two_bodies_records_one")
def key_remembered_once_answered() -> None:
    """A key is taken note of when its write was judged, and not before it is appended."""
    remember, record = KeyMemory.remember, Recorder.record

    async def record_first(self: Recorder, admitted: Any, asked: Any) -> Any:
        recorded = await record(self, admitted, asked)
        remember(self._keys, [codec.written(each.event) for each in recorded])
        return recorded

    instead(KeyMemory, "remember", lambda *_: None)
    instead(Recorder, "record", record_first)


@mutant("I13", f"{_OVER_HTTP}test_a_key_belongs_to_a_system")
def key_is_anybodys() -> None:
    """Two systems that choose the same key send the same event."""

    def event_id_of(_system: str, key: str, index: int = 0) -> str:
        return by_system("", key, index)

    for module in (composition, recorder):
        instead(module, "event_id_of", event_id_of)


@mutant("I13", f"{_OVER_HTTP}test_another_copy_of_the_service_makes_of_it_a_sound_event_of_that_patient")
def named_by_the_event_alone() -> None:
    """What the service names is the same for two patients under one key."""
    instead(completion, "_natural_id", lambda name, event_id, _patient: str(uuid5(UUID(event_id), name)))


@mutant("I13", "tests/unit/test_fold_once.py::test_the_same_event_id_with_other_content_is_refused")
def content_of_a_known_event_not_compared() -> None:
    """The fold takes a known event for a duplicate, whatever it says."""
    evolve: Any = import_module("services.medication_list.fold.evolve")
    original = evolve._seen_before

    def believing(draft: Any, event: Any, known: Any) -> Judgement:
        judgement: Judgement = original(draft, event, known)
        is_other = judgement.verdict.reason is Reason.CONFLICTING_DUPLICATE
        return msgspec.structs.replace(judgement, verdict=Verdict("duplicate")) if is_other else judgement

    instead(evolve, "_seen_before", believing)
