"""More requests than a service can answer: those under way are answered, and the rest are told at once to come again."""

import asyncio

import httpx
import pytest
from fastapi import FastAPI

from schemas.reasons import DoorReason
from services.recording.bound import Bound


@pytest.mark.parametrize("reason", [DoorReason.LOG_UNAVAILABLE, DoorReason.LIST_UNAVAILABLE], ids=str)
async def test_what_is_beyond_the_bound_is_answered_at_once_and_what_is_within_it_is_not_disturbed(
    reason: DoorReason,
) -> None:
    app, may_end = FastAPI(), asyncio.Event()
    app.add_middleware(Bound, at_most=3, reason=reason)
    begun = asyncio.Semaphore(0)

    @app.post("/v1/writes")
    async def write() -> dict[str, str]:
        begun.release()
        await may_end.wait()
        return {"outcome": "applied"}

    @app.get("/health/ready")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as http:
        under_way = [asyncio.create_task(http.post("/v1/writes")) for _ in range(3)]
        for _ in under_way:
            await begun.acquire()
        for _ in range(20):
            refused = await http.post("/v1/writes", headers={"Accept-Language": "nb"})
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
            assert refused.json()["type"] == f"/problems/{reason.value}"
        assert (await http.get("/health/ready")).status_code == 200, "only what is posted is bounded"
        may_end.set()
        assert [answer.status_code for answer in await asyncio.gather(*under_way)] == [200] * 3
        assert (await http.post("/v1/writes")).status_code == 200, "there is room again"
