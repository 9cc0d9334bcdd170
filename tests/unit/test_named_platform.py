"""Which platform a command works on: never the one that runs here because a variable of another was forgotten."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from typer.testing import CliRunner, Result

from deploy.local import state
from deploy.local.keys import keys_of
from deploy.local.layout import RUN
from deploy.local.state import Claim, Running, State
from services.command_line.app import app
from services.command_line.named_platform import (
    PSEUDONYM_KEY,
    SEALING_KEY,
    NoPlatformError,
    named_platform,
    runs_here,
    with_key,
)
from services.identity.pseudonym import Pseudonymiser
from services.publishing.kafka_access import KafkaAccess

KAFKA, REDIS = "MEDCHAIN_KAFKA", "MEDCHAIN_REDIS"
AWAY: Final = {KAFKA: "127.0.0.1:1", REDIS: "redis://127.0.0.1:1"}
LOOK: Final = ("--reason", "is it there?")
OF_BOTH: Final = (
    ("check",),
    ("doctor",),
    ("event", "trace", "5b0f6a52-3d6e-4c34-9c0a-6f3e8d1f2a11", "--position", "0-1", *LOOK),
    ("generations",),
    ("parked", "close", "0-1", *LOOK, "--yes"),
    ("patient", "refold", *LOOK, "--yes"),
    ("replay", "retire", "g1-000000", "--yes"),
    ("status",),
)
OF_KAFKA: Final = (("simulate",), ("topics", "check"))


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[State]:
    """A platform that runs here, as its file tells it; nothing answers at its addresses."""
    for name in (KAFKA, REDIS, "MEDCHAIN_SERVICES", "MEDCHAIN_SCHEMA_REGISTRY", PSEUDONYM_KEY, SEALING_KEY):
        monkeypatch.delenv(name, raising=False)
    told = State(
        supervisor=1,
        ready=True,
        directory=str(tmp_path / "data"),
        kafka="127.0.0.1:2",
        redis="redis://127.0.0.1:2",
        programs={"relay": Running(pid=2, log="relay.log", url="http://127.0.0.1:3"), "kafka": Running(pid=3, log="")},
    )
    run = tmp_path / "run"
    with Claim(run) as claim:
        claim.write(told)
        found = state.running

        def running(run_: Path = RUN) -> State | None:  # noqa: ARG001  called as `running` is
            return found(run)

        monkeypatch.setattr(state, "running", running)
        yield told


def asked(*words: str, told: Mapping[str, str]) -> tuple[Result, Any]:
    """What `medchain` ends with, and its document."""
    said = CliRunner().invoke(app, [*words, "--json"], env=told)
    assert said.exception is None or isinstance(said.exception, SystemExit), repr(said.exception)
    return said, json.loads(said.stdout)


def test_without_a_word_in_the_environment_it_is_the_platform_that_runs_here(here: State) -> None:
    found = named_platform()
    assert (found.kafka, found.redis) == (KafkaAccess(here.kafka), here.redis)
    assert found.folder == Path(here.directory)
    assert found.processes() == {"relay": "http://127.0.0.1:3"}
    assert found.keys == keys_of(Path(here.directory))
    assert runs_here(found.kafka)


def test_what_the_environment_names_is_taken_as_a_whole_and_nothing_of_the_one_that_runs_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in AWAY.items():
        monkeypatch.setenv(name, value)
    found = named_platform()
    assert (found.kafka, found.redis) == (KafkaAccess(AWAY[KAFKA]), AWAY[REDIS])
    assert (found.folder, found.processes(), found.schema_registry) == (None, {}, None)
    assert set(found.keys.values()) == {None}
    assert not runs_here(found.kafka)


def test_no_key_is_told_with_a_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (AWAY | {PSEUDONYM_KEY: "5e" * 32}).items():
        monkeypatch.setenv(name, value)
    assert "5e5e" not in repr(named_platform())


@pytest.mark.parametrize("words", OF_BOTH, ids=" ".join)
@pytest.mark.parametrize(("named", "missing"), [(KAFKA, REDIS), (REDIS, KAFKA)])
def test_a_platform_of_which_one_address_is_forgotten_is_refused_and_not_taken_for_the_one_that_runs_here(
    words: tuple[str, ...], named: str, missing: str
) -> None:
    for empty in ({}, {missing: ""}):
        said, document = asked(*words, told={named: AWAY[named], **empty})
        assert (said.exit_code, document["exit"]) == (2, 2)
        assert f"{missing} is not set" in document["error"]


@pytest.mark.parametrize("words", OF_KAFKA, ids=" ".join)
def test_who_needs_kafka_alone_does_not_take_redis_alone_for_the_platform_that_runs_here(
    words: tuple[str, ...],
) -> None:
    said, document = asked(*words, told={REDIS: AWAY[REDIS]})
    assert said.exit_code == 2
    assert f"{KAFKA} is not set" in document["error"]


def test_kafka_alone_will_do_where_redis_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KAFKA, AWAY[KAFKA])
    found = named_platform(needs_redis=False)
    assert (found.kafka, found.redis, found.folder) == (KafkaAccess(AWAY[KAFKA]), "", None)


def test_a_check_is_of_the_platform_that_the_environment_names() -> None:
    said, document = asked("check", told=AWAY)
    assert said.exit_code == 2
    assert "redis" in document["error"]
    named = named_platform(kafka="127.0.0.1:4", redis="redis://127.0.0.1:5")
    assert (named.kafka, named.redis, named.folder) == (KafkaAccess("127.0.0.1:4"), "redis://127.0.0.1:5", None)
    with pytest.raises(NoPlatformError, match=f"{REDIS} is not set"):
        named_platform(kafka="127.0.0.1:4")


@pytest.mark.parametrize("url", ["redis-1:6379", "redis://secret@redis-1:port", "http://redis-1:6379", "redis-1"])
@pytest.mark.parametrize("words", OF_BOTH, ids=" ".join)
def test_an_address_of_redis_that_is_no_url_is_refused_by_its_variable_and_not_repeated(
    words: tuple[str, ...], url: str
) -> None:
    said, document = asked(*words, told=AWAY | {REDIS: url})
    assert said.exit_code == 2
    assert f"{REDIS} is no URL" in document["error"]
    assert url not in said.output


@pytest.mark.parametrize(
    "servers", ["kafka-1", "kafka-1:port", "redis://kafka-1:9092", "kafka-1:9092,", "kafka 1:9092"]
)
@pytest.mark.parametrize("words", [*OF_BOTH, *OF_KAFKA], ids=" ".join)
def test_brokers_that_are_no_addresses_are_refused_by_their_variable(words: tuple[str, ...], servers: str) -> None:
    said, document = asked(*words, told=AWAY | {KAFKA: servers})
    assert said.exit_code == 2
    assert f"{KAFKA} is no list of host:port" in document["error"]


@pytest.mark.parametrize("servers", ["kafka-1:9092", "kafka_1.example.no:9092, 10.0.0.2:9093", "[::1]:9092"])
def test_brokers_are_named_by_host_and_port(monkeypatch: pytest.MonkeyPatch, servers: str) -> None:
    monkeypatch.setenv(KAFKA, servers)
    assert named_platform(needs_redis=False).kafka == KafkaAccess(servers)


# --- Keys ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["no key at all", "5e" * 8, "5e" * 100, "5e5"])
def test_a_key_that_is_none_is_refused_by_its_variable_and_not_repeated(key: str) -> None:
    with pytest.raises(NoPlatformError, match=f"{PSEUDONYM_KEY} is not 64 hexadecimal") as refused:
        with_key({PSEUDONYM_KEY: key}, PSEUDONYM_KEY, Pseudonymiser)
    assert key not in str(refused.value)


def test_a_town_is_not_begun_with_a_key_that_is_none() -> None:
    told = {KAFKA: AWAY[KAFKA], PSEUDONYM_KEY: "5e" * 32, SEALING_KEY: "no key at all"}
    said, document = asked("simulate", "--via", "log", told=told)
    assert said.exit_code == 2
    assert f"{SEALING_KEY} is not 64 hexadecimal" in document["error"]
