"""What all HTTP applications do alike: HEAD is answered wherever GET is, by the same handler and without a body."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Response

from services.medication_list.read_api.app import create_app
from services.pharmacy.api import pharmacy_app
from services.prescriber.api import prescriber_app
from services.problems import install
from services.serving import reads

ID = "3f0c7a4e-7d5f-4f5e-9f49-0f6f2c9c2a11"
NOT_DESCRIBED = ("/metrics", "/openapi.json")


def never() -> Any:
    raise AssertionError("nothing is asked that needs a running service")


APPS = {"prescriber": prescriber_app(never), "pharmacy": pharmacy_app(never), "medication list": create_app(never)}


@asynccontextmanager
async def asking(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        yield client


@pytest.mark.parametrize("name", APPS)
async def test_head_is_answered_like_get_wherever_get_is_described(name: str) -> None:
    operations = APPS[name].openapi()["paths"]
    described = [re.sub(r"\{\w+\}", ID, path) for path, methods in operations.items() if "get" in methods]
    assert len(described) >= 2, "health at the least"
    async with asking(APPS[name]) as client:
        for path in (*described, *NOT_DESCRIBED):
            head, get = await client.head(path), await client.get(path)
            assert head.status_code == get.status_code != 405, path
            assert head.headers == get.headers, path


@pytest.mark.parametrize("name", APPS)
def test_no_openapi_document_describes_head(name: str) -> None:
    assert {method for methods in APPS[name].openapi()["paths"].values() for method in methods} <= {"get", "post"}


async def test_any_other_method_is_told_both() -> None:
    router, app = APIRouter(prefix="/v1"), FastAPI()

    @reads(router, "/things/{thing}", summary="One thing.")
    async def thing(thing: str) -> Response:
        return Response(thing)

    app.include_router(router)
    install(app)
    async with asking(app) as client:
        assert (await client.get("/v1/things/7")).text == "7"
        refused = await client.post("/v1/things/7")
    assert refused.status_code == 405
    assert {each.strip() for each in refused.headers["allow"].split(",")} == {"GET", "HEAD"}
    assert app.openapi()["paths"]["/v1/things/{thing}"]["get"]["summary"] == "One thing."
