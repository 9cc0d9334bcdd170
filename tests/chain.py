"""The whole chain as its users see it: every service a process of its own, HTTP and topics, and one clock for all of them."""

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import uuid4

import httpx
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from deploy.local.layout import CHECKOUT
from deploy.local.platform import Platform
from deploy.local.waiting import wait_until
from schemas import codec
from schemas.events import RelayProgress, Source
from services.topics.registry import EVENTS_TOPIC, Parties, load

WITHIN_S: Final = 30.0
POLL_MS: Final = 200


class Message(NamedTuple):
    """A decoded record of a topic."""

    topic: str
    message: Any


class Chain:
    """A running platform. `clock`: the file that every service takes the time from."""

    def __init__(self, platform: Platform, clock: Path, parties: Parties) -> None:
        self.platform = platform
        self.parties = load().parties | parties
        self.kafka = platform.kafka_address
        self._clock = clock
        self._set = 0
        self.http = httpx.Client(timeout=WITHIN_S, trust_env=False)

    def set_clock(self, now_ms: int) -> None:
        """From the return on every service says that it is this time."""
        self._set += 1
        fresh = self._clock.with_suffix(".fresh")
        fresh.write_text(str(now_ms), encoding="ascii")
        # A file of its own time each: two within one tick of the machine's clock must not look the same.
        os.utime(fresh, ns=(self._set, self._set))
        fresh.replace(self._clock)

    def post(
        self, service: str, path: str, sent: object, who: Source, *, key: str | None = None, **headers: str
    ) -> httpx.Response:
        """A write, or another request with a body. `key`: the idempotency key, a new one unless given."""
        stated = {"Medchain-Caller": caller_header(who), "Idempotency-Key": key or str(uuid4()), **headers}
        return self.http.post(self.platform.url(service) + path, json=sent, headers=stated)

    def post_bytes(self, service: str, path: str, content: bytes, media_type: str, who: Source) -> httpx.Response:
        """Whatever bytes, as a message."""
        stated = {"Medchain-Caller": caller_header(who), "Idempotency-Key": str(uuid4()), "Content-Type": media_type}
        return self.http.post(self.platform.url(service) + path, content=content, headers=stated)

    def rejection_of(self, content: bytes, system: str) -> dict[str, Any]:
        """What a system is told of a record on its topic of submissions that is none: as a problem over HTTP would say it."""
        with closing(self.topics([f"submission-receipts.{system}"])) as receipts:
            receipts.read()
            with self.producer() as producer:
                producer.send(f"prescription-submissions.{system}", key=b"a treatment", value=content).get(WITHIN_S)
            told: list[Message] = []

            def has_come() -> bool:
                told.extend(receipts.read())
                return bool(told)

            wait_until(has_come, within_s=WITHIN_S, what=f"the receipt of {system}")
        receipt = told[-1].message
        assert receipt.outcome == "rejected", receipt
        errors = [{"pointer": each.pointer, "reason": each.reason} for each in receipt.errors]
        return {"type": f"/problems/{receipt.reason}", "errors": errors}

    def get(self, service: str, path: str, who: Source) -> httpx.Response:
        """A read by its URL."""
        return self.http.get(self.platform.url(service) + path, headers={"Medchain-Caller": caller_header(who)})

    def read_list(self, national_id: str, who: Source, after_position: str | None = None) -> dict[str, Any]:
        """The list of this citizen, no earlier than a position if one is given."""
        asked: dict[str, Any] = {"patient": {"national_id": national_id}}
        if after_position is not None:
            asked["after_position"] = after_position
            wait_until(lambda: self._list(asked, who).status_code != 503, within_s=WITHIN_S, what=after_position)
        return read(self._list(asked, who))

    def _list(self, asked: Mapping[str, Any], who: Source) -> httpx.Response:
        return self.post("medication-list", "/v1/list/read", asked, who)

    def history(self, national_id: str, who: Source) -> list[dict[str, Any]]:
        """Every event of this citizen, in log order."""
        asked = {"patient": {"national_id": national_id}, "limit": 200}
        events: list[dict[str, Any]] = read(self.post("medication-list", "/v1/list/history", asked, who))["events"]
        return events

    def search(self, national_id: str, who: Source, *, every: bool = True) -> list[dict[str, Any]]:
        """A pharmacy's search; `every`: also what cannot be dispensed."""
        return self._found({"patient": {"national_id": national_id}}, who, every)

    def search_by_number(self, reference_number: str, who: Source, *, every: bool = True) -> list[dict[str, Any]]:
        """A pharmacy's search by the reference number alone, which finds what is locked too."""
        return self._found({"reference_number": reference_number}, who, every)

    def _found(self, key: Mapping[str, Any], who: Source, every: bool) -> list[dict[str, Any]]:  # noqa: FBT001 - private
        asked = {**key, "all": every, "limit": 200}
        found: list[dict[str, Any]] = read(self.post("pharmacy", "/v1/prescriptions/search", asked, who))[
            "prescriptions"
        ]
        return found

    def record_at(self, position: str) -> Any:
        """The record of medication-events at a position that an answer told."""
        partition, offset = map(int, position.split("-"))
        place = TopicPartition(EVENTS_TOPIC, partition)
        with closing(self._consumer()) as consumer:
            consumer.assign([place])
            consumer.seek(place, offset)
            found: list[Any] = []

            def has_come() -> bool:
                found.extend(consumer.poll(POLL_MS).get(place, ()))
                return bool(found)

            wait_until(has_come, within_s=WITHIN_S, what=position)
            return found[0]

    def log(self) -> list[Any]:
        """Every record of medication-events."""
        places = [TopicPartition(EVENTS_TOPIC, each) for each in range(load().partitions(EVENTS_TOPIC))]
        with closing(self._consumer()) as consumer:
            consumer.assign(places)
            consumer.seek_to_beginning(*places)
            return list(_read_to_end(consumer, places))

    def events(self) -> list[Any]:
        """Every event in the log, but for what cannot be read."""
        found = []
        for record in self.log():
            with suppress(codec.UndecodableError):
                found.append(codec.decode(record.value))
        return found

    def topics_of_parties(self, *kinds: str) -> list[str]:
        """The topics of these kinds ("notices", "dispense-orders") that the platform made for somebody."""
        names = [topic.name for topic in load().wanted(self.parties)]
        return [name for name in names if name.partition(".")[0] in kinds]

    def topics(self, topics: Collection[str]) -> "Topics":
        """What comes on these topics, from their beginning on."""
        return Topics(self._consumer(), topics)

    @contextmanager
    def producer(self, **settings: Any) -> Iterator[Any]:
        """A program from outside that writes to the broker."""
        with closing(KafkaProducer(bootstrap_servers=self.kafka, **settings)) as producer:
            yield producer

    def _consumer(self) -> Any:
        return KafkaConsumer(bootstrap_servers=self.kafka, group_id=None, enable_auto_commit=False)


class Topics:
    """Reads topics that others write: each call of `read` gives all that came since the one before."""

    def __init__(self, consumer: Any, topics: Collection[str]) -> None:
        self._consumer = consumer
        self._places = [
            TopicPartition(topic, partition) for topic in topics for partition in range(load().partitions(topic))
        ]
        consumer.assign(self._places)
        consumer.seek_to_beginning(*self._places)

    def read(self) -> list[Message]:
        """All records up to the ends that the topics have now."""
        return [
            Message(record.topic, codec.decode(record.value)) for record in _read_to_end(self._consumer, self._places)
        ]

    def close(self) -> None:
        """Let go of the broker."""
        self._consumer.close()


class Relayed(NamedTuple):
    """How far the relay has come: by partition of medication-events, the source offset of the last effect sent."""

    progress: dict[int, int]
    topics: Topics

    def await_position(self, position: str) -> None:
        """Return once the effects of the event at this position, and of all before it, are on their topics."""
        partition, offset = map(int, position.split("-"))
        wait_until(lambda: self._reached(partition) >= offset, within_s=WITHIN_S, what=f"relayed {position}")

    def _reached(self, partition: int) -> int:
        for _, progress in self.topics.read():
            assert isinstance(progress, RelayProgress)
            self.progress[progress.partition] = progress.source_offset
        return self.progress.get(partition, -1)


def _read_to_end(consumer: Any, places: Collection[TopicPartition]) -> Iterator[Any]:
    ends = consumer.end_offsets(places)
    while any(consumer.position(place) < ends[place] for place in places):
        for records in consumer.poll(POLL_MS).values():
            yield from records


def caller_header(who: Source) -> str:
    """How a caller states who it is."""
    stated = f"system={who.system}; organisation={who.organisation}; role={who.role}"
    return stated if who.person is None else f"{stated}; person={who.person}"


def read(answer: httpx.Response) -> dict[str, Any]:
    """The document of a read that was answered."""
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


@contextmanager
def running_chain(
    directory: Path, parties: Parties, schema_registry: str | None = None, traces: str | None = None
) -> Iterator[Chain]:
    """The whole platform in this folder, with topics for these parties besides those declared.

    `traces`: the collector to which what a test itself samples is told.
    """
    clock = directory / "now"
    directory.mkdir(parents=True)
    data, run = directory / "data", directory / "run"
    with (
        contextlib.chdir(CHECKOUT),
        Platform(
            data,
            run=run,
            usual_ports=False,
            parties=parties,
            schema_registry=schema_registry,
            traces=traces,
            traces_ratio=0.0,
            clock_file=clock,
        ) as platform,
    ):
        chain = Chain(platform, clock, parties)
        try:
            yield chain
        finally:
            chain.http.close()
