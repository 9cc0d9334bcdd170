"""With a schema registry: both framings in one topic, what it refuses, and what waits while it is away."""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import closing
from copy import deepcopy
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import uuid4

import msgspec
import pytest
from kafka import KafkaProducer

from deploy.local.layout import CHECKOUT
from deploy.local.waiting import wait_until
from schemas import codec
from schemas.codec import UnknownSchemaError
from schemas.events import Event, PatientIdentity, PrescriptionRecalled, RelayProgress, Submission
from schemas.framing import Framing, RegistryUnavailableError
from schemas.golden import newest_of
from schemas.reasons import ParkReason
from services.clock import ManualClock, SystemClock
from services.identity.national_id import synthetic
from services.medication_list.driver.batches import Applied, Fetch, PartitionBatch, Rewind
from services.medication_list.fold.state import signed_field
from services.medication_list.judging.judge import Judge
from services.medication_list.log.record_log import KafkaRecordLog, LogLookupError
from services.medication_list.log.source_log import KafkaSourceLog, SourceLogUnavailableError
from services.medication_list.read_api.log_lookup import LogLookup
from services.medication_list.read_api.stored_events import event_of
from services.medication_list.store.memory_roles import MemoryRoles
from services.medication_list.store.memory_server import MemoryServer
from services.medication_list.store.memory_store import MemoryStore
from services.medication_list.store.roles import Beginning
from services.medication_list.stored.parked_note import ParkedNote, unpack_note
from services.publishing.kafka_access import KafkaAccess
from services.publishing.memory_log import MemoryLog
from services.publishing.partitioning import partition_of
from services.recording.outcomes import MedicationListClient
from services.schema_registry import RegistryClient, RegistryRefusedError, framing_now, registered
from services.schema_registry.client import AWAY_MS, MISSING_MS
from services.submissions.inbox import take
from services.submissions.reception import Received, Reception
from services.topics.registry import EVENTS_TOPIC, Parties, load
from tests.acceptance.translate import ACTORS
from tests.acceptance.values import instant
from tests.chain import Chain, running_chain
from tests.conftest import FreshTopic
from tests.integration.services_stand import DOOR, NOW_MS, SEALER, ListPlayed, served
from tests.integration.test_bad_input_over_http import a_prescription
from tests.oracle.comparing import compare
from tests.oracle.held import open_redis
from tests.oracle.reader import read_log
from tests.registry_server import RegistryServer, a_registry

pytestmark = pytest.mark.integration

G1: Final = "g1-aaaaaa"
ANNA: Final = "a" * 32
KEYS: Final = [f"{number:032x}".encode() for number in range(20)]
PRESCRIBER: Final = ACTORS["prescriber A"]
RELEASED: Final = codec.newest("PrescriptionIssued")


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    with a_registry() as server:
        yield server


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW_MS)


@pytest.fixture
def client(server: RegistryServer, clock: ManualClock) -> Iterator[RegistryClient]:
    with RegistryClient(server.url, clock) as client:
        yield client


def a_later_version(field: Mapping[str, Any]) -> codec.Release:
    schema = deepcopy(dict(RELEASED.schema))
    schema["fields"].append(field)
    return codec.Release(RELEASED.name, RELEASED.version + 1, schema, codec.SINGLE_OBJECT + bytes(8))


def test_a_command_asks_once_and_is_told_that_the_registry_is_away_or_has_no_address(server: RegistryServer) -> None:
    assert framing_now(server.url).to_topic(RELEASED.header + b"its body")[:1] == b"\0"
    server.stop()
    with pytest.raises(RegistryUnavailableError, match="does not answer"):
        framing_now(server.url)
    for wrong in ("registry-1:8081", "http://somebody:secret@registry-1:port", "registry-1"):
        with pytest.raises(RegistryRefusedError, match="is no URL") as refused:
            framing_now(wrong)
        assert wrong not in str(refused.value)


def a_foreign_schema() -> dict[str, Any]:
    """Ours, as another program registered it: with words of its own, and so with a number of its own."""
    return {**RELEASED.schema, "doc": "Written elsewhere."}


def framed(schema_id: int, single_object: bytes) -> bytes:
    return b"\x00" + schema_id.to_bytes(4, "big") + single_object[10:]


# --- Registering ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subject_first", [False, True])
def test_every_release_is_registered_by_topic_and_record_name_and_guarded(subject_first: bool) -> None:  # noqa: FBT001 - two kinds of registry
    with a_registry(subject_first=subject_first) as server, RegistryClient(server.url, SystemClock()) as client:
        framing = registered(client)
        on_topics = {
            f"{pattern.partition('.')[0]}-medchain.{name}"
            for pattern, declared in load().topics.items()
            for name in declared.schemas
        }
        assert set(server.subjects) == on_topics
        assert server.settings == dict.fromkeys(on_topics, "FULL_TRANSITIVE")
        asked = len(server.asked)
        for release in codec.releases():
            schema_id = int.from_bytes(framing.to_topic(release.header)[1:5], "big")
            assert msgspec.json.decode(server.schemas[schema_id]) == release.schema
        assert len(server.asked) == asked, "what is known is known for ever"


def test_registering_again_gives_the_same_numbers(client: RegistryClient) -> None:
    value = codec.encode(next(iter(newest_of("Notice").values())))
    assert registered(client).to_topic(value) == registered(client).to_topic(value)


def test_another_process_that_registers_in_the_same_moment_is_no_refusal() -> None:
    with (
        a_registry(subject_first=True, is_raced=True) as server,
        RegistryClient(server.url, SystemClock()) as client,
    ):
        framing = registered(client)
        assert set(server.settings) == set(server.subjects)
        assert all(framing.to_topic(release.header)[0] == 0 for release in codec.releases())


def test_a_schema_that_the_registry_refuses_is_named_in_one_sentence(client: RegistryClient) -> None:
    registered(client)
    with pytest.raises(RegistryRefusedError) as caught:
        registered(client, [RELEASED, a_later_version({"name": "later", "type": "string"})])
    assert str(caught.value) == (
        f"The schema registry at {client.address} refuses PrescriptionIssued version {RELEASED.version + 1} under "
        "medication-events-medchain.PrescriptionIssued: Schema being registered is incompatible"
    )


def test_a_schema_with_a_default_is_taken(client: RegistryClient) -> None:
    registered(client, [RELEASED, a_later_version({"name": "later", "type": "string", "default": ""})])


@pytest.mark.parametrize("module", ["prescriber.app", "pharmacy.inbox", "medication_list.processor.app"])
def test_no_process_starts_where_the_registry_refuses_its_schemas(server: RegistryServer, module: str) -> None:
    subject = f"medication-events-{RELEASED.schema['namespace']}.{RELEASED.name}"
    server.add(a_later_version({"name": "other", "type": "string"}).schema, subject)
    told = dict.fromkeys(("MEDCHAIN_PSEUDONYM_KEY", "MEDCHAIN_SEALING_KEY", "MEDCHAIN_READ_TOKEN_KEY"), "00" * 32)
    told |= {"MEDCHAIN_KAFKA": "127.0.0.1:1", "MEDCHAIN_LIST_URL": "http://127.0.0.1:1"}
    told |= {"MEDCHAIN_REDIS": "redis://127.0.0.1:1/0", "MEDCHAIN_SCHEMA_REGISTRY": server.url}
    ended = subprocess.run(  # noqa: S603 - our own module
        [sys.executable, "-m", f"services.{module}"],
        cwd=CHECKOUT,
        env=told,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith(f"The schema registry at {server.url.removeprefix('http://')} refuses PrescriptionIssued")


# --- Asking -----------------------------------------------------------------------------------------------------------


def test_a_number_that_the_registry_lacks_is_not_asked_for_with_every_record(
    server: RegistryServer, client: RegistryClient, clock: ManualClock
) -> None:
    assert [client.schema_of(77), client.schema_of(77)] == [None, None]
    assert server.asked == ["GET /schemas/ids/77"]
    for number in range(77):
        server.add({"type": "record", "name": f"Other{number}", "fields": []})
    clock.advance(MISSING_MS)
    assert client.schema_of(77) == {"type": "record", "name": "Other76", "fields": []}


def test_a_number_that_no_registry_can_give_is_no_schema_s_and_keeps_nobody_from_asking(
    server: RegistryServer, client: RegistryClient
) -> None:
    schema_id = server.add(a_foreign_schema())
    framing = Framing(client)
    for number in (2**31, 2**32 - 1):
        with pytest.raises(UnknownSchemaError):
            framing.from_topic(b"\x00" + number.to_bytes(4, "big") + b"body")
    assert server.asked == []
    assert client.schema_of(2**31 - 1) is None
    assert client.schema_of(schema_id) == a_foreign_schema()


def test_a_registry_that_is_away_is_asked_again_after_a_while(
    server: RegistryServer, client: RegistryClient, clock: ManualClock
) -> None:
    schema_id = server.add(a_foreign_schema())
    server.stop()
    for _ in range(2):
        with pytest.raises(RegistryUnavailableError):
            client.schema_of(schema_id)
    server.start()
    with pytest.raises(RegistryUnavailableError):
        client.schema_of(schema_id)
    clock.advance(AWAY_MS)
    assert client.schema_of(schema_id) == a_foreign_schema()


def test_an_address_that_is_no_registrys_does_not_make_a_schema_unknown(server: RegistryServer) -> None:
    with (
        RegistryClient(f"{server.url}/elsewhere", SystemClock()) as client,
        pytest.raises(RegistryUnavailableError),
    ):
        client.schema_of(1)


def test_a_password_in_the_address_is_not_told() -> None:
    with RegistryClient("http://user:secret@registry.example:8081/api", SystemClock()) as client:
        assert client.address == "registry.example:8081"


# --- The processor ----------------------------------------------------------------------------------------------------


class LogLine(NamedTuple):
    """A record as the driver hands it on."""

    offset: int
    key: bytes
    value: bytes
    timestamp: int = NOW_MS
    headers: tuple[tuple[str, bytes], ...] = ()


def an_event() -> Event[Any]:
    """A prescription of its own."""
    golden = next(iter(newest_of("PrescriptionIssued").values()))
    ids = {"prescription": str(uuid4()), "treatment": str(uuid4())}
    body = msgspec.structs.replace(golden.body, renews=None, reference_number=None, **ids)
    return msgspec.structs.replace(golden, event_id=str(uuid4()), patient=ANNA, body=body)


class Bench:
    """A judge over a view in memory, of one partition."""

    def __init__(self, framing: Framing) -> None:
        self.server = MemoryServer()
        MemoryRoles(self.server).begin({0: Beginning(G1, 1, 0, 0)})
        self.store = MemoryStore(self.server, G1)
        self.judge = Judge(self.store, 1, framing)

    def take(self, values: list[bytes], first_offset: int = 0) -> Applied | Rewind:
        """Judge these as one fetch."""
        lines = [LogLine(at, ANNA.encode(), value) for at, value in enumerate(values, first_offset)]
        batch = PartitionBatch(0, first_offset, first_offset + len(lines), lines, 0)
        return self.judge.process(Fetch((batch,)))[0]

    def signed(self, event: Event[Any]) -> bytes | None:
        """What the view keeps of a prescription as it was signed."""
        kept = self.store.read_whole(0, ANNA).fields.get(signed_field(event.body.prescription))
        return None if kept is None else bytes(kept)

    def parked(self) -> list[ParkedNote]:
        """What was set aside, in log order."""
        found = [*self.server.content().get(f"{G1}:{{0}}:parked", {}).items()]  # type: ignore[union-attr]  # a hash
        return [unpack_note(note) for _, note in sorted(found)]


def without_marks(content: Mapping[str, Any]) -> dict[str, Any]:
    """All but what the record that was judged last is known again by: that is of its bytes in the log, framing included."""
    return {
        key: {name: each for name, each in held.items() if name != b"last"} if key.endswith(":offset") else held
        for key, held in content.items()
    }


def test_both_framings_in_one_partition_take_effect_and_are_kept_alike(
    server: RegistryServer, client: RegistryClient
) -> None:
    framing = registered(client)
    ours, registrys, foreign = events = [an_event() for _ in range(3)]
    values = [
        codec.encode(ours),
        framing.to_topic(codec.encode(registrys)),
        framed(server.add(a_foreign_schema()), codec.encode(foreign)),
    ]
    assert [value[0] for value in values] == [0xC3, 0, 0]
    bench = Bench(framing)
    assert bench.take(values) == Applied(3)
    assert bench.parked() == []
    plain = Bench(Framing())
    assert plain.take([codec.encode(event) for event in events]) == Applied(3)
    assert without_marks(bench.server.content()) == without_marks(plain.server.content())
    for event in events:
        kept = bench.signed(event)
        assert kept is not None
        assert b"\xc3\x01" in kept


def test_a_number_that_the_registry_lacks_is_parked_and_named(client: RegistryClient) -> None:
    framing = registered(client)
    good = an_event()
    bench = Bench(framing)
    assert bench.take([framed(99_999, codec.encode(an_event())), framing.to_topic(codec.encode(good))]) == Applied(2)
    assert [(note.reason, note.schema) for note in bench.parked()] == [(ParkReason.UNKNOWN_SCHEMA, "registry id 99999")]
    assert bench.signed(good) is not None


def test_while_the_registry_is_away_a_number_never_seen_waits_and_nothing_is_parked(
    server: RegistryServer, client: RegistryClient, clock: ManualClock
) -> None:
    framing = registered(client)
    before, foreign, after = (an_event() for _ in range(3))
    values = [
        framing.to_topic(codec.encode(before)),
        framed(server.add(a_foreign_schema()), codec.encode(foreign)),
        codec.encode(after),
    ]
    server.stop()
    bench = Bench(framing)
    assert bench.take(values) == Applied(1), "what came before it, in a number that is known, takes effect"
    assert bench.take(values[1:], first_offset=1) == Rewind(1)
    server.start()
    clock.advance(AWAY_MS)
    assert bench.take(values[1:], first_offset=1) == Applied(3)
    assert bench.parked() == []
    assert all(bench.signed(event) is not None for event in (before, foreign, after))


def test_one_partition_that_waits_for_the_registry_holds_up_no_other(
    server: RegistryServer, client: RegistryClient
) -> None:
    framing = registered(client)
    value = framed(server.add(a_foreign_schema()), codec.encode(an_event()))
    server.stop()
    memory = MemoryServer()
    MemoryRoles(memory).begin({each: Beginning(G1, 1, 0, 0) for each in range(2)})
    lines = [LogLine(0, b"no key of a patient", value)]
    waits = [LogLine(0, next(key for key in KEYS if partition_of(key, 2) == 0), value)]
    fetch = Fetch((PartitionBatch(0, 0, 1, waits, 0), PartitionBatch(1, 0, 1, lines, 0)))
    assert Judge(MemoryStore(memory, G1), 2, framing).process(fetch) == {0: Rewind(0), 1: Applied(1)}


# --- Whoever else reads -----------------------------------------------------------------------------------------------


class Reading(NamedTuple):
    """A lookup, and a log whose one topic holds what was given to it."""

    lookup: LogLookup
    source: KafkaSourceLog
    topic: str


@pytest.fixture
async def reading(kafka: str, fresh_topic: FreshTopic, client: RegistryClient) -> AsyncIterator[Reading]:
    topic, framing = fresh_topic(partitions=1), registered(client)
    lookup = LogLookup(KafkaRecordLog(KafkaAccess(kafka), topic), framing)
    yield Reading(lookup, KafkaSourceLog(KafkaAccess(kafka), events=topic, progress=topic, framing=framing), topic)
    await lookup.close()


def write(kafka: str, topic: str, *values: bytes, key: str = ANNA) -> None:
    with closing(KafkaProducer(bootstrap_servers=kafka)) as producer:
        for value in values:
            producer.send(topic, key=key.encode(), value=value, partition=0).get(30)


async def test_the_log_is_looked_up_in_both_framings(
    kafka: str, reading: Reading, server: RegistryServer, clock: ManualClock
) -> None:
    events = [an_event() for _ in range(3)]
    one, two, three = map(codec.encode, events)
    foreign = server.add(a_foreign_schema())
    write(kafka, reading.topic, one, framed(foreign, two), framed(77_777, three))
    server.stop()
    with pytest.raises(LogLookupError, match="registry"):
        await reading.lookup.read(0, [0, 1])
    server.start()
    clock.advance(AWAY_MS)
    found = await reading.lookup.read(0, range(3))
    assert [event_of(found[offset]) for offset in range(3)] == [*events[:2], None]


async def test_the_relays_progress_is_read_in_both_framings(
    kafka: str, reading: Reading, server: RegistryServer, clock: ManualClock
) -> None:
    progress = [RelayProgress(partition=each, source_offset=9, effect_id=str(uuid4())) for each in range(2)]
    noted = [codec.encode(each) for each in progress]
    foreign = server.add({**codec.newest("RelayProgress").schema, "doc": "Written elsewhere."})
    write(kafka, reading.topic, noted[0], key="0")
    write(kafka, reading.topic, framed(foreign, noted[1]), key="1")
    server.stop()
    with pytest.raises(SourceLogUnavailableError, match="registry"):
        reading.source.relayed()
    server.start()
    clock.advance(AWAY_MS)
    assert reading.source.relayed() == dict(enumerate(progress))


def a_recall() -> Submission[PrescriptionRecalled]:
    number = synthetic(1)
    return Submission(
        message_id=str(uuid4()),
        patient=PatientIdentity(national_id=number.digits, kind=number.kind.value, name="Ola"),
        occurred_at_ms=NOW_MS - 60_000,
        organisation="974760673",
        role="doctor",
        bodies=(PrescriptionRecalled(prescription=str(uuid4()), reason="other"),),
    )


async def test_a_submission_waits_in_its_inbox_while_the_registry_is_away(
    server: RegistryServer, client: RegistryClient, clock: ManualClock
) -> None:
    framing, log, played = registered(client), MemoryLog(load().partitions, clock), ListPlayed()
    schema = {**codec.newest("SubmissionPrescriptionRecalled").schema, "doc": "Written elsewhere."}
    value = framed(server.add(schema), codec.encode(a_recall()))
    received = Received("prescription-submissions.journal", 0, 5, b"key", value)
    place = (received.topic, received.partition)
    with served(played.app()) as url:
        medication_list = MedicationListClient(url)
        reception = Reception(
            log=log, medication_list=medication_list, door=DOOR, sealer=SEALER, clock=clock, framing=framing
        )
        server.stop()
        assert await take([received], reception.receive) == ({place: 5}, False)
        assert not log.records("submission-receipts.journal")
        server.start()
        clock.advance(AWAY_MS)
        assert await take([received], reception.receive) == ({place: 6}, True)
        await medication_list.close()
    assert len(log.records(EVENTS_TOPIC)) == 1


# --- The whole chain --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def registered_chain(scratch: Path) -> Iterator[tuple[Chain, Framing]]:
    """The platform, told of a registry; and the framing of a program from outside."""
    with (
        a_registry() as server,
        running_chain(scratch / "registered", Parties(systems=("journal",)), server.url) as chain,
        RegistryClient(server.url, SystemClock()) as client,
    ):
        chain.set_clock(instant("d0 12:00"))
        yield chain, registered(client)


def test_told_of_a_registry_the_whole_chain_carries_its_framing_and_reads_both(
    registered_chain: tuple[Chain, Framing],
) -> None:
    chain, framing = registered_chain
    number = synthetic(1)
    sent = a_prescription({"national_id": number.digits, "name": "Kari Nordmann"})
    answer = chain.post("prescriber", "/v1/prescriptions", sent, PRESCRIBER)
    assert (answer.status_code, answer.json()["outcome"]) == (201, "applied"), answer.text
    record = chain.record_at(answer.json()["position"])
    assert record.value[0] == 0

    signed = codec.decode(framing.from_topic(record.value))
    ids = {"prescription": str(uuid4()), "treatment": str(uuid4())}
    body = msgspec.structs.replace(signed.body, **ids)
    second = msgspec.structs.replace(signed, event_id=str(uuid4()), body=body)
    recall = Submission(
        message_id=str(uuid4()),
        patient=PatientIdentity(national_id=number.digits, kind=number.kind.value, name="Kari Nordmann"),
        occurred_at_ms=signed.occurred_at_ms,
        organisation=PRESCRIBER.organisation,
        role=PRESCRIBER.role,
        person=PRESCRIBER.person,
        bodies=(PrescriptionRecalled(prescription=body.prescription, reason="other"),),
    )
    with chain.producer() as producer:
        at = producer.send(EVENTS_TOPIC, key=record.key, value=codec.encode(second), partition=record.partition).get(30)
        shown = chain.read_list(number.digits, PRESCRIBER, f"{at.partition}-{at.offset}")
        assert len(shown["treatments"]) == 2
        topic = "prescription-submissions.journal"
        producer.send(topic, key=b"order", value=framing.to_topic(codec.encode(recall)), partition=0).get(30)

    def outcomes() -> list[str]:
        return [event["outcome"] for event in chain.history(number.digits, PRESCRIBER)]

    wait_until(lambda: len(outcomes()) == 3, within_s=30, what="the recall is judged")
    assert outcomes() == ["applied"] * 3
    assert [each.value[0] for each in chain.log()] == [0, 0xC3, 0]
    with open_redis(chain.platform.redis_url, load().partitions(EVENTS_TOPIC), KafkaAccess(chain.kafka)) as held:
        log = read_log(KafkaAccess(chain.kafka), load().partitions(EVENTS_TOPIC), framing=framing)
        assert len(log) == 3
        assert compare(log, held, [signed.occurred_at_ms]).is_clean
