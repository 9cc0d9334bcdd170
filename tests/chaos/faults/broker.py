"""The broker killed, ended, away when others start, away for long."""

import random
import signal
from collections.abc import Iterator

from tests.chaos.faults.registry import BROKER_MS, fault, let_pass
from tests.chaos.stand import Stand


@fault(bound_ms=BROKER_MS, weight=2)
def broker_sigkill(stand: Stand, dice: random.Random) -> Iterator[None]:
    """SIGKILL of the broker; it is back after a while."""
    stand.broker.kill()
    let_pass(dice.uniform(0, 5))
    stand.broker.start()
    yield


@fault(bound_ms=BROKER_MS)
def broker_sigterm(stand: Stand, dice: random.Random) -> Iterator[None]:
    """The broker is ended cleanly and started again."""
    stand.broker.stop()
    let_pass(dice.uniform(0, 3))
    stand.broker.start()
    yield


@fault(bound_ms=BROKER_MS)
def started_without_broker(stand: Stand, _dice: random.Random) -> Iterator[None]:
    """Every process is killed and starts again while the broker is away."""
    stand.broker.kill()
    for name in stand.names():
        stand.send_signal(name, signal.SIGKILL)
    let_pass(6.0)
    stand.broker.start()
    yield


@fault(bound_ms=BROKER_MS, weight=0)
def broker_away_70_s(stand: Stand, _dice: random.Random) -> Iterator[None]:
    """The broker is away for longer than any session, delivery or connection waits."""
    stand.broker.kill()
    let_pass(70.0)
    stand.broker.start()
    yield
