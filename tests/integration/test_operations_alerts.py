"""Each alert fires when its condition is made, mostly on a platform, and by Prometheus' word."""

import asyncio
import itertools
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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

from deploy.local.keys import keys_of
from deploy.local.layout import CHECKOUT
from deploy.local.platform import Platform
from deploy.local.waiting import wait_until
from services.clock import ManualClock, SystemClock
from services.health import Readiness
from services.identity.national_id import synthetic
from services.identity.pseudonym import Pseudonymiser
from services.medication_list.fold import VERSION
from services.medication_list.generations import RELEASE, GenerationRecord, GenerationState, begin_beside, mark
from services.medication_list.log.source_log import KafkaSourceLog
from services.medication_list.store.keys import PartitionKeys
from services.medication_list.store.link import Link
from services.medication_list.store.redis_inventory import RedisInventory
from services.medication_list.store.redis_roles import RedisRoles
from services.medication_list.store.roles import Attending, WorkerKind
from services.publishing.broker_check import BrokerCheck
from services.publishing.kafka_access import KafkaAccess
from services.publishing.partitioning import partition_of
from services.submissions.inbox import Inbox
from services.submissions.inbox_metrics import InboxMetrics
from services.submissions.reception import Received
from services.telemetry import Registry, TroubleMetrics, new_registry
from services.topics.registry import EVENTS_TOPIC, load
from tests.alerting import RULES, STEPS_OF_AN_HOUR, Series, check_fires, scrape, told
from tests.integration.test_metrics import prescription_message

pytestmark = pytest.mark.integration

WITHIN_S: Final = 60.0
WITHOUT_OWNER: Final = "medchain_partitions_without_owner"
PROCESSES: Final = (
    *("prescriber", "pharmacy", "medication-list", "processor-1", "relay", "prescriber-inbox", "pharmacy-inbox"),
)
ELSEWHERE: Final = {
    "MedchainRoundFailed": "test_secured_kafka.py",
    "MedchainSubmissionsNotRead": "test_inbox_topics.py",
    "MedchainPartitionStopped": "test_driver.py",
    "MedchainPartitionStuck": "test_driver.py",
}
"""Made where a process can lack a right, and where a log may lose records and a worker's patience is short."""
DOCTOR: Final = {"Medchain-Caller": "system=journal; organisation=313000044; role=doctor; person=9144900"}


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
        self._numbers = itertools.count(1000)
        wait_until(self._is_well, within_s=WITHIN_S, what="all have begun, and nobody is troubled any more")

    def _is_well(self) -> bool:
        """Whether every partition has an owner and nobody has a trouble, but for the disk of this machine."""
        self.healthy = self.scraped()
        return _is_untroubled(self.healthy)

    def once_well(self) -> Series:
        """The first scrape in which nothing is left of what a test before this one did.

        After a silence of the log one write at a time is let through, until one was taken.
        """
        seen: list[Series] = []

        def found() -> bool:
            taken = issue(self, synthetic(1).digits, str(uuid4())).status_code == httpx.codes.CREATED
            seen[:] = [self.scraped()]
            return taken and _is_untroubled(seen[0])

        wait_until(found, within_s=WITHIN_S, what="nobody is troubled any more")
        return seen[0]

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

    def two_patients(self, *, same_partition: bool) -> tuple[str, str]:
        """The numbers of two citizens, of one partition or of two."""
        key = bytes.fromhex(keys_of(self.platform.directory)["MEDCHAIN_PSEUDONYM_KEY"])
        of, partitions = Pseudonymiser(key).patient_key, load().partitions(EVENTS_TOPIC)
        first, *others = (synthetic(next(self._numbers)) for _ in range(50))
        where = {each: partition_of(of(each).encode(), partitions) for each in (first, *others)}
        second = next(each for each in others if (where[each] == where[first]) is same_partition)
        return first.digits, second.digits

    def read(self, national_id: str) -> None:
        """Read a citizen's list; it may not be there yet."""
        url, asked = f"{self.platform.url('medication-list')}/v1/list/read", {"patient": {"national_id": national_id}}
        httpx.post(url, json=asked, headers=DOCTOR, timeout=WITHIN_S)

    def append_junk(self) -> None:
        """A record that nobody can read, in partition 0 of the log."""
        keys = (uuid4().hex.encode() for _ in range(1000))
        key = next(each for each in keys if partition_of(each, load().partitions(EVENTS_TOPIC)) == 0)
        with closing(KafkaProducer(bootstrap_servers=self.platform.kafka_address)) as producer:
            producer.send(EVENTS_TOPIC, key=key, value=b"junk", partition=0).get(timeout=WITHIN_S)


def _is_untroubled(seen: Series) -> bool:
    troubled = [name for name, value in seen.items() if name.startswith("medchain_trouble{") and value]
    owned = [value == 0 for name, value in seen.items() if name.startswith(WITHOUT_OWNER)]
    return bool(owned) and all(owned) and all("broker_disk_low" in name for name in troubled)


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
        assert issue(stand, synthetic(1).digits, str(uuid4())).status_code == 503
        seen = stand.until(trouble("prescriber", "broker_unreachable"), lambda value: value > 0)
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


def issue(stand: Stand, national_id: str, prescription: str, **changed: object) -> httpx.Response:
    """Send a prescription."""
    return httpx.post(
        f"{stand.platform.url('prescriber')}/v1/prescriptions",
        json={**prescription_message(prescription, national_id), **changed},
        headers=DOCTOR | {"Idempotency-Key": str(uuid4())},
        timeout=WITHIN_S,
    )


@pytest.mark.parametrize("same", [True, False], ids=["of one partition", "of two partitions"])
def test_one_number_for_two_patients_raises_its_alert(stand: Stand, tmp_path: Path, *, same: bool) -> None:
    """Both come while nothing is judged, so that the door can know neither."""
    before, prescription, patients = stand.once_well(), str(uuid4()), stand.two_patients(same_partition=same)
    with stand.standing_still("processor-1"), ThreadPoolExecutor() as both:
        answers = [*both.map(lambda each: issue(stand, each, prescription), patients)]
    assert [each.status_code for each in answers] == [202, 202], [each.text for each in answers]
    counts = "medchain_processor_number_conflicts_total" if same else "medchain_read_number_conflicts_total"
    (counted,) = (value for name, value in before.items() if name.startswith(counts))
    seen: list[Series] = []

    def is_counted() -> bool:
        for each in patients:
            stand.read(each)
        seen[:] = [stand.scraped()]
        return any(name.startswith(counts) and value > counted for name, value in seen[0].items())

    wait_until(is_counted, within_s=WITHIN_S, what="it is counted")
    check_fires(tmp_path, ("MedchainNumberConflict",), before, seen[0])


def test_a_prescription_that_comes_again_with_other_content_raises_its_alert(stand: Stand, tmp_path: Path) -> None:
    before, prescription, (patient, _) = stand.once_well(), str(uuid4()), stand.two_patients(same_partition=True)
    assert issue(stand, patient, prescription).status_code == 201
    assert issue(stand, patient, prescription, refills=3).status_code == 409
    counts = "medchain_processor_conflicting_duplicates_total"
    (counted,) = (value for name, value in before.items() if name.startswith(counts))
    seen = stand.until(counts, lambda value: value > counted)
    check_fires(tmp_path, ("MedchainConflictingDuplicate",), before, seen)


def test_a_live_view_of_which_a_partition_is_lost_raises_its_alert(stand: Stand, tmp_path: Path) -> None:
    """With nobody there to make it again. What is lost is a role, which is put back as it was."""
    role = PartitionKeys(0).role
    with closing(redis.Redis.from_url(stand.platform.redis_url)) as client, stand.standing_still("processor-1"):
        stood = client.dump(role)
        assert stood is not None
        client.delete(role)
        try:
            seen = stand.until("medchain_generation_building", lambda value: value == 1)
        finally:
            client.restore(role, 0, stood)
    check_fires(tmp_path, ("MedchainGenerationBuilding",), stand.healthy, seen, STEPS_OF_AN_HOUR)


def test_a_generation_that_nobody_completes_raises_its_alert_and_a_replay_that_works_does_not(
    stand: Stand, tmp_path: Path
) -> None:
    """As one is left by a replay that was killed."""
    record = GenerationRecord(VERSION, RELEASE, SystemClock().now_ms(), GenerationState.FILLING)
    with closing(Link(stand.platform.redis_url)) as link:
        roles, inventory = RedisRoles(link), RedisInventory(link)
        made = begin_beside(roles, KafkaSourceLog(KafkaAccess(stand.platform.kafka_address)), record)
        try:
            name = f'medchain_generation_left{{generation="{made}"'
            seen = stand.until(name, lambda value: value == 1)
            roles.attend(made, Attending(WorkerKind.REPLAY, "here"), for_ms=60_000)
            stand.until(name, lambda value: value == 0)
        finally:
            mark(roles, made, GenerationState.RETIRED)
            for partition in range(load().partitions(EVENTS_TOPIC)):
                inventory.forget(partition, made)
    check_fires(tmp_path, ("MedchainReplayLeft",), stand.healthy, seen, STEPS_OF_AN_HOUR)
    assert not [each for each, value in seen.items() if each.startswith("medchain_generation_building") and value]


async def test_an_inbox_that_reads_what_is_old_raises_its_alert(stand: Stand, tmp_path: Path) -> None:
    """By a clock that is ahead: the broker gives each record the time at which it took it."""
    registry, clock = new_registry(), ManualClock(SystemClock().now_ms() + 15 * 60 * 1000)
    topic = next(each.name for each in load().wanted() if each.name.startswith("dispense-submissions."))
    seen: Series = {}

    async def receive(_: Received) -> None:
        seen.update(told(generate_latest(registry).decode()))
        inbox.stop()

    inbox = Inbox(
        kafka=KafkaAccess(stand.platform.kafka_address),
        kind="dispense-submissions",
        group=f"test-{uuid4().hex}",
        receive=receive,
        clock=clock,
        metrics=InboxMetrics(registry),
    )
    with closing(KafkaProducer(bootstrap_servers=stand.platform.kafka_address)) as producer:
        producer.send(topic, b"junk").get(timeout=WITHIN_S)
    await asyncio.wait_for(inbox.run(), WITHIN_S)
    check_fires(tmp_path, ("MedchainInboxBehind",), {}, seen)


# --- What would take the platform with it: a full disk, and partitions that nobody can take away again. The broker is asked
# all the same, by the check of the processes; only what it is held against is another.


async def checked(check: BrokerCheck, registry: Registry) -> None:
    """The real check of the real broker, as readiness would have it."""
    readiness = Readiness({"broker": check})
    TroubleMetrics(readiness, registry)
    readiness.tell(await readiness.troubles())
    check.close()


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
    texts = {name: Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ELSEWHERE.values()}
    here = Path(__file__).read_text(encoding="utf-8").partition("\nclass Stand:")[2]
    named = {rule["alert"]: texts.get(ELSEWHERE.get(str(rule["alert"]), ""), here) for rule in rules()}
    assert [alert for alert, text in named.items() if f'"{alert}"' not in text] == []


def test_every_rule_has_a_runbook_that_names_it() -> None:
    unnamed: Sequence[object] = [
        rule["alert"]
        for rule in rules()
        if f"`{rule['alert']}`" not in (CHECKOUT / str(rule["annotations"]["runbook_url"])).read_text(encoding="utf-8")  # type: ignore[index]
    ]
    assert unnamed == []
