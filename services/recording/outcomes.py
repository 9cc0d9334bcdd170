"""What the medication list tells the services: outcomes of events, owners of prescriptions, prescriptions found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

import httpx
import msgspec
from msgspec import Struct

from services.publishing.log import Position

T = TypeVar("T")

OUTCOME_WAIT_MS: Final = 2_000
"""How long a write waits to be judged before its caller is told where to ask."""
_MARGIN_MS: Final = 500
_COURTESY_S: Final = 0.5
"""A check that only saves the sender a detour may not hold him up."""


NOTHING: Final = msgspec.Raw(b"null")


class ListUnreachable(Exception):  # noqa: N818 - named for what is wrong
    """The medication list does not answer, or says that it cannot now."""


class First(Struct, frozen=True):
    """What became of the event when it came for the first time."""

    outcome: str
    reason: str | None = None
    flags: tuple[str, ...] = ()


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
    """Asks the medication list over HTTP, with connections that are kept."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=100)
        self._http = httpx.AsyncClient(base_url=self.url, limits=limits, trust_env=False)

    async def close(self) -> None:
        """Let the connections go."""
        await self._http.aclose()

    async def is_there(self) -> bool:
        """Whether it answers at all."""
        try:
            return (await self._http.get("/health/live", timeout=_COURTESY_S)).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    async def outcome(self, patient: str, event_id: str, at: Position, wait_ms: int) -> Judgement | None:
        """The outcome of the record at this place; None if it was not judged in time. Raises ListUnreachable."""
        asked = {
            "patient": patient,
            "event_id": event_id,
            "partition": at.partition,
            "offset": at.offset,
            "wait_ms": wait_ms,
        }
        answer = await self._ask("/internal/outcomes", asked, (wait_ms + _MARGIN_MS) / 1000)
        if answer.status_code == httpx.codes.ACCEPTED:
            return None
        return _read(answer, Judgement)

    async def owners(self, prescriptions: list[str], reference_numbers: list[str]) -> Mapping[str, str]:
        """The patient (pseudonym) of each of these ids and numbers that is known. Raises ListUnreachable."""
        asked = {"prescriptions": prescriptions, "reference_numbers": reference_numbers}
        answer = await self._ask("/internal/owners", asked, _COURTESY_S)
        return _read(answer, dict[str, str])

    async def prescriptions(self, asked: Mapping[str, Any]) -> bytes:
        """The prescriptions that a search finds, as JSON. Raises ListUnreachable."""
        return (await self._ask("/internal/prescriptions", asked, OUTCOME_WAIT_MS / 1000)).content

    async def _ask(self, path: str, asked: Mapping[str, Any], timeout_s: float) -> httpx.Response:
        try:
            answer = await self._http.post(path, json=asked, timeout=timeout_s)
        except httpx.HTTPError as error:
            raise ListUnreachable(f"the medication list did not answer ({type(error).__name__})") from error
        if answer.status_code not in (httpx.codes.OK, httpx.codes.ACCEPTED):
            raise ListUnreachable(f"the medication list answered {answer.status_code}")
        return answer


def _read(answer: httpx.Response, form: type[T]) -> T:
    try:
        return msgspec.json.decode(answer.content, type=form)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ListUnreachable("the medication list answered in another form") from error
