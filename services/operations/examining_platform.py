"""The checks of broker, Redis and processes when an installation is examined. Nothing is changed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from schemas.framing import Framing, RegistryUnavailableError
from schemas.reasons import ParkReason
from services.command_line.named_platform import NamedPlatform
from services.health import Trouble
from services.medication_list.fold import VERSION
from services.medication_list.generations import record_of
from services.medication_list.judging.items import Unreadable, item_of
from services.medication_list.overview.overview import RedisOverview, redis_overview
from services.medication_list.store.library import LIBRARY
from services.medication_list.store.link import Link, command
from services.medication_list.store.port import StoreUnavailableError
from services.medication_list.store.redis_check import RedisCheck
from services.medication_list.store.redis_roles import RedisRoles
from services.medication_list.store.roles import Pointer, RoleState
from services.operations.examining import Finding, error, warning, well
from services.operations.reaching import ServiceStatus, ask_services
from services.publishing.broker_check import BrokerCheck
from services.publishing.kafka_access import KafkaAccess
from services.publishing.kafka_clients import connect
from services.schema_registry import RegistryRefusedError, framing_now
from services.topics.cluster import differences
from services.topics.reading import places
from services.topics.registry import EVENTS_TOPIC, load

OLDEST_BROKER: Final = (3, 3)
"""The first with KRaft for production, which is what the platform is tested with (4.2)."""
OLDEST_REDIS: Final = 7
"""The first with functions."""
SKEW_S: Final = 5.0
MEMORY_SHARE: Final = 0.8
_POLL_MS: Final = 500
_READ_WITHIN_S: Final = 5.0
_KEYS_A_SCAN: Final = 5_000


# --- The broker ---------------------------------------------------------------------------------------------------


async def broker_findings(platform: NamedPlatform, *, one_broker: bool | None) -> Sequence[Finding]:
    """Version, topics, partition count, disk, newest records. `one_broker` None: by how many there are."""
    check = BrokerCheck(platform.kafka, load().partitions, [EVENTS_TOPIC])
    troubles = await check()
    check.close()
    found = [_of_trouble("broker", each) for each in troubles]
    if any(each.stops for each in troubles):
        return found
    try:
        brokers, version = _brokers(platform.kafka)
        single = len(brokers) == 1 if one_broker is None else one_broker
        found += [_broker_version(version), *_topics(platform.kafka, one_broker=single)]
        found += _newest(platform)
    except (KafkaError, OSError) as failed:
        found.append(error("broker", f"it could not be examined ({type(failed).__name__})", "Try again."))
    return found


def _of_trouble(check: str, trouble: Trouble) -> Finding:
    do = f"See docs/runbooks/README.md, reason `{trouble.reason.value}`."
    return error(check, trouble.text, do) if trouble.stops else warning(check, trouble.text, do)


def _brokers(kafka: KafkaAccess) -> tuple[list[int], tuple[int, ...]]:
    with closing(connect(KafkaAdminClient, kafka)) as admin:
        brokers = [each["broker_id"] for each in admin.describe_cluster()["brokers"]]
        return brokers, min(tuple(admin.get_broker_version_data(each).broker_version) for each in brokers)


def _broker_version(version: tuple[int, ...]) -> Finding:
    told = ".".join(map(str, version))
    if version < OLDEST_BROKER:
        return error("broker version", told, "Upgrade the cluster: 3.3 or newer, 4.2 is what is tested.")
    return well("broker version", f"{told} or newer")


def _topics(kafka: KafkaAccess, *, one_broker: bool) -> Iterator[Finding]:
    wrong = differences(kafka, load(), one_broker=one_broker)
    for each in wrong:
        if each.what == "unexpected":
            yield warning("topics", str(each), "Nobody of the platform uses it: delete it, or leave it.")
        elif each.what == "partitions":
            yield error("topics", str(each), "See docs/runbooks/wrong-partition-count.md before anything is written.")
        elif each.what == "missing":
            yield error("topics", str(each), "Run `medchain topics create`.")
        else:
            yield error("topics", str(each), "Set it on the topic as schemas/topics.yaml declares it.")
    if not wrong:
        yield well("topics", "as declared")


def _newest(platform: NamedPlatform) -> Iterator[Finding]:
    """The newest record of each partition: whether its schema is known here, and whether it is of the future."""
    records, now_ms = _last_records(platform.kafka), int(time.time() * 1000)
    try:
        yield from _schemas(records, framing_now(platform.schema_registry))
    except RegistryUnavailableError as away:
        do = "Start it, or correct MEDCHAIN_SCHEMA_REGISTRY: a process that starts waits for it."
        yield error("schema registry", f"{away}", do)
    except RegistryRefusedError as refused:
        yield error(
            "schema registry",
            f"{refused}",
            "Correct MEDCHAIN_SCHEMA_REGISTRY, or what that registry holds: no process starts with it.",
        )
    ahead_s = max((record.timestamp - now_ms for record in records), default=0) / 1000
    if ahead_s > SKEW_S:
        yield error("broker clock", f"{ahead_s:.0f} s ahead of this machine", "Let both follow the same time servers.")
    else:
        # Records bear the broker's time, and an old one says nothing of a clock that is behind.
        yield well("broker clock", "no record is of the future")


def _schemas(records: Sequence[Any], framing: Framing) -> Iterator[Finding]:
    """Raises RegistryUnavailableError."""
    partitions = load().partitions(EVENTS_TOPIC)
    unknown = [
        item
        for record in records
        if isinstance(item := item_of(record, record.partition, partitions, framing), Unreadable)
        and item.reason is ParkReason.UNKNOWN_SCHEMA
    ]
    if unknown:
        names = ", ".join(sorted({item.schema or "unnamed" for item in unknown}))
        yield error(
            "schemas",
            f"the log holds records of schemas that this release lacks: {names}",
            "Run the release that has them.",
        )
    else:
        yield well("schemas", f"known in the newest record of {len(records)} partitions")


def _last_records(kafka: KafkaAccess) -> list[Any]:
    all_of_it = places(kafka, EVENTS_TOPIC)
    with closing(connect(KafkaConsumer, kafka, group_id=None, enable_auto_commit=False)) as consumer:
        begins, ends = consumer.beginning_offsets(all_of_it), consumer.end_offsets(all_of_it)
        filled = [each for each in all_of_it if ends[each] > begins[each]]
        consumer.assign(filled)
        for each in filled:
            consumer.seek(each, ends[each] - 1)
        last: dict[TopicPartition, Any] = {}
        deadline = time.monotonic() + _READ_WITHIN_S
        while len(last) < len(filled) and time.monotonic() < deadline:
            last |= {place: records[-1] for place, records in consumer.poll(timeout_ms=_POLL_MS).items()}
        return list(last.values())


# --- Redis --------------------------------------------------------------------------------------------------------


async def redis_findings(platform: NamedPlatform, link: Link) -> Sequence[Finding]:
    """Version, settings, memory, functions, clock, and whether the view is of this fold."""
    check = RedisCheck(platform.redis, writes=True)
    troubles = await check()
    check.close()
    found = [_of_trouble("Redis", each) for each in troubles]
    if any(each.stops for each in troubles):
        return found
    try:
        return [*found, *_settings(redis_overview(link)), *_functions(link), *_clock(link), *_view(link)]
    except StoreUnavailableError as failed:
        return [*found, error("Redis", f"it could not be examined ({type(failed).__name__})", "Try again.")]


def _settings(redis: RedisOverview) -> Iterator[Finding]:
    if int(redis.version.partition(".")[0]) < OLDEST_REDIS:
        yield error("Redis version", redis.version, "Upgrade to 7.0 or newer: the store is written with functions.")
    else:
        yield well("Redis version", redis.version)
    if redis.policy != "noeviction":
        yield error(
            "Redis eviction", redis.policy, "Set maxmemory-policy noeviction: processors refuse to work otherwise."
        )
    else:
        yield well("Redis eviction", redis.policy)
    if redis.appends_file:
        yield well("Redis file", "appendonly yes")
    else:
        yield warning("Redis file", "appendonly no", "Set appendonly yes: without it each restart makes the view anew.")
    used = f"{redis.used_bytes / 1e6:,.0f} MB used"
    if redis.max_bytes and redis.used_bytes > MEMORY_SHARE * redis.max_bytes:
        do = "Raise maxmemory, or the machine's memory: when it is full, writes stop (docs/runbooks/disk-full.md)."
        yield warning("Redis memory", f"{used} of {redis.max_bytes / 1e6:,.0f}", do)
    else:
        yield well("Redis memory", used)


def _functions(link: Link) -> Iterator[Finding]:
    (loaded,) = link.ask([command("FUNCTION", "LIST", "LIBRARYNAME", "medchain_*")])
    names = {dict(zip(each[::2], each[1::2], strict=True))[b"library_name"].decode() for each in loaded}
    if LIBRARY in names:
        yield well("Redis functions", LIBRARY)
    else:
        yield error("Redis functions", f"{LIBRARY} is not loaded", "Start a processor of this release: it loads them.")


def _clock(link: Link) -> Iterator[Finding]:
    (told,) = link.ask([command("TIME")])
    ahead_s = int(told[0]) + int(told[1]) / 1e6 - time.time()
    yield _skew("Redis clock", ahead_s)


def _skew(check: str, ahead_s: float) -> Finding:
    if abs(ahead_s) > SKEW_S:
        return error(check, f"{ahead_s:+.0f} s against this machine", "Let both follow the same time servers.")
    return well(check, "as this machine's")


def _view(link: Link) -> Iterator[Finding]:
    roles = RedisRoles(link)
    pointer = roles.pointer()
    if pointer is None:
        yield warning("view", "there is none yet", "Start a processor.")
        return
    made_by = record_of(pointer, pointer.generation).fold_version
    if made_by != VERSION:
        do = "Run the release that made it, or replay into a new generation."
        yield error("fold version", f"{pointer.generation} was made by version {made_by}, this is {VERSION}", do)
    else:
        yield well("fold version", f"{VERSION}, as {pointer.generation}")
    standing = roles.roles(range(load().partitions(EVENTS_TOPIC)))
    odd = [p for p, role in standing.items() if role is None or role.state is not RoleState.LIVE]
    if odd:
        do = "Wait until it is built, or a switch has ended; if it stays, see docs/runbooks/redis-lost.md."
        yield warning("roles", f"partitions that are not live: {', '.join(map(str, odd))}", do)
    else:
        yield well("roles", "all partitions are live")
    yield _orphans(link, pointer)


def _orphans(link: Link, pointer: Pointer) -> Finding:
    """Data of generations that the pointer does not know: memory that is never read."""
    found, cursor = set[str](), 0
    while True:
        ((after, keys),) = link.ask([command("SCAN", cursor, "MATCH", "g*:{*}:offset", "COUNT", _KEYS_A_SCAN)])
        found |= {key.decode().partition(":")[0] for key in keys}
        cursor = int(after)
        if cursor == 0:
            break
    orphans = sorted(found - pointer.records.keys())
    if orphans:
        do = "Nobody reads them: see docs/runbooks/disk-full.md for how they go."
        return warning("orphans", f"generations that nobody knows: {', '.join(orphans)}", do)
    return well("orphans", "none")


# --- Processes ----------------------------------------------------------------------------------------------------


def process_findings(services: Mapping[str, str]) -> Iterator[Finding]:
    """Whether each process is ready, and whether its clock goes as this machine's."""
    if not services:
        yield warning("processes", "none are named", "Set MEDCHAIN_SERVICES to name=URL,... of those to ask.")
    for each in ask_services(services):
        yield _ready(each)
        if each.date is not None:
            skew = _skew(f"{each.name} clock", _ahead_s(each.date))
            if skew.do:
                yield skew


def _ready(each: ServiceStatus) -> Finding:
    if each.state == "ready":
        return well(each.name, "ready")
    what, do = "; ".join(each.troubles) or each.state, "See docs/runbooks/README.md."
    return warning(each.name, what, do) if each.state == "degraded" else error(each.name, what, do)


def _ahead_s(date: str) -> float:
    return (parsedate_to_datetime(date) - datetime.now(UTC)).total_seconds()
