"""What a process says of itself: its troubles in words, a check that hangs among them, and whether its work moves."""

import asyncio
import json
import socket
from collections.abc import Sequence

import httpx
import pytest

from deploy.local.ports import LOOPBACK, choose_port
from deploy.local.waiting import wait_until
from services.health import Check, HealthServer, Pulse, Readiness, Trouble, TroubleReason

LOST = Trouble(TroubleReason.REDIS_UNREACHABLE, "Redis does not answer.", named={"since": 7})
LOW = Trouble(TroubleReason.BROKER_DISK_LOW, "The broker's disk has 3 MB left.", stops=False)


def saying(*troubles: Trouble) -> Check:
    async def check() -> Sequence[Trouble]:
        return troubles

    return check


def asked(readiness: Readiness, path: str, pulse: Pulse | None = None) -> httpx.Response:
    """One question to a process that serves nobody else."""
    port = choose_port()
    with HealthServer(readiness, pulse or Pulse(), host=LOOPBACK, port=port):
        wait_until(lambda: answers(port), within_s=10, what="the port answers")
        return httpx.get(f"http://{LOOPBACK}:{port}{path}")


def answers(port: int) -> bool:
    try:
        return bool(httpx.get(f"http://{LOOPBACK}:{port}/health/live").status_code)
    except httpx.TransportError:
        return False


def test_a_process_without_troubles_is_ready() -> None:
    answer = asked(Readiness({"store": saying(), "log": saying()}), "/health/ready")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})


def test_a_process_that_cannot_do_its_work_says_everything_that_is_wrong_what_stops_it_first() -> None:
    answer = asked(Readiness({"log": saying(LOW), "store": saying(LOST)}), "/health/ready")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    told = answer.json()
    assert (told["type"], told["detail"]) == ("/problems/list_unavailable", LOST.text)
    assert told["troubles"] == [
        {"reason": "redis_unreachable", "text": LOST.text, "since": 7},
        {"reason": "broker_disk_low", "text": LOW.text},
    ]


def test_a_trouble_that_does_not_stop_the_process_leaves_it_ready_and_is_told() -> None:
    answer = asked(Readiness({"log": saying(LOW)}), "/health/ready")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert [each["reason"] for each in answer.json()["troubles"]] == ["broker_disk_low"]


async def test_a_check_that_hangs_is_told_and_does_not_hide_what_the_others_found() -> None:
    asked_times = 0

    async def hangs() -> Sequence[Trouble]:
        nonlocal asked_times
        asked_times += 1
        await asyncio.Event().wait()
        return ()

    readiness = Readiness({"broker": hangs, "store": saying(LOST)}, answer_within_s=0.01)
    for _ in range(3):
        assert {each.reason for each in await readiness.troubles()} == {
            TroubleReason.NOT_CHECKED,
            TroubleReason.REDIS_UNREACHABLE,
        }
    assert asked_times == 1, "questions that are not answered do not pile up"


async def test_a_check_that_fails_is_told_by_its_kind_and_without_its_text() -> None:
    async def fails() -> Sequence[Trouble]:
        raise ValueError("01019012345")

    (trouble,) = await Readiness({"store": fails}).troubles()
    assert (trouble.reason, trouble.text) == (
        TroubleReason.NOT_CHECKED,
        "The check of the store failed (ValueError).",
    )


async def test_the_log_tells_when_a_trouble_begins_and_when_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    troubles = [LOST]

    async def check() -> Sequence[Trouble]:
        return tuple(troubles)

    readiness = Readiness({"store": check})
    for _ in range(2):
        readiness.tell(await readiness.troubles())
    troubles.clear()
    readiness.tell(await readiness.troubles())
    told = capsys.readouterr().out
    assert told.count("trouble_began") == told.count("trouble_ended") == 1, told
    assert told.count("redis_unreachable") == 2


async def test_a_process_looks_soon_again_while_something_is_wrong_and_less_often_while_all_is_well() -> None:
    troubles = [LOST]
    pauses: list[float] = []

    async def check() -> Sequence[Trouble]:
        return tuple(troubles)

    async def sleep(pause_s: float) -> None:
        pauses.append(pause_s)
        if len(pauses) == 20:
            troubles.clear()
        if len(pauses) == 40:
            raise asyncio.CancelledError

    readiness = Readiness({"store": check})
    with pytest.raises(asyncio.CancelledError):
        await readiness.watch(sleep)
    assert all(1.6 <= each <= 2.4 for each in pauses[:20]), pauses
    assert all(4.0 <= each <= 6.0 for each in pauses[20:]), pauses
    assert len(set(pauses)) > 30, "who started together does not look at once for ever"


def test_a_process_lives_while_its_loop_beats() -> None:
    beating, silent = Pulse(), Pulse(silent_after_s=0)
    assert asked(Readiness({}), "/health/live", beating).json() == {"status": "live"}
    answer = asked(Readiness({}), "/health/live", silent)
    assert (answer.status_code, json.loads(answer.text)) == (503, {"status": "hung"})


def test_a_port_that_is_taken_ends_the_process_and_not_only_its_health() -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            HealthServer(Readiness({}), Pulse(), host=LOOPBACK, port=taken.getsockname()[1])
