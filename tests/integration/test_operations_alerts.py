"""Each alert fires when its condition is made: on the real platform where it can be made there, and by Prometheus' word."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final
from uuid import uuid4

import httpx
import pytest
import redis
import yaml
from kafka import KafkaProducer
from prometheus_client import generate_latest

from deploy.local.layout import CHECKOUT
from deploy.local.platform import Platform
from deploy.local.waiting import wait_until
from services.health import Readiness
from services.medication_list.driver.cursors import Cursors, StopReason
from services.medication_list.judging import Judged
from services.medication_list.overview import GenerationOverview, Overview
from services.medication_list.overview_metrics import Overlooking
from services.medication_list.processor_metrics import Positions, ProcessorMetrics
from services.medication_list.store.port import Standing
from services.publishing.broker_check import BrokerCheck
from services.publishing.kafka_access import KafkaAccess
from services.publishing.partitioning import partition_of
from services.submissions.inbox_metrics import InboxMetrics
from services.telemetry import Registry, TroubleMetrics, new_registry
from services.topics.registry import EVENTS_TOPIC, load
from tests.alerting import RULES, Series, check_fires, scrape, told
from tests.integration.test_metrics import prescription_message

pytestmark = pytest.mark.integration

WITHIN_S: Final = 60.0
WITHOUT_OWNER: Final = "medchain_partitions_without_owner"
PROCESSES: Final = (
    *("prescriber", "pharmacy", "medication-list", "processor-1", "relay", "prescriber-inbox", "pharmacy-inbox"),
)
ON_THE_PLATFORM: Final = {
    *("MedchainRecordsParked", "MedchainEffectsHeld", "MedchainOutboxAge", "MedchainRedisMemory"),
    *("MedchainProcessDown", "MedchainProcessorDown", "MedchainPartitionWithoutOwner", "MedchainLag"),
    *("MedchainLogUnavailable", "MedchainServerErrors", "MedchainRedisTrouble", "MedchainOverviewMissing"),
}
WITH_RIGHTS: Final = {"MedchainRoundFailed"}
"""Made in `test_secured_kafka.py`, where a process can lack a right."""


def rules() -> list[dict[str, object]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def trouble(process: str, reason: str) -> str:
    """How the series of a process' trouble begins."""
    return f'medchain_trouble{{instance="{process}",job="medchain",reason="{reason}"'


class Stand:
    """A platform, what it told while it was well, and a way to look again."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self._targets = {each: platform.url(each) for each in PROCESSES}
        self.healthy: Series = {}
        wait_until(self._is_well, within_s=WITHIN_S, what="all have begun, and nobody is troubled any more")

    def _is_well(self) -> bool:
        """Whether every partition has an owner and nobody has a trouble, but for the disk of this machine."""
        self.healthy = self.scraped()
        troubled = [name for name, value in self.healthy.items() if name.startswith("medchain_trouble{") and value]
        owned = [value == 0 for name, value in self.healthy.items() if name.startswith(WITHOUT_OWNER)]
        return bool(owned) and all(owned) and all("broker_disk_low" in name for name in troubled)

    def scraped(self) -> Series:
        """One scrape of everything."""
        return scrape(self._targets)

    def until(self, name: str, holds: Callable[[float], bool]) -> Series:
        """The first scrape in which a series of that name has such a value."""
        seen: list[Series] = []

        def found() -> bool:
            seen[:] = [self.scraped()]
            return any(each.startswith(name) and holds(value) for each, value in seen[0].items())

        wait_until(found, within_s=WITHIN_S, what=name)
        return seen[0]

    @contextmanager
    def standing_still(self, part: str) -> Iterator[None]:
        """A process that is there and does nothing."""
        pid = self.platform.supervisor.pids[part]
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def append_junk(self) -> None:
        """A record that nobody can read, in partition 0 of the log."""
        keys = (uuid4().hex.encode() for _ in range(1000))
        key = next(each for each in keys if partition_of(each, load().partitions(EVENTS_TOPIC)) == 0)
        with closing(KafkaProducer(bootstrap_servers=self.platform.kafka_address)) as producer:
            producer.send(EVENTS_TOPIC, key=key, value=b"junk", partition=0).get(timeout=WITHIN_S)


@pytest.fixture(scope="module")
def stand(watched: Platform) -> Stand:
    return Stand(watched)


def test_what_waits_is_parked_or_does_not_fit_raises_its_alert(stand: Stand, tmp_path: Path) -> None:
    stand.append_junk()
    with redis.Redis.from_url(stand.platform.redis_url) as client:
        # Ten minutes old, and of no release.
        client.xadd("{0}:outbox", {"e": b"junk"}, id=f"{(client.time()[0] - 600) * 1000}-0")
        client.config_set("maxmemory", int(client.info("memory")["used_memory"] * 1.15))
        try:
            stand.until("medchain_relay_held_topics", lambda value: value > 0)
            stand.until("medchain_redis_max_bytes", lambda value: value > 0)
            seen = stand.until("medchain_parked_records", lambda value: value > 0)
        finally:
            client.config_set("maxmemory", 0)
            client.xtrim("{0}:outbox", maxlen=0)
    alerts = ("MedchainRecordsParked", "MedchainEffectsHeld", "MedchainOutboxAge", "MedchainRedisMemory")
    check_fires(tmp_path, alerts, stand.healthy, seen)


def test_a_processor_that_stands_still_raises_lag_and_partitions_without_owner(stand: Stand, tmp_path: Path) -> None:
    with stand.standing_still("processor-1"):
        stand.append_junk()
        stand.until(WITHOUT_OWNER, lambda value: value > 0)
        seen = stand.until("medchain_view_lag_seconds", lambda value: value > 0)
    alerts = ("MedchainProcessDown", "MedchainProcessorDown", "MedchainPartitionWithoutOwner", "MedchainLag")
    check_fires(tmp_path, alerts, stand.healthy, seen)


def test_a_broker_that_is_silent_raises_that_nothing_can_be_recorded(stand: Stand, tmp_path: Path) -> None:
    before = stand.scraped()
    with stand.standing_still("kafka"):
        asked = {"Medchain-Caller": "system=journal; organisation=313000044; role=doctor; person=9144900"}
        answer = httpx.post(
            f"{stand.platform.url('prescriber')}/v1/prescriptions",
            json=prescription_message(str(uuid4())),
            headers=asked | {"Idempotency-Key": str(uuid4())},
            timeout=WITHIN_S,
        )
        seen = stand.until(trouble("prescriber", "broker_unreachable"), lambda value: value > 0)
    assert answer.status_code == 503, answer.text
    check_fires(tmp_path, ("MedchainLogUnavailable", "MedchainServerErrors"), before, seen)


def test_a_redis_that_is_silent_raises_its_alert(stand: Stand, tmp_path: Path) -> None:
    before = stand.healthy
    with stand.standing_still("redis"):
        seen = stand.until(trouble("medication-list", "redis_unreachable"), lambda value: value > 0)
    check_fires(tmp_path, ("MedchainRedisTrouble",), before, seen)


def test_a_relay_that_tells_nothing_raises_that_the_others_are_blind(stand: Stand, tmp_path: Path) -> None:
    with stand.standing_still("relay"):
        seen = stand.until('up{instance="relay"', lambda value: value == 0)
    check_fires(tmp_path, ("MedchainOverviewMissing",), stand.healthy, seen)


# --- What cannot be made on a platform within seconds: the same metrics, told what the process would tell them ----


async def checked(check: BrokerCheck, registry: Registry) -> None:
    """The real check of the real broker, as readiness would have it."""
    readiness = Readiness({"broker": check})
    TroubleMetrics(readiness, registry)
    readiness.tell(await readiness.troubles())
    check.close()


def stopped(registry: Registry) -> None:
    cursors = Cursors()
    cursors.assign([3], 0.0)
    (turn,) = cursors.unplaced([3]).values()
    cursors.place(3, turn, Standing(7))
    cursors.stop(3, turn, StopReason.OFFSET_OUT_OF_RANGE, 60.0)
    Positions(registry).follow(cursors.status)


def stuck(registry: Registry) -> None:
    cursors = Cursors()
    cursors.assign([3], 0.0)
    (turn,) = cursors.unplaced([3]).values()
    cursors.place(3, turn, Standing(7))
    cursors.take_seeks([3])
    cursors.take(3, turn, (), 8, 9)
    assert cursors.stuck(1000.0, 60.0)
    Positions(registry).follow(cursors.status)


def behind(registry: Registry) -> None:
    InboxMetrics(registry).behind(700)


def building(registry: Registry) -> None:
    made = GenerationOverview(
        generation="g2-abcdef", fold_version=2, release="0.1.0", made_at_ms=0, is_live=True, is_complete=False, lag=5
    )
    Overlooking(lambda: Overview(at_ms=7_200_000, partitions=(), generations=(made,)), registry).look()


def conflicting(registry: Registry) -> None:
    ProcessorMetrics(registry).judged(Judged(conflicts=1))


MADE: Final[dict[str, Callable[[Registry], None]]] = {
    "MedchainPartitionStopped": stopped,
    "MedchainPartitionStuck": stuck,
    "MedchainInboxBehind": behind,
    "MedchainGenerationBuilding": building,
    "MedchainNumberConflict": conflicting,
}
ASKED: Final = {"MedchainBrokerDiskLow", "MedchainPartitionCount"}


@pytest.mark.parametrize("alert", MADE)
def test_a_condition_that_a_process_finds_in_itself_raises_its_alert(alert: str, tmp_path: Path) -> None:
    registry = new_registry()
    MADE[alert](registry)
    check_fires(tmp_path, (alert,), {}, told(generate_latest(registry).decode()))


async def test_what_the_broker_says_of_disk_and_partitions_raises_its_alert(stand: Stand, tmp_path: Path) -> None:
    kafka = stand.platform.kafka_address
    low, other = new_registry(), new_registry()
    await checked(
        BrokerCheck(KafkaAccess(kafka), load().partitions, [EVENTS_TOPIC], low_bytes=1 << 62, low_share=1.0), low
    )
    await checked(BrokerCheck(KafkaAccess(kafka), lambda _: 9, [EVENTS_TOPIC]), other)
    check_fires(tmp_path, ("MedchainBrokerDiskLow",), {}, told(generate_latest(low).decode()))
    check_fires(tmp_path, ("MedchainPartitionCount",), {}, told(generate_latest(other).decode()))


# --- The rules themselves -----------------------------------------------------------------------------------------


def test_every_rule_is_made_to_fire_by_a_test() -> None:
    assert {rule["alert"] for rule in rules()} == ON_THE_PLATFORM | MADE.keys() | ASKED | WITH_RIGHTS
    elsewhere = Path(__file__).with_name("test_secured_kafka.py").read_text(encoding="utf-8")
    assert [alert for alert in WITH_RIGHTS if f'"{alert}"' not in elsewhere] == []


def test_every_rule_has_a_runbook_that_names_it() -> None:
    unnamed: Sequence[object] = [
        rule["alert"]
        for rule in rules()
        if f"`{rule['alert']}`" not in (CHECKOUT / str(rule["annotations"]["runbook_url"])).read_text(encoding="utf-8")  # type: ignore[index]
    ]
    assert unnamed == []
