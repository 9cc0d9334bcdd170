"""One program that runs as a child of this process, and that cannot outlive it."""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from deploy.local.layout import CHECKOUT
from deploy.local.waiting import wait_until

LOG_TAIL_CHARACTERS: Final = 2000
# The kernel kills the child when its parent is gone, whatever ended the parent (util-linux; elsewhere stop() has to do).
DIE_WITH_PARENT: Final = ("setpriv", "--pdeathsig", "KILL", "--")


class ProgramDiedError(RuntimeError):
    """A program ended before it was ready; the text holds the end of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run, and how to tell that it is ready. `environment` is laid over that of this process.

    `lives`: how to tell that it does not hang, for those of which a supervisor may start a hanging one again.
    """

    name: str
    argv: tuple[str, ...]
    log: Path
    ready: Callable[[], bool]
    lives: Callable[[], bool] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    ready_within_s: float = 60.0
    stop_within_s: float = 15.0


class Child:
    """A program's process. Start it from a thread that lives as long as the child is to live: the kernel ties them."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id, or None before the first start and after `stop`."""
        return self._process.pid if self._process else None

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """How the process ended: its exit code, the negative number of the signal that killed it; None before its end."""
        return None if self._process is None else self._process.poll()

    @property
    def ending(self) -> str:
        """How the process ended, in words: an exit code, or the signal that killed it."""
        code = self.returncode
        return f"killed by signal {-code}" if code is not None and code < 0 else f"exit {code}"

    def start(self) -> None:
        """Start the process in a group of its own; its output goes to the end of the program's log."""
        if self.alive:
            raise RuntimeError(f"{self.program.name} already runs")
        self.program.log.parent.mkdir(parents=True, exist_ok=True)
        guard = DIE_WITH_PARENT if shutil.which(DIE_WITH_PARENT[0]) else ()
        with self.program.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  our own command lines, no shell
                [*guard, *self.program.argv],
                cwd=CHECKOUT,
                env={**os.environ, **self.program.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        """Return once the program says that it is ready.

        Raises:
            ProgramDiedError: it ended instead.
            NeverCameTrueError: it is alive and not ready after `ready_within_s`.
        """

        def ready() -> bool:
            if not self.alive:
                raise ProgramDiedError(f"{self.program.name} ended ({self.ending}); {self._log_tail()}")
            return self.program.ready()

        what = f"{self.program.name} ready (see {self.program.log})"
        wait_until(ready, within_s=self.program.ready_within_s, what=what)

    def stop(self) -> None:
        """Ask the process to end (SIGTERM), kill its group if it has not after `stop_within_s`. Twice does no harm."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(self.program.stop_within_s)
        self.kill()
        self._process = None

    def kill(self) -> None:
        """SIGKILL to the process and to whatever it started, as a power cut would."""
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def start_until_ready(self) -> None:
        """Start it and return once it is ready; one that does not become ready is stopped again. Raises as the two do."""
        self.start()
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        self.start_until_ready()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _log_tail(self) -> str:
        text = self.program.log.read_text(errors="replace")[-LOG_TAIL_CHARACTERS:]
        return f"the end of {self.program.log}:\n{text}"
