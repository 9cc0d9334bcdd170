"""Producers that do what they should not: append again what is in the log, or what nobody can read."""

import random
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, MessageSizeTooLargeError

from schemas import codec
from schemas.events import AllergyRecorded, Event, Source
from services.publishing.log import SUBMISSION_HEADER
from services.publishing.partitioning import partition_of
from services.simulator.damage import damaged
from services.simulator.diary import DAMAGES
from services.simulator.population import hpr, organisation
from services.topics.registry import EVENTS_TOPIC
from tests.chaos.stand import Stand

_AGAIN: Final = 150
_POLL_MS: Final = 500
_ANSWER_WITHIN_S: Final = 30
TOO_LARGE: Final = 1_100_000


def append_again(stand: Stand, dice: random.Random) -> int:
    """Append once more the latest records of two partitions, and as many from far back; returns how many."""
    with stand.producer() as producer:
        sent: list[Any] = []
        for partition in dice.sample(range(stand.partitions), 2):
            again = (
                {"key": each.key, "value": each.value, "headers": list(each.headers), "partition": partition}
                for each in _some_of(stand, dice, partition)
            )
            sent.extend(producer.send(EVENTS_TOPIC, **record) for record in again)
        for each in sent:
            each.get(timeout=_ANSWER_WITHIN_S)
    return len(sent)


def _some_of(stand: Stand, dice: random.Random, partition: int) -> Iterator[Any]:
    place = TopicPartition(EVENTS_TOPIC, partition)
    with closing(
        KafkaConsumer(bootstrap_servers=stand.broker.address, group_id=None, enable_auto_commit=False)
    ) as consumer:
        consumer.assign([place])
        end = consumer.end_offsets([place])[place]
        for start in (dice.randrange(max(1, end - _AGAIN)), max(0, end - _AGAIN)):
            consumer.seek(place, start)
            upto = min(end, start + _AGAIN)
            while consumer.position(place) < upto:
                for record in consumer.poll(_POLL_MS).get(place, ()):
                    if record.offset < upto:
                        yield record


def append_unreadable(stand: Stand, dice: random.Random) -> None:
    """One record of every unreadable kind, among the records of patients of the pulse, and one of which the headers are.

    Raises RuntimeError where the broker took a record that is too large.
    """
    with stand.producer() as producer:
        for key, value, partition in _unreadable(stand, dice):
            producer.send(EVENTS_TOPIC, key=key, value=value, partition=partition).get(timeout=_ANSWER_WITHIN_S)
        whose = dice.choice(stand.pulse_patients)
        producer.send(
            EVENTS_TOPIC,
            key=whose.encode(),
            value=codec.encode(allergy(whose, dice)),
            partition=partition_of(whose.encode(), stand.partitions),
            headers=[(SUBMISSION_HEADER, b"\xff\xfe"), ("traceparent", b"\xff"), ("ce_id", b"\xff")],
        ).get(timeout=_ANSWER_WITHIN_S)
        try:
            producer.send(EVENTS_TOPIC, key=b"0" * 32, value=b"\0" * TOO_LARGE, partition=0).get(
                timeout=_ANSWER_WITHIN_S
            )
        except (MessageSizeTooLargeError, KafkaError):
            return
    raise RuntimeError("the log took a record that is too large")


def _unreadable(stand: Stand, dice: random.Random) -> list[tuple[bytes | None, bytes | None, int]]:
    """Key, value and partition of each."""
    whose = [dice.choice(stand.pulse_patients) for _ in range(len(DAMAGES) + 4)]
    key = whose[0].encode()
    place = partition_of(key, stand.partitions)
    sound = codec.encode(allergy(stand.pulse_patients[0], dice))
    records: list[tuple[bytes | None, bytes | None, int]] = [
        (
            each.encode(),
            damaged(codec.encode(allergy(each, dice)), damage),
            partition_of(each.encode(), stand.partitions),
        )
        for each, damage in zip(whose, DAMAGES, strict=False)
    ]
    records += [
        (key, None, place),
        (None, sound, dice.randrange(stand.partitions)),
        (b"", sound, dice.randrange(stand.partitions)),
        (b"not a pseudonym", sound, dice.randrange(stand.partitions)),
        (key, codec.encode(allergy(key.decode(), dice)), (place + 1) % stand.partitions),
        (key, codec.encode(allergy(next(each for each in stand.pulse_patients if each.encode() != key), dice)), place),
        (key, dice.randbytes(200), place),
    ]
    return records


def allergy(patient: str, dice: random.Random) -> Event[Any]:
    """An event that says little, of a patient who is nobody's."""
    at_ms = 1_767_225_600_000 + dice.randrange(10**9)
    return Event(
        event_id=uuid_of(dice),
        patient=patient,
        occurred_at_ms=at_ms,
        received_at_ms=at_ms,
        source=Source(system="journal", organisation=organisation(2), role="doctor", person=hpr(0)),
        body=AllergyRecorded(allergy=uuid_of(dice), substance="Hasselnøtt", reaction="Kløe", severity="low"),
    )


def uuid_of(dice: random.Random) -> str:
    """A UUID by the dice."""
    digits = f"{dice.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"
