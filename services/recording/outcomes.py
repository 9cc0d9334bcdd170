"""What the services ask the medication list: outcomes of events, owners of prescriptions, prescriptions found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, Final, NamedTuple, TypeVar

import aiohttp
import msgspec
from msgspec import Struct

from schemas.codec import Written
from services.health import Trouble, TroubleReason
from services.publishing.log import Position
from services.telemetry.traces import TRACEPARENT, current_traceparent

T = TypeVar("T")

OUTCOME_WAIT_MS: Final = 2_000
"""How long a write waits to be judged before its caller is told where to ask."""
_MARGIN_MS: Final = 300
_CONNECTIONS: Final = 200
_JSON: Final = {"Content-Type": "application/json"}
_OWNERS_REMEMBERED: Final = 50_000
_COURTESY_S: Final = 0.5
"""A check that only saves the sender a detour may not hold him up."""


_READY_S: Final = 2.5
"""Longer than the list's own checks of a server that is silent."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

NOTHING: Final = msgspec.Raw(b"null")


class _Says(Struct, frozen=True):
    """What the list says of itself when it is not ready."""

    detail: str = "It does not say why."


class _Answer(NamedTuple):
    status: int
    content: bytes


class ListUnreachable(Exception):  # noqa: N818 - named for what is wrong
    """The medication list does not answer, or says that it cannot now."""


class First(Struct, frozen=True):
    """What became of the event when it came for the first time. `named`: what that answer named, such as a holder."""

    outcome: str
    reason: str | None = None
    flags: tuple[str, ...] = ()
    named: dict[str, Any] | None = None


class FirstReport(Struct, frozen=True):
    """When an event happened, as it came for the first time; None where the list knows none of this id."""

    occurred_at: datetime | None = None


class Judgement(Struct, frozen=True):
    """How the fold judged an event. `resource` is what it is about, as it is now, in JSON."""

    outcome: str
    reason: str | None = None
    flags: tuple[str, ...] = ()
    named: dict[str, Any] | None = None
    first: First | None = None
    position: str | None = None
    resource: msgspec.Raw = NOTHING


class MedicationListClient:
    """Asks the medication list over HTTP, over kept connections.

    With aiohttp, not httpx: each write asks twice, and a request costs 250 µs instead of 1,400.
    """

    def __init__(self, url: str, *, is_traced: bool = False) -> None:
        """`is_traced`: whether the span under way is named to the list, so that its answer belongs to the same trace."""
        self.url = url.rstrip("/")
        self.known_owners: dict[str, str] = {}
        """Id or number -> patient, of what was asked of late. That does not change: of two who come with the same, the
        first stays, and this is good only to spare a question about what is in order."""
        self._is_traced = is_traced
        self._http: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Let the connections go."""
        if self._http is not None:
            await self._http.close()

    async def check(self) -> Sequence[Trouble]:
        """Whether it can answer, in its own words (see `services.health`)."""
        try:
            async with self._session().get(f"{self.url}/health/ready", timeout=_within(_READY_S)) as answer:
                if answer.status == HTTPStatus.OK:
                    return ()
                says = msgspec.json.decode(await answer.read(), type=_Says).detail
        except (aiohttp.ClientError, TimeoutError) as error:
            text = f"The medication list does not answer ({type(error).__name__}): writes are recorded and not judged."
            return (Trouble(TroubleReason.LIST_UNAVAILABLE, text),)
        except (msgspec.DecodeError, UnicodeDecodeError):
            says = "It does not say why."
        return (Trouble(TroubleReason.LIST_UNAVAILABLE, f"The medication list is not ready. {says}"),)

    async def outcome(self, written: Written, at: Position, wait_ms: int) -> Judgement | None:
        """The outcome of an event that lies at this place; None if it was not judged in time. Raises ListUnreachable.

        The event itself goes along: otherwise the list would have the log bring it, which costs more than all the rest.
        `wait_ms`: how long the caller waits at most; the list is told less, so that its answer comes within it.
        """
        asked = {
            "patient": written.event.patient,
            "event_id": written.event.event_id,
            "record": written.record,
            "partition": at.partition,
            "offset": at.offset,
            "wait_ms": max(0, wait_ms - _MARGIN_MS),
        }
        answer = await self._ask("/internal/outcomes", asked, max(wait_ms, _MARGIN_MS) / 1000)
        if answer.status == HTTPStatus.ACCEPTED:
            return None
        return _read(answer, Judgement)

    async def occurred_at_ms(self, patient: str, event_id: str) -> int | None:
        """When the event of this id happened, as it came the first time; None where it never came. Raises ListUnreachable."""
        asked = {"patient": patient, "event_id": event_id}
        first = _read(await self._ask("/internal/first-reports", asked, _COURTESY_S), FirstReport)
        return None if first.occurred_at is None else (first.occurred_at - _EPOCH) // timedelta(milliseconds=1)

    async def owners(self, prescriptions: list[str], reference_numbers: list[str]) -> Mapping[str, str]:
        """The patient (pseudonym) of each of these ids and numbers that is known. Raises ListUnreachable."""
        asked = {"prescriptions": prescriptions, "reference_numbers": reference_numbers}
        found = _read(await self._ask("/internal/owners", asked, _COURTESY_S), dict[str, str])
        if len(self.known_owners) > _OWNERS_REMEMBERED:
            self.known_owners.clear()
        self.known_owners |= found
        return found

    async def prescriptions(self, asked: Mapping[str, Any]) -> bytes:
        """The prescriptions that a search finds, as JSON. Raises ListUnreachable."""
        return (await self._ask("/internal/prescriptions", asked, OUTCOME_WAIT_MS / 1000)).content

    async def _ask(self, path: str, asked: Mapping[str, Any], timeout_s: float) -> _Answer:
        content = msgspec.json.encode(asked)
        try:
            async with self._session().post(
                self.url + path, data=content, headers=self._headers(), timeout=_within(timeout_s)
            ) as response:
                answer = _Answer(response.status, await response.read())
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ListUnreachable(f"the medication list did not answer ({type(error).__name__})") from error
        if answer.status not in (HTTPStatus.OK, HTTPStatus.ACCEPTED):
            raise ListUnreachable(f"the medication list answered {answer.status}")
        return answer

    def _headers(self) -> Mapping[str, str]:
        traceparent = current_traceparent() if self._is_traced else None
        return _JSON if traceparent is None else {**_JSON, TRACEPARENT: traceparent}

    def _session(self) -> aiohttp.ClientSession:
        """Made where the event loop runs, when it is first needed."""
        if self._http is None:
            connector = aiohttp.TCPConnector(limit=_CONNECTIONS)
            self._http = aiohttp.ClientSession(connector=connector, trust_env=False)
        return self._http


def _within(timeout_s: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=timeout_s)


def _read(answer: _Answer, form: type[T]) -> T:
    try:
        return msgspec.json.decode(answer.content, type=form)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ListUnreachable("the medication list answered in another form") from error
