"""What can be wrong with a process or with what it needs: a reason for machines, a sentence for the person on duty."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from schemas.reasons import DoorReason


class TroubleReason(StrEnum):
    """Why a process is not ready. Each reason is in a runbook."""

    BROKER_UNREACHABLE = "broker_unreachable"
    """No broker answers, or it answers nothing in time."""
    BROKER_REFUSES = "broker_refuses"
    """A broker is there, and takes no connection with this process' certificate, or gives it no right to what it needs."""
    BROKER_DISK_LOW = "broker_disk_low"
    """The broker answers, and its disk has little room left."""
    BROKER_DISK_FULL = "broker_disk_full"
    """No broker answers, and its disk had little room left when it last did."""
    LOG_INCOMPLETE = "log_incomplete"
    """The broker answers, and lacks a topic or a partition's leader."""
    LOG_UNCONFIRMED = "log_unconfirmed"
    """The broker answers, and does not confirm what is appended."""
    LOG_OVERLOADED = "log_overloaded"
    """More appends wait for the broker than are taken on."""
    PARTITION_COUNT = "partition_count"
    """A topic has another number of partitions than declared."""
    REDIS_UNREACHABLE = "redis_unreachable"
    """Redis does not answer in time."""
    REDIS_LOADING = "redis_loading"
    """Redis still reads its file."""
    REDIS_READ_ONLY = "redis_read_only"
    """Redis is a replica, or lacks the replicas that it must have."""
    REDIS_OUT_OF_MEMORY = "redis_out_of_memory"
    """Redis has reached its `maxmemory`."""
    REDIS_DISK_FULL = "redis_disk_full"
    """Redis cannot write its file."""
    REDIS_REFUSES = "redis_refuses"
    """Redis takes no writes for another reason."""
    VIEW_INCOMPLETE = "view_incomplete"
    """The view was lost, or is being built: partitions of it cannot be shown."""
    LIST_UNAVAILABLE = "list_unavailable"
    """The medication list does not answer, or says that it is not ready."""
    PARTITION_STOPPED = "partition_stopped"
    """A partition is not read on: nothing of it may be skipped."""
    PARTITION_STUCK = "partition_stuck"
    """A partition has records to judge and makes no progress."""
    NOT_STARTED = "not_started"
    """The process has not come to its work yet."""
    SUBMISSIONS_LOST = "submissions_lost"
    """Submissions were deleted from their topic before they were read."""
    SUBMISSIONS_UNREADABLE = "submissions_unreadable"
    """A partition of submissions is not read on: a batch of it is damaged."""
    TOPIC_UNDECLARED = "topic_undeclared"
    """A topic is named like those of submissions, and no system can have one of that name."""
    ROUND_FAILED = "round_failed"
    """The last round of work failed, and is tried again."""
    NOT_CHECKED = "not_checked"
    """Whether there is trouble could not be found out in time."""


_OF_THE_LIST: Final = frozenset(
    {
        TroubleReason.REDIS_UNREACHABLE,
        TroubleReason.REDIS_LOADING,
        TroubleReason.REDIS_READ_ONLY,
        TroubleReason.REDIS_OUT_OF_MEMORY,
        TroubleReason.REDIS_DISK_FULL,
        TroubleReason.REDIS_REFUSES,
        TroubleReason.VIEW_INCOMPLETE,
        TroubleReason.LIST_UNAVAILABLE,
    }
)


class Trouble(NamedTuple):
    """One thing that is wrong. `text` is a sentence for people, without addresses' passwords, patients or contents.

    `stops`: whether the process cannot do its main work; if not, it is still ready and reports the trouble.
    `named`: what belongs to the problem as data, such as partitions and their progress.
    """

    reason: TroubleReason
    text: str
    stops: bool = True
    named: Mapping[str, Any] = MappingProxyType({})

    def document(self) -> dict[str, Any]:
        """As it is answered: reason and text, with what is named beside them."""
        return {**self.named, "reason": self.reason.value, "text": self.text}

    @property
    def door_reason(self) -> DoorReason:
        """As what a caller meets it: the log that cannot answer, or the list."""
        return DoorReason.LIST_UNAVAILABLE if self.reason in _OF_THE_LIST else DoorReason.LOG_UNAVAILABLE
