"""A pharmacy as a process of its own that claims prescriptions as fast as it is answered: `python -m tests.integration.racing_pharmacy`.

It is told one JSON document on its standard input (`Race`), says "ready", waits for a line, claims, and tells one
`Claimed` a prescription as a line of JSON.
"""

import asyncio
import sys
from typing import Any, Final
from uuid import uuid4

import aiohttp
import msgspec

AT_ONCE: Final = 16
AGAIN_S: Final = 0.05
GIVES_UP_S: Final = 60


class Race(msgspec.Struct, frozen=True):
    """Whom to ask as whom, and for what: national id and prescription of each, in the order in which to claim them."""

    url: str
    caller: str
    prescriptions: tuple[tuple[str, str], ...]


class Claimed(msgspec.Struct, frozen=True):
    """How one claim ended. `position`: where it lies in the log; `holder`: who was named to the loser."""

    prescription: str
    outcome: str
    position: str
    reason: str | None = None
    holder: str | None = None


async def run(race: Race) -> list[Claimed]:
    """Claim all of it, some at a time."""
    at_once = asyncio.Semaphore(AT_ONCE)
    timeout = aiohttp.ClientTimeout(total=GIVES_UP_S)
    async with aiohttp.ClientSession(trust_env=False, timeout=timeout) as http:

        async def one(national_id: str, prescription: str) -> Claimed:
            async with at_once:
                return await _claim(http, race, national_id, prescription)

        return await asyncio.gather(*(one(*each) for each in race.prescriptions))


async def _claim(http: aiohttp.ClientSession, race: Race, national_id: str, prescription: str) -> Claimed:
    sent = {"patient": {"national_id": national_id}, "prescription": prescription}
    headers = {"Medchain-Caller": race.caller, "Idempotency-Key": str(uuid4())}
    async with http.post(f"{race.url}/v1/claims", json=sent, headers=headers) as answer:
        status, told, location = answer.status, await answer.json(content_type=None), answer.headers.get("Location")
    if status == 202:
        assert location is not None, "a pending answer says where to ask"
        return await _judged(http, race, prescription, location)
    if status == 409:
        reason = str(told["type"]).removeprefix("/problems/")
        return Claimed(prescription, "refused", told["position"], reason, told.get("holder"))
    assert status == 201, (status, told)
    return Claimed(prescription, told["outcome"], told["position"])


async def _judged(http: aiohttp.ClientSession, race: Race, prescription: str, location: str) -> Claimed:
    while True:
        async with http.get(location, headers={"Medchain-Caller": race.caller}) as answer:
            told: dict[str, Any] = await answer.json(content_type=None)
            if answer.status == 200:
                named = told.get("named") or {}
                return Claimed(prescription, told["outcome"], told["position"], told.get("reason"), named.get("holder"))
        await asyncio.sleep(AGAIN_S)


if __name__ == "__main__":
    race = msgspec.json.decode(sys.stdin.readline(), type=Race)
    print("ready", flush=True)  # noqa: T201 - this is how it talks
    sys.stdin.readline()
    for claimed in asyncio.run(run(race)):
        print(msgspec.json.encode(claimed).decode())  # noqa: T201 - the same
