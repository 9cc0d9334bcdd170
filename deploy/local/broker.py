"""A real Apache Kafka broker of one node (KRaft) in a folder of this checkout."""

import base64
import contextlib
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from deploy.local.artifacts import CannotSetUpError, class_archive, class_path, java
from deploy.local.layout import SCRATCH
from deploy.local.ports import LOOPBACK, choose_port, is_listening
from deploy.local.program import Child, Program
from deploy.local.waiting import wait_until
from services.publishing.kafka_access import KafkaAccess
from services.publishing.kafka_clients import connect

# One node, so one replica of everything; few threads and small buffers, since it shares two cores with all else.
# After a kill the node cannot register again before its old session has run out: 3 s of it instead of 9.
PROPERTIES: Final = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}{roundabout}
advertised.listeners=PLAINTEXT://{host}:{port}{advertised}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
message.max.bytes=1048588
num.network.threads=2
num.io.threads=2
num.replica.fetchers=1
background.threads=2
log.cleaner.dedupe.buffer.size=8388608
log.cleaner.io.buffer.size=262144
log.index.size.max.bytes=1048576
"""
MEMORY: Final = ("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:-UsePerfData")
# The first compiler alone: the second one's work had not paid after 180,000 records yet (6.5 us of CPU each, and 10.3 with
# it), a start takes half the processor time, and single records 1.2 ms instead of 1.9.
COMPILER: Final = "-XX:TieredStopAtLevel=1"


class Broker:
    """One broker, whose data stay in `directory`: start it there again and it is the same cluster.

    `port` None takes a free one. `archive` is an option of the JVM (used by set-up to make the class archive).
    `by_way_of`: ports of proxies; a client that comes through one is told to come back through it. Each has a listener
    of its own, whose port is in `behind`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None = None,
        archive: str | None = None,
        by_way_of: Sequence[int] = (),
    ) -> None:
        self.directory = directory.resolve()
        self.port = port or choose_port()
        self.behind = {proxy: choose_port() for proxy in by_way_of}
        self._controller_port = choose_port()
        self._archive = archive
        self._child = Child(self.program())

    @property
    def address(self) -> str:
        """The bootstrap servers: `127.0.0.1:<port>`."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def pid(self) -> int | None:
        """The JVM's process id while it runs."""
        return self._child.pid

    def program(self) -> Program:
        """The broker as a program for a supervisor; call `prepare` before it is started."""
        return Program(
            name="kafka",
            argv=(*self._java(), "kafka.Kafka", str(self._properties)),
            log=self.directory / "kafka.log",
            ready=self.answers,
        )

    def prepare(self) -> None:
        """Write the settings, and format the data folder where it is new.

        Raises:
            CannotSetUpError: the folder could not be formatted.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        SCRATCH.mkdir(parents=True, exist_ok=True)
        data = self.directory / "data"
        self._properties.write_text(self._settings(data))
        if (data / "meta.properties").exists():
            return
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # A cluster id that begins with a dash would be read as an option.
        argv = (
            *self._java(),
            "kafka.tools.StorageTool",
            "format",
            f"--cluster-id={cluster}",
            "-c",
            str(self._properties),
        )
        done = subprocess.run(argv, capture_output=True, text=True, check=False)  # noqa: S603  our own command line
        if done.returncode:
            raise CannotSetUpError(f"The broker's folder could not be formatted:\n{done.stderr[-1500:]}")

    def _settings(self, data: Path) -> str:
        behind = self.behind.items()
        return PROPERTIES.format(
            host=LOOPBACK,
            port=self.port,
            controller_port=self._controller_port,
            data=data,
            roundabout="".join(f",VIA{proxy}://{LOOPBACK}:{own}" for proxy, own in behind),
            advertised="".join(f",VIA{proxy}://{LOOPBACK}:{proxy}" for proxy, _ in behind),
            protocols="".join(f",VIA{proxy}:PLAINTEXT" for proxy, _ in behind),
        )

    def start(self) -> None:
        """Start the broker and return once it answers; a broker that was stopped or killed goes on where it was."""
        self.prepare()
        self._child.start_until_ready()

    def stop(self) -> None:
        """End it cleanly."""
        self._child.stop()

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        self._child.kill()

    def answers(self) -> bool:
        """Whether the broker tells who it is, which it does once it takes records."""
        if not is_listening(self.port):
            return False
        with contextlib.suppress(KafkaError, OSError):
            access = KafkaAccess(self.address)
            with contextlib.closing(
                connect(KafkaAdminClient, access, request_timeout_ms=3000, bootstrap_timeout_ms=3000)
            ) as client:
                return bool(client.describe_cluster()["brokers"])
        return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def _properties(self) -> Path:
        return self.directory / "server.properties"

    def _java(self) -> tuple[str, ...]:
        path, _, use = class_archive()
        archive = self._archive or (use if path.exists() else None)
        logging = ("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true")
        temporary = f"-Djava.io.tmpdir={SCRATCH}"
        options = (*MEMORY, COMPILER, *((archive,) if archive else ()))
        return (java(), *options, *logging, temporary, "-cp", class_path())


def make_class_archive(directory: Path) -> None:
    """Start a broker once for the sake of the archive of loaded classes that it leaves: every later start is faster."""
    path, make, _ = class_archive()
    if path.exists():
        return
    for stale in path.parent.glob("classes-*"):
        stale.unlink()
    with Broker(directory, archive=make) as broker:
        wait_until(broker.answers, within_s=30, what="the first broker answers")
