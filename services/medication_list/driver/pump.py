"""The processing loop: take a fetch, have it folded and stored, act on each verdict; no failure ever leaves it."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from services.medication_list.driver.batches import Applied, Fetch, LogReader, PartitionBatch, Process, Rewind, Verdict
from services.medication_list.store.port import StoreUnavailableError, WrongTypeError

_log = structlog.get_logger(__name__)

OF_ALL: Final[tuple[type[Exception], ...]] = (StoreUnavailableError, OSError)
"""What no single partition can be blamed for: asked again for each of them, a store that is silent is waited for as often."""


@dataclass(frozen=True, slots=True)
class Pauses:
    """How long to wait after a failure: doubling from the first to the longest, in seconds.

    The longest is short, since a store that is back must not wait for a worker: with 5 s partitions stood still for up to
    that long after each outage of some seconds.
    """

    first_s: float = 0.1
    longest_s: float = 1.0

    def after(self, failures: int) -> float:
        """The pause after so many failures in a row, at least one."""
        return float(min(self.longest_s, self.first_s * 2.0 ** min(failures - 1, 30)))


async def pump(
    log: LogReader,
    process: Process,
    pauses: Pauses = Pauses(),
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    of_all: tuple[type[Exception], ...] = OF_ALL,
) -> None:
    """Process fetches until the log ends or the task is cancelled.

    Batches that a rewind has overtaken are dropped here: each would only be refused and ask for another rewind. Whatever
    `process` raises sends a batch back to its own beginning, since whether it reached the store is unknown; the
    compare-and-set refuses it if it did. What is `of_all` sends back all of them. Of anything else each is asked for
    alone, and whichever fails alone too rests by itself, longer each time, while the others go on.

    After a fetch of which nothing was applied, and something was refused or not asked for, it waits, longer each time; it
    awaits rather than blocks, so the worker stays in its consumer group and can be told to leave it.
    """
    failures = 0
    failing: dict[int, int] = {}
    async for fetch in log.fetches():
        batches = tuple(batch for batch in fetch.batches if log.is_current(batch))
        if not batches:
            continue
        answers = _answers(log, process, Fetch(batches, fetch.fetched_ns), failing, of_all, failures)
        settled = [_settle(log, batch, answers.get(batch.partition), failing, pauses) for batch in batches]
        if True in settled:
            failures = 0
        elif False in settled:
            failures += 1
            await sleep(pauses.after(failures))


_Answer = Verdict | Exception
"""What became of a batch: a verdict, or an error of its own."""


def _answers(
    log: LogReader,
    process: Process,
    fetch: Fetch,
    apart: Collection[int],
    of_all: tuple[type[Exception], ...],
    failures: int,
) -> Mapping[int, _Answer]:
    """Ask for all batches at once, and after an error once more for each of them alone; what is of all ends the asking.

    Asking takes time: a batch that a rewind or a new assignment has overtaken meanwhile is asked for no more.

    Those that are `apart`, for they failed the last time, are asked for alone from the start: otherwise what was written
    of the others before an error would be refused, and read again, each time.
    """
    sound = tuple(batch for batch in fetch.batches if batch.partition not in apart)
    parts = deque([*([sound] if sound else []), *((batch,) for batch in fetch.batches if batch.partition in apart)])
    answers: dict[int, _Answer] = {}
    while parts:
        part = tuple(batch for batch in parts.popleft() if log.is_current(batch))
        if not part:
            continue
        try:
            answers |= process(Fetch(part, fetch.fetched_ns))
        except Exception as error:  # noqa: BLE001 - Faust would take an exception for an acknowledgement
            # The type only: a message may quote what it failed on.
            error_type = type(error).__name__
            # A key of another type is an answer about that key, and so about its partition.
            if isinstance(error, of_all) and not isinstance(error, WrongTypeError):
                left = len(part) + sum(map(len, parts))
                _log.error("batch_failed", error_type=error_type, failures=failures + 1, partitions=left)
                break
            if len(part) == 1:
                answers[part[0].partition] = error
            else:
                _log.warning("batches_asked_for_alone", error_type=error_type, partitions=len(part))
                parts.extendleft((batch,) for batch in reversed(part))
    return answers


def _settle(
    log: LogReader, batch: PartitionBatch, answer: _Answer | None, failing: dict[int, int], pauses: Pauses
) -> bool | None:
    """Act on what became of a batch; tell whether it was applied, None where its partition rests by itself or has moved."""
    partition, failed_before = batch.partition, failing.pop(batch.partition, 0)
    match answer:
        case Applied(next_offset) if next_offset == batch.next_offset:
            log.applied(batch)
            return True
        case Applied(offset) | Rewind(offset):
            _log.warning("batch_refused", partition=partition, offset=batch.first_offset, stored_offset=offset)
            log.rewind(partition, offset)
            return False
        case None if not log.is_current(batch):
            return None
        case None:
            if failed_before:
                failing[partition] = failed_before
            log.rewind(partition, batch.first_offset)
            return False
        case error:
            failures = failing[partition] = failed_before + 1
            _log.error(
                "batch_failed",
                partition=partition, offset=batch.first_offset, error_type=type(error).__name__, failures=failures,
            )  # fmt: skip
            log.rewind(partition, batch.first_offset, pauses.after(failures))
            return None
