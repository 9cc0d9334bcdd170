"""Disks that are full for a while: small file systems of their own, where this machine allows them."""

import contextlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.faults.registry import (
    BROKER_MS,
    PROCESSOR_MS,
    NotPossibleHereError,
    fault,
)
from tests.chaos.stand import Stand


@fault(bound_ms=PROCESSOR_MS, holds_s=(5.0, 5.0))
def redis_disk_full(stand: Stand, _dice: random.Random) -> Iterator[None]:
    """The disk with Redis' file is full for a while: Redis refuses writes."""
    with _full(stand.redis.directory):
        yield


@fault(bound_ms=BROKER_MS, holds_s=(5.0, 5.0))
def broker_disk_full(stand: Stand, _dice: random.Random) -> Iterator[None]:
    """The disk of the log is full: the broker gives up; space is freed, and it is started."""
    try:
        with _full(stand.broker.directory):
            yield
    finally:
        stand.broker.stop()
        stand.start_broker()


@contextmanager
def _full(directory: Path) -> Iterator[None]:
    """Fill the file system of a folder, which must be one of its own."""
    if not directory.is_mount():
        raise NotPossibleHereError("no small file system could be mounted here: that takes root")
    balloon = directory / "balloon"
    try:
        with balloon.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"\0" * 4096):
                pass
        yield
    finally:
        balloon.unlink(missing_ok=True)
