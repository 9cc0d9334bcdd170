"""Patients folded anew while everybody writes and reads: what is sound stays as it is, and what is not is put in place."""

import contextlib
import random
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from kafka.errors import KafkaError

from deploy.local.waiting import wait_until
from schemas import codec
from services.medication_list.fold.state import RenewalState, request_field
from services.medication_list.log.record_log import KafkaRecordLog, LogLookupError
from services.medication_list.refolding.refolder import Refold, Refolder, RefoldRefusedError
from services.medication_list.store.keys import GenerationKeys
from services.medication_list.store.link import Link
from services.medication_list.store.port import StoreUnavailableError
from services.medication_list.store.redis_store import RedisStore
from services.medication_list.stored.packing import pack_field
from services.publishing.kafka_access import KafkaAccess
from services.publishing.partitioning import partition_of
from services.simulator.population import organisation
from tests.chaos import records
from tests.chaos.faults.registry import PROCESSOR_MS, fault
from tests.chaos.stand import Stand

_SOUND: Final = 20
_UNSOUND: Final = 4
_PARTITIONS: Final = 4
_WITHIN_S: Final = 60.0

Between = Callable[[Stand, random.Random, str], None]
"""What happens to a patient after an operator has read its records and before it is put in place."""


@fault(bound_ms=PROCESSOR_MS)
def refolded_under_load(stand: Stand, dice: random.Random) -> Iterator[None]:
    """An operator refolds patients, sound ones and some whose view has too much; in between an event of theirs arrives, or a processor is killed."""
    generation = stand.view.hget("live", "generation").decode()
    patients = _some_patients(stand, dice, generation)
    with (
        contextlib.closing(Link(stand.redis.address)) as link,
        contextlib.closing(KafkaRecordLog(KafkaAccess(stand.broker.address))) as log,
    ):
        store = RedisStore(link, generation)
        refolder = Refolder(store, log, stand.partitions, lambda: time.time_ns() // 1_000_000)
        for patient in patients[_UNSOUND:]:
            wait_until(partial(_is_sound, refolder, patient), within_s=_WITHIN_S, what="a patient is folded anew")
        for number, patient in enumerate(patients[:_UNSOUND]):
            between = _another_event if number else _processor_killed
            mended = partial(_is_mended, stand, dice, refolder, _too_much(stand, dice, generation, patient), between)
            wait_until(mended, within_s=_WITHIN_S, what="a patient whose view had too much is folded anew")
    yield


def _some_patients(stand: Stand, dice: random.Random, generation: str) -> list[str]:
    found: set[str] = set()
    for partition in dice.sample(range(stand.partitions), _PARTITIONS):
        prefix = GenerationKeys(generation, partition).list_of
        found |= {key.decode().removeprefix(prefix) for key in stand.view.scan_iter(match=f"{prefix}*", count=1000)}
    return dice.sample(sorted(found), min(len(found), _SOUND + _UNSOUND))


def _is_sound(refolder: Refolder, patient: str) -> bool:
    """Whether a refold came through. Raises RuntimeError where it would have changed something."""
    try:
        plan = refolder.refold(patient, lambda _: False)
    except (StoreUnavailableError, LogLookupError, RefoldRefusedError):
        return False
    if plan is None:
        raise RuntimeError("a refold of a patient whose view is sound would change it")
    return True


def _too_much(stand: Stand, dice: random.Random, generation: str, patient: str) -> tuple[str, str, str]:
    """A request that nobody made, which no reader shows: only a refold takes it away. Returns patient, hash and field."""
    request = RenewalState(records.uuid_of(dice), organisation(2), organisation(2))
    key = GenerationKeys(generation, partition_of(patient.encode(), stand.partitions)).list_key(patient)
    field = request_field(records.uuid_of(dice))
    stand.view.hset(key, field, pack_field(request))
    return patient, key, field


def _is_mended(
    stand: Stand, dice: random.Random, refolder: Refolder, unsound: tuple[str, str, str], between: Between
) -> bool:
    patient, key, field = unsound
    has_happened = False

    def approve(plan: Refold) -> bool:
        nonlocal has_happened
        if plan.changes or plan.effects:
            raise RuntimeError("a refold of what lacks nothing would change answers, or send something")
        if not has_happened:
            has_happened = True
            between(stand, dice, patient)
        return True

    try:
        refolder.refold(patient, approve)
    except KafkaError:
        stand.forget_producer()
        return False
    except (StoreUnavailableError, LogLookupError, RefoldRefusedError):
        return False
    return not stand.view.hexists(key, field)


def _processor_killed(stand: Stand, dice: random.Random, _patient: str) -> None:
    stand.send_signal(dice.choice(stand.names("processor")), signal.SIGKILL)


def _another_event(stand: Stand, dice: random.Random, patient: str) -> None:
    """Appended and judged, so that what was read is not the whole story any more."""
    partition = partition_of(patient.encode(), stand.partitions)
    at = stand.append(patient, codec.encode(records.allergy(patient, dice)), partition).get(timeout=10)
    wait_until(
        lambda: stand.offsets().get(partition, 0) > at.offset, within_s=_WITHIN_S, what="the patient's event is judged"
    )
