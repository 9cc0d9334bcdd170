"""An answer leaves in one piece, and what was written before a connection is closed is sent."""

import asyncio
from typing import Any, cast

import uvicorn
from starlette.responses import Response
from uvicorn.server import ServerState

from services.recording.whole_answers import WholeAnswers


class Sent:
    """The transport of a connection, and what was sent on it at a time."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        """Sent at once."""
        assert not self.is_closed
        self.pieces.append(data)

    def is_closing(self) -> bool:
        """Whether nothing more can be sent."""
        return self.is_closed

    def close(self) -> None:
        """No more."""
        self.is_closed = True

    def get_extra_info(self, _: str) -> None:
        """Nothing is known of the other side."""

    def resume_reading(self) -> None:
        """It never stops."""


async def answered(request: bytes, *, lost: bool = False) -> Sent:
    config = uvicorn.Config(Response(b"content"), http=WholeAnswers, log_config=None, access_log=False, lifespan="off")
    protocol, sent = WholeAnswers(config, ServerState(), {}, asyncio.get_running_loop()), Sent()
    protocol.connection_made(cast("Any", sent))
    protocol.data_received(request)
    sent.is_closed = lost
    for _ in range(10):
        await asyncio.sleep(0)
    protocol.connection_lost(ConnectionError())
    return sent


async def test_head_and_content_of_an_answer_leave_in_one_piece() -> None:
    sent = await answered(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
    (whole,) = sent.pieces
    assert whole.startswith(b"HTTP/1.1 200 OK\r\n")
    assert whole.endswith(b"\r\n\r\ncontent")


async def test_an_answer_with_which_the_connection_ends_is_sent_first() -> None:
    sent = await answered(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
    (whole,) = sent.pieces
    assert whole.endswith(b"content")
    assert sent.is_closed


async def test_nothing_is_sent_on_a_connection_that_is_gone() -> None:
    assert not (await answered(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", lost=True)).pieces
