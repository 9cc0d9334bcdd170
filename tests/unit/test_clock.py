"""Every process takes its time from one place, and a test can set it from outside."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from services.clock import Clock, ClockFileUnreadable, ClockSettings, ManualClock, SystemClock


def test_the_system_clock_reads_the_machine() -> None:
    before = time.time_ns() // 1_000_000
    now = SystemClock(ClockSettings(offset_ms=0, file=None)).now_ms()
    assert before <= now <= time.time_ns() // 1_000_000


def test_an_offset_is_added() -> None:
    hour_ms = 3_600_000
    shifted = SystemClock(ClockSettings(offset_ms=-hour_ms)).now_ms()
    assert shifted <= time.time_ns() // 1_000_000 - hour_ms


def test_a_file_sets_the_time_and_a_changed_file_sets_it_again(tmp_path: Path) -> None:
    file = tmp_path / "now"
    clock = SystemClock(ClockSettings(file=file))
    file.write_text("1772400000000\n", encoding="ascii")
    assert clock.now_ms() == clock.now_ms() == 1_772_400_000_000
    replacement = tmp_path / "next"
    replacement.write_text("1772400060000\n", encoding="ascii")
    replacement.replace(file)
    assert clock.now_ms() == 1_772_400_060_000


def test_without_the_file_the_machine_is_read_until_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "now"
    clock = SystemClock(ClockSettings(file=file))
    assert clock.now_ms() > 1_772_400_000_000
    file.write_text("1", encoding="ascii")
    assert clock.now_ms() == 1


def test_a_file_that_holds_no_number_is_refused_with_a_clear_sentence(tmp_path: Path) -> None:
    file = tmp_path / "now"
    file.write_text("tomorrow", encoding="ascii")
    with pytest.raises(ClockFileUnreadable, match="MEDCHAIN_CLOCK_FILE"):
        SystemClock(ClockSettings(file=file)).now_ms()


def test_a_process_takes_the_hook_from_its_environment(tmp_path: Path) -> None:
    file = tmp_path / "now"
    file.write_text("1772400000000", encoding="ascii")
    environment = {**os.environ, "MEDCHAIN_CLOCK_FILE": str(file), "MEDCHAIN_CLOCK_OFFSET_MS": "5"}
    program = "from services.clock import SystemClock; print(SystemClock().now_ms())"
    printed = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)  # noqa: S603 - our own interpreter
    assert int(printed.stdout) == 1_772_400_000_005


def test_a_manual_clock_moves_only_when_told() -> None:
    clock = ManualClock(1_000)
    clock.advance(250)
    assert (clock.now_ms(), clock.monotonic_ms()) == (1_250, 250)
    clock.set(10)
    assert (clock.now_ms(), clock.monotonic_ms()) == (10, 250)
    with pytest.raises(ValueError, match="forwards"):
        clock.advance(-1)


@pytest.mark.parametrize("clock", [SystemClock(ClockSettings()), ManualClock(1)], ids=["system", "manual"])
def test_durations_never_go_back(clock: Clock) -> None:
    readings = [clock.monotonic_ms() for _ in range(1_000)]
    assert readings == sorted(readings)
