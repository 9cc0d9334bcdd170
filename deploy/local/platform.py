"""The whole platform of one machine: broker, Redis, topics, and every service, started in that order and watched."""

import contextlib
import functools
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Self

import httpx

from deploy.local.broker import Broker
from deploy.local.keys import keys_of
from deploy.local.layout import BYTE_CODE, CHECKOUT, PLATFORM, RUN
from deploy.local.ports import LOOPBACK, choose_port
from deploy.local.program import Child, Program
from deploy.local.redis import RedisServer
from deploy.local.state import Claim, Running, State
from deploy.local.supervisor import Supervisor
from deploy.services import SERVICES, Service
from services.publishing.kafka_access import FILES, KafkaAccess
from services.topics import cluster
from services.topics.registry import Parties, load

KAFKA_PORT: Final = 19092
REDIS_PORT: Final = 16379
WORKERS: Final = 1
_LIVES_WITHIN_S: Final = 5.0
"""Longer than a loop with more work than it can do keeps a request waiting: that one does not hang."""


class Platform:
    """A platform whose data lie in `directory` and whose state others find in `run`.

    Args:
        directory: broker and Redis data, keys and logs; started there again, it goes on where it was.
        run: where platform.json is written; one platform at a time per folder.
        services: the processes to start, all of them by default.
        workers: how many of each service of which several may run (the processor).
        usual_ports: whether to take the well-known ports where they are free, else any free ones.
        parties: outside parties that get topics besides those in topics.yaml.
        schema_registry: the URL of a schema registry whose framing the topics are to carry; none by default.
        traces: the base URL of a collector that takes what is traced; none by default.
        traces_ratio: the share of messages that are traced without having been asked to; what the services say by default.
        clock_file: where the services read the time instead of from the machine: for tests of what time brings.
    """

    def __init__(  # noqa: PLR0913  what a platform may be told, all by name and all with a default
        self,
        directory: Path = PLATFORM,
        *,
        run: Path = RUN,
        services: Iterable[Service] = SERVICES,
        workers: int = WORKERS,
        usual_ports: bool = True,
        parties: Parties | None = None,
        schema_registry: str | None = None,
        traces: str | None = None,
        traces_ratio: float | None = None,
        clock_file: Path | None = None,
    ) -> None:
        self.directory = directory.resolve()
        self.services = tuple(services)
        self.workers = workers
        self.parties = parties
        self.schema_registry = schema_registry
        self._traces = traces
        self._traces_ratio = traces_ratio
        self._clock = {} if clock_file is None else {"MEDCHAIN_CLOCK_FILE": str(clock_file.resolve())}
        kafka_port = choose_port(KAFKA_PORT if usual_ports else None)
        self.broker = Broker(self.directory / "kafka", port=kafka_port)
        self.redis = RedisServer(self.directory / "redis", port=choose_port(REDIS_PORT if usual_ports else None))
        self._ports = {
            name: choose_port(each.port + number if usual_ports else None)
            for each in self.services
            if each.port
            for number, name in enumerate(self._names_of(each))
        }
        self.supervisor = Supervisor(self._write_state)
        self._claim = Claim(run)
        self._held = contextlib.ExitStack()
        self._programs: dict[str, Program] = {}
        self._ready = False

    @property
    def kafka_address(self) -> str:
        """Bootstrap servers."""
        return self.broker.address

    @property
    def redis_url(self) -> str:
        """The URL of the database that the view lies in."""
        return self.redis.address

    def url(self, name: str) -> str:
        """The base URL of a process that listens, by its name (`prescriber`, `processor-1`, ...).

        Raises:
            KeyError: no process of that name listens.
        """
        return f"http://{LOOPBACK}:{self._ports[name]}"

    def environment(self, service: Service, name: str) -> dict[str, str]:
        """What a service's process of that name is told: its own variables, and nothing that it has no use for."""
        known = {
            **self.kafka_access(service.name).as_environment(),
            "MEDCHAIN_REDIS": self.redis_url,
            "MEDCHAIN_CREATE_PARTY_TOPICS": "true",  # a machine of one's own: whoever writes here is a party
            **keys_of(self.directory),
        }
        if name in self._ports:
            known["MEDCHAIN_PORT"] = str(self._ports[name])
        if "medication-list" in self._ports:
            known["MEDCHAIN_LIST_URL"] = self.url("medication-list")
        # Empty rather than left out: the process must not take another platform's from the shell that started us.
        optional = {
            "MEDCHAIN_SCHEMA_REGISTRY": self.schema_registry or "",
            "MEDCHAIN_TRACES": self._traces or "",
            "MEDCHAIN_TRACES_RATIO": "" if self._traces_ratio is None else str(self._traces_ratio),
            "MEDCHAIN_LIST_PUBLIC_URL": "",  # callers are on this machine too
        }
        files = FILES if "MEDCHAIN_KAFKA" in service.variables else ()
        told = {each: known[each] for each in (*service.variables, *files)}
        return told | {each: optional[each] for each in service.optional}

    def kafka_access(self, _user: str) -> KafkaAccess:
        """How a process speaks with the broker: whoever it is, in plain text."""
        return KafkaAccess(self.kafka_address)

    def start(self) -> None:
        """Start everything, and return when all of it is ready; on an error all of it is stopped again.

        Raises:
            AlreadyRunsError: another process runs a platform from the same run folder.
            ProgramDiedError, NeverCameTrueError: a part did not become ready; the text holds the end of its log.
        """
        self._held.enter_context(self._claim)
        try:
            self.broker.prepare()
            self.redis.prepare()
            self._start(self.broker.program(), self.redis.program())
            cluster.create(KafkaAccess(self.kafka_address), load(), self.parties, one_broker=True)
            self._start(*(program for service in self.services for program in self._programs_of(service)))
        except BaseException:
            self.stop()
            raise
        self._ready = True
        self._write_state()

    def stop(self) -> None:
        """End everything, the services first. Twice does no harm."""
        self._ready = False
        self.supervisor.stop()
        self._held.close()

    def child(self, name: str) -> Child:
        """The process of a part by its name (`kafka`, `redis`, `prescriber`, `processor-1`, ...), to kill it, say."""
        return self.supervisor.child(name)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self, *programs: Program) -> None:
        # A new dictionary each time: the watching thread may be reading the old one.
        self._programs = {**self._programs, **{program.name: program for program in programs}}
        self._write_state()
        self.supervisor.start(*programs)
        self._write_state()

    def _programs_of(self, service: Service) -> Iterable[Program]:
        return (self._program(service, name) for name in self._names_of(service))

    def _names_of(self, service: Service) -> list[str]:
        return [f"{service.name}-{number + 1}" for number in range(self.workers)] if service.many else [service.name]

    def _program(self, service: Service, name: str) -> Program:
        def ready() -> bool:
            return service.port is None or is_ready(self.url(name))

        def lives() -> bool:
            return service.port is None or is_live(self.url(name))

        return Program(
            name=name,
            argv=(sys.executable, "-m", service.module),
            log=self.directory / "logs" / f"{name}.log",
            ready=ready,
            lives=lives,
            environment=_python_environment() | self.environment(service, name) | self._clock,
        )

    def _write_state(self) -> None:
        pids = self.supervisor.pids
        self._claim.write(
            State(
                supervisor=os.getpid(),
                ready=self._ready,
                directory=str(self.directory),
                kafka=self.kafka_address,
                redis=self.redis_url,
                schema_registry=self.schema_registry,
                programs={
                    name: Running(
                        pid=pids.get(name),
                        log=str(program.log),
                        url=self.url(name) if name in self._ports else None,
                    )
                    for name, program in self._programs.items()
                },
            ),
        )


def is_ready(url: str) -> bool:
    """Whether the service at this URL says that it is ready."""
    with contextlib.suppress(httpx.HTTPError):
        return _http().get(f"{url}/health/ready").is_success
    return False


def is_live(url: str) -> bool:
    """Whether the service at this URL answers, and does not say of itself that it hangs."""
    with contextlib.suppress(httpx.HTTPError):
        answer = _http().get(f"{url}/health/live", timeout=_LIVES_WITHIN_S)
        return answer.status_code != httpx.codes.SERVICE_UNAVAILABLE
    return False


@functools.cache
def _http() -> httpx.Client:
    """One for all that is asked: making one costs 30 ms of processor time, and every process is asked every two seconds.

    It keeps no connection, so that each answer is that of the process that listens now.
    """
    return httpx.Client(timeout=2, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))


def _python_environment() -> dict[str, str]:
    return {
        "PYTHONPATH": str(CHECKOUT),
        **BYTE_CODE,
        # A log that is read while the process runs must not wait for a full buffer.
        "PYTHONUNBUFFERED": "1",
    }
