"""Programs and their supervisor: ready or told why not, started again when they die, gone with their parent."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import pytest

from deploy.local.layout import CHECKOUT
from deploy.local.ports import LOOPBACK, choose_port, is_listening
from deploy.local.program import Child, Program, ProgramDiedError
from deploy.local.supervisor import Supervisor
from deploy.local.waiting import NeverCameTrueError, wait_until

SAYS_ITS_ID_AND_STAYS = (
    "import os, pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(600)"
)


def test_a_program_that_ends_before_it_is_ready_shows_its_last_words(tmp_path: Path) -> None:
    child = Child(python(tmp_path, "import sys; print('the disk is full'); sys.exit(3)", ready=lambda: False))
    child.start()
    with pytest.raises(ProgramDiedError, match=r"(?s)exit 3.*the disk is full"):
        child.wait_until_ready()
    child.stop()


def test_a_program_that_is_never_ready_is_given_up_and_ended(tmp_path: Path) -> None:
    never = python(tmp_path, SAYS_ITS_ID_AND_STAYS, ready=lambda: False, ready_within_s=0.2)
    with pytest.raises(NeverCameTrueError, match="one ready"), Child(never):
        pass
    assert_gone(lambda: told_id(tmp_path))


def test_a_program_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SAYS_ITS_ID_AND_STAYS
    with Child(python(tmp_path, stubborn, stop_within_s=0.1)) as child:
        assert child.alive
    assert_gone(lambda: told_id(tmp_path))


def test_what_a_program_started_is_killed_with_it(tmp_path: Path) -> None:
    starts_another = (
        "import pathlib, subprocess, sys, time; other = subprocess.Popen(['sleep', '600']); "
        "pathlib.Path(sys.argv[1]).write_text(str(other.pid)); time.sleep(600)"
    )
    with Child(python(tmp_path, starts_another)):
        other = told_id(tmp_path)
    assert_gone(lambda: other)


def test_a_child_cannot_outlive_a_parent_that_was_killed(tmp_path: Path) -> None:
    parent = (
        "import pathlib, sys, time; from deploy.local.program import Child, Program; told = sys.argv[1]\n"
        f"Child(Program(name='c', argv=(sys.executable, '-c', {SAYS_ITS_ID_AND_STAYS!r}, told), "
        "log=pathlib.Path(told + '.log'), ready=lambda: True)).start(); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", parent, str(tmp_path / "told")], cwd=CHECKOUT) as process:  # noqa: S603  ours
        wait_until(lambda: has_told(tmp_path), within_s=20, what="the child runs")
        process.kill()
    assert_gone(lambda: told_id(tmp_path))


def test_a_program_that_dies_is_started_again(tmp_path: Path) -> None:
    restarted: list[int] = []
    with Supervisor(lambda: restarted.append(1)) as supervisor:
        supervisor.start(python(tmp_path, SAYS_ITS_ID_AND_STAYS))
        first = told_id(tmp_path)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: told_id(tmp_path) != first, within_s=20, what="another process")
        wait_until(lambda: bool(restarted), within_s=5, what="the change was told")
        assert supervisor.pids == {"one": told_id(tmp_path)}
        assert supervisor.restarts == {"one": 1}
    assert_gone(lambda: told_id(tmp_path))


def test_a_program_that_hangs_is_killed_and_started_again_and_one_that_was_never_up_is_let_be(tmp_path: Path) -> None:
    beating = (
        "import os, pathlib, sys, time; told = pathlib.Path(sys.argv[1])\n"
        "told.write_text(str(os.getpid())); beat = told.with_name('beat')\n"
        "while True: beat.touch(); time.sleep(0.02)"
    )

    def beats() -> bool:
        return time.time() - (tmp_path / "beat").stat().st_mtime < 1

    slow = replace(python(tmp_path / "slow", SAYS_ITS_ID_AND_STAYS), name="slow", lives=lambda: False)
    (tmp_path / "slow").mkdir()
    with Supervisor(hung_after_s=0.5) as supervisor:
        supervisor.start(replace(python(tmp_path, beating), lives=beats), slow)
        first = told_id(tmp_path)
        # It must have been seen alive, or its silence means nothing.
        wait_until(lambda: supervisor.have_answered == {"one"}, within_s=20, what="it was asked")
        os.kill(first, signal.SIGSTOP)
        wait_until(lambda: told_id(tmp_path) != first, within_s=20, what="another process")
        assert supervisor.restarts == {"one": 1, "slow": 0}


def test_a_program_that_answers_late_now_and_then_is_not_taken_for_one_that_hangs(tmp_path: Path) -> None:
    answers = cycle([True, False, False])
    asked: list[bool] = []

    def lives() -> bool:
        asked.append(next(answers))
        return asked[-1]

    with Supervisor(hung_after_s=0.01) as supervisor:
        supervisor.start(replace(python(tmp_path, SAYS_ITS_ID_AND_STAYS), lives=lives))
        wait_until(lambda: len(asked) > 30, within_s=20, what="it was asked often")
        assert supervisor.restarts == {"one": 0}


def test_a_start_that_fails_leaves_nothing_running(tmp_path: Path) -> None:
    supervisor = Supervisor()
    good = python(tmp_path, SAYS_ITS_ID_AND_STAYS)
    bad = python(tmp_path, "import sys; sys.exit(1)", name="two", ready=lambda: False)
    with pytest.raises(ProgramDiedError, match="two ended"):
        supervisor.start(good, bad)
    assert supervisor.pids == {}
    if has_told(tmp_path):
        assert_gone(lambda: told_id(tmp_path))


def test_programs_are_ended_in_the_opposite_order(tmp_path: Path) -> None:
    said = tmp_path / "said"
    says_when_it_ends = (
        "import signal, sys, time\n"
        f"def end(*_): open({str(said)!r}, 'a').write(sys.argv[2] + ' '); sys.exit()\n"
        "signal.signal(signal.SIGTERM, end); open(sys.argv[1] + sys.argv[2], 'w').close(); time.sleep(600)"
    )
    with Supervisor() as supervisor:
        for name in ("broker", "service"):
            ready = (tmp_path / f"told{name}").exists
            supervisor.start(python(tmp_path, says_when_it_ends, name, name=name, ready=ready))
    assert said.read_text() == "service broker "


def test_a_supervisor_ends_everything_on_sigterm(tmp_path: Path) -> None:
    code = (
        "import pathlib, signal, sys; from deploy.local.program import Program\n"
        "from deploy.local.supervisor import Supervisor, end_on_signals\n"
        "end_on_signals(); told = sys.argv[1]\n"
        f"one = Program(name='c', argv=(sys.executable, '-c', {SAYS_ITS_ID_AND_STAYS!r}, told), "
        "log=pathlib.Path(told + '.log'), ready=pathlib.Path(told).exists)\n"
        "with Supervisor() as supervisor: supervisor.start(one); pathlib.Path(told + '.up').touch(); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "told")], cwd=CHECKOUT) as process:  # noqa: S603  ours
        wait_until((tmp_path / "told.up").exists, within_s=20, what="the supervisor is up")
        process.terminate()
        assert process.wait(20) == 0
    assert_gone(lambda: told_id(tmp_path))


def test_a_port_that_is_taken_is_not_chosen() -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert is_listening(port)
        assert choose_port(port) != port


def test_no_port_is_given_twice() -> None:
    ports = [choose_port() for _ in range(200)]
    assert len(set(ports)) == len(ports)


def python(
    folder: Path,
    code: str,
    *arguments: str,
    name: str = "one",
    ready: Callable[[], bool] | None = None,
    ready_within_s: float = 20.0,
    stop_within_s: float = 10.0,
) -> Program:
    """A program of Python code that is given the path `told` to write to; ready once it has."""
    return Program(
        name=name,
        argv=(sys.executable, "-c", code, str(folder / "told"), *arguments),
        log=folder / f"{name}.log",
        ready=ready or (lambda: has_told(folder)),
        ready_within_s=ready_within_s,
        stop_within_s=stop_within_s,
    )


def has_told(folder: Path) -> bool:
    told = folder / "told"
    return told.exists() and told.read_text() != ""


def told_id(folder: Path) -> int:
    wait_until(lambda: has_told(folder), within_s=20, what="the program told its process id")
    return int((folder / "told").read_text())


def assert_gone(pid: Callable[[], int]) -> None:
    number = pid()
    wait_until(lambda: not runs(number), within_s=10, what=f"process {number} is gone")


def runs(pid: int) -> bool:
    """Whether a process runs (one that has ended and was not collected yet does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] not in {"Z", "X"}
    except FileNotFoundError:
        return False
