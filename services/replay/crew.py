"""The processes of a replay: started, told their share, started again when they die, and gone when this process is."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from services.medication_list.generations import GenerationRefusedError
from services.replay.bulk import DONE, REFUSED

_AGAIN_S: Final = 1.0
_LEAVES_WITHIN_S: Final = 5.0


@dataclass
class _Member:
    number: int
    partitions: Sequence[int]
    log: Path
    process: subprocess.Popen[str] | None = None
    is_done: bool = False
    died_at_s: float = 0.0
    restarts: int = 0
    told: dict[str, Any] = field(default_factory=dict)
    cpu_before_s: float = 0.0


class Crew:
    """So many bulk readers of one generation, each with its share of the partitions."""

    def __init__(
        self, generation: str, settings: Mapping[str, str], partitions: int, workers: int, until: Mapping[int, int]
    ) -> None:
        """`settings`: the environment that says where the platform is. `until`: the offsets before which to stop."""
        self._generation = generation
        self._settings = settings
        self._until = until
        self._share = 1.0
        logs = Path(tempfile.gettempdir())
        self._members = [
            _Member(number, range(number, partitions, workers), logs / f"medchain-replay-{generation}-{number}.log")
            for number in range(min(workers, partitions))
        ]

    @property
    def is_done(self) -> bool:
        """Whether all have ended because there is nothing left for them to feed."""
        return all(member.is_done for member in self._members)

    @property
    def cpu_s(self) -> float:
        """Processor time that they took so far, those that died included, as far as they told."""
        return float(sum(member.cpu_before_s + member.told.get("cpu_s", 0.0) for member in self._members))

    @property
    def restarts(self) -> int:
        """How often one was started again."""
        return sum(member.restarts for member in self._members)

    @property
    def pids(self) -> list[int]:
        """The process ids of those that run."""
        return [each.process.pid for each in self._members if each.process is not None]

    def start(self, share: float) -> None:
        """Start all of them, each with this share of a core."""
        self._share = share
        for member in self._members:
            self._start(member)

    def tell(self, share: float, *, is_paused: bool) -> None:
        """Tell all of them what share of a core they may take from now on."""
        self._share = share
        line = json.dumps({"share": share, "paused": is_paused}) + "\n"
        for member in self._members:
            if member.process is not None and member.process.stdin is not None:
                with suppress(OSError, ValueError):
                    member.process.stdin.write(line)
                    member.process.stdin.flush()

    def look_after(self) -> None:
        """Start those again that died. Raises GenerationRefusedError where one says why it must not work."""
        for member in self._members:
            if member.process is None or member.is_done:
                if member.process is None and not member.is_done and time.monotonic() - member.died_at_s > _AGAIN_S:
                    member.restarts += 1
                    self._start(member)
                continue
            code = member.process.poll()
            if code is None:
                continue
            member.process = None
            if code == DONE:
                member.is_done = True
            elif code == REFUSED:
                raise GenerationRefusedError(_last_line(member.log))
            else:
                member.died_at_s = time.monotonic()
                member.cpu_before_s += member.told.pop("cpu_s", 0.0)

    def stop(self) -> None:
        """Have all of them leave, and end those that do not. Twice does no harm."""
        running = [member.process for member in self._members if member.process is not None]
        for process in running:
            if process.stdin is not None:
                with suppress(OSError):
                    process.stdin.close()
        deadline = time.monotonic() + _LEAVES_WITHIN_S
        for process in running:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for member in self._members:
            member.process = None
            member.is_done = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self, member: _Member) -> None:
        told = {
            "generation": self._generation,
            "partitions": list(member.partitions),
            "share": self._share,
            "until": self._until,
        }
        with member.log.open("a") as log:
            member.process = subprocess.Popen(  # noqa: S603  our own module
                [sys.executable, "-m", "services.replay.bulk", json.dumps(told)],
                env={**os.environ, **self._settings},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        threading.Thread(target=_listen, args=(member, member.process), daemon=True).start()


def _listen(member: _Member, process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            if member.process is process:
                member.told = json.loads(line)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8").strip().splitlines()
    return lines[-1] if lines else f"A bulk reader refused to work: see {log}."
