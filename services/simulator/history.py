"""The client's own record of a run: what was sent, when, and what was answered, one JSON line each, for later checkers.

A line names people by their number in the town, never by their national id.
"""

import threading
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
from msgspec import Struct

from services.simulator.diary import Planned


class Line(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One send and its answer. Times are milliseconds since the epoch.

    outcome: applied, duplicate, refused, parked or pending; rejected (turned away at the door); in_log (accepted by the
    log, not judged where the sender can see it); failed (no answer, so nobody knows); skipped (no way to send it here).
    event_id: as it is in the log. ids: the natural ids in the body, by field name. position: `<partition>-<offset>` where it is known.
    """

    channel: str
    event_id: str
    type: str
    patient: int
    organisation: str
    sent_at_ms: int
    answered_at_ms: int
    outcome: str
    ids: dict[str, str]
    status: int | None = None
    reason: str | None = None
    flags: tuple[str, ...] = ()
    named: dict[str, Any] | None = None
    position: str | None = None
    irregularity: str = ""
    damage: str = ""
    attempts: int = 1


class History:
    """Writes lines, from any thread, and counts them by channel and outcome."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.counts: Counter[tuple[str, str]] = Counter()
        self.reasons: Counter[str] = Counter()
        self._file = path.open("wb")
        self._encoder = msgspec.json.Encoder()
        self._lock = threading.Lock()

    def write(self, line: Line) -> None:
        """Add a line."""
        encoded = self._encoder.encode(line)
        with self._lock:
            self.counts[line.channel, line.outcome] += 1
            if line.reason is not None:
                self.reasons[line.reason] += 1
            self._file.write(encoded + b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._file.close()


_IDS = ("prescription", "treatment", "claim", "dispense", "reversal", "dispatch", "request", "allergy", "renews")


def ids_of(planned: Planned) -> dict[str, str]:
    """The natural ids in a planned action's body."""
    return {name: value for name in _IDS if isinstance(value := getattr(planned.body, name, None), str)}


def read(path: Path) -> list[Line]:
    """The lines of a history. Raises msgspec.ValidationError for another file."""
    return [msgspec.json.decode(line, type=Line) for line in path.read_bytes().splitlines()]
