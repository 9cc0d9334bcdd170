"""The platform that is put under faults: every part a process, every process behind links and a clock of its own."""

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final, Self

import httpx
import redis
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from deploy.local.broker import Broker
from deploy.local.keys import keys_of
from deploy.local.layout import BYTE_CODE, CHECKOUT
from deploy.local.platform import is_ready
from deploy.local.ports import LOOPBACK, choose_port
from deploy.local.program import Child, Program
from deploy.local.redis import RedisServer
from deploy.local.supervisor import Supervisor
from deploy.local.waiting import NeverCameTrueError, wait_until
from deploy.services import SERVICES, Service
from services.identity.national_id import NationalId
from services.identity.pseudonym import Pseudonymiser
from services.medication_list.store.keys import GenerationKeys, PartitionKeys
from services.publishing.kafka_access import KafkaAccess
from services.publishing.partitioning import partition_of
from services.simulator.population import patient
from services.topics import cluster
from services.topics.registry import EVENTS_TOPIC, Parties, load
from tests.chaos.disk import small_disk
from tests.chaos.proxy import Proxies, free_port
from tests.chaos.under_test import MUTANT, ORDERS, RELEASE

LINKS: Final = {
    "processor-1": ("kafka", "redis"),
    "processor-2": ("kafka", "redis"),
    "relay-1": ("kafka", "redis"),
    "medication-list": ("kafka", "redis"),
    "prescriber": ("kafka",),
    "prescriber-inbox": ("kafka",),
}
"""Who comes to broker and Redis through a proxy of its own; all others come directly."""
COPIES: Final = {"processor": 2, "relay": 2}
FEW: Final = {"processor": 2, "relay": 1}
ESSENTIAL: Final = ("medication-list", "processor", "relay")
"""For a short round, whose clients write the log itself: every process costs seconds to start."""
ALL_WITHIN_S: Final = 120.0
DISK_MEGABYTES: Final = 400
_BROKER_ATTEMPTS: Final = 3
_PULSE_PATIENTS_FROM: Final = 8_000_000
"""No town is so large."""
_PATIENCE: Final = {"socket_timeout": 1.0, "socket_connect_timeout": 1.0}


class Stand:
    """A platform in `folder`, which is kept. `mutants`: service -> what is laid over its processes (`mutants.py`)."""

    def __init__(
        self,
        folder: Path,
        parties: Parties,
        mutants: Mapping[str, str] | None = None,
        *,
        small: bool = False,
        small_disks: bool = False,
    ) -> None:
        """`small`: without the services that record.

        `small_disks`: broker and Redis get file systems of their own, where this machine allows it; they end with the stand.
        """
        self.folder = folder.resolve()
        self.parties = parties
        self.partitions = load().partitions(EVENTS_TOPIC)
        self.keys = keys_of(self.folder)
        self._mutants = dict(mutants or {})
        self._small_disks = small_disks
        self._via = {f"{name}.{to}": free_port() for name, links in LINKS.items() for to in links}
        by_way_of = [port for name, port in self._via.items() if name.endswith(".kafka")]
        self.broker = Broker(self.folder / "kafka", by_way_of=by_way_of)
        # Settings that a fault changes for one start of Redis stand in a file of their own.
        self.redis_settings = self.folder / "redis.conf"
        self.redis_settings.touch()
        self.redis = RedisServer(self.folder / "redis", settings={"include": str(self.redis_settings)})
        copies = FEW if small else COPIES
        chosen = [service for service in SERVICES if not small or service.name in ESSENTIAL]
        self._services = {name: service for service in chosen for name in _named(service, copies.get(service.name))}
        self._ports = {name: choose_port() for name, service in self._services.items() if service.port}
        self.supervisor = Supervisor()
        self._producer: Any = None
        self.proxies = Proxies()
        self._held = ExitStack()
        self.pulse_numbers = _one_a_partition(self.pseudonymiser(), self.partitions)
        self.pulse_patients = [self.pseudonymiser().patient_key(each) for each in self.pulse_numbers]
        """Nobody of the town: one patient a partition, whose events show that it moves."""
        self.view: Any = redis.Redis.from_url(self.redis.address, **_PATIENCE)
        self.http = httpx.Client(timeout=10, trust_env=False)

    # --- Starting and ending ------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Start everything. Raises what a part raises that does not become ready; then all is stopped."""
        try:
            if self._small_disks:
                for directory in (self.broker.directory, self.redis.directory):
                    self._held.enter_context(small_disk(directory, DISK_MEGABYTES))
            self._held.callback(self._close)
            self.start_broker()
            self.redis.start()
            cluster.create(KafkaAccess(self.broker.address), load(), self.parties, one_broker=True)
            for name, port in self._via.items():
                to_kafka = name.endswith(".kafka")
                self.proxies.add(name, port, self.broker.behind[port] if to_kafka else self.redis.port)
            self.supervisor.start(*(self.program(name) for name in self._services))
            wait_until(self.reads_answer, within_s=ALL_WITHIN_S, what="the view can be read")
        except BaseException:
            self._held.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def _close(self) -> None:
        for pid in self.supervisor.pids.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self.forget_producer()
        for stop in (self.supervisor.stop, self.redis.stop, self.broker.stop, self.proxies.close):
            stop()
        for log in (self.broker.program().log, self.redis.program().log):
            with contextlib.suppress(FileNotFoundError):  # its own file system may be gone in a moment
                shutil.copy(log, self.folder / "logs")
        self.http.close()
        self.view.close()

    # --- Processes ----------------------------------------------------------------------------------------------------

    def names(self, *services: str) -> list[str]:
        """The processes of these services; of all without any."""
        return [name for name, service in self._services.items() if not services or service.name in services]

    def url(self, name: str) -> str:
        """The base URL of a process that listens."""
        return f"http://{LOOPBACK}:{self._ports[name]}"

    def pid(self, name: str) -> int:
        """The process id, once the process runs."""
        wait_until(lambda: self.supervisor.child(name).alive, within_s=10, what=f"{name} runs")
        pid = self.supervisor.child(name).pid
        assert pid is not None
        return pid

    def send_signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal; a process that has just died has no need of it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid(name), number)

    def order(self, name: str, point: str, number: signal.Signals = signal.SIGKILL) -> None:
        """The next time the process comes by this crash point it gives itself that signal."""
        order = self._orders(name) / point
        fresh = order.with_suffix(".fresh")
        fresh.write_text(number.name, encoding="ascii")
        fresh.replace(order)

    def withdraw_order(self, name: str, point: str) -> bool:
        """Take the order back; False when it was carried out."""
        try:
            (self._orders(name) / point).unlink()
        except FileNotFoundError:
            return False
        return True

    def is_stopped(self, name: str) -> bool:
        """Whether the process stands still."""
        try:
            told = Path(f"/proc/{self.pid(name)}/stat").read_text(encoding="utf-8")
        except FileNotFoundError:
            return False
        return told.rpartition(")")[2].split()[0] == "T"

    def set_clock(self, name: str, by_ms: int | None) -> None:
        """Set the process's clock off by so much, where it stands still; None: it goes right again."""
        file = self._clock(name)
        if by_ms is None:
            file.unlink(missing_ok=True)
            return
        fresh = file.with_suffix(".fresh")
        fresh.write_text(str(time.time_ns() // 1_000_000 + by_ms), encoding="ascii")
        fresh.replace(file)

    def another_processor(self, name: str, *, release: str = "", generation: str | None = None) -> Child:
        """One processor more, to be started and stopped by whoever asked."""
        more = {RELEASE: release} | ({"MEDCHAIN_GENERATION": generation} if generation else {})
        return Child(self.program(name, "processor", more))

    def operator(self, name: str, *words: str) -> Program:
        """A command of an operator (`tests/chaos/operating.py`); `words`: what it does, after which mutants go by."""
        return Program(
            name=name,
            argv=(sys.executable, "-m", "tests.chaos.operating", *words),
            log=self.folder / "logs" / f"{name}.log",
            ready=lambda: True,
            environment={
                "MEDCHAIN_KAFKA": self.broker.address,
                "MEDCHAIN_REDIS": self.redis.address,
                "MEDCHAIN_SCHEMA_REGISTRY": "",
                MUTANT: self._mutants.get(words[0], ""),
                "PYTHONPATH": str(CHECKOUT),
                **BYTE_CODE,
                "PYTHONUNBUFFERED": "1",
            },
        )

    def program(self, name: str, service_name: str | None = None, more: Mapping[str, str] | None = None) -> Program:
        """How a process is started, and how one knows that it is ready."""
        service = next(each for each in SERVICES if each.name == service_name) if service_name else self._services[name]
        listens = name in self._ports
        return Program(
            name=name,
            argv=(sys.executable, "-m", "tests.chaos.under_test", service.module),
            log=self.folder / "logs" / f"{name}.log",
            ready=lambda: not listens or is_ready(self.url(name)),
            environment=self._environment(name, service) | dict(more or {}),
            ready_within_s=ALL_WITHIN_S,
        )

    def _environment(self, name: str, service: Service) -> dict[str, str]:
        known = {
            "MEDCHAIN_KAFKA": f"{LOOPBACK}:{self._via.get(f'{name}.kafka', self.broker.port)}",
            "MEDCHAIN_REDIS": f"redis://{LOOPBACK}:{self._via.get(f'{name}.redis', self.redis.port)}/0",
            "MEDCHAIN_CREATE_PARTY_TOPICS": "true",
            "MEDCHAIN_LIST_URL": self.url("medication-list"),
            "MEDCHAIN_PORT": str(self._ports.get(name, "")),
            **self.keys,
        }
        told = {variable: known[variable] for variable in service.variables if known.get(variable)}
        return told | {
            "MEDCHAIN_CLOCK_FILE": str(self._clock(name)),
            "MEDCHAIN_SCHEMA_REGISTRY": "",
            ORDERS: str(self._orders(name)),
            MUTANT: self._mutants.get(service.name, ""),
            "PYTHONPATH": str(CHECKOUT),
            **BYTE_CODE,
            "PYTHONUNBUFFERED": "1",
        }

    def _orders(self, name: str) -> Path:
        folder = self.folder / "orders" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _clock(self, name: str) -> Path:
        folder = self.folder / "clocks"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name

    # --- What is there ------------------------------------------------------------------------------------------------

    def pseudonymiser(self) -> Pseudonymiser:
        """As the services have it."""
        return Pseudonymiser(bytes.fromhex(self.keys["MEDCHAIN_PSEUDONYM_KEY"]))

    def offsets(self) -> dict[int, int]:
        """How far the live generation has come, straight from Redis; nothing of what cannot be had now."""
        with contextlib.suppress(redis.RedisError):
            generation = self.view.hget("live", "generation")
            if generation is None:
                return {}
            keys = [GenerationKeys(generation.decode(), each).offset for each in range(self.partitions)]
            pipeline = self.view.pipeline(transaction=False)
            for key in keys:
                pipeline.hget(key, "offset")
            return {number: int(offset) for number, offset in enumerate(pipeline.execute()) if offset is not None}
        return {}

    def start_broker(self) -> None:
        """Start the broker, with patience: on a machine that does much else its start alone has taken over a minute.

        Raises NeverCameTrueError.
        """
        for _ in range(_BROKER_ATTEMPTS):
            try:
                self.broker.start()
            except NeverCameTrueError as error:
                late = error
            else:
                return
        raise late

    def tell_redis(self, *words: str) -> Any:
        """Give Redis a command, as its operator would. Raises redis.RedisError."""
        return self.view.execute_command(*words)

    def waiting_effects(self) -> int | None:
        """How many effects wait to be relayed; None while Redis does not say."""
        with contextlib.suppress(redis.RedisError):
            return sum(int(self.view.xlen(PartitionKeys(each).outbox)) for each in range(self.partitions))
        return None

    def inboxes_are_behind(self) -> bool:
        """Whether an inbox has submissions that it has not answered; True while the broker does not say."""
        with (
            contextlib.suppress(KafkaError, OSError),
            contextlib.closing(
                KafkaAdminClient(bootstrap_servers=self.broker.address, bootstrap_timeout_ms=3000)
            ) as admin,
        ):
            names = [name for name in admin.list_topics() if "-submissions." in name]
            places = [TopicPartition(name, each) for name in names for each in range(load().partitions(name))]
            committed: dict[Any, int] = {}
            for group in self.names("prescriber-inbox", "pharmacy-inbox"):
                committed |= {place: told.offset for place, told in admin.list_group_offsets(group)[group].items()}
            with contextlib.closing(KafkaConsumer(bootstrap_servers=self.broker.address, group_id=None)) as consumer:
                ends = consumer.end_offsets(places)
            return any(committed.get(place, 0) < end for place, end in ends.items())
        return True

    def reads_answer(self) -> bool:
        """Whether every partition can be read."""
        return is_ready(self.url("medication-list"))

    @contextmanager
    def producer(self) -> Iterator[Any]:
        """A producer that comes directly, as another program's would."""
        with contextlib.closing(
            KafkaProducer(
                bootstrap_servers=self.broker.address, acks="all", enable_idempotence=True, bootstrap_timeout_ms=10_000
            )
        ) as producer:
            yield producer

    def append(self, key: str, value: bytes, partition: int) -> Any:
        """Append to the patients' log by a producer that stays; the answer is a future of kafka-python. Raises KafkaError."""
        if self._producer is None:
            self._producer = KafkaProducer(
                bootstrap_servers=self.broker.address,
                acks="all",
                enable_idempotence=True,
                bootstrap_timeout_ms=5_000,
                delivery_timeout_ms=5_000,
                request_timeout_ms=3_000,
                reconnect_backoff_max_ms=200,
            )
        return self._producer.send(EVENTS_TOPIC, key=key.encode(), value=value, partition=partition)

    def forget_producer(self) -> None:
        """The next append has a new one: one that failed may have failed for good."""
        if self._producer is not None:
            with contextlib.suppress(KafkaError):  # it may wait in vain for what a broker never confirmed
                self._producer.close(timeout=0)
            self._producer = None

    def told(self) -> dict[str, Any]:
        """Where everything is, for the client's process."""
        return {
            "kafka": self.broker.address,
            "urls": {name: self.url(name) for name in self._ports},
            "pseudonym_key": self.keys["MEDCHAIN_PSEUDONYM_KEY"],
            "sealing_key": self.keys["MEDCHAIN_SEALING_KEY"],
        }

    def write_down(self, name: str, what: Any) -> Path:
        """Keep something in the round's folder."""
        path = self.folder / name
        path.write_text(json.dumps(what, indent=2), encoding="utf-8")
        return path


def _one_a_partition(pseudonymiser: Pseudonymiser, partitions: int) -> list[NationalId]:
    """A patient of each partition, by its number."""
    found: dict[int, NationalId] = {}
    for index in count(_PULSE_PATIENTS_FROM):
        number = patient(index).national_id
        found.setdefault(partition_of(pseudonymiser.patient_key(number).encode(), partitions), number)
        if len(found) == partitions:
            return [found[each] for each in range(partitions)]
    raise AssertionError("count never ends")


def _named(service: Service, copies: int | None) -> list[str]:
    """The names of a service's processes: numbered where it may be several."""
    return [service.name] if copies is None else [f"{service.name}-{number + 1}" for number in range(copies)]
