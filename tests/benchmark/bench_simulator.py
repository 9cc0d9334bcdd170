"""How fast the town fills a real log: events a second, producing and sealing included.

``pytest -m benchmark tests/benchmark/bench_simulator.py -s`` prints it.
"""

# ruff: noqa: T201 — printing is what it does

import asyncio
import time
from pathlib import Path

import pytest

from services.identity.pseudonym import Pseudonymiser
from services.identity.sealing import Sealer
from services.publishing.kafka_access import KafkaAccess
from services.simulator.history import History
from services.simulator.log_channel import LogChannel
from services.simulator.playing import Played, play
from services.simulator.population import Town
from services.simulator.town import events

EVENTS = 100_000
LEAST_PER_SECOND = 5_000


@pytest.mark.benchmark
def test_the_town_fills_the_log_fast_enough_for_a_backlog(kafka: str, tmp_path: Path) -> None:
    town = Town(EVENTS // 100)
    began = time.perf_counter()
    for _ in events(1, EVENTS, town=town):
        pass
    planning_s = time.perf_counter() - began

    async def run(lines: History) -> Played:
        channel = LogChannel(KafkaAccess(kafka), town, Pseudonymiser(bytes(32)), Sealer(bytes(32)), lines)
        return await play(events(1, EVENTS, town=town), {channel: 1})

    with History(tmp_path / "history.jsonl") as lines:
        played = asyncio.run(run(lines))
    print(f"planning alone: {planning_s / EVENTS * 1e6:.1f} µs an event")
    print(f"into the log: {played.events_per_second:,.0f} events a second ({EVENTS:,} in {played.seconds:.1f} s)")
    assert lines.counts == {("log", "in_log"): EVENTS}
    assert played.events_per_second > LEAST_PER_SECOND
