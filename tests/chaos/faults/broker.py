"""The broker killed, ended, away when others start, away for long."""

import random
import signal
from collections.abc import Iterator

from tests.chaos.faults.registry import BROKER_MS, fault
from tests.chaos.stand import Stand


@fault(bound_ms=BROKER_MS, weight=2, holds_s=(0.0, 5.0))
def broker_sigkill(stand: Stand, _dice: random.Random) -> Iterator[None]:
    """SIGKILL of the broker; it is back after a while."""
    stand.broker.kill()
    try:
        yield
    finally:
        stand.start_broker()


@fault(bound_ms=BROKER_MS, holds_s=(0.0, 3.0))
def broker_sigterm(stand: Stand, _dice: random.Random) -> Iterator[None]:
    """The broker is stopped cleanly and started again."""
    stand.broker.stop()
    try:
        yield
    finally:
        stand.start_broker()


@fault(bound_ms=BROKER_MS, holds_s=(6.0, 6.0))
def started_without_broker(stand: Stand, _dice: random.Random) -> Iterator[None]:
    """Every process is killed and started again while the broker is away."""
    stand.broker.kill()
    for name in stand.names():
        stand.send_signal(name, signal.SIGKILL)
    try:
        yield
    finally:
        stand.start_broker()


@fault(bound_ms=BROKER_MS, weight=0, holds_s=(70.0, 70.0))
def broker_away_70_s(stand: Stand, _dice: random.Random) -> Iterator[None]:
    """The broker is away for longer than any session, delivery or connection waits."""
    stand.broker.kill()
    try:
        yield
    finally:
        stand.start_broker()
