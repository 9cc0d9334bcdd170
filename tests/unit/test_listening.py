"""The sockets of a service: connections that came while its loop was busy are taken many a turn, and none is lost."""

import asyncio
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack

import pytest
import uvloop

from deploy.local.layout import CHECKOUT
from deploy.local.ports import LOOPBACK, choose_port, is_listening
from deploy.local.waiting import wait_until
from services.recording.listening import AT_ONCE, listening

_CAME = 10 * AT_ONCE
_LEEWAY = 5
"""Turns in which the loop does something of its own."""


async def turns_until_all_are_taken(sockets: list[socket.socket], came: int) -> int:
    """How often the loop turned until it had taken all that came."""
    loop, taken = asyncio.get_running_loop(), list[asyncio.BaseTransport]()

    class Taken(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            taken.append(transport)

    servers = [await loop.create_server(Taken, sock=each) for each in sockets]
    turns = 0
    async with asyncio.timeout(20):
        while len(taken) < came:
            turns += 1
            await asyncio.sleep(0)
    for transport in taken:
        transport.close()
    for server in servers:
        server.close()
    return turns


def test_connections_that_wait_are_taken_many_a_turn() -> None:
    sockets = listening(LOOPBACK, 0)
    sockets[0].listen(_CAME)
    with ExitStack() as clients:
        for _ in range(_CAME):
            clients.enter_context(socket.create_connection(sockets[0].getsockname(), timeout=5))
        turns = uvloop.run(turns_until_all_are_taken(sockets, _CAME))
    assert turns <= _CAME / AT_ONCE + _LEEWAY


def test_a_port_that_is_taken_is_said_to_be() -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            listening(LOOPBACK, taken.getsockname()[1])


def test_a_service_that_is_interrupted_at_the_terminal_ends_in_order() -> None:
    port = choose_port()
    serves = (
        "from fastapi import FastAPI; from services.recording.app import serve; "
        f"serve(FastAPI(), service='prescriber', host='{LOOPBACK}', port={port})"
    )
    with subprocess.Popen([sys.executable, "-c", serves], cwd=CHECKOUT, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603  ours
        wait_until(lambda: is_listening(port), within_s=30, what="it serves")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert (process.returncode, "Traceback" in said) == (0, False)
