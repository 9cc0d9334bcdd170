"""A bulk reader as a process of its own: ordered on its command line, told and heard through its pipes."""

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from services.replay.order import Order, Pacing, Told


class ChildReader:
    """See `crew.Reader` for what each method promises."""

    def __init__(self, number: int, order: Order, settings: Mapping[str, str]) -> None:
        """Start it. `settings`: the environment that says where the platform is."""
        self._log = Path(tempfile.gettempdir()) / f"medchain-replay-{order.generation}-{number}.log"
        with self._log.open("a") as log:
            self._process = subprocess.Popen(  # noqa: S603  our own module
                [sys.executable, "-m", "services.replay.bulk", msgspec.json.encode(order).decode()],
                env={**os.environ, **settings},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._told = Told()
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def told(self) -> Told:
        """See `Reader.told`."""
        return self._told

    def code(self) -> int | None:
        """See `Reader.code`."""
        return self._process.poll()

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

    def last_words(self) -> str:
        """See `Reader.last_words`."""
        lines = self._log.read_text(encoding="utf-8").strip().splitlines()
        return lines[-1] if lines else f"A bulk reader refused to work: see {self._log}."

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._told = msgspec.json.decode(line, type=Told)
