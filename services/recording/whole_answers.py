"""uvicorn's protocol, with each answer in one piece: head and content leave together, and are read together."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class WholeAnswers(HttpToolsProtocol):
    """Sends in one piece what uvicorn writes in two.

    It writes an answer's head and its content one after the other, and uvloop sends each at once: two calls to the kernel
    here and two at whoever asked, who is woken for a head that says nothing yet.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """See `asyncio.Protocol`."""
        super().connection_made(cast("asyncio.Transport", _Gathering(transport)))


class _Gathering:
    """A transport that sends what is written in one turn of the loop at its end."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._written: list[bytes] = []

    def write(self, data: bytes) -> None:
        """See `asyncio.WriteTransport`."""
        if not self._written:
            self._loop.call_soon(self._send)
        self._written.append(data)

    def close(self) -> None:
        """See `asyncio.BaseTransport`; what was written goes first."""
        self._send()
        self._transport.close()

    def _send(self) -> None:
        written, self._written = self._written, []
        if written and not self._transport.is_closing():
            self._transport.write(b"".join(written))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
