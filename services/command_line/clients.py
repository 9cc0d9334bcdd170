"""Clients that write and read, and check the platform against its answers: nothing lost, nothing doubled, no older list."""

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, NamedTuple

import aiohttp
import msgspec

from services.simulator.http_channel import stated
from services.simulator.population import Actor, Patient, patient

_FIRST: Final = 8_000_000
"""Nobody of any town has such a high number."""
_READ_EVERY: Final = 5
_TIMEOUT: Final = aiohttp.ClientTimeout(total=15.0)
_KEEP_ALIVE_S: Final = 2.0
"""Connections are let go before the services close them: a write on one that is being closed would have to be repeated."""
_AGAIN_S: Final = 0.05
LAST_READ_WITHIN_S: Final = 60.0
_HTTP_ANSWERED: Final = (HTTPStatus.OK, HTTPStatus.CREATED)


class NeverReadError(RuntimeError):
    """Some lists could not be read at the end, so it is unknown whether all writes are in them."""


class _Answer(NamedTuple):
    status: int
    content: bytes


@dataclass
class Found:
    """What clients saw. `answered`: when each write was sent, by the monotonic clock, and its milliseconds to the answer."""

    answered: list[tuple[float, float]] = field(default_factory=list)
    pending: int = 0
    lost: int = 0
    doubled: int = 0
    went_back: int = 0
    reads: int = 0

    def p99_ms(self, since_s: float, until_s: float) -> float:
        """The slowest hundredth of the writes that were sent in that time begins here; 0.0 without any."""
        took = sorted(ms for sent_s, ms in self.answered if since_s <= sent_s < until_s)
        return took[min(len(took) - 1, int(len(took) * 0.99))] if took else 0.0


class Client:
    """One client with one patient: it writes, and reads back what it wrote."""

    def __init__(
        self, number: int, urls: Mapping[str, str], doctor: Actor, http: aiohttp.ClientSession, found: Found
    ) -> None:
        self._patient: Patient = patient(_FIRST + number)
        self._urls = urls
        self._headers = {"Medchain-Caller": stated(doctor), "Content-Type": "application/json"}
        self._http = http
        self._found = found
        self._written: set[str] = set()
        self._attempted: set[str] = set()
        self._writes = 0
        self._position: tuple[int, int] | None = None

    async def write(self) -> None:
        """One write, repeated under its key until it is answered; now and then a read after it."""
        allergy, key = str(uuid.uuid4()), str(uuid.uuid4())
        body = self._body() | {"allergy": allergy, "substance": "Hasselnøtt", "severity": "low", "source": "patient"}
        self._attempted.add(allergy)
        sent_s = time.monotonic()
        while True:
            answer = await self._post(self._urls["prescriber"] + "/v1/allergies", body, {"Idempotency-Key": key})
            if answer is not None and answer.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                break
            await asyncio.sleep(_AGAIN_S)
        self._found.answered.append((sent_s, 1000 * (time.monotonic() - sent_s)))
        if answer.status in _HTTP_ANSWERED:
            self._written.add(allergy)
            self._see(msgspec.json.decode(answer.content).get("position"))
        else:
            self._found.pending += 1
        self._writes += 1
        if self._writes % _READ_EVERY == 0:
            await self.read()

    async def read(self) -> bool:
        """The list must have all that was answered, once each, and stand no earlier than anything seen before.

        Returns whether it was shown at all.
        """
        answer = await self._post(self._urls["medication-list"] + "/v1/list/read", self._body(), {})
        if answer is None or answer.status not in _HTTP_ANSWERED:
            return False
        self._found.reads += 1
        told = msgspec.json.decode(answer.content)
        shown = Counter(each["recorded"]["allergy"] for each in told.get("list", told).get("allergies", ()))
        self._found.lost += len(self._written - shown.keys())
        self._found.doubled += sum(count - 1 for count in shown.values())
        self._see(told.get("position"))
        return True

    async def read_all(self, within_s: float) -> bool:
        """At the end: even what was not answered in time must be there. Asks until the list is shown, or a bound is reached."""
        self._written |= self._attempted
        until_s = time.monotonic() + within_s
        while not await self.read():
            if time.monotonic() >= until_s:
                return False
            await asyncio.sleep(_AGAIN_S)
        return True

    def _see(self, position: str | None) -> None:
        if position is None:
            return
        partition, offset = map(int, position.split("-"))
        if self._position is not None and offset < self._position[1]:
            self._found.went_back += 1
        self._position = partition, max(offset, self._position[1] if self._position else 0)

    def _body(self) -> dict[str, Any]:
        return {"patient": {"national_id": self._patient.national_id.digits, "name": self._patient.name}}

    async def _post(self, url: str, body: Mapping[str, Any], more: Mapping[str, str]) -> _Answer | None:
        content, headers = msgspec.json.encode(body), {**self._headers, **more}
        try:
            async with self._http.post(url, data=content, headers=headers) as answer:
                return _Answer(answer.status, await answer.read())
        except (aiohttp.ClientError, TimeoutError):
            return None


async def write_until(
    stopped: asyncio.Event,
    rate: float,
    number: int,
    urls: Mapping[str, str],
    doctor: Actor,
    found: Found,
    last_read_within_s: float = LAST_READ_WITHIN_S,
) -> None:
    """This many clients write at this total rate until told to stop; then each reads again.

    Raises NeverReadError where a client's last reading does not come: what it wrote may be lost then.
    """
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S)
    async with aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT) as http:
        clients = [Client(each, urls, doctor, http, found) for each in range(number)]
        await asyncio.gather(
            *(_paced(client, stopped, number / rate, each / rate) for each, client in enumerate(clients))
        )
        read = await asyncio.gather(*(client.read_all(last_read_within_s) for client in clients))
    if not all(read):
        raise NeverReadError(
            f"{read.count(False)} of {number} clients could not read their lists at the end, for {last_read_within_s:.0f} s: "
            "nobody knows whether what they wrote is there."
        )


async def _paced(client: Client, stopped: asyncio.Event, every_s: float, first_s: float) -> None:
    loop = asyncio.get_running_loop()
    due = loop.time() + first_s
    while not stopped.is_set():
        ahead = due - loop.time()
        if ahead > 0:
            await asyncio.sleep(ahead)
        await client.write()
        due = max(due + every_s, loop.time() - every_s)
