"""Nothing about a patient reaches a log, whatever key, text, error or library it comes in."""

import io
import json
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy.local.layout import CHECKOUT
from services.canonical_log import configure, get_logger
from services.canonical_log.allowed_keys import ALLOWED
from services.canonical_log.libraries import LINES_PER_WINDOW, WINDOW_MS
from services.clock import ManualClock

NUMBER = "02013299997"
CLINICAL = "Morfin 10 mg ved smerter"
NAME = "Kari Nordmann"
STRAY = [NUMBER, int(NUMBER), 30108299920, CLINICAL, NAME, f"x {NUMBER} y", f"g{NUMBER}", [NUMBER], {"a": CLINICAL}, b"Kari Nordmann"]  # fmt: skip
FORBIDDEN = (NUMBER, str(int(NUMBER)), "30108299920", "Morfin", "smerter", "Kari", "Nordmann")


class Lines:
    """What was written, and the clock by which it was."""

    def __init__(self) -> None:
        self.out = io.StringIO()
        self.clock = ManualClock(1_772_400_000_123)

    def read(self) -> list[dict[str, Any]]:
        """Every line as an object."""
        return [json.loads(line) for line in self.out.getvalue().splitlines()]

    def last(self) -> dict[str, Any]:
        """The last line."""
        return self.read()[-1]

    def hold_nothing_of_the_patient(self) -> bool:
        """Whether something was written, and nothing of what must not be."""
        written = self.out.getvalue()
        return bool(written) and not any(text in written for text in FORBIDDEN)


@pytest.fixture
def lines() -> Iterator[Lines]:
    """Logging as in a service, into memory; what the test runner had is put back."""
    root = logging.getLogger()
    before = (root.handlers, root.level, sys.excepthook, threading.excepthook)
    others = {name: (logging.getLogger(name).handlers, logging.getLogger(name).propagate, logging.getLogger(name).level) for name in list(root.manager.loggerDict)}  # fmt: skip
    lines = Lines()
    configure("pharmacy", clock=lines.clock, stream=lines.out)
    yield lines
    root.handlers, level, sys.excepthook, threading.excepthook = before
    root.setLevel(level)
    for name, (handlers, propagate, own_level) in others.items():
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(own_level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def test_a_line_is_json_with_service_level_and_time_by_our_clock(lines: Lines) -> None:
    get_logger().info("batch_folded", partition=3, records=200, topic="medication-events", duration_ms=4.5)
    assert lines.last() == {
        "event": "batch_folded",
        "service": "pharmacy",
        "level": "info",
        "timestamp": "2026-03-01T21:20:00.123Z",
        "partition": 3,
        "records": 200,
        "topic": "medication-events",
        "duration_ms": 4.5,
    }


def test_a_key_outside_of_the_list_is_dropped_and_counted(lines: Lines) -> None:
    get_logger().info("claim_judged", partition=1, patient_name=NAME, **{NUMBER: "x"})
    assert lines.last()["dropped_keys"] == 2
    assert lines.last()["partition"] == 1
    assert lines.hold_nothing_of_the_patient()


@pytest.mark.parametrize(
    "key",
    [*ALLOWED, "event_", "error", "at", "text", "logger", "suppressed", "dropped_keys", "stack_info", "exception"],
)
def test_no_key_lets_a_stray_value_through(lines: Lines, key: str) -> None:
    for value in STRAY:
        get_logger().warning("claim_judged", **{key: value})
        structlog.contextvars.bind_contextvars(**{key: value})
        get_logger().warning("claim_judged")
        structlog.contextvars.clear_contextvars()
    assert len(lines.read()) == 2 * len(STRAY)
    assert lines.hold_nothing_of_the_patient()


def test_a_text_in_the_place_of_an_event_name_is_not_written(lines: Lines) -> None:
    for text in (CLINICAL, f"patient_{NUMBER}", NAME):
        get_logger().info(text)
        get_logger().info("patient %s", text)
    assert {line["event"] for line in lines.read()} == {"event_name_dropped"}
    assert lines.hold_nothing_of_the_patient()


def refuse() -> None:
    raise ValueError(f"{NAME} {NUMBER}")


def fail() -> None:
    try:
        refuse()
    except ValueError as error:
        raise RuntimeError(CLINICAL) from error


def test_an_exception_is_told_by_types_and_places_without_its_words(lines: Lines) -> None:
    try:
        fail()
    except RuntimeError:
        get_logger().exception("fold_failed", partition=2)
    line = lines.last()
    assert [link["type"] for link in line["error"]] == ["RuntimeError", "ValueError"]
    assert line["error"][0]["at"][-1].endswith(" fail")
    assert "unit/test_canonical_log.py:" in line["error"][0]["at"][-1]
    assert (line["level"], line["partition"]) == ("error", 2)
    assert lines.hold_nothing_of_the_patient()


def test_an_error_that_is_handed_over_is_told_in_the_same_way(lines: Lines) -> None:
    get_logger().warning("append_failed", exc_info=KeyError(NUMBER))
    assert lines.last()["error"] == [{"type": "KeyError", "at": []}]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from([*ALLOWED, "other"]), st.text() | st.integers() | st.floats() | st.none(), max_size=6
    )
)
def test_no_value_breaks_a_line(lines: Lines, values: dict[str, object]) -> None:
    get_logger().info("anything", **values)
    line = lines.last()
    assert set(line) <= {*ALLOWED, "event", "dropped_keys"}


def test_a_line_of_a_library_shows_its_literal_and_its_place_but_no_values(lines: Lines) -> None:
    logging.getLogger("aiokafka.consumer").error("cannot read %s", NUMBER)
    line = lines.last()
    assert (line["event"], line["logger"], line["text"]) == ("library_message", "aiokafka.consumer", "cannot read %s")
    assert "test_canonical_log.py:" in line["at"]
    assert lines.hold_nothing_of_the_patient()


def test_a_line_of_a_library_that_was_put_together_shows_only_its_place(lines: Lines) -> None:
    logging.getLogger("faust").error(f"cannot read {NUMBER} {CLINICAL}")  # noqa: G004 - what a library might do
    logging.getLogger("faust").error(SimpleNamespace(name=NAME))
    assert "text" not in lines.last()
    assert all("test_canonical_log.py:" in line["at"] for line in lines.read())
    assert lines.hold_nothing_of_the_patient()


def test_an_exception_in_a_library_loses_its_words_too(lines: Lines) -> None:
    try:
        fail()
    except RuntimeError:
        logging.getLogger("uvicorn.error").exception("Exception in ASGI application")
    assert lines.last()["error"][0]["type"] == "RuntimeError"
    assert lines.hold_nothing_of_the_patient()


def test_a_flood_of_one_logger_is_cut_off_and_counted(lines: Lines) -> None:
    for _ in range(3_000):
        logging.getLogger("kafka.conn").error("broker away")
    logging.getLogger("aiokafka").error("another logger")
    assert len(lines.read()) == LINES_PER_WINDOW + 1
    lines.clock.advance(WINDOW_MS)
    logging.getLogger("kafka.conn").error("broker away")
    assert lines.last()["suppressed"] == str(3_000 - LINES_PER_WINDOW)
    logging.getLogger("kafka.conn").error("broker away")
    assert "suppressed" not in lines.last()


def test_a_level_of_a_librarys_own_is_told_as_the_standard_one_below(lines: Lines) -> None:
    logging.getLogger("mode").log(45, "severe")
    logging.getLogger("mode").log(70, "dead")
    assert [line["level"] for line in lines.read()] == ["error", "critical"]


def test_what_libraries_tell_below_a_warning_is_left_out(lines: Lines) -> None:
    logging.getLogger("kafka").info("connected")
    assert lines.read() == []


@pytest.mark.parametrize("where", ["main", "thread"])
def test_what_nobody_caught_is_told_without_its_words(where: str) -> None:
    program = f"""
import threading
from deploy.local.layout import CHECKOUT
from services.canonical_log import configure
configure("pharmacy")
def fail():
    raise ValueError({NUMBER!r} + {CLINICAL!r})
if {where!r} == "main":
    fail()
thread = threading.Thread(target=fail)
thread.start()
thread.join()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)  # noqa: S603 - our own interpreter
    line = json.loads(done.stderr)
    assert (line["event"], line["error"][0]["type"]) == ("uncaught_error", "ValueError")
    assert not any(text in done.stderr + done.stdout for text in FORBIDDEN)


def test_on_a_terminal_a_line_is_for_people_and_holds_as_little(lines: Lines) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    configure("pharmacy", clock=lines.clock, stream=terminal)
    get_logger().info("claim_judged", outcome="refused", reason="held", patient=NUMBER)
    assert "claim_judged" in terminal.getvalue()
    assert "held" in terminal.getvalue()
    assert NUMBER not in terminal.getvalue()


def test_alarms_are_found_in_a_log_as_the_runbooks_look_for_them(lines: Lines) -> None:
    get_logger().info("relay_started")
    get_logger().error("effect_held", partition=3)
    get_logger().critical("uncaught_error")
    index = (CHECKOUT / "docs" / "runbooks" / "README.md").read_text(encoding="utf-8")
    (pattern,) = re.findall(r"^grep -hE '([^']+)' build/platform/logs/\*\.log \| tail$", index, re.MULTILINE)
    found = [json.loads(line)["event"] for line in lines.out.getvalue().splitlines() if re.search(pattern, line)]
    assert found == ["effect_held", "uncaught_error"]
