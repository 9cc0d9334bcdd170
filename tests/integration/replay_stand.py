"""A platform of its own for replays: a town in the log, a processor, `medchain` as an operator calls it, and other releases."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import redis
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from typer.testing import CliRunner, Result

from deploy.local.keys import keys_of
from deploy.local.layout import CHECKOUT
from deploy.local.platform import Platform
from deploy.local.waiting import wait_until
from schemas import codec
from schemas.events import Event
from services.command_line.app import COMMAND, app
from services.medication_list.driver.batches import Applied, Fetch, PartitionBatch
from services.medication_list.generations import record_of
from services.medication_list.judging.judge import Judge
from services.medication_list.store.link import Link, command
from services.medication_list.store.memory_roles import MemoryRoles
from services.medication_list.store.memory_server import MemoryServer
from services.medication_list.store.memory_store import MemoryStore
from services.medication_list.store.redis_roles import RedisRoles
from services.medication_list.store.roles import Beginning, Pointer, WorkerKind
from services.publishing.kafka_access import KafkaAccess
from services.publishing.partitioning import partition_of
from services.simulator.connecting import Via, Where, channels
from services.simulator.history import History
from services.simulator.playing import play
from services.simulator.population import Town
from services.simulator.town import events, patients_for
from services.topics.registry import EVENTS_TOPIC
from tests.unit.fold_world import ACTORS, Said

PARTITIONS: Final = 8
WITHIN_S: Final = 240.0
COPIED: Final = ("services", "schemas", "deploy", "tests")


class ReplayStand:
    """The running platform and what is done with it."""

    def __init__(self, platform: Platform, folder: Path) -> None:
        self.platform = platform
        self.folder = folder
        self.told = {
            "MEDCHAIN_KAFKA": platform.kafka_address,
            "MEDCHAIN_REDIS": platform.redis_url,
            "MEDCHAIN_ACCESS_RECORD": str(folder / "access-record.jsonl"),
        }
        self.link = Link(platform.redis_url)
        self.roles = RedisRoles(self.link)
        self.redis = redis.Redis.from_url(platform.redis_url)
        self._seed = 0
        self._log = folder / "commands.log"
        self._processor: subprocess.Popen[str] | None = None

    # --- The operator ---------------------------------------------------------------------------------------------

    def medchain(self, *words: str) -> Result:
        """What an operator's command says, in this process."""
        return CliRunner().invoke(app, list(words), env=dict(self.told))

    def asked(self, *words: str, exit_code: int = 0) -> Any:
        """The JSON that a command answers."""
        said = self.medchain(*words, "--json")
        assert said.exit_code == exit_code, said.output
        return json.loads(said.stdout)

    def refused(self, *words: str) -> str:
        """The one sentence of a command that was refused."""
        sentence: str = self.asked(*words, exit_code=2)["error"]
        return sentence

    @contextmanager
    def running(self, *words: str, release: Path = CHECKOUT) -> Iterator[subprocess.Popen[str]]:
        """A command in a process of its own, of some release, until it is left."""
        process = self.started(*words, release=release)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)

    def started(self, *words: str, release: Path = CHECKOUT) -> subprocess.Popen[str]:
        """As `running`, for whoever ends it."""
        return self._popen([*COMMAND, *words], release)

    def logged(self) -> str:
        """What the processes of their own have said to people by now."""
        return self._log.read_text()

    def begin_processor(self) -> None:
        """Start this release's processor."""
        self._processor = self._popen([sys.executable, "-m", "services.medication_list.processor.app"], CHECKOUT)
        wait_until(lambda: self.roles.pointer() is not None, within_s=WITHIN_S, what="there is a view")

    def end_processor(self) -> None:
        """End it, and return when nobody takes it for working any more."""
        if self._processor is None:
            return
        self._processor.terminate()
        self._processor.wait(60)
        self._processor = None

    @contextmanager
    def processor(self, release: Path) -> Iterator[subprocess.Popen[str]]:
        """One processor of another release."""
        process = self._popen([sys.executable, "-m", "services.medication_list.processor.app"], release)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)

    def _popen(self, words: list[str], release: Path) -> subprocess.Popen[str]:
        with self._log.open("a") as written:
            return subprocess.Popen(  # noqa: S603  our own code
                words,
                cwd=release,
                env={**os.environ, **self.told, "PYTHONPATH": str(release)},
                stdout=subprocess.DEVNULL,
                stderr=written,
                text=True,
            )

    # --- What stands ----------------------------------------------------------------------------------------------

    def pointer(self) -> Pointer:
        """The commit point."""
        pointer = self.roles.pointer()
        assert pointer is not None
        return pointer

    def done(self, generation: str) -> int:
        """How many events a generation has judged."""
        return sum(offset or 0 for offset in self.roles.offsets(generation, range(PARTITIONS)).values())

    def states(self) -> dict[str, str]:
        """Each generation that is not retired, with its state."""
        listed = self.asked("generations")["generations"]
        return {each["name"]: each["state"] for each in listed if each["state"] != "retired"}

    def await_whole(self, *but: str) -> str:
        """The name of a generation beside the live one, once it is whole."""
        found: list[str] = []

        def is_there() -> bool:
            pointer = self.pointer()
            found[:] = [
                name
                for name in pointer.records
                if name not in (pointer.generation, *but) and record_of(pointer, name).state == "whole"
            ]
            return bool(found)

        wait_until(is_there, within_s=WITHIN_S, what="a generation beside the live one is whole")
        return found[0]

    def await_filling(self) -> str:
        """The name of the generation that a replay fills, once its readers work on it."""
        found: list[str] = []

        def is_there() -> bool:
            pointer = self.pointer()
            found[:] = [name for name in pointer.records if record_of(pointer, name).state == "filling"]
            return bool(found) and bool(self.roles.attending(found[0]))

        wait_until(is_there, within_s=WITHIN_S, what="a replay has begun")
        return found[0]

    def await_fed(self, generation: str, kind: WorkerKind) -> None:
        """Return once a worker of this kind works on a generation."""
        wait_until(
            lambda: any(each.kind == kind for each in self.roles.attending(generation)),
            within_s=WITHIN_S,
            what=f"{generation} is fed by a {kind}",
        )

    def await_abreast(self, generation: str) -> None:
        """Return once a generation has judged what the live one has by now: a switch waits a second for it, no longer."""
        live = self.done(self.pointer().generation)
        wait_until(lambda: self.done(generation) >= live, within_s=WITHIN_S, what=f"{generation} is abreast")

    def await_judged(self) -> None:
        """Return once the live view has all of the log."""
        ends = self.ends()
        wait_until(partial(self._has, ends), within_s=WITHIN_S, what="the log is judged")

    def _has(self, ends: Mapping[int, int]) -> bool:
        return dict(self.roles.offsets(self.pointer().generation, range(PARTITIONS))) == ends

    def retire_all(self) -> None:
        """Nothing but the live generation is left."""
        for name, state in self.states().items():
            if state not in ("live", "building"):
                assert self.medchain("replay", "retire", name, "--yes").exit_code == 0

    # --- The log --------------------------------------------------------------------------------------------------

    def live_in(self, n: int, rate: float | None = None) -> None:
        """A town plays so many events into the log; another one each time."""
        self._seed += 1
        keys = keys_of(self.platform.directory)
        where = Where(
            KafkaAccess(self.platform.kafka_address), {}, keys["MEDCHAIN_PSEUDONYM_KEY"], keys["MEDCHAIN_SEALING_KEY"]
        )
        town = Town(patients_for(n))
        with History(self.folder / f"history-{self._seed}.jsonl") as lines:

            async def run() -> None:
                await play(events(self._seed, n, town=town), channels(Via.LOG, where, town, lines), rate=rate)

            asyncio.run(run())

    @contextmanager
    def traffic(self, n: int, rate: float) -> Iterator[None]:
        """Events come in while the block runs; it is left when all have come."""
        thread = threading.Thread(target=self.live_in, args=(n, rate))
        thread.start()
        try:
            yield
        finally:
            thread.join()

    def say(self, patient: str, said: Said) -> int:
        """Append one event of a patient; its offset."""
        now_ms = time.time_ns() // 1_000_000
        event = Event(
            event_id=str(uuid.uuid4()),
            patient=patient,
            occurred_at_ms=now_ms,
            received_at_ms=now_ms,
            source=ACTORS[said.by],
            body=said.body,
        )
        with closing(KafkaProducer(bootstrap_servers=self.platform.kafka_address, acks="all")) as producer:
            place = partition_of(patient.encode(), PARTITIONS)
            sent = producer.send(EVENTS_TOPIC, key=patient.encode(), value=codec.encode(event), partition=place)
            return int(sent.get(20).offset)

    def ends(self) -> dict[int, int]:
        """Where the log ends."""
        with closing(KafkaConsumer(bootstrap_servers=self.platform.kafka_address, group_id=None)) as consumer:
            found = consumer.end_offsets([TopicPartition(EVENTS_TOPIC, each) for each in range(PARTITIONS)])
            return {place.partition: end for place, end in found.items()}

    def effects_of_one_fold(self) -> dict[str, list[bytes]]:
        """The outboxes as one view without any switch would have them: the whole log judged in memory, in one go."""
        server = MemoryServer()
        MemoryRoles(server).begin({each: Beginning("g1-aaaaaa", 1, 0, 0) for each in range(PARTITIONS)})
        judge = Judge(MemoryStore(server, "g1-aaaaaa"), PARTITIONS)
        places = [TopicPartition(EVENTS_TOPIC, each) for each in range(PARTITIONS)]
        with closing(KafkaConsumer(bootstrap_servers=self.platform.kafka_address, group_id=None)) as consumer:
            consumer.assign(places)
            consumer.seek_to_beginning(*places)
            ends = consumer.end_offsets(places)
            while any(consumer.position(place) < end for place, end in ends.items()):
                for place, records in consumer.poll(500).items():
                    batch = PartitionBatch(place.partition, records[0].offset, records[-1].offset + 1, records, 0)
                    assert judge.process(Fetch((batch,))) == {place.partition: Applied(batch.next_offset)}
        return {key: each for key, each in server.content().items() if isinstance(each, list)}

    def effects(self) -> dict[str, list[bytes]]:
        """The outboxes as they are: no relay runs here."""
        keys = [f"{{{each}}}:outbox" for each in range(PARTITIONS)]
        streams = {key: self.link.ask([command("XRANGE", key, "-", "+")])[0] for key in keys}
        return {key: [fields[1] for _, fields in each] for key, each in streams.items() if each}

    def close(self) -> None:
        """Let go of the connections."""
        self.link.close()
        self.redis.close()


@contextmanager
def a_replay_stand(folder: Path) -> Iterator[ReplayStand]:
    """Broker, Redis, one processor that the test can end."""
    folder.mkdir(parents=True)
    with Platform(folder / "data", run=folder / "run", services=(), usual_ports=False) as platform:
        stand = ReplayStand(platform, folder)
        try:
            stand.begin_processor()
            yield stand
        finally:
            stand.end_processor()
            stand.close()


def another_release(folder: Path, changes: Mapping[str, tuple[str, str]]) -> Path:
    """The code of a release in which something is written otherwise: by file, what stands there and what shall."""
    for part in COPIED:
        shutil.copytree(CHECKOUT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "build").symlink_to(CHECKOUT / "build")
    for file, (stands, shall) in changes.items():
        text = (folder / file).read_text(encoding="utf-8")
        assert text.count(stands) == 1, file
        (folder / file).write_text(text.replace(stands, shall), encoding="utf-8")
    return folder
