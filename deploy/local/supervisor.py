"""Keeps named programs running: starts them, starts one that died or hangs again, and ends all of them with itself."""

import atexit
import logging
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Final, Self

from deploy.local.program import Child, Program

FIRST_BACKOFF_S: Final = 0.2
LONGEST_BACKOFF_S: Final = 5.0
# One that ran this long before it died is started at once, as if it had never died.
STEADY_S: Final = 30.0
LOOK_EVERY_S: Final = 0.2
"""How soon one that died is noticed. To ask the kernel costs little, but for nine programs and twenty times a second."""
HUNG_AFTER_S: Final = 30.0
"""A program that has answered before and does not for so long, each time that it is asked, hangs. Longer than a busy
machine lets anyone wait, and than a worker is missed by its group: that one's partitions have gone to another long before."""
ASK_EVERY_S: Final = 5.0
"""An answer costs 2 ms of processor time, of whoever asks and of whoever answers."""
ASKED_IN_VAIN: Final = 3
"""And it was asked so often: where all are slow a round of questions takes long, and two answers that came too late are
no sign that anything hangs. Who is killed under too much load cannot be reached at all, and the others wait for it."""

log = logging.getLogger(__name__)


def end_on_signals() -> None:
    """From now on SIGTERM and SIGINT end this process as `sys.exit(0)` would, so that every `with` is left in order.

    Further ones are ignored: ending must not be cut short. To be called from the main thread, before anything is started.
    """

    def end(_number: int, _frame: FrameType | None) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        raise SystemExit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)


@dataclass(slots=True)
class _Watched:
    child: Child
    started_at_s: float
    backoff_s: float = FIRST_BACKOFF_S
    restart_at_s: float | None = None
    restarts: int = 0
    has_answered: bool = False
    """Whether it has said since its start that it lives: until then it need not have come so far."""
    asked_in_vain: int = 0
    """How often since its last answer."""
    silent_since_s: float = 0.0
    """When it was first asked in vain, if it was."""

    def silent_again(self) -> float:
        """It was asked and did not answer; for how many seconds it has been silent."""
        now_s = time.monotonic()
        if not self.asked_in_vain:
            self.silent_since_s = now_s
        self.asked_in_vain += 1
        return now_s - self.silent_since_s


class Supervisor:
    """Start programs with `start`, in the order in which they need each other; `stop` ends them in the opposite order.

    `changed` is called (from the watching thread) whenever a program has been started again.
    """

    def __init__(self, changed: Callable[[], None] = lambda: None, hung_after_s: float = HUNG_AFTER_S) -> None:
        self._changed = changed
        self._hung_after_s = hung_after_s
        self._watched: dict[str, _Watched] = {}
        # Guards the starts and the dictionary: the watching thread must start nothing once stopping has begun.
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._stopped = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        # Beside the watching: whoever hangs answers late, and a program that died must not wait for that.
        self._asker = threading.Thread(target=self._ask, name="supervisor-asks", daemon=True)

    @property
    def pids(self) -> dict[str, int]:
        """The process id of each program that has one, by name."""
        with self._lock:
            return {name: each.child.pid for name, each in self._watched.items() if each.child.pid is not None}

    @property
    def restarts(self) -> dict[str, int]:
        """How often each program was started again."""
        with self._lock:
            return {name: each.restarts for name, each in self._watched.items()}

    @property
    def have_answered(self) -> set[str]:
        """The programs that have said since their start that they live: of these alone can be said that they hang."""
        with self._lock:
            return {name for name, each in self._watched.items() if each.has_answered}

    def start(self, *programs: Program) -> None:
        """Start these together, and return once all are ready. If one is not, everything is stopped before this raises.

        Raises:
            ProgramDiedError: one ended before it was ready.
            NeverCameTrueError: one is not ready in its time.
        """
        atexit.register(self.stop)
        children = [Child(program) for program in programs]
        try:
            for child in children:
                with self._lock:
                    child.start()
                    self._watched[child.program.name] = _Watched(child, time.monotonic())
                    # Until it is ready its death is an answer to the caller, not a case for a restart.
                    self._watched[child.program.name].restart_at_s = float("inf")
            for child in children:
                child.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        with self._lock:
            for child in children:
                self._watched[child.program.name].restart_at_s = None
        if not self._watcher.is_alive():
            self._watcher.start()
            self._asker.start()

    def child(self, name: str) -> Child:
        """The child of that name, to look at or to kill."""
        return self._watched[name].child

    def stop(self) -> None:
        """End all programs, the last started first. Twice does no harm."""
        with self._lock:
            self._stopping.set()
        for watched in reversed(self._watched.values()):
            watched.child.stop()
        # Only now: what the watching thread started would be killed with it.
        self._stopped.set()
        if self._watcher.is_alive():
            self._watcher.join()
            self._asker.join()
        atexit.unregister(self.stop)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _watch(self) -> None:
        while not self._stopped.wait(LOOK_EVERY_S):
            with self._lock:
                watched = () if self._stopping.is_set() else tuple(self._watched.values())
                revived = [self._revive(each) for each in watched]
            if any(revived):
                self._changed()

    def _revive(self, watched: _Watched) -> bool:
        """Start a program that died, once its backoff is over; says whether it did."""
        if watched.child.alive:
            return False
        now_s = time.monotonic()
        if watched.restart_at_s is None:
            if now_s - watched.started_at_s > STEADY_S:
                watched.backoff_s = FIRST_BACKOFF_S
            watched.restart_at_s = now_s + watched.backoff_s
            child, backoff_s = watched.child, watched.backoff_s
            log.warning("%s ended (%s); starting it again in %.1f s", child.program.name, child.ending, backoff_s)
        if now_s < watched.restart_at_s:
            return False
        watched.child.start()
        watched.restarts += 1
        watched.has_answered, watched.asked_in_vain = False, 0
        watched.started_at_s, watched.restart_at_s = now_s, None
        watched.backoff_s = min(watched.backoff_s * 2, LONGEST_BACKOFF_S)
        return True

    def _ask(self) -> None:
        """Kill what hangs; the watching thread then starts it again."""
        while not self._stopped.wait(min(ASK_EVERY_S, self._hung_after_s / 2)):
            with self._lock:
                watched = () if self._stopping.is_set() else tuple(self._watched.values())
            for each in watched:
                if self._hangs(each):
                    log.warning("%s does not answer; killing it", each.child.program.name)
                    each.child.kill()

    def _hangs(self, watched: _Watched) -> bool:
        lives = watched.child.program.lives
        asked = watched.child.pid
        if lives is None or asked is None:
            return False
        if lives():
            watched.has_answered, watched.asked_in_vain = True, 0
            return False
        # It must be the same that still runs, and must have answered since it was started: dead is not hung.
        if not watched.has_answered or watched.child.pid != asked or not watched.child.alive:
            return False
        silent_s = watched.silent_again()
        return silent_s > self._hung_after_s and watched.asked_in_vain >= ASKED_IN_VAIN
