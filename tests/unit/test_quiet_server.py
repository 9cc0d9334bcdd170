"""A server that is told when to end: it ends at once, and the time in its answers moves on meanwhile."""

import signal
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx
import uvicorn
from starlette.responses import Response

from deploy.local.layout import CHECKOUT
from deploy.local.ports import LOOPBACK, choose_port
from deploy.local.waiting import wait_until
from services.serving.quiet_server import QuietServer

SOON_S = 5.0
SERVES = """
import sys, uvicorn
from starlette.responses import Response
from services.serving.quiet_server import QuietServer
config = uvicorn.Config(Response(b"here"), host=sys.argv[1], port=int(sys.argv[2]), loop="uvloop", log_config=None, lifespan="off")
QuietServer(config).run()
"""


def answer(port: int) -> httpx.Response | None:
    try:
        return httpx.get(f"http://{LOOPBACK}:{port}/")
    except httpx.TransportError:
        return None


def test_it_ends_when_told_and_tells_the_time_until_then() -> None:
    port = choose_port()
    config = uvicorn.Config(
        Response(b"here"), host=LOOPBACK, port=port, loop="asyncio", log_config=None, lifespan="off"
    )
    server = QuietServer(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: answer(port) is not None, within_s=SOON_S, what="it answers")
    first = date_of(port)
    wait_until(lambda: date_of(port) >= first + timedelta(seconds=1), within_s=SOON_S, what="a second passes")
    began_s = time.monotonic()
    server.end()
    thread.join(SOON_S)
    assert not thread.is_alive()
    assert time.monotonic() - began_s < 0.9, "at once, and not when the next second is over"
    server.end()


def test_it_ends_before_it_has_begun_when_told_so_early() -> None:
    config = uvicorn.Config(Response(b"here"), host=LOOPBACK, port=choose_port(), log_config=None, lifespan="off")
    server = QuietServer(config)
    server.end()
    thread = threading.Thread(target=server.run)
    thread.start()
    thread.join(SOON_S)
    assert not thread.is_alive()


def test_it_ends_on_sigterm() -> None:
    port = choose_port()
    argv = [sys.executable, "-c", SERVES, LOOPBACK, str(port)]
    with subprocess.Popen(argv, cwd=CHECKOUT) as process:  # noqa: S603  ours
        wait_until(lambda: answer(port) is not None, within_s=20, what="it answers")
        began_s = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(SOON_S)
        assert time.monotonic() - began_s < 0.9


def date_of(port: int) -> datetime:
    return parsedate_to_datetime(httpx.get(f"http://{LOOPBACK}:{port}/").headers["date"])
