"""The batch driver: Kafka's log through Faust, one fetch at a time, each partition from the offset that the store holds.

It does not interpret the records. The processor gives `pump` a `Process`; the store is its `Positions`.
"""

from services.medication_list.driver.app import (
    Agent,
    CodecMissingError,
    DriverSettings,
    attach,
    check_codecs,
    create_app,
    run,
    status,
)
from services.medication_list.driver.batches import (
    Applied,
    Fetch,
    LogReader,
    PartitionBatch,
    Positions,
    Process,
    Record,
    Rewind,
    Verdict,
)
from services.medication_list.driver.cursors import Cursors, PartitionStatus, Stop, StopReason
from services.medication_list.driver.kafka import BatchConsumer, BatchTransport, Intervals, register
from services.medication_list.driver.memory import MemoryLogReader
from services.medication_list.driver.pump import OF_ALL, Pauses, pump

__all__ = [
    "OF_ALL", "Agent", "Applied", "BatchConsumer", "BatchTransport", "CodecMissingError", "Cursors", "DriverSettings", "Fetch",
    "Intervals", "LogReader", "MemoryLogReader", "PartitionBatch", "PartitionStatus", "Pauses", "Positions", "Process",
    "Record", "Rewind", "Stop", "StopReason", "Verdict", "attach", "check_codecs", "create_app", "pump", "register", "run", "status",
]  # fmt: skip
