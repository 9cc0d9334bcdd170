"""What a processor reports of its partitions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from services.health import Trouble, TroubleReason
from services.medication_list.driver.cursors import PartitionStatus


class Progress:
    """Reports how far each partition of a worker has come, once there is a worker."""

    def __init__(self) -> None:
        self._status: Callable[[], Sequence[PartitionStatus]] | None = None

    def follow(self, status: Callable[[], Sequence[PartitionStatus]]) -> None:
        """The worker runs, and this tells how far it has come."""
        self._status = status

    async def check(self) -> Sequence[Trouble]:
        """Partitions that stand still although they have records (see `services.health`)."""
        if self._status is None:
            return (Trouble(TroubleReason.NOT_STARTED, "The worker waits for broker and Redis to begin."),)
        partitions = self._status()
        stopped = [_stopped(each) for each in partitions if each.stop is not None]
        stuck = [each for each in partitions if each.is_stuck]
        return (*stopped, *([_stuck(stuck)] if stuck else []))


def _stopped(status: PartitionStatus) -> Trouble:
    assert status.stop is not None, "asked for those alone"
    text = f"Partition {status.partition} is not read on from offset {status.stop.offset}: {status.stop.reason.value}."
    return Trouble(TroubleReason.PARTITION_STOPPED, text)


def _stuck(stuck: Sequence[PartitionStatus]) -> Trouble:
    named = ", ".join(str(each.partition) for each in stuck)
    return Trouble(TroubleReason.PARTITION_STUCK, f"Partitions without progress although records wait: {named}.")
