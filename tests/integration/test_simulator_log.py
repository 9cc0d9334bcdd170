"""The town in a real log: every action once, in its patient's order, where its key belongs, and known to the history."""

import asyncio
import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from kafka import KafkaConsumer, TopicPartition
from typer.testing import CliRunner

from schemas import codec
from schemas.events import Event, ListReconciled
from services.identity.pseudonym import Pseudonymiser
from services.identity.sealing import Sealer
from services.medication_list.fold import Patient, entry_of, evolve
from services.medication_list.log.source_log import KafkaSourceLog
from services.publishing.kafka_access import KafkaAccess
from services.publishing.partitioning import partition_of
from services.simulator.cli import app
from services.simulator.diary import Planned
from services.simulator.history import History, read
from services.simulator.log_channel import LogChannel
from services.simulator.playing import play
from services.simulator.population import Town
from services.simulator.town import events
from services.topics.registry import EVENTS_TOPIC, load

EVENTS = 3_000
KEY = bytes(range(32))
Record = tuple[int, int, bytes, bytes | None]

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def planned() -> list[Planned]:
    return list(events(31, EVENTS, town=Town(40)))


@pytest.fixture(scope="module")
def history(kafka: str, planned: list[Planned], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the history of the run lies, once the town is in the log."""
    path = tmp_path_factory.mktemp("history") / "history.jsonl"

    async def run(lines: History) -> None:
        await play(planned, {LogChannel(KafkaAccess(kafka), Town(40), Pseudonymiser(KEY), Sealer(KEY), lines): 1})

    with History(path) as lines:
        asyncio.run(run(lines))
    return path


@pytest.fixture(scope="module")
def log(kafka: str, history: Path) -> dict[tuple[int, int], Record]:
    """What the log holds at every position that the history names."""
    positions = {tuple(int(part) for part in str(line.position).split("-")) for line in read(history)}
    ends = {partition: max(offset for place, offset in positions if place == partition) for partition, _ in positions}
    consumer = KafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False, group_id=None)
    consumer.assign([TopicPartition(EVENTS_TOPIC, partition) for partition in ends])
    consumer.seek_to_beginning()
    found: dict[tuple[int, int], Record] = {}
    while any((partition, end) not in found for partition, end in ends.items()):
        for records in consumer.poll(timeout_ms=5_000).values():
            found |= {
                (each.partition, each.offset): (each.partition, each.offset, each.key, each.value) for each in records
            }
    consumer.close()
    return {(partition, offset): found[partition, offset] for partition, offset in positions}


def test_a_dry_run_tells_where_a_town_would_be_played_and_plays_none(kafka: str, history: Path, tmp_path: Path) -> None:
    before = KafkaSourceLog(KafkaAccess(kafka)).ends()
    words = ["--events", "200", "--via", "log", "--history", str(tmp_path / "history.jsonl"), "--dry-run"]
    told = {"MEDCHAIN_KAFKA": kafka, "MEDCHAIN_PSEUDONYM_KEY": KEY.hex(), "MEDCHAIN_SEALING_KEY": KEY.hex()}
    shown = CliRunner().invoke(app, words, env=told)
    assert shown.exit_code == 0
    assert f"into the log at {kafka}" in shown.stdout
    assert "Nothing was done." in shown.stdout
    would = json.loads(CliRunner().invoke(app, [*words, "--json"], env=told).stdout)["would_play"]
    assert (would["events"], would["kafka"], would["via"]) == (200, kafka, "log")
    assert KafkaSourceLog(KafkaAccess(kafka)).ends() == before
    assert not (tmp_path / "history.jsonl").exists()
    assert history.exists(), "what the other tests read is in the log by now"


def test_every_action_is_in_the_log_once(history: Path, log: dict[tuple[int, int], Record]) -> None:
    lines = read(history)
    assert len(lines) == len(log) == EVENTS
    assert Counter(line.outcome for line in lines) == {"in_log": EVENTS}


def test_a_record_says_what_was_planned_or_is_as_unreadable_as_planned(
    history: Path, planned: list[Planned], log: dict[tuple[int, int], Record]
) -> None:
    expected = {(each.event_id, each.irregularity): each for each in planned}
    for line in read(history):
        partition, offset = (int(part) for part in str(line.position).split("-"))
        value = log[partition, offset][3]
        plan = expected[line.event_id, line.irregularity]
        if plan.damage:
            with pytest.raises(codec.UndecodableError):
                codec.decode(value)
            continue
        event = codec.decode(value)
        assert isinstance(event, Event)
        assert (event.event_id, event.occurred_at_ms) == (plan.event_id, plan.occurred_at_ms)
        if not isinstance(plan.body, ListReconciled):
            assert codec.name_of(event) == type(plan.body).__name__


def test_every_record_lies_where_its_key_belongs(log: dict[tuple[int, int], Record]) -> None:
    declared = load().partitions(EVENTS_TOPIC)
    assert all(partition_of(key, declared) == partition for partition, _, key, _ in log.values())


def test_a_patients_events_are_in_the_log_in_the_order_in_which_they_arrived(
    planned: list[Planned], log: dict[tuple[int, int], Record]
) -> None:
    pseudonymiser = Pseudonymiser(KEY)
    in_log: dict[bytes, list[str]] = {}
    for _, _, key, value in sorted(log.values(), key=lambda record: record[:2]):
        event_id = "" if value is None else _event_id(value)
        if event_id:
            in_log.setdefault(key, []).append(event_id)
    for patient in Town(40).patients:
        arrived = [each.event_id for each in planned if each.patient == patient.index and not each.damage]
        assert in_log.get(pseudonymiser.patient_key(patient.national_id).encode(), []) == arrived


def test_a_prescription_carries_an_identity_that_opens(log: dict[tuple[int, int], Record]) -> None:
    sealer, numbers = Sealer(KEY), {patient.national_id for patient in Town(40).patients}
    opened = 0
    for _, _, key, value in log.values():
        if value and _event_id(value):
            body = codec.decode(value).body
            if type(body).__name__ == "PrescriptionIssued":
                assert sealer.open(body.identity, key.decode()).national_id in numbers
                opened += 1
    assert opened > 100


def test_most_confirmations_name_the_version_that_their_reader_saw(log: dict[tuple[int, int], Record]) -> None:
    patients: dict[bytes, Patient] = {}
    outcomes: Counter[str] = Counter()
    for _, offset, key, value in sorted(log.values(), key=lambda record: record[:2]):
        if not value or not _event_id(value):
            continue
        event = codec.decode(value)
        patient = patients.setdefault(key, Patient({}, defaultdict(lambda: None), complete=True))
        judgement = evolve(patient, entry_of(event, offset, codec.digest_of(event), value))
        patient.fields.update(judgement.puts)
        patient.memory.update(judgement.remember)
        if isinstance(event.body, ListReconciled):
            outcomes[str(judgement.verdict.reason or judgement.verdict.outcome)] += 1
    assert outcomes["applied"] > outcomes.total() / 2, outcomes


def _event_id(value: bytes) -> str:
    try:
        return str(codec.decode(value).event_id)
    except codec.UndecodableError:
        return ""
