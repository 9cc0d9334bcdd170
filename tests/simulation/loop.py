"""An event loop with virtual time and a seeded order: whatever is ready runs in an order that the dice choose.

Blocking code runs in it too: a call that would block in a real process hands over to the scheduler in its midst
(`Scheduler.pause`), with the help of greenlets, so that another process can act between a read and a write.
"""

import asyncio
import contextvars
import heapq
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from greenlet import getcurrent, greenlet


class Killed(asyncio.CancelledError):
    """This process was killed: nothing that it does any more has an effect."""


class StuckError(Exception):
    """Nothing is left to run, and what is waited for has not come."""


class Process:
    """One simulated process: what runs in its name is held while it is stopped, and ends when it is killed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_dead = False
        self.is_stopped = False
        self.held: list[asyncio.Handle] = []
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.pauses: dict[int, asyncio.TimerHandle] = {}
        """In the order in which they began: what a set holds comes in another order in another run."""


_process: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


def current_process() -> Process | None:
    """In whose name this runs."""
    return _process.get()


class Scheduler(asyncio.BaseEventLoop):
    """One run. Use it with `running`; `pause` is for code that blocks in production."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__()
        self._dice = dice
        self._now_s = 0.0
        self._hub = getcurrent()
        self._idle: list[greenlet] = []
        self._waiting: dict[int, tuple[greenlet, asyncio.Handle]] = {}
        self._due: list[asyncio.Handle] = []
        self._is_over = False
        self.steps = 0

    def time(self) -> float:
        """Seconds of virtual time."""
        return self._now_s

    # --- What asyncio needs of a loop ----------------------------------------------------------------------------

    def _process_events(self, event_list: Any) -> None:
        """There are none: nothing comes from outside."""

    def _write_to_self(self) -> None:
        """Nobody sleeps."""

    def call_soon_threadsafe(  # type: ignore[override]  # asyncio ties the arguments to the callback
        self, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.Handle:
        """There is one thread."""
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(  # type: ignore[override]  # as above
        self,
        executor: Any,  # noqa: ARG002 - asyncio's signature
        func: Callable[..., Any],
        *args: Any,
    ) -> Any:
        """Run a blocking function beside everything else, as a thread would."""
        future = self.create_future()

        def run() -> None:
            try:
                result = func(*args)
            except Killed:
                future.cancel()
            except BaseException as error:  # noqa: BLE001 - it is the caller's, whatever it is
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(result)

        self.call_soon(run)
        return future

    def _run_once(self) -> None:
        due, scheduled = self._due, self._scheduled  # type: ignore[attr-defined]  # asyncio's own
        due.extend(self._ready)  # type: ignore[attr-defined]
        self._ready.clear()  # type: ignore[attr-defined]
        if not due:
            self._pass_time()
        while scheduled and scheduled[0]._when <= self._now_s:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            due.append(handle)
        if not due:
            return
        at = int(self._dice.random() * len(due))
        due[at], due[-1] = due[-1], due[at]
        self._take(due.pop())

    def _pass_time(self) -> None:
        scheduled = self._scheduled  # type: ignore[attr-defined]
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
        if not scheduled:
            raise StuckError(f"nothing is left to run at {self._now_s:.3f} s")
        self._now_s = max(self._now_s, scheduled[0]._when)

    def _take(self, handle: asyncio.Handle) -> None:
        if handle._cancelled:
            return
        process = handle._context.get(_process)  # type: ignore[attr-defined]
        if process is not None and process.is_stopped and not process.is_dead:
            process.held.append(handle)
            return
        self.steps += 1
        waiting = self._waiting.pop(id(handle), None)
        if waiting is not None:
            waiting[0].switch()
        else:
            worker = self._idle.pop() if self._idle else greenlet(self._work, self._hub)
            worker.switch(handle)

    def _work(self, handle: asyncio.Handle) -> None:
        """One of the greenlets that run what is due; one that pauses in its midst is out of use until it goes on."""
        worker = getcurrent()
        while True:
            handle._run()
            self._idle.append(worker)
            handle = self._hub.switch()

    # --- Blocking ------------------------------------------------------------------------------------------------

    def pause(self, seconds: float) -> None:
        """Block for so long, while all others go on. Raises Killed when the process was killed meanwhile."""
        process = _process.get()
        self._refuse_ended(process)
        task = asyncio.current_task(self)
        handle = self.call_later(seconds, _never)
        self._waiting[id(handle)] = getcurrent(), handle
        if process is not None:
            process.pauses[id(handle)] = handle
        if task is not None:
            asyncio.tasks._leave_task(self, task)
        self._hub.switch()
        if task is not None:
            asyncio.tasks._enter_task(self, task)
        if process is not None:
            process.pauses.pop(id(handle), None)
        self._refuse_ended(process)

    def _refuse_ended(self, process: Process | None) -> None:
        if self._is_over or (process is not None and process.is_dead):
            raise Killed

    def end_pauses(self) -> None:
        """End whatever still blocks; from now on nothing can.

        What lies on a greenlet's stack is hidden from the garbage collector: one that is left in its midst keeps the
        whole world of its schedule for ever.
        """
        self._is_over = True
        while self._waiting:
            blocked, handle = self._waiting.pop(next(iter(self._waiting)))
            handle.cancel()
            blocked.switch()

    def close(self) -> None:
        """End what runs things, too."""
        while self._idle:
            self._idle.pop().throw()
        super().close()

    # --- Processes -----------------------------------------------------------------------------------------------

    def spawn(self, process: Process, coroutine: Any, name: str) -> asyncio.Task[Any]:
        """Run a coroutine, and all that it starts, in the name of a process."""
        context = contextvars.copy_context()
        context.run(_process.set, process)
        task: asyncio.Task[Any] = self.create_task(coroutine, name=name, context=context)
        process.tasks[task] = None
        task.add_done_callback(lambda ended: process.tasks.pop(ended, None))
        return task

    def kill(self, process: Process) -> None:
        """End it at once, in whatever it was doing; its memory is gone."""
        process.is_dead = True
        self.go_on(process)
        for handle in tuple(process.pauses.values()):
            waiting = self._waiting.pop(id(handle), None)
            if waiting is not None:
                handle.cancel()
                again = self.call_soon(_never)
                self._waiting[id(again)] = waiting[0], again
        for task in tuple(process.tasks):
            task.cancel()

    def go_on(self, process: Process) -> None:
        """Let a stopped process go on."""
        process.is_stopped = False
        self._due.extend(process.held)
        process.held.clear()


def _never() -> None:
    raise AssertionError("a pause is ended by a switch, not by a call")


@contextmanager
def running(dice: random.Random) -> Iterator[Scheduler]:
    """A scheduler; whatever is left of it at the end is ended too."""
    loop = Scheduler(dice)
    try:
        yield loop
    finally:
        loop.end_pauses()
        loop.run_until_complete(_end(loop))
        loop.close()


ROUNDS: Final = 50


async def _end(loop: Scheduler) -> None:
    """Cancel what is left, until nothing is."""
    for _ in range(ROUNDS):
        left = asyncio.all_tasks(loop) - {asyncio.current_task()}
        if not left:
            await loop.shutdown_asyncgens()
            await asyncio.sleep(0.01)
            if not asyncio.all_tasks(loop) - {asyncio.current_task()}:
                return
        for task in left:
            task.cancel()
        await asyncio.sleep(0.01)
