"""From a write to the list: over HTTP to its answer, and from an append to the log; all services and a load, here.

`make bench ONLY='-k visible'` prints it; RATE (writes a second) and SECONDS in the environment change the load.
The load is open: each write leaves when its time has come, whether or not those before it were answered, and its time
counts from then. So a platform that falls behind is not spared the writes that it keeps waiting.
"""

# ruff: noqa: T201 — printing is what it does

import asyncio
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import quantiles
from typing import Any, Final, NamedTuple

import aiohttp
import msgspec
import pytest

from deploy.local.platform import Platform
from schemas.codec import encode
from schemas.events import Event, ListReconciled, Source
from services.identity.pseudonym import Pseudonymiser
from services.medication_list.store.reading import ViewReader
from services.medication_list.store.redis_views import RedisViews
from services.publishing.kafka_access import KafkaAccess
from services.publishing.kafka_log import KafkaLog
from services.publishing.log import LogRecord
from services.simulator.http_channel import composed, stated
from services.simulator.population import Town
from services.simulator.town import events
from services.topics.registry import EVENTS_TOPIC, load
from tests.benchmark.backlog import cpu_s_of

RATE: Final = float(os.environ.get("RATE", "200"))
SECONDS: Final = float(os.environ.get("SECONDS", "40"))
WARM_UP_S: Final = 10.0
"""Left out: the first writes pay for imports, connections and the producer's first batch."""
PATIENTS: Final = 1_500
READ_EVERY: Final = 4
"""After every so many writes, the list is read with the position that the write was answered with."""
NO_ANSWER: Final = 0
_JSON: Final = {"Content-Type": "application/json"}
_encode = msgspec.json.Encoder(decimal_format="number").encode


class Request(NamedTuple):
    """A write, ready to be sent, and the read that follows some of them."""

    kind: str
    url: str
    headers: dict[str, str]
    content: bytes
    read_url: str
    national_id: str


class Answered(NamedTuple):
    """When a write was due after the beginning, what it was answered, how long that took, and how long the read."""

    due_s: float
    kind: str
    status: int
    write_ms: float
    read_status: int
    read_ms: float | None


def requests(urls: Mapping[str, str], town: Town, count: int) -> list[Request]:
    """The town's first writes, as they come: prescriptions, claims, hand-outs and all else in their natural shares.

    Without confirmations of a list, which need a list that was read just before.
    """
    made: list[Request] = []
    now_ms = time.time_ns() // 1_000_000
    for planned in events(1, None, town=town):
        if planned.damage or isinstance(planned.body, ListReconciled):
            continue
        patient = town.patients[planned.patient]
        service, path, fields = composed(planned, patient, now_ms)
        headers = _JSON | {"Medchain-Caller": stated(planned.actor), "Idempotency-Key": planned.event_id}
        read_url = f"{urls['medication-list']}/v1/list/read"
        number, kind = patient.national_id.digits, type(planned.body).__name__
        made.append(Request(kind, urls[service] + path, headers, _encode(fields), read_url, number))
        if len(made) == count:
            break
    return made


async def sent(planned: Sequence[Request], reader: str) -> list[Answered]:
    """Send each write when it is due, as many at once as that takes."""
    began = time.perf_counter()
    # Connections are let go before the services close them (after five seconds): a write on one would fail.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=2)
    async with aiohttp.ClientSession(connector=connector) as http, asyncio.TaskGroup() as tasks:
        under_way = []
        for number, request in enumerate(planned):
            due_s = number / RATE
            await asyncio.sleep(max(0.0, began + due_s - time.perf_counter()))
            is_followed = number % READ_EVERY == 0
            under_way.append(tasks.create_task(write(http, request, began, due_s, reader if is_followed else None)))
    return [task.result() for task in under_way]


async def write(
    http: aiohttp.ClientSession, request: Request, began: float, due_s: float, reader: str | None
) -> Answered:
    """One write, and the read with its position by `reader`, if anybody reads."""
    status, told = await answer_to(http, request.url, request.content, request.headers)
    answered = time.perf_counter()
    read_ms, read_status = None, NO_ANSWER
    if reader is not None and "position" in told:
        asked = _encode({"patient": {"national_id": request.national_id}, "after_position": told["position"]})
        read_status, _ = await answer_to(http, request.read_url, asked, _JSON | {"Medchain-Caller": reader})
        read_ms = 1e3 * (time.perf_counter() - answered)
    return Answered(due_s, request.kind, status, 1e3 * (answered - began - due_s), read_status, read_ms)


async def answer_to(
    http: aiohttp.ClientSession, url: str, content: bytes, headers: Mapping[str, str]
) -> tuple[int, dict[str, Any]]:
    """Status and content of the answer. A service that is far behind may let a connection go instead: NO_ANSWER."""
    try:
        async with http.post(url, data=content, headers=headers) as response:
            return response.status, msgspec.json.decode(await response.read(), type=dict[str, Any])
    except aiohttp.ClientError:
        return NO_ANSWER, {}


def used_s(platform: Platform) -> dict[str, float]:
    """CPU seconds of each process of the platform, and of the one that makes the load."""
    return {name: cpu_s_of(pid) for name, pid in {**platform.supervisor.pids, "the load": os.getpid()}.items()}


def told_of(what: str, taken_ms: Iterable[float]) -> None:
    """One line of percentiles."""
    cuts = quantiles(taken_ms, n=1000)
    p50, p95, p99, p999 = cuts[499], cuts[949], cuts[989], cuts[998]
    print(f"  {what:<28} p50 {p50:6.1f}   p95 {p95:6.1f}   p99 {p99:6.1f}   p99.9 {p999:6.1f} ms")


class Appended(NamedTuple):
    """When a record was due, and how long it took from then until the log had it, and until the list had it."""

    due_s: float
    in_log_ms: float
    visible_ms: float


def records(town: Town, count: int) -> list[LogRecord]:
    """The town's first events as the services would append them, without confirmations of a list."""
    pseudonymiser, made = Pseudonymiser(bytes(32)), list[LogRecord]()
    for planned in events(1, None, town=town):
        if planned.damage or isinstance(planned.body, ListReconciled):
            continue
        key, by = pseudonymiser.patient_key(town.patients[planned.patient].national_id), planned.actor
        source = Source(system=by.system, organisation=by.organisation, role=by.role, person=by.person)
        event = Event(
            event_id=planned.event_id,
            patient=key,
            occurred_at_ms=planned.occurred_at_ms,
            received_at_ms=planned.received_at_ms,
            source=source,
            body=planned.body,
        )
        made.append(LogRecord(EVENTS_TOPIC, key.encode(), encode(event)))
        if len(made) == count:
            break
    return made


async def appended(planned: Sequence[LogRecord], kafka: str, redis: str) -> list[Appended]:
    """Append each record when it is due, and wait until the store has it, as a reader with its position does."""
    partitions = load().partitions
    log = KafkaLog(KafkaAccess(kafka), partitions)
    reader = ViewReader(RedisViews(redis), partitions(EVENTS_TOPIC), _no_ends)

    async def one(record: LogRecord, due_s: float) -> Appended:
        at = await log.append(*record)
        in_log = time.perf_counter()
        assert await reader.await_offset(at.partition, at.offset + 1, 60_000), "the processor stands still"
        since = began + due_s
        return Appended(due_s, 1e3 * (in_log - since), 1e3 * (time.perf_counter() - since))

    try:
        await log.start([EVENTS_TOPIC])
        began, under_way = time.perf_counter(), []
        async with asyncio.TaskGroup() as tasks:
            for number, record in enumerate(planned):
                await asyncio.sleep(max(0.0, began + number / RATE - time.perf_counter()))
                under_way.append(tasks.create_task(one(record, number / RATE)))
        return [task.result() for task in under_way]
    finally:
        await log.close()
        await reader.close()


async def _no_ends() -> Mapping[int, int]:
    return {}


@pytest.mark.benchmark
def test_records_in_the_log_become_visible(scratch: Path) -> None:
    town = Town(PATIENTS)
    planned = records(town, int(RATE * SECONDS))
    with Platform(
        scratch / "appended", run=scratch / "appended-run", usual_ports=False, parties=town.parties
    ) as platform:
        before = used_s(platform)
        found = asyncio.run(appended(planned, platform.kafka_address, platform.redis_url))
        cpu_ms = {name: 1e3 * (now - before[name]) / len(planned) for name, now in used_s(platform).items()}
    measured = [each for each in found if each.due_s >= WARM_UP_S]
    print(f"\n{len(planned):,} records at {RATE:.0f} a second, machine: {os.cpu_count()} cores")
    told_of("append to log", [each.in_log_ms for each in measured])
    told_of("append to visible", [each.visible_ms for each in measured])
    print("  ms of CPU a record: " + ", ".join(f"{name} {spent:.2f}" for name, spent in cpu_ms.items()))


@pytest.mark.benchmark
def test_writes_over_http_become_visible(scratch: Path) -> None:
    town = Town(PATIENTS)
    with Platform(
        scratch / "visible", run=scratch / "visible-run", usual_ports=False, parties=town.parties
    ) as platform:
        urls = {name: platform.url(name) for name in ("prescriber", "pharmacy", "medication-list")}
        planned = requests(urls, town, int(RATE * SECONDS))
        before, began = used_s(platform), time.perf_counter()
        answers = asyncio.run(sent(planned, stated(town.doctors[0])))
        seconds = time.perf_counter() - began
        cpu_ms = {name: 1e3 * (now - before[name]) / len(planned) for name, now in used_s(platform).items()}
    measured = [each for each in answers if each.due_s >= WARM_UP_S]
    print(
        f"\n{len(planned):,} writes in {seconds:.1f} s, machine: {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    print(f"  of {dict(Counter(each.kind for each in measured).most_common(5))} and others")
    read = [each for each in measured if each.read_ms is not None]
    print(f"  answered {dict(sorted(Counter(each.status for each in measured).items()))}")
    print(f"  and read {dict(sorted(Counter(each.read_status for each in read).items()))}")
    told_of("write to answer", [each.write_ms for each in measured])
    told_of("read with the position", [each.read_ms or 0.0 for each in read])
    print("  ms of CPU a write: " + ", ".join(f"{name} {spent:.2f}" for name, spent in cpu_ms.items()))
    print(f"  in all {sum(cpu_ms.values()):.2f}, of {1e3 * (os.cpu_count() or 1) / RATE:.1f} that there are")
