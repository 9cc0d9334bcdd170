"""A stand for the services that take writes: each a real server over HTTP, before a log in memory.

The medication list's API is played by a real server too: it answers as a test tells it to, and keeps what it was asked.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI, Request, Response

from schemas import codec
from schemas.events import Body, Event
from services.admission.door import Door
from services.admission.read_token import ReadTokens
from services.clock import ManualClock
from services.health import Readiness, Trouble, TroubleReason
from services.identity.national_id import synthetic
from services.identity.pseudonym import Pseudonymiser
from services.identity.sealing import Sealer
from services.publishing.memory_log import MemoryLog
from services.recording.app import OpenParts, Parts
from services.recording.outcomes import MedicationListClient
from services.recording.recorder import Recorder
from services.telemetry import new_registry
from services.topics.registry import EVENTS_TOPIC, load

NOW_MS = 1_772_442_000_000
DOOR = Door(Pseudonymiser(b"p" * 32), ReadTokens(b"r" * 32))
SEALER = Sealer(b"s" * 32)
PATIENT = {"national_id": synthetic(1).digits, "name": "Ola Nordmann"}
PRESCRIPTION = "5b0f6a52-3d6e-4c34-9c0a-6f3e8d1f2a11"
OFFICE = "974760673"
PHARMACY = "313000028"

Answer = tuple[int, dict[str, Any]]


class ListPlayed:
    """What the medication list is asked, and what it answers: by path, as a test sets it."""

    def __init__(self) -> None:
        self.url = ""
        self.forget()

    def forget(self) -> None:
        """Forget what was asked and set: every event is applied, nobody owns anything, nothing is found."""
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.outcome: Callable[[dict[str, Any]], Answer] = lambda _: (200, {"outcome": "applied", "flags": []})
        self.owners: dict[str, str] = {}
        self.happened_at: dict[str, str] = {}
        self.found: dict[str, Any] = {"prescriptions": []}
        self.status = 200

    def app(self) -> FastAPI:
        """Its server."""
        app = FastAPI()

        @app.get("/health/ready")
        async def ready() -> Response:
            return Response(status_code=self.status)

        @app.post("/internal/{resource}")
        async def internal(resource: str, request: Request, response: Response) -> dict[str, Any]:
            asked = await request.json()
            self.asked.append((resource, asked))
            response.status_code, answer = self._answer(resource, asked)
            return answer

        return app

    def _answer(self, resource: str, asked: dict[str, Any]) -> Answer:
        if self.status != 200:
            return self.status, {}
        if resource == "outcomes":
            return self.outcome(asked)
        if resource == "first-reports":
            return 200, {"occurred_at": self.happened_at.get(asked["event_id"])}
        if resource == "owners":
            known = asked["prescriptions"] + asked["reference_numbers"]
            return 200, {each: self.owners[each] for each in known if each in self.owners}
        return 200, self.found


class Stand:
    """One service with its log, its clock and the list that it asks."""

    def __init__(self) -> None:
        self.list = ListPlayed()
        self.list_public_url: str | None = None
        self.clock = ManualClock(NOW_MS)
        self.log = MemoryLog(load().partitions, self.clock)
        self.http: httpx.Client
        self.app: FastAPI
        self._client: MedicationListClient

    def begin_anew(self) -> None:
        """As if the service had just started, with an empty log and a list that knows nothing."""
        self.list.forget()
        self.list_public_url = None
        self.clock = ManualClock(NOW_MS)
        self.log = MemoryLog(load().partitions, self.clock)
        self._install(self._parts())

    def restart(self) -> None:
        """As if the service had been started again: its own memory is gone; the log and the list are as they were."""
        self._install(self._parts())

    def open_parts(self) -> OpenParts:
        """The parts of the service, for its application."""

        @asynccontextmanager
        async def parts() -> AsyncIterator[Parts]:
            self._client = MedicationListClient(self.list.url)
            yield self._parts()
            await self._client.close()

        return parts

    def _parts(self) -> Parts:
        recorder = Recorder(
            log=self.log,
            medication_list=self._client,
            door=DOOR,
            sealer=SEALER,
            clock=self.clock,
            list_public_url=self.list_public_url,
        )
        return Parts(
            recorder, Readiness({"broker": self._check_log, "medication list": self._client.check}), new_registry()
        )

    def _install(self, parts: Parts) -> None:
        self.app.state.parts, self.app.state.recorder = parts, parts.recorder

    async def _check_log(self) -> Sequence[Trouble]:
        return () if self.log.is_available else (Trouble(TroubleReason.BROKER_UNREACHABLE, "The log is not there."),)

    def events(self) -> list[Event[Body]]:
        """What lies in the log of events."""
        return [codec.decode(record.value) for record in self.log.records(EVENTS_TOPIC)]

    def post(
        self, path: str, sent: object, *, key: str | None = "key-1", caller: str | None = None, **headers: str
    ) -> httpx.Response:
        """A write, or another request with a body."""
        stated = {"Medchain-Caller": caller or a_caller(), **headers}
        if key is not None:
            stated["Idempotency-Key"] = key
        return self.http.post(path, json=sent, headers=stated)


def a_caller(
    system: str = "journal", organisation: str = OFFICE, role: str = "doctor", person: str | None = "9144900"
) -> str:
    stated = f"system={system}; organisation={organisation}; role={role}"
    return stated if person is None else f"{stated}; person={person}"


@contextmanager
def a_stand(app_of: Callable[[OpenParts], FastAPI], list_url: str | None = None) -> Iterator[Stand]:
    """A service of this making, reachable over HTTP. `list_url`: a medication list to ask in the place of the one that is played."""
    stand = Stand()
    with served(stand.list.app()) as played_url:
        stand.list.url = list_url or played_url
        stand.app = app_of(stand.open_parts())
        with served(stand.app) as url, httpx.Client(base_url=url, timeout=10) as http:
            stand.http = http
            yield stand


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """An application on a free port of 127.0.0.1; its URL."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, loop="asyncio", http="httptools", log_config=None, lifespan="on"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + 10
        while not server.started:
            if time.monotonic() > deadline or not thread.is_alive():
                raise TimeoutError("the server did not start")
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)


def a_prescription(**changed: Any) -> dict[str, Any]:
    """A request that passes the door."""
    issued: dict[str, Any] = {
        "patient": PATIENT,
        "medication": {
            "product": {"kind": "substance", "name": "Metformin"},
            "form": "tablet",
            "atc": "A10BA02",
            "strength": "500 mg",
        },
        "quantity": {"value": 100, "unit": "tablet"},
        "refills": 3,
        "dosing": {"periods": [{"fixed": [{"dose": {"low": 1, "unit": "tablet"}, "times_of_day": ["morning"]}]}]},
    }
    return {**issued, **changed}
