"""A bulk reader as its own process: given its order on the command line, and controlled through its pipes.

Its log is kept in an unnamed file while it runs, and shown if it dies: nothing is left behind.
"""

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress

import msgspec

from services.replay.order import DONE, REFUSED, Order, Pacing, Told

COMMAND: tuple[str, ...] = ("-m", "services.replay.bulk")
"""What a bulk reader is started with; tests lay something over it."""


class ChildReader:
    """See `crew.Reader` for what each method promises."""

    def __init__(self, number: int, order: Order, settings: Mapping[str, str]) -> None:
        """Start it. `settings`: the environment that says where the platform is."""
        self._number = number
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  open until it has ended
        self._logged = ""
        self._process = subprocess.Popen(  # noqa: S603  our own module
            [sys.executable, *COMMAND, msgspec.json.encode(order).decode()],
            env={**os.environ, **settings},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self._told = Told()
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def told(self) -> Told:
        """See `Reader.told`."""
        return self._told

    def code(self) -> int | None:
        """See `Reader.code`. Of one that died, what it logged goes to this process' own errors."""
        code = self._process.poll()
        if code is not None and self._close_log() and code not in (DONE, REFUSED):
            sys.stderr.write(f"bulk reader {self._number} ended with {code}:\n{self._logged}\n")
        return code

    def tell(self, pacing: Pacing) -> None:
        """See `Reader.tell`."""
        assert self._process.stdin is not None
        with suppress(OSError, ValueError):
            self._process.stdin.write(msgspec.json.encode(pacing).decode() + "\n")
            self._process.stdin.flush()

    def leave(self) -> None:
        """See `Reader.leave`: the end of its input is what it goes by."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()

    def end(self, within_ms: int) -> None:
        """See `Reader.end`."""
        try:
            self._process.wait(within_ms / 1000)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._close_log()

    def last_words(self) -> str:
        """See `Reader.last_words`."""
        lines = self._logged.splitlines()
        return lines[-1] if lines else "A bulk reader refused to work, and did not say why."

    def _close_log(self) -> bool:
        """Once it has ended, keep what it logged in memory alone; False where that was done before."""
        if self._log.closed:
            return False
        with self._log:
            self._log.seek(0)
            self._logged = self._log.read().decode(errors="replace").strip()
        return True

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._told = msgspec.json.decode(line, type=Told)
