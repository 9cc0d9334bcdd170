"""Starts a process of the chain with crash points, another release or a broken protection laid over it from outside.

`python -m tests.chaos.under_test <module> [arguments]`. Production code knows nothing of it: the methods are wrapped here, before the
module runs. CHAOS_ORDERS names a folder: a file in it, named after a crash point, has the process give itself the signal
that the file holds (SIGKILL, or SIGSTOP) the next time it comes by, once. CHAOS_RELEASE and CHAOS_MUTANT lay what they name over the code (`mutants.py`).
"""

import functools
import importlib
import inspect
import os
import runpy
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

ORDERS: Final = "CHAOS_ORDERS"
RELEASE: Final = "CHAOS_RELEASE"
MUTANT: Final = "CHAOS_MUTANT"
PROGRESS_TOPIC: Final = "relay-progress"


class Point(NamedTuple):
    """A moment at which a process can be killed: before or after a method, where `applies` to its arguments."""

    module: str
    owner: str
    method: str
    after: bool
    applies: Callable[..., bool] = lambda *_, **__: True


def _effects(_: object, records: Any) -> bool:
    return any(record.topic != PROGRESS_TOPIC for record in records)


def _progress(_: object, records: Any) -> bool:
    return any(record.topic == PROGRESS_TOPIC for record in records)


_STORE = ("services.medication_list.store.redis_store", "RedisStore")
_ROLES = ("services.medication_list.store.redis_roles", "RedisRoles")
_OUTBOX = ("services.medication_list.store.redis_outbox", "RedisOutbox")
_LOG = ("services.publishing.kafka_log", "KafkaLog")
_INBOX = ("services.submissions.inbox", "Inbox")
_OFFSETS = ("services.medication_list.driver.kafka", "PartitionReader")

# fmt: off
POINTS: Final[Mapping[str, Mapping[str, Point]]] = {
    "processor": {
        "after_store_read": Point(*_STORE, "read", after=True),
        "before_store_write": Point(*_STORE, "write", after=False),
        "after_store_write": Point(*_STORE, "write", after=True),
        "before_offset_publication": Point(*_OFFSETS, "publish_offsets", after=False),
    },
    "relay": {
        "before_send": Point(*_LOG, "append_many", after=False, applies=_effects),
        "after_send_before_progress": Point(*_LOG, "append_many", after=True, applies=_effects),
        "after_progress_before_delete": Point(*_LOG, "append_many", after=True, applies=_progress),
        "after_delete": Point(*_OUTBOX, "relayed", after=True),
    },
    "recorder": {
        "before_append": Point(*_LOG, "append", after=False),
        "after_append_before_answer": Point(*_LOG, "append", after=True),
    },
    "inbox": {
        "before_append": Point(*_LOG, "append", after=False),
        "after_append_before_commit": Point(*_INBOX, "_commit", after=False),
        "after_commit": Point(*_INBOX, "_commit", after=True),
    },
    "beginning": {
        "before_begin": Point(*_ROLES, "begin", after=False),
        "after_begin": Point(*_ROLES, "begin", after=True),
    },
}
"""Every crash point, by the kind of process that comes by it; `beginning` is a processor's after the view was lost."""
# fmt: on


def main() -> None:
    """Lay over what the environment asks for, then run the module as if it had been started itself."""
    module = sys.argv[1]
    if os.environ.get(RELEASE) or os.environ.get(MUTANT):
        from tests.chaos import mutants  # noqa: PLC0415  imports the chain, and is not needed by most

        mutants.apply(os.environ.get(RELEASE, ""), os.environ.get(MUTANT, ""))
    if os.environ.get(ORDERS):
        _lay_points(Path(os.environ[ORDERS]), kinds_of(module))
    sys.argv = sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def kinds_of(module: str) -> tuple[str, ...]:
    """Which crash points a module comes by."""
    kinds = {
        "services.medication_list.processor.app": ("processor", "beginning"),
        "services.medication_list.relay.app": ("relay",),
        "services.prescriber.app": ("recorder",),
        "services.pharmacy.app": ("recorder",),
        "services.prescriber.inbox": ("inbox",),
        "services.pharmacy.inbox": ("inbox",),
    }
    return kinds.get(module, ())


def _lay_points(orders: Path, kinds: tuple[str, ...]) -> None:
    for kind in kinds:
        for name, point in POINTS[kind].items():
            owner = getattr(importlib.import_module(point.module), point.owner)
            setattr(owner, point.method, _guarded(getattr(owner, point.method), point, orders / name))


def _guarded(method: Callable[..., Any], point: Point, order: Path) -> Callable[..., Any]:
    """The method, which kills its process before or after it where that was ordered."""
    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def waiting(*args: Any, **named: Any) -> Any:
            if not point.after and point.applies(*args, **named):
                _obey(order)
            answer = await method(*args, **named)
            if point.after and point.applies(*args, **named):
                _obey(order)
            return answer

        return waiting

    @functools.wraps(method)
    def direct(*args: Any, **named: Any) -> Any:
        if not point.after and point.applies(*args, **named):
            _obey(order)
        answer = method(*args, **named)
        if point.after and point.applies(*args, **named):
            _obey(order)
        return answer

    return direct


def _obey(order: Path) -> None:
    """Do what was ordered, if anything was. The order is taken away first: it is for once."""
    try:
        number = signal.Signals[order.read_text(encoding="ascii")]
        order.unlink()
    except (FileNotFoundError, KeyError):
        return
    os.kill(os.getpid(), number)


if __name__ == "__main__":
    main()
