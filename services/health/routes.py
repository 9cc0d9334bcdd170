"""GET /health/live and GET /health/ready, the same for every process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse

from services.health.pulse import Pulse
from services.health.readiness import Readiness
from services.health.trouble import Trouble
from services.problems import unavailable
from services.problems.rendering import response_to
from services.serving import reads

RETRY_AFTER_S = 2


def health_routes(readiness_of: Callable[[Request], Readiness], pulse: Pulse | None = None) -> APIRouter:
    """The routes. `pulse`: of the loop that works, where the routes are not served by that very loop."""
    health = APIRouter(prefix="/health", tags=["health"])

    @reads(health, "/live", summary="The process runs, and its work moves.", operation_id="live")
    async def live(response: Response) -> dict[str, str]:
        """Nothing is asked of anybody else. 503: its loop stands still; start the process again."""
        beats = pulse is None or pulse.is_beating()
        response.status_code = 200 if beats else 503
        return {"status": "live" if beats else "hung"}

    @reads(health, "/ready", summary="The process can do its work; if not, what is wrong.", operation_id="ready")
    async def ready(request: Request) -> Response:
        """503 with every trouble in words. 200 also tells of troubles that do not stop the process."""
        troubles = await readiness_of(request).troubles()
        if troubles and troubles[0].stops:
            return _not_ready(request, troubles)
        return JSONResponse({"status": "degraded" if troubles else "ready", **_told(troubles)})

    return health


def _not_ready(request: Request, troubles: tuple[Trouble, ...]) -> Response:
    first = troubles[0]
    named = {**first.named, **_told(troubles)}
    problem = unavailable(first.door_reason, retry_after_s=RETRY_AFTER_S, detail=first.text, **named)
    return response_to(problem, request.headers)


def _told(troubles: tuple[Trouble, ...]) -> dict[str, Any]:
    return {"troubles": [trouble.document() for trouble in troubles]} if troubles else {}
