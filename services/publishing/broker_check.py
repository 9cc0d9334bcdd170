"""Whether the broker can take records: asked of the broker itself each time, over the check's own connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from kafka.errors import KafkaError, TopicAuthorizationFailedError

from services.health import Trouble, TroubleReason
from services.publishing.kafka_access import KafkaAccess, no_right_to, refusal
from services.publishing.kept_admin import KeptAdmin

_ANSWERS_WITHIN_MS: Final = 2_000
LOW_BYTES: Final = 1 << 30
LOW_SHARE: Final = 0.05
"""*Policy*: a broker's disk is low below 1 GiB or 5 % of it, whichever is less. A broker whose disk is full ends."""


class BrokerCheck:
    """The check of a broker and of topics on it (see `services.health`)."""

    def __init__(
        self,
        kafka: KafkaAccess,
        partitions: Callable[[str], int],
        topics: Collection[str],
        *,
        low_bytes: int = LOW_BYTES,
        low_share: float = LOW_SHARE,
    ) -> None:
        """`partitions`: the declared number for a topic.

        A disk is low when it has less left than `low_bytes` and than `low_share` of it (0 to 1).
        """
        self._low_bytes = low_bytes
        self._low_share = low_share
        self._kafka = kafka
        self._declared = {topic: partitions(topic) for topic in topics}
        self._admin = KeptAdmin(kafka, _ANSWERS_WITHIN_MS)
        self._left_bytes: int | None = None
        """Room on the fullest disk, when that was low the last time that the broker told."""

    async def __call__(self) -> Sequence[Trouble]:
        """What is wrong with the broker, within some two seconds."""
        return await asyncio.to_thread(self._look)

    def _look(self) -> Sequence[Trouble]:
        try:
            admin = self._admin.connected()
            found = {each["name"]: each for each in admin.describe_topics(list(self._declared))}
            self._left_bytes = self._low(admin.describe_log_dirs({}))
        except (KafkaError, OSError) as error:
            self._admin.let_go()
            return (self._unreachable(type(error).__name__),)
        troubles = [_wrong(topic, count, found.get(topic)) for topic, count in self._declared.items()]
        if self._left_bytes is not None:
            text = f"The broker's disk has {_megabytes(self._left_bytes)} left; when it is full, the broker ends."
            troubles.append(Trouble(TroubleReason.BROKER_DISK_LOW, text, stops=False))
        return [each for each in troubles if each is not None]

    def close(self) -> None:
        """Let the connection go. The next question makes another."""
        self._admin.close()

    def _low(self, brokers: Sequence[Mapping[str, Any]]) -> int | None:
        """The bytes left on the fullest log directory, None where there is room, or where the brokers do not tell."""
        rooms = [
            (each["usable_bytes"], each["total_bytes"])
            for broker in brokers
            for each in broker["log_dirs"]
            if each.get("usable_bytes", -1) >= 0
        ]
        low = [left for left, total in rooms if left < min(self._low_bytes, self._low_share * total)]
        return min(low) if low else None

    def _unreachable(self, error: str) -> Trouble:
        refused = refusal(self._kafka)
        if refused is not None:
            return Trouble(TroubleReason.BROKER_REFUSES, f"{refused} Nothing can be recorded.")
        text = f"No broker answers at {self._kafka} ({error}): nothing can be recorded."
        if self._left_bytes is None:
            return Trouble(TroubleReason.BROKER_UNREACHABLE, text)
        full = f"{text} When it last answered, its disk had {_megabytes(self._left_bytes)} left."
        return Trouble(TroubleReason.BROKER_DISK_FULL, full)


def _wrong(topic: str, declared: int, found: Mapping[str, Any] | None) -> Trouble | None:
    if found is not None and found["error_code"] == TopicAuthorizationFailedError.errno:
        return Trouble(TroubleReason.BROKER_REFUSES, no_right_to(topic))
    if found is None or not found["partitions"]:
        return Trouble(TroubleReason.LOG_INCOMPLETE, f"The broker has no topic {topic}.")
    if len(found["partitions"]) != declared:
        text = f"Topic {topic} has {len(found['partitions'])} partitions, but {declared} are declared."
        return Trouble(TroubleReason.PARTITION_COUNT, text)
    headless = sorted(each["partition_index"] for each in found["partitions"] if each["leader_id"] < 0)
    if headless:
        text = f"Partitions of {topic} without a leader: {', '.join(map(str, headless))}."
        return Trouble(TroubleReason.LOG_INCOMPLETE, text)
    return None


def _megabytes(count: int) -> str:
    return f"{count / 1_000_000:,.0f} MB"
