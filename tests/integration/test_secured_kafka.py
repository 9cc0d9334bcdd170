"""Kafka by certificates: everything goes its way with the rights of the manifests, and nobody gets in with less."""

import asyncio
import copy
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from kafka import KafkaAdminClient, KafkaConsumer
from kafka.errors import KafkaError, TopicAuthorizationFailedError

from deploy.kubernetes.manifests import kafka_user, our_user
from deploy.local.waiting import wait_until
from deploy.services import SERVICES
from services.clock import SystemClock
from services.health import Trouble, TroubleReason
from services.medication_list.log.source_log import KafkaSourceLog, SourceLogUnavailableError
from services.medication_list.overview.log_side import LogAsker
from services.medication_list.overview.overview import overview
from services.medication_list.store.link import Link
from services.publishing.broker_check import BrokerCheck
from services.publishing.kafka_access import CA, CERTIFICATE, Certificates, KafkaAccess
from services.publishing.kafka_log import KafkaLog
from services.publishing.log import LogRecord, LogUnavailable, Position, TopicRefused
from services.simulator.population import Town
from services.simulator.town import patients_for
from services.submissions.inbox import Inbox
from services.submissions.reception import Received
from services.topics.reading import places
from services.topics.registry import EVENTS_TOPIC, load
from tests.alerting import Series, check_fires, scrape
from tests.certificates import Authority
from tests.integration.secured_platform import SecuredPlatform

pytestmark = pytest.mark.integration
EVENTS = 80
NO_RIGHT = f"This process' certificate gives it no right to topic {EVENTS_TOPIC}."
PARTIES = load().parties | Town(patients_for(EVENTS)).parties


@pytest.fixture(scope="module")
def platform(scratch: Path) -> Iterator[SecuredPlatform]:
    with SecuredPlatform(scratch / "secured", PARTIES) as platform:
        yield platform


def test_all_that_is_written_is_judged_sent_and_found_by_processes_with_the_rights_of_the_manifests(
    platform: SecuredPlatform, scratch: Path
) -> None:
    # All systems of the town in one, and the operator who would make their topics if they were missing.
    town = platform.bearing("town", our_user("operator"), *(kafka_user("system", each) for each in PARTIES.systems))
    history = str(scratch / "history.jsonl")
    words = ("simulate", "--events", str(EVENTS), "--via", "both", "--history", history, "--json")
    played = platform.run(town, *words)
    assert played.returncode == 0, played.stderr
    outcomes = json.loads(played.stdout)["outcomes"]
    assert outcomes.keys() == {"http", "submissions"}
    assert all("failed" not in each for each in outcomes.values()), outcomes
    operator = platform.kafka_access("operator")
    checked = platform.run(operator, "check", "--kafka", operator.servers, "--list-url", platform.redis_url)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    for command in (
        ("topics", "check", "--kafka", operator.servers, "--one-broker"),
        ("status", "--once"),
        ("replay", "start", "--yes", "--no-follow", "--json"),
    ):
        done = platform.run(operator, *command)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    examined = platform.run(operator, "doctor", "--json")
    assert [each for each in json.loads(examined.stdout)["findings"] if each["is"] == "error"] == []


async def refused(access: KafkaAccess) -> Trouble:
    """What readiness tells of a broker that refuses, once it has come to know: it asks for half a second at a time."""
    check = BrokerCheck(access, load().partitions, [EVENTS_TOPIC])
    try:
        for _ in range(20):
            (trouble,) = await check()
            if trouble.reason is not TroubleReason.BROKER_UNREACHABLE:
                break
        return trouble
    finally:
        check.close()


async def test_who_has_no_certificate_or_a_strangers_is_refused_and_readiness_says_why(
    platform: SecuredPlatform, tmp_path: Path
) -> None:
    address = platform.broker.secured_address
    strangers = Authority(tmp_path, "strangers").vouch("medchain-prescriber")
    stranger = KafkaAccess(address, Certificates(platform.authority.ca, strangers.certificate, strangers.key))
    strange = await refused(stranger)
    assert strange.reason is TroubleReason.BROKER_REFUSES
    assert strange.text.startswith(f"The broker at {address} refuses the certificate of {CERTIFICATE} (")
    plain = await refused(KafkaAccess(address))
    assert plain.reason is TroubleReason.BROKER_REFUSES
    assert plain.text.startswith(f"The broker at {address} speaks nothing but TLS there: set {CA}")
    with pytest.raises(KafkaError):
        KafkaAdminClient(
            bootstrap_servers=address,
            security_protocol="SSL",
            ssl_cafile=str(platform.authority.ca),
            bootstrap_timeout_ms=2000,
        )


async def test_who_has_no_right_writes_nothing_reads_nothing_and_is_told_so(platform: SecuredPlatform) -> None:
    somebody = platform.bearing("somebody")
    assert await refused(somebody) == Trouble(TroubleReason.BROKER_REFUSES, NO_RIGHT)
    with pytest.raises(TopicAuthorizationFailedError):
        places(somebody, EVENTS_TOPIC)
    with pytest.raises(SourceLogUnavailableError, match=f"no right to topic {EVENTS_TOPIC}"):
        KafkaSourceLog(somebody).ends()
    with closing(Link(platform.redis_url)) as link, closing(LogAsker(somebody)) as asker:
        assert (await asyncio.to_thread(overview, asker, link, load())).away == (NO_RIGHT,)
    await check_that_it_cannot_append(platform, somebody)


async def check_that_it_cannot_append(platform: SecuredPlatform, access: KafkaAccess) -> None:
    source = KafkaSourceLog(KafkaAccess(platform.kafka_address))
    log, before = KafkaLog(access, load().partitions), source.ends()
    with pytest.raises(TopicRefused, match="TopicAuthorizationFailedError"):
        await log.append(EVENTS_TOPIC, b"0" * 32, b"forged")
    await log.close()
    assert source.ends() == before


async def test_a_topic_that_one_may_not_write_to_is_refused_by_its_name_alone_and_the_others_go_without_it(
    platform: SecuredPlatform,
) -> None:
    denied, allowed = (f"notices.{each}" for each in sorted(PARTIES.organisations)[:2])
    user = copy.deepcopy(our_user("relay"))
    acls = user["spec"]["authorization"]["acls"]
    (to_all,) = (each for each in acls if each["resource"].get("name") == "notices.")
    to_one = {"resource": {"type": "topic", "name": allowed}, "operations": ["Write"]}
    user["spec"]["authorization"]["acls"] = [to_all | {"operations": ["Describe"]}, to_one]
    log = KafkaLog(platform.bearing("of-one-topic", user), load().partitions, linger_ms=5)
    for _ in range(3):
        records = [LogRecord(topic, b"%d" % key, b"") for key in range(50) for topic in (denied, allowed)]
        answers = await log.append_many(records)
        assert {type(each) for each in answers[::2]} == {TopicRefused}
        # The library ends a producer for it, and so what it held for others; the log is not to say that these were refused.
        assert {type(each) for each in answers[1::2]} <= {Position, LogUnavailable}
        answers = await log.append_many(records[1::2])
        assert {type(each) for each in answers} == {Position}
    await log.close()


@pytest.mark.parametrize("name", ["prescriber", "processor", "prescriber-inbox"])
def test_a_process_without_rights_is_not_ready_and_says_why(platform: SecuredPlatform, name: str) -> None:
    (service,) = (each for each in SERVICES if each.name == name)
    process, url = platform.beside(service, platform.bearing("somebody"))

    def reasons() -> set[tuple[str, str]]:
        answer = httpx.get(f"{url}/health/ready", timeout=30, trust_env=False)
        return set() if answer.is_success else {(each["reason"], each["text"]) for each in answer.json()["troubles"]}

    with process:
        wait_until(lambda: ("broker_refuses", NO_RIGHT) in reasons(), within_s=30, what="it says why it is not ready")


async def test_an_inbox_without_rights_takes_nothing(platform: SecuredPlatform) -> None:
    inbox = Inbox(
        kafka=platform.bearing("somebody"),
        kind="prescription-submissions",
        group="prescriber-inbox",
        receive=never,
        clock=SystemClock(),
    )
    running = asyncio.create_task(inbox.run())
    while not any("GroupAuthorizationFailedError" in each.text for each in await inbox.check()):
        assert not running.done()
        await asyncio.sleep(0.05)
    inbox.stop()
    await running


def test_an_inbox_without_the_right_to_its_group_raises_its_alert_though_it_cannot_tell_how_far_it_is_behind(
    platform: SecuredPlatform, tmp_path: Path
) -> None:
    (service,) = (each for each in SERVICES if each.name == "pharmacy-inbox")
    user = copy.deepcopy(our_user(service.name))
    acls = user["spec"]["authorization"]["acls"]
    user["spec"]["authorization"]["acls"] = [each for each in acls if each["resource"]["type"] != "group"]
    process, url = platform.beside(service, platform.bearing("ungrouped", user))
    seen: Series = {}

    def fails() -> bool:
        seen.update(scrape({service.name: url}))
        return any(name.startswith("medchain_trouble{") and "round_failed" in name and seen[name] for name in seen)

    with process:
        wait_until(fails, within_s=30, what="it says that its rounds fail")
    assert [value for name, value in seen.items() if name.startswith("medchain_inbox_behind_seconds")] == [0]
    check_fires(tmp_path, ("MedchainRoundFailed",), {}, seen)


async def never(received: Received) -> None:
    raise AssertionError(f"{received.topic} must not be read")


async def test_a_party_reads_its_own_receipts_and_no_others_and_writes_no_events(platform: SecuredPlatform) -> None:
    one, another = PARTIES.systems[:2]
    access = platform.bearing(f"system-{one}", kafka_user("system", one))
    with closing(KafkaConsumer(**access.client_settings(), group_id=None)) as consumer:
        assert consumer.partitions_for_topic(f"submission-receipts.{one}")
        assert not consumer.partitions_for_topic(f"submission-receipts.{another}")
    await check_that_it_cannot_append(platform, access)
