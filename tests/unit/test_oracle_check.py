"""`medchain check`: how the log is read and parted, what the comparison reports, and with which code it ends."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

import msgspec
import pytest
from kafka import KafkaProducer
from typer.testing import CliRunner

from schemas import events as ev
from schemas.codec import encode
from schemas.reasons import ParkReason
from services.clock import ManualClock, SystemClock
from services.publishing.kafka_access import KafkaAccess
from services.publishing.partitioning import partition_of
from services.topics.registry import load
from tests.conftest import FreshTopic
from tests.oracle.cli import app as check
from tests.oracle.cli import make_app
from tests.oracle.comparing import Difference, compare
from tests.oracle.history import Unreadable
from tests.oracle.memory_held import MemoryHeld
from tests.oracle.reader import TOPIC, Log, RawRecord, ownership, part, read_log
from tests.oracle.story import Story, at, hand_out, prescription

PARTITIONS = 8
ONE, OTHER = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"
CLOCKS = (at(10), at(200))


def events_of(patient: str, reference: str | None = None) -> list[ev.Event[ev.Body]]:
    story = Story(patient)
    story.tell("A", prescription("R1", reference_number=reference))
    story.tell("P", hand_out("D1"))
    return [record.event for record in story.records if isinstance(record.event, ev.Event)]


def raw(patient: str, offset: int, value: bytes | None, *, partition: int | None = None) -> RawRecord:
    key = patient.encode()
    home = partition_of(key, PARTITIONS)
    return RawRecord(home if partition is None else partition, offset, at(0) + offset, key, value)


def a_log(*patients: str) -> Log:
    records = [raw(who, offset, encode(event)) for who in patients for offset, event in enumerate(events_of(who))]
    return part(records, PARTITIONS)


# --- Reading ----------------------------------------------------------------------------------------------------------


def test_records_lie_with_their_patient_in_log_order() -> None:
    log = a_log(ONE, OTHER)
    assert {patient: [record.offset for record in records] for patient, records in log.patients.items()} == {
        ONE: [0, 1],
        OTHER: [0, 1],
    }
    assert [record.event for record in log.patients[ONE]] == events_of(ONE)


@pytest.mark.parametrize("partition", range(PARTITIONS))
def test_a_key_that_is_no_pseudonym_is_wrong_in_every_partition_and_nobodys(partition: int) -> None:
    key = b"not a pseudonym"
    log = part([RawRecord(partition, 0, at(0), key, encode(events_of(ONE)[0]))], PARTITIONS)
    assert [record.event for record in log.unowned] == [Unreadable(ParkReason.WRONG_KEY)]
    assert not log.patients


def test_what_cannot_be_read_is_parked_with_its_reason() -> None:
    good = encode(events_of(ONE)[0])
    away = (partition_of(ONE.encode(), PARTITIONS) + 1) % PARTITIONS
    log = part(
        [
            raw(ONE, 0, good[:-3]),
            raw(ONE, 1, None),
            raw(ONE, 2, b"\xc3\x01" + bytes(8) + good[10:]),
            raw(ONE, 3, encode(events_of(OTHER)[0])),
            raw(ONE, 4, good, partition=away),
            RawRecord(0, 5, at(0), None, good),
        ],
        PARTITIONS,
    )
    assert [record.event for record in log.patients[ONE]] == [
        Unreadable(ParkReason.UNREADABLE),
        Unreadable(ParkReason.NO_VALUE),
        Unreadable(ParkReason.UNKNOWN_SCHEMA),
        Unreadable(ParkReason.WRONG_KEY),
    ]
    assert [record.event for record in log.unowned] == [
        Unreadable(ParkReason.WRONG_PARTITION),
        Unreadable(ParkReason.NO_KEY),
    ]


def test_a_prescription_of_two_patients_stays_with_the_first_and_is_hidden_from_the_second() -> None:
    first, second = a_log(ONE).patients[ONE], a_log(OTHER).patients[OTHER]
    later = [msgspec.structs.replace(record.event) for record in second if isinstance(record.event, ev.Event)]
    assert later
    log = part(
        [raw(ONE, index, encode(record.event)) for index, record in enumerate(first)]
        + [raw(OTHER, 10 + index, encode(event)) for index, event in enumerate(later)],
        PARTITIONS,
    )
    owners = ownership(log)
    held = MemoryHeld(log)
    assert len(owners[ONE].flagged) == len(owners[OTHER].hidden) == 1
    (entry,) = held.list_of(ONE, at(10)).treatments
    assert entry.flags == ("prescription_number_conflict",)
    assert not held.list_of(OTHER, at(10)).treatments
    assert len(held.list_of(OTHER, at(10)).unseen_hand_outs) == 1


@pytest.mark.integration
def test_the_whole_log_is_read_to_its_end(kafka: str, fresh_topic: FreshTopic) -> None:
    topic = fresh_topic(PARTITIONS)
    with closing(KafkaProducer(bootstrap_servers=kafka)) as producer:
        for patient in (ONE, OTHER):
            for event in events_of(patient):
                key = patient.encode()
                producer.send(topic, encode(event), key, partition=partition_of(key, PARTITIONS)).get(timeout=30)
        producer.send(topic, b"not an event", ONE.encode(), partition=partition_of(ONE.encode(), PARTITIONS))
        producer.flush(timeout=30)
    log = read_log(KafkaAccess(kafka), PARTITIONS, topic)
    assert [record.event for record in log.patients[OTHER]] == events_of(OTHER)
    assert log.patients[ONE][-1].event == Unreadable(ParkReason.UNREADABLE)
    assert sum(log.ends.values()) == len(log) == 5


# --- Comparing --------------------------------------------------------------------------------------------------------


def test_what_is_equal_is_clean_and_counted() -> None:
    log = a_log(ONE)
    report = compare(log, MemoryHeld(log), CLOCKS)
    assert report.is_clean
    counts = report.counts
    assert (counts.accepted, counts.applied, counts.flagged, counts.lost) == (2, 2, 1, 0)
    assert (counts.patients, counts.treatments) == (1, 1)


def test_a_list_that_differs_is_reported_with_its_path() -> None:
    log = a_log(ONE)
    held = MemoryHeld(log)
    shown = held.list_of(ONE, at(10))
    entry = msgspec.structs.replace(shown.treatments[0], status="paused")
    held.lists[ONE] = msgspec.structs.replace(shown, treatments=(entry,))
    report = compare(log, held, (at(10),))
    path = f"list at {at(10)}: treatments[0].status"
    assert report.differences == [Difference(ONE, path, "active", "paused", is_clinical=True)]
    assert not report.is_clean


def test_an_entry_too_many_and_an_entry_too_few_are_reported() -> None:
    log = a_log(ONE)
    held = MemoryHeld(log)
    shown = held.list_of(ONE, at(10))
    held.lists[ONE] = msgspec.structs.replace(shown, treatments=())
    (difference,) = compare(log, held, (at(10),)).differences
    assert difference.found == "(nothing)"
    assert difference.expected.startswith("ShownTreatment ")


def test_a_record_without_an_outcome_is_lost() -> None:
    log = a_log(ONE)
    held = MemoryHeld(log)
    first, *_ = events_of(ONE)
    held.outcomes[ONE] = dict(held.outcomes_of(ONE, [first.event_id]))
    report = compare(log, held, ())
    assert report.counts.lost == 1
    assert [difference.found for difference in report.differences] == ["(nothing)"]


def test_an_outcome_that_differs_and_one_of_an_event_that_never_was_are_reported() -> None:
    log = a_log(ONE)
    held = MemoryHeld(log)
    first, second = (event.event_id for event in events_of(ONE))
    judged = held.outcomes_of(ONE, [first, second])
    held.outcomes[ONE] = {**judged, first: ("refused", "unknown", frozenset()), "ghost": judged[second]}
    found = [(difference.expected, difference.found) for difference in compare(log, held, ()).differences]
    assert found == [("applied", "refused(unknown)"), ("2", "3")]


def test_a_view_that_lags_is_compared_as_far_as_it_has_come() -> None:
    log = a_log(ONE)
    partition = partition_of(ONE.encode(), PARTITIONS)
    report = compare(log, MemoryHeld(log, {partition: 1}), CLOCKS)
    assert report.is_clean
    assert (report.counts.accepted, report.behind) == (1, {partition: 1})


def test_a_parked_record_that_the_platform_does_not_know_is_lost() -> None:
    log = part([raw(ONE, 0, b"not an event")], PARTITIONS)
    held = MemoryHeld(log)
    assert compare(log, held, CLOCKS).is_clean
    seen = MemoryHeld(Log(ends=dict(log.ends)), lists={ONE: held.list_of(ONE, at(10))})
    report = compare(log, seen, (at(10),))
    assert (report.counts.parked, report.counts.lost) == (1, 1)


def test_the_text_of_a_dosing_is_not_compared() -> None:
    log = a_log(ONE)
    held = MemoryHeld(log)
    shown = held.list_of(ONE, at(10))
    dosing = msgspec.structs.replace(shown.treatments[0].dosing, text="1 tablet in the morning", texts_differ=True)
    entry = msgspec.structs.replace(shown.treatments[0], dosing=dosing)
    held.lists[ONE] = msgspec.structs.replace(shown, treatments=(entry,))
    assert compare(log, held, (at(10),)).is_clean


def test_a_sample_compares_so_many_patients() -> None:
    log = a_log(ONE, OTHER)
    assert compare(log, MemoryHeld(log), CLOCKS, sample=1).counts.patients == 1


# --- The command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [[], ["--json"]], ids=["for people", "in JSON"])
def test_a_check_that_cannot_be_made_ends_with_two_as_no_difference_does(words: list[str]) -> None:
    said = CliRunner().invoke(check, ["--kafka", "127.0.0.1:1", "--list-url", "redis://127.0.0.1:1", *words])
    assert said.exit_code == 2, said.output
    assert "redis does not answer" in said.output
    assert isinstance(said.exception, SystemExit)
    if words:
        assert json.loads(said.stdout)["exit"] == 2


def a_list_that_differs() -> MemoryHeld:
    """A patient's list is not as it should be, and an outcome of theirs is not either."""
    held = MemoryHeld(a_log(ONE, OTHER))
    shown = held.list_of(ONE, at(10))
    held.lists[ONE] = msgspec.structs.replace(
        shown, treatments=(msgspec.structs.replace(shown.treatments[0], status="paused"),)
    )
    first, *_ = events_of(OTHER)
    judged = held.outcomes_of(OTHER, [event.event_id for event in events_of(OTHER)])
    held.outcomes[OTHER] = {**judged, first.event_id: ("refused", "unknown", frozenset())}
    return held


SHOW = ("--show", "--reason", "why do they differ?")


@pytest.mark.parametrize("words", [[], ["--json"]], ids=["for people", "in JSON"])
def test_values_of_a_patient_are_told_only_to_whom_asks_and_that_look_is_recorded(
    tmp_path: Path, words: list[str]
) -> None:
    held, record = a_list_that_differs(), tmp_path / "access.jsonl"
    clock = ManualClock(at(10))
    app = make_app(lambda *_: nullcontext(held), clock, lambda *_, **__: a_log(ONE, OTHER))
    told = {"MEDCHAIN_ACCESS_RECORD": str(record)}
    call = ["--kafka", "127.0.0.1:1", "--list-url", "redis://in.memory", *words]
    hidden = CliRunner().invoke(app, call, env=told)
    assert hidden.exit_code == 1, hidden.output
    assert "treatments[0].status" in hidden.output
    assert "paused" not in hidden.output
    assert "refused(unknown)" in hidden.output, "an outcome is a word of the rules"
    assert not record.exists()
    assert CliRunner().invoke(app, [*call, "--write", str(tmp_path)], env=told).exit_code == 2, "a folder"
    shown = CliRunner().invoke(app, [*call, *SHOW], env=told)
    assert shown.exit_code == 1
    assert "paused" in shown.output
    looks = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    assert [(look["action"], look.get("patient"), look["reason"]) for look in looks] == [
        ("check", None, SHOW[-1]),
        ("check", ONE, SHOW[-1]),
    ]


@pytest.mark.parametrize(
    ("more", "told", "why"),
    [
        (["--show"], "{folder}/access.jsonl", "--reason"),
        (["--show", "--reason", "x"], "{folder}/access.jsonl", "in 3 to 300 characters"),
        (SHOW, "{folder}/file/access.jsonl", "access record cannot be written"),
        (SHOW, "", "Set MEDCHAIN_ACCESS_RECORD"),
    ],
    ids=["no reason", "none that says anything", "no place to write", "nowhere named"],
)
def test_no_value_is_shown_of_a_look_that_cannot_be_recorded(
    tmp_path: Path, more: list[str], told: str, why: str
) -> None:
    (tmp_path / "file").touch()
    app = make_app(
        lambda *_: nullcontext(a_list_that_differs()), ManualClock(at(10)), lambda *_, **__: a_log(ONE, OTHER)
    )
    call = ["--kafka", "127.0.0.1:1", "--list-url", "redis://in.memory", *more]
    said = CliRunner().invoke(app, call, env={"MEDCHAIN_ACCESS_RECORD": told.format(folder=tmp_path) or None})
    assert said.exit_code == 2
    assert why in said.stderr
    assert "paused" not in said.output


@pytest.mark.integration
def test_the_command_ends_with_one_on_any_difference(kafka: str, scratch: Path) -> None:
    partitions = load().partitions(TOPIC)
    with closing(KafkaProducer(bootstrap_servers=kafka)) as producer:
        for event in events_of(ONE):
            key = ONE.encode()
            producer.send(TOPIC, encode(event), key, partition=partition_of(key, partitions)).get(timeout=30)
    held = MemoryHeld(read_log(KafkaAccess(kafka), partitions))

    @contextmanager
    def opened(_url: str, _kafka: KafkaAccess) -> Iterator[MemoryHeld]:
        yield held

    app, report = make_app(opened, SystemClock()), scratch / "check.json"
    arguments = ["--kafka", kafka, "--list-url", "redis://in.memory", "--write", str(report)]
    clean = CliRunner().invoke(app, [*arguments, "--json"])
    assert clean.exit_code == 0, clean.output
    assert json.loads(report.read_text())["mismatches"] == 0
    assert json.loads(clean.stdout) == json.loads(report.read_text())
    held.outcomes[ONE] = {}
    differing = CliRunner().invoke(app, arguments)
    assert differing.exit_code == 1
    assert ONE in differing.output
    assert json.loads(report.read_text())["lost"] >= 2
