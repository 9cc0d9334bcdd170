"""`medchain status` and `medchain doctor` on a real platform: all well, and what they say when something is not."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import redis

from deploy.local.keys import keys_of
from deploy.local.layout import CHECKOUT
from deploy.local.platform import Platform
from deploy.local.waiting import NeverCameTrueError, wait_until
from services.command_line.app import COMMAND
from services.identity.national_id import synthetic

pytestmark = pytest.mark.integration

PROCESSES: Final = (
    *("prescriber", "pharmacy", "medication-list", "processor-1", "relay", "prescriber-inbox", "pharmacy-inbox"),
)


class Said(NamedTuple):
    """What a command ended with, and its document."""

    code: int
    document: Any
    text: str


class Operator:
    """Somebody at a shell that knows the platform by its environment."""

    def __init__(self, platform: Platform) -> None:
        services = ",".join(f"{each}={platform.url(each)}" for each in PROCESSES)
        self.platform = platform
        self._told = {
            "MEDCHAIN_KAFKA": platform.kafka_address,
            "MEDCHAIN_REDIS": platform.redis_url,
            "MEDCHAIN_SERVICES": services,
            **keys_of(platform.directory),
        }

    def environment(self) -> dict[str, str]:
        """What the shell's commands are told."""
        return {**os.environ, **self._told}

    def asks(self, *words: str, told: Mapping[str, str] | None = None) -> Said:
        """A call of `medchain`, with --json if that is among the words."""
        call = [*COMMAND, *words]
        environment = self.environment() | dict(told or {})
        done = subprocess.run(call, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)  # noqa: S603  ours
        assert "Traceback" not in done.stderr + done.stdout
        return Said(done.returncode, json.loads(done.stdout) if "--json" in words else None, done.stdout)


@pytest.fixture(scope="module")
def operator(watched: Platform) -> Operator:
    return Operator(watched)


def test_a_platform_that_is_well_is_said_to_be_well(operator: Operator) -> None:
    """It has just started: in its first seconds a process may be about to report that it is ready."""
    looks: list[Said] = []

    def is_well() -> bool:
        looks.append(operator.asks("status", "--json"))
        return looks[-1].code == 0

    with suppress(NeverCameTrueError):
        wait_until(is_well, within_s=20.0, what="all is well")
    said = looks[-1]
    found = [each for each in said.document["services"] if each["state"] != "ready"], said.document["without_owner"]
    assert (said.code, said.document["well"], found) == (0, True, ([], []))
    assert {each["name"]: each["state"] for each in said.document["services"]} == dict.fromkeys(PROCESSES, "ready")
    assert [each["lag"] for each in said.document["overview"]["partitions"]] == [0] * 8
    assert said.document["without_owner"] == []
    assert "all is well" in operator.asks("status", "--once").text


def test_an_installation_that_is_as_it_must_be_has_no_finding(operator: Operator) -> None:
    said = operator.asks("doctor", "--json")
    assert [each for each in said.document["findings"] if each["is"] != "well"] == []
    assert (said.code, said.document["exit"]) == (0, 0)
    checks = {each["check"] for each in said.document["findings"]}
    assert {"packages", "keys", "broker version", "topics", "schemas", "broker clock", "Redis version"} <= checks
    assert {"Redis eviction", "Redis file", "Redis functions", "Redis clock", "fold version", "orphans"} <= checks


def test_whatever_is_wrong_is_found_with_what_to_do_about_it(operator: Operator) -> None:
    wrong_keys = {"MEDCHAIN_SEALING_KEY": "too short", "MEDCHAIN_READ_TOKEN_KEY": ""}
    with redis.Redis.from_url(operator.platform.redis_url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("appendonly", "no")
        client.hset("g9-abcdef:{3}:offset", "offset", 1)
        try:
            said = operator.asks("doctor", "--json", told=wrong_keys)
        finally:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("appendonly", "yes")
            client.delete("g9-abcdef:{3}:offset")
    found = {each["check"]: each for each in said.document["findings"] if each["is"] != "well"}
    assert said.code == 2
    assert found.keys() == {"keys", "Redis eviction", "Redis file", "orphans"}
    assert all(each["do"] for each in found.values())
    assert "g9-abcdef" in found["orphans"]["found"]
    assert "docs/runbooks/disk-full.md" in found["orphans"]["do"], "nobody deletes keys by hand, but for these"
    assert "too short" not in said.text


def test_a_process_that_is_silent_is_named_and_ends_status_with_1(operator: Operator) -> None:
    pid = operator.platform.supervisor.pids["pharmacy"]
    os.kill(pid, signal.SIGSTOP)
    try:
        # One look only: the supervisor kills what is silent for half a minute.
        said = operator.asks("status", "--json")
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    assert said.code == 1
    assert {each["name"]: each["state"] for each in said.document["services"]}["pharmacy"] == "silent"


def test_a_wrong_list_of_processes_is_refused_with_a_sentence(operator: Operator) -> None:
    said = operator.asks("status", "--json", told={"MEDCHAIN_SERVICES": "pharmacy"})
    assert (said.code, said.document["exit"]) == (2, 2)
    assert "name=URL" in said.document["error"]


def test_a_key_that_is_none_keeps_nobody_from_what_needs_no_key(operator: Operator, tmp_path: Path) -> None:
    told = {"MEDCHAIN_PSEUDONYM_KEY": "no key at all", "MEDCHAIN_ACCESS_RECORD": str(tmp_path / "access.jsonl")}
    assert operator.asks("parked", "list", "--json", told=told).document["total"] == 0
    (tmp_path / "patient").write_text(synthetic(4711).digits, encoding="utf-8")
    look = ("--patient-file", str(tmp_path / "patient"), "--reason", "is it there?", "--json")
    said = operator.asks("patient", "list", *look, told=told)
    assert said.code == 2
    assert "MEDCHAIN_PSEUDONYM_KEY is not 64 hexadecimal characters" in said.document["error"]


def test_a_platform_of_which_no_process_is_named_is_not_said_to_be_well(operator: Operator) -> None:
    told = {"MEDCHAIN_SERVICES": ""}
    said = operator.asks("status", "--json", told=told)
    assert (said.code, said.document["well"]) == (1, False)
    assert "MEDCHAIN_SERVICES" in said.document["troubles"][0]
    assert "something is not well" in (shown := operator.asks("status", "--once", told=told).text)
    assert "No process is named" in shown


def test_a_schema_registry_that_is_away_keeps_no_command_waiting(operator: Operator, tmp_path: Path) -> None:
    told = {"MEDCHAIN_SCHEMA_REGISTRY": "http://127.0.0.1:1", "MEDCHAIN_ACCESS_RECORD": str(tmp_path / "access.jsonl")}
    codes = {
        ("generations",): 2,
        ("check",): 2,
        ("replay", "retire", "g1-000000", "--yes"): 2,
        ("simulate", "--history", str(tmp_path / "history.jsonl")): 2,
        ("parked", "list"): 1,
        ("patient", "list", "--pseudonym", "5e" * 16, "--reason", "is it there?"): 1,
    }
    for words, code in codes.items():
        said = operator.asks(*words, "--json", told=told)
        assert (said.code, said.document["exit"]) == (code, code), words
        assert "the schema registry does not answer" in said.document["error"]
    examined = operator.asks("doctor", "--json", told=told)
    (found,) = [each for each in examined.document["findings"] if each["is"] != "well"]
    assert (examined.code, found["check"]) == (2, "schema registry")
    assert "MEDCHAIN_SCHEMA_REGISTRY" in found["do"]


class Terminal:
    """A command on a terminal of 60 lines; `text`: all that it has shown, without colours and movements."""

    def __init__(self, operator: Operator, *words: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 200, 0, 0))
        environment = operator.environment() | {"TERM": "xterm", "COLUMNS": "200", "LINES": "60"}
        # A shell has its jobs in the background ignore Ctrl-C, and these whatever they start.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        with open(slave, "wb") as there:  # noqa: PTH123  a descriptor, no path
            self.process = subprocess.Popen(  # noqa: S603  ours
                [*COMMAND, *words], cwd=CHECKOUT, env=environment, stdin=there, stdout=there, stderr=there
            )
        signal.signal(signal.SIGINT, before)
        os.set_blocking(self._master, False)
        self._shown = b""

    @property
    def text(self) -> str:
        """All of it up to now."""
        with suppress(BlockingIOError, OSError):
            while read := os.read(self._master, 65_536):
                self._shown += read
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._shown.decode(errors="ignore"))

    def close(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.process.wait()
        os.close(self._master)


def test_the_live_screen_looks_again_by_itself_and_ends_on_ctrl_c(operator: Operator) -> None:
    with closing(Terminal(operator, "status", "--every", "0.5")) as terminal:
        wait_until(lambda: "all is well" in terminal.text, within_s=60, what="the first screen")
        for heading in ("lag s", "parked", "outbox", "since s"):
            assert heading in terminal.text
        pid = operator.platform.supervisor.pids["pharmacy"]
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_until(lambda: "something is not well" in terminal.text, within_s=25, what="the screen says so")
            assert "silent" in terminal.text
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        seen = len(terminal.text)
        wait_until(lambda: "all is well" in terminal.text[seen:], within_s=60, what="the screen after it")
        terminal.process.send_signal(signal.SIGINT)
        # A terminal that nobody reads takes no more after some screens, and the command would wait for it.
        wait_until(lambda: bool(terminal.text) and terminal.process.poll() is not None, within_s=60, what="it ends")
        assert terminal.process.returncode == 0
