"""The processing loop: take a fetch, have it folded and stored, act on each verdict; no failure ever leaves it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog

from services.medication_list.driver.batches import Applied, Fetch, LogReader, PartitionBatch, Process, Rewind, Verdict

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Pauses:
    """How long to wait after a failure: doubling from the first to the longest, in seconds.

    The longest is short, for a store that is back must not wait for a worker: with 5 s its partitions stood still for up to
    as long after each outage of some seconds.
    """

    first_s: float = 0.1
    longest_s: float = 1.0

    def after(self, failures: int) -> float:
        """Return the pause after so many failures in a row, at least one."""
        return float(min(self.longest_s, self.first_s * 2.0 ** min(failures - 1, 30)))


async def pump(
    log: LogReader,
    process: Process,
    pauses: Pauses = Pauses(),
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Process fetches until the log ends or the task is cancelled.

    Batches that a rewind has overtaken are dropped here: each would only be refused and ask for another rewind. Whatever
    ``process`` raises sends every batch back to its own beginning, since which of them reached the store is unknown;
    the compare-and-set refuses those that did. After a fetch of which nothing was applied it waits, longer each time; it
    awaits rather than blocks, so the worker stays in its consumer group and can be told to leave it.
    """
    failures = 0
    async for fetch in log.fetches():
        batches = tuple(batch for batch in fetch.batches if log.is_current(batch))
        if not batches:
            continue
        if _settle(log, batches, _verdicts(process, Fetch(batches, fetch.fetched_ns), failures)):
            failures = 0
        else:
            failures += 1
            await sleep(pauses.after(failures))


def _verdicts(process: Process, fetch: Fetch, failures: int) -> Mapping[int, Verdict]:
    try:
        return process(fetch)
    except Exception as error:  # noqa: BLE001 — Faust would take an exception for an acknowledgement
        # The type only: a message may quote what it failed on.
        _log.error(
            "batch_failed", error_type=type(error).__name__, failures=failures + 1, partitions=len(fetch.batches)
        )
        return {}


def _settle(log: LogReader, batches: tuple[PartitionBatch, ...], verdicts: Mapping[int, Verdict]) -> bool:
    """Act on each batch's verdict; tell whether any was applied."""
    progressed = False
    for batch in batches:
        match verdicts.get(batch.partition):
            case Applied(next_offset) if next_offset == batch.next_offset:
                log.applied(batch)
                progressed = True
            case Applied(offset) | Rewind(offset):
                _log.warning(
                    "batch_refused", partition=batch.partition, offset=batch.first_offset, stored_offset=offset
                )
                log.rewind(batch.partition, offset)
            case None:
                log.rewind(batch.partition, batch.first_offset)
    return progressed
