"""Limits the requests in progress: further ones are told at once to try again, instead of waiting in vain."""

from __future__ import annotations

from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from schemas.reasons import DoorReason
from services.problems import unavailable
from services.problems.rendering import response_to

AT_MOST: Final = 400
"""*Policy*: more than a process can answer within two seconds. Beyond it each one more makes all of them later, until
every caller gives up; a refusal costs a hundredth of a write."""
RETRY_AFTER_S: Final = 1


class Bound:
    """ASGI middleware: a bounded number of POST requests is in progress; the rest get 503 with Retry-After."""

    def __init__(self, app: ASGIApp, at_most: int = AT_MOST, reason: DoorReason = DoorReason.LOG_UNAVAILABLE) -> None:
        """`reason`: what the caller is told is unavailable."""
        self._app = app
        self._at_most = at_most
        self._reason = reason
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer in the application's place without reading what was sent."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        if self._under_way >= self._at_most:
            detail = f"{self._under_way} requests are under way here, and no more are taken on. Send it again."
            problem = unavailable(self._reason, retry_after_s=RETRY_AFTER_S, detail=detail)
            await response_to(problem, Headers(scope=scope))(scope, receive, send)
            return
        self._under_way += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._under_way -= 1
