"""The direct way of writes: which requests take it, and that it leads where the framework's own route leads."""

from collections.abc import Awaitable, Callable

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from services.pharmacy.api import WRITES as PHARMACY
from services.prescriber.api import WRITES as PRESCRIBER
from services.recording.direct import DirectRoutes
from services.recording.routes import Write, direct_of, router_of

ID = "3f0c7a4e-7d5f-4f5e-9f49-0f6f2c9c2a11"
ALL = (*PRESCRIBER, *PHARMACY)


def named(name: str) -> Callable[[Request], Awaitable[Response]]:
    async def handle(_: Request) -> Response:
        return Response(name)

    return handle


def asked(path: str, method: str = "POST", root_path: str = "") -> dict[str, object]:
    return {"type": "http", "method": method, "path": path, "root_path": root_path, "headers": []}


@pytest.mark.parametrize("write", ALL, ids=lambda write: write.path)
def test_every_write_is_answered_directly_and_as_its_framework_route_reads_the_address(write: Write) -> None:
    scope = asked(write.path.replace("{id}", ID))
    match, found = DirectRoutes(direct_of(ALL)).matches(scope)
    (route,) = (each for each in router_of([write]).routes)
    framework_match, framework_found = route.matches(scope)
    assert (match, framework_match) == (Match.FULL, Match.FULL)
    assert found["route"].path == framework_found["route"].path == write.path
    assert found["path_params"] == framework_found["path_params"]


@pytest.mark.parametrize(
    ("path", "method", "root_path"),
    [
        ("/v1/claims", "GET", ""),
        ("/v1/claims", "POST", "/behind"),
        ("/v1/claims/", "POST", ""),
        ("/v1/claims/x/y/abort", "POST", ""),
        ("/v1/claims//abort", "POST", ""),
        ("/v1/claims/x/unknown", "POST", ""),
        ("/v1/prescriptions/search", "POST", ""),
        ("/", "POST", ""),
    ],
)
def test_all_else_is_left_to_the_framework(path: str, method: str, root_path: str) -> None:
    assert DirectRoutes(direct_of(ALL)).matches(asked(path, method, root_path)) == (Match.NONE, {})


def test_an_address_of_its_own_comes_before_one_with_an_id() -> None:
    routes = DirectRoutes({"/v1/multidose/{id}": named("one"), "/v1/multidose/end": named("end")})
    assert routes.matches(asked("/v1/multidose/end"))[1]["route"].path == "/v1/multidose/end"
    assert routes.matches(asked(f"/v1/multidose/{ID}"))[1]["path_params"] == {"id": ID}
