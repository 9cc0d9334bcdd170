"""Reads single records of the log for the API's loop: for an outcome's content, a patient's history, the past."""

import asyncio
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from schemas.framing import PLAIN, Framing, RegistryUnavailableError
from services.medication_list.log.record import Record, unframed
from services.medication_list.log.record_log import LogLookupError, RecordLog

_READERS: Final = 4


class LogLookup:
    """Some threads that read `records`, each value in single-object encoding. `close` it, which closes `records` too."""

    def __init__(self, records: RecordLog, framing: Framing = PLAIN) -> None:
        self._records = records
        self._framing = framing
        self._threads = ThreadPoolExecutor(_READERS, thread_name_prefix="log-lookup")

    async def read(self, partition: int, offsets: Iterable[int]) -> Mapping[int, Record]:
        """The records at these offsets, by offset; one that does not exist is not among them. Raises LogLookupError."""
        wanted = sorted(set(offsets))
        if not wanted:
            return {}
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, partition, wanted)

    async def close(self) -> None:
        """Let go of every connection."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._threads.shutdown(cancel_futures=True)
        self._records.close()

    def _read(self, partition: int, wanted: list[int]) -> Mapping[int, Record]:
        found = self._records.read(partition, wanted)
        try:
            return {offset: unframed(record, self._framing) for offset, record in found.items()}
        except RegistryUnavailableError as error:
            raise LogLookupError("a record cannot be read while the schema registry is away") from error
