"""A drill's clients hold the platform to what it answered, and do not take a list that was never shown for one that lacks nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import pytest
from aiohttp import web

from services.command_line.clients import Found, NeverReadError, write_until
from services.simulator.population import Town

DOCTOR = Town(1).doctors[0]


class Services:
    """What stands for the services: it keeps what is written, and shows lists once it has refused so many readings."""

    def __init__(self, refusals: int | None, *, loses: bool = False) -> None:
        """`refusals`: None, and no list is ever shown. `loses`: what is written is in no list."""
        self.refusals = refusals
        self._loses = loses
        self._lists: dict[str, list[str]] = {}

    async def write(self, request: web.Request) -> web.Response:
        """As `POST /v1/allergies`."""
        told = await request.json()
        kept = self._lists.setdefault(told["patient"]["national_id"], [])
        if not self._loses:
            kept.append(told["allergy"])
        return web.json_response({"position": f"0-{len(kept)}"}, status=HTTPStatus.CREATED)

    async def read(self, request: web.Request) -> web.Response:
        """As `POST /v1/list/read`."""
        if self.refusals is None or self.refusals > 0:
            self.refusals = None if self.refusals is None else self.refusals - 1
            return web.json_response({}, status=HTTPStatus.SERVICE_UNAVAILABLE)
        kept = self._lists.get((await request.json())["patient"]["national_id"], [])
        shown = [{"recorded": {"allergy": each}} for each in kept]
        return web.json_response({"list": {"allergies": shown}, "position": f"0-{len(kept)}"})

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Their address."""
        app = web.Application()
        app.add_routes([web.post("/v1/allergies", self.write), web.post("/v1/list/read", self.read)])
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


async def clients_of(services: Services, within_s: float) -> Found:
    """What three clients found that wrote for a moment."""
    found, stopped = Found(), asyncio.Event()
    asyncio.get_running_loop().call_later(0.2, stopped.set)
    async with services.listening() as url:
        urls: Any = dict.fromkeys(("prescriber", "medication-list"), url)
        await write_until(stopped, 60.0, 3, urls, DOCTOR, found, within_s)
    return found


async def test_clients_whose_last_reading_never_comes_do_not_say_that_nothing_was_lost() -> None:
    with pytest.raises(NeverReadError, match="3 of 3 clients could not read their lists"):
        await clients_of(Services(None, loses=True), 0.3)


async def test_the_last_reading_is_asked_for_until_it_is_answered() -> None:
    found = await clients_of(Services(9), 30.0)
    assert (found.lost, found.doubled, found.went_back) == (0, 0, 0)
    assert found.reads >= 3
    assert found.answered


async def test_what_a_list_lacks_when_it_is_shown_at_last_is_lost() -> None:
    found = await clients_of(Services(9, loses=True), 30.0)
    assert found.lost >= len(found.answered)
