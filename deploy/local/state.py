"""What runs and where, in a file that other commands find the platform by."""

import contextlib
import fcntl
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from deploy.local.layout import RUN

FILE: Final = "platform.json"
LOCK: Final = "platform.lock"


class AlreadyRunsError(RuntimeError):
    """Another process holds this platform."""


class Running(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One program of a platform: its process id, its log, and its URL if it has one."""

    pid: int | None
    log: str
    url: str | None = None


class State(msgspec.Struct, frozen=True, kw_only=True):
    """A running platform. `ready` is false while it starts.

    `kafka` are bootstrap servers; `redis` is a URL, and so is `schema_registry`, where one is used.
    """

    supervisor: int
    ready: bool
    directory: str
    kafka: str
    redis: str
    programs: dict[str, Running]
    schema_registry: str | None = None

    def url(self, service: str) -> str:
        """The base URL of a service.

        Raises:
            LookupError: no service of that name listens.
        """
        found = self.programs.get(service)
        if found is None or found.url is None:
            raise LookupError(service)
        return found.url


class Claim:
    """Holds a run folder for one process: the state in it counts only as long as somebody holds it."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._lock: int | None = None
        # The main thread and the one that watches both write.
        self._writing = threading.Lock()

    def write(self, state: State) -> None:
        """Replace the state in one step, so that nobody reads half of it."""
        new = self._run / f"{FILE}.new"
        with self._writing:
            new.write_bytes(msgspec.json.format(msgspec.json.encode(state)) + b"\n")
            new.replace(self._run / FILE)

    def __enter__(self) -> Self:
        """Take hold.

        Raises:
            AlreadyRunsError: another process has it.
        """
        self._run.mkdir(parents=True, exist_ok=True)
        # Not inherited by the programs: one that lingers must not hold the claim.
        descriptor = os.open(self._run / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise AlreadyRunsError(f"a platform already runs from {self._run}; `make down` ends it") from error
        self._lock = descriptor
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        (self._run / FILE).unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def held(run: Path = RUN) -> bool:
    """Whether a process holds this run folder."""
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(run / LOCK, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
    return False


def running(run: Path = RUN) -> State | None:
    """The platform that runs from this folder, None if there is none (a file left behind by a kill does not count)."""
    if not held(run):
        return None
    with contextlib.suppress(FileNotFoundError):
        return msgspec.json.decode((run / FILE).read_bytes(), type=State)
    return None
