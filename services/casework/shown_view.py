"""What readers are shown of a patient, by the very functions of the read API: what came second under a number is shown to nobody."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, TypeVar

from services.casework.desk import Desk
from services.medication_list.read_api.log_lookup import LogLookup
from services.medication_list.read_api.number_conflicts import NumberConflicts
from services.medication_list.store.reading import ViewReader

T = TypeVar("T")


class Readers(NamedTuple):
    """What the read API reads with."""

    reader: ViewReader
    log: LogLookup
    numbers: NumberConflicts


def read_as_readers_do(desk: Desk, ask: Callable[[Readers], Awaitable[T]]) -> T:
    """What `ask` finds out. Raises NotReadyError, StoreUnavailableError, LogLookupError."""
    return asyncio.run(_read(desk, ask))


async def _read(desk: Desk, ask: Callable[[Readers], Awaitable[T]]) -> T:
    reader = ViewReader(desk.views(), desk.partitions, _no_ends)
    log = LogLookup(desk.records, desk.framing)
    try:
        return await ask(Readers(reader, log, NumberConflicts(reader, log)))
    finally:
        await log.close()  # the desk's records, too, which connect again if they are asked again
        await reader.close()


async def _no_ends() -> Mapping[int, int]:
    """How far the patient's partition has come, the desk has looked at: a reader would refuse what is a moment behind."""
    return {}
