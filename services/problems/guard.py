"""Precedes every handler that reads a body: only well-formed JSON passes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Final, NamedTuple

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.reasons import DoorReason
from services.problems.json_text import (
    LARGEST_MESSAGE_BYTES,
    FieldError,
    MessageInvalid,
    MessageUnreadable,
    parse_json,
)
from services.problems.problem import Problem, invalid
from services.problems.rendering import response_to

_HEARD_OUT_BYTES: Final = 8 * 1024 * 1024
"""A message up to this size is heard out before it is turned away: a client that is still sending when the connection
ends sees a broken connection, and not the answer. What is larger still is cut off."""

MESSAGE_IN_SCOPE: Final = "medchain.message"
"""Where a request's scope holds what its body says (`Given`), for the handler: it need not be read twice."""

_METHODS_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Given(NamedTuple):
    """The content of a body, and the faults of its texts and numbers: with any fault it is turned away."""

    value: object
    faults: tuple[FieldError, ...] = ()

    def turned_away(self, errors: Iterable[FieldError] = ()) -> Problem:
        """The 422 with these errors and the faults: for a value with a fault, nothing else is reported."""
        told = [error for error in errors if not any(_lies_at(fault, error.pointer) for fault in self.faults)]
        return invalid([*self.faults, *told])


def _lies_at(fault: FieldError, pointer: str) -> bool:
    return fault.pointer == pointer or fault.pointer.startswith(f"{pointer}/")


def given_in(body: bytes, largest_bytes: int = LARGEST_MESSAGE_BYTES) -> Given:
    """What a body says. Raises a 400 problem for one that is no JSON."""
    try:
        return Given(parse_json(body, largest_bytes=largest_bytes))
    except MessageUnreadable as error:
        raise Problem(400, error.reason, detail=f"{error}.") from None
    except MessageInvalid as error:
        return Given(error.value, error.errors)


class JsonGuard:
    """ASGI middleware: content type (415), size (413), form and nesting (400), texts and numbers (422)."""

    def __init__(
        self,
        app: ASGIApp,
        is_taken: Callable[[Scope], bool],
        largest_bytes: int = LARGEST_MESSAGE_BYTES,
        decoded_by_type: Collection[str] = (),
        *,
        hands_on_faults: bool = False,
    ) -> None:
        """`is_taken`: whether anybody takes a request of this method and path; of others no body is judged.

        decoded_by_type: paths whose handlers decode the body into a type of ours; its form is theirs to judge.
        hands_on_faults: the handlers ask for `Given`, and tell the faults of texts and numbers with all else at once.
        """
        self._app = app
        self._is_taken = is_taken
        self._largest_bytes = largest_bytes
        self._decoded_by_type = frozenset(decoded_by_type)
        self._hands_on_faults = hands_on_faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Judge the body, then hand it on, or answer in the application's place."""
        if scope["type"] != "http" or scope["method"] not in _METHODS_WITH_BODY:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            body = await self._checked_body(scope, headers, receive)
        except Problem as problem:
            await response_to(problem, headers)(scope, receive, send)
            return
        if body is not None:
            await self._app(scope, _replaying(body, receive), send)

    async def _checked_body(self, scope: Scope, headers: Headers, receive: Receive) -> bytes | None:
        """The body, or None when the client went away before its end. Raises Problem."""
        declared = headers.get("content-length", "")
        if declared.isdigit() and int(declared) > _HEARD_OUT_BYTES:
            raise self._too_large()
        body = bytearray()
        received = 0
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return None
            received += len(message.get("body", b""))
            more = message.get("more_body", False)
            if received <= self._largest_bytes:
                body += message.get("body", b"")
            elif received > _HEARD_OUT_BYTES:
                raise self._too_large()
        if received > self._largest_bytes:
            raise self._too_large()
        if body:
            self._judge(scope, headers, bytes(body))
        return bytes(body)

    def _judge(self, scope: Scope, headers: Headers, body: bytes) -> None:
        """Raises Problem, but not where nobody takes the request: the application says so (404, 405)."""
        try:
            _check(headers)
            if scope["path"] not in self._decoded_by_type:
                given = scope[MESSAGE_IN_SCOPE] = given_in(body, self._largest_bytes)
                if given.faults and not self._hands_on_faults:
                    raise given.turned_away()
        except Problem:
            if self._is_taken(scope):
                raise

    def _too_large(self) -> Problem:
        # What the client may still send is not read: the server ends the connection after the answer.
        detail = f"A message has at most {self._largest_bytes} bytes."
        return Problem(413, DoorReason.TOO_LARGE, detail=detail, headers={"Connection": "close"})


def _check(headers: Headers) -> None:
    if not _is_json(headers.get("content-type", "")):
        raise Problem(415, DoorReason.NOT_JSON)
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, DoorReason.NOT_JSON, detail="A message is sent without content encoding.")


def _is_json(content_type: str) -> bool:
    """application/json, or a kind of it (`+json`), in UTF-8."""
    if content_type == "application/json":
        return True
    kind, *parameters = (part.strip().lower() for part in content_type.split(";"))
    charsets = [part.removeprefix("charset=").strip('"') for part in parameters if part.startswith("charset=")]
    named = kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
    return named and all(charset in {"utf-8", "utf8"} for charset in charsets)


def _replaying(body: bytes, receive: Receive) -> Receive:
    """The body again for the handler, then whatever else the server sends."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay
