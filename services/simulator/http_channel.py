"""Plays the town through the services over HTTP, each patient's actions one after the other, many patients at once."""

import asyncio
import time
from collections import OrderedDict
from typing import Any, Final, NamedTuple

import httpx
import msgspec

from schemas import events
from services.admission.completion import event_id_of
from services.simulator import timeshift
from services.simulator.diary import Planned
from services.simulator.history import History, Line, ids_of
from services.simulator.population import Actor, Patient, Town

_ATTEMPTS: Final = 20
_RETRY_S: Final = 0.25
_TIMEOUT_S: Final = 30.0
_REMEMBERED: Final = 20_000
_SERVICE_UNAVAILABLE: Final = 503
_JSON: Final = {"Content-Type": "application/json"}
_encode = msgspec.json.Encoder(decimal_format="number").encode


class Resource(NamedTuple):
    """Where an event is reported: service, path, and the field whose value is in the path."""

    service: str
    path: str
    id_field: str | None = None


# fmt: off
RESOURCES: Final[dict[type, Resource]] = {
    events.PrescriptionIssued: Resource("prescriber", "/v1/prescriptions"),
    events.PrescriptionRecalled: Resource("prescriber", "/v1/prescriptions/{}/recall", "prescription"),
    events.DispatchRequested: Resource("prescriber", "/v1/prescriptions/{}/dispatch", "prescription"),
    events.DispatchWithdrawn: Resource("prescriber", "/v1/prescriptions/{}/dispatch/withdraw", "prescription"),
    events.TreatmentRecorded: Resource("prescriber", "/v1/treatments"),
    events.TreatmentChanged: Resource("prescriber", "/v1/treatments/{}/change", "treatment"),
    events.TreatmentPaused: Resource("prescriber", "/v1/treatments/{}/pause", "treatment"),
    events.TreatmentResumed: Resource("prescriber", "/v1/treatments/{}/resume", "treatment"),
    events.TreatmentDiscontinued: Resource("prescriber", "/v1/treatments/{}/discontinue", "treatment"),
    events.TreatmentReinstated: Resource("prescriber", "/v1/treatments/{}/reinstate", "treatment"),
    events.TreatmentWithdrawn: Resource("prescriber", "/v1/treatments/{}/withdraw", "treatment"),
    events.UseReported: Resource("prescriber", "/v1/treatments/{}/use", "treatment"),
    events.ListReconciled: Resource("prescriber", "/v1/reconciliations"),
    events.AllergyRecorded: Resource("prescriber", "/v1/allergies"),
    events.AllergyRefuted: Resource("prescriber", "/v1/allergies/{}/refute", "allergy"),
    events.MultidoseAssigned: Resource("prescriber", "/v1/multidose"),
    events.MultidoseEnded: Resource("prescriber", "/v1/multidose/end"),
    events.RenewalRequested: Resource("prescriber", "/v1/renewal-requests"),
    events.RenewalDeclined: Resource("prescriber", "/v1/renewal-requests/{}/decline", "request"),
    events.PatientDied: Resource("prescriber", "/v1/deaths"),
    events.DeathRetracted: Resource("prescriber", "/v1/deaths/retract"),
    events.ClaimRequested: Resource("pharmacy", "/v1/claims"),
    events.ClaimAborted: Resource("pharmacy", "/v1/claims/{}/abort", "claim"),
    events.ClaimReleased: Resource("pharmacy", "/v1/claims/{}/release", "claim"),
    events.MedicationDispensed: Resource("pharmacy", "/v1/dispenses"),
    events.DispenseReversed: Resource("pharmacy", "/v1/dispenses/{}/reverse", "dispense"),
}
# fmt: on


class Request(NamedTuple):
    """One request as it is sent, and repeated unchanged."""

    url: str
    headers: dict[str, str]
    content: bytes


class HttpChannel:
    """A number of workers, each with the patients whose number it has: a patient's order holds."""

    name = "http"

    def __init__(self, urls: dict[str, str], town: Town, history: History, *, concurrency: int = 16) -> None:
        """`urls`: base URLs of prescriber, pharmacy and medication-list."""
        self._urls = urls
        self._town = town
        self._history = history
        self._client = httpx.AsyncClient(
            timeout=_TIMEOUT_S, trust_env=False, limits=httpx.Limits(max_connections=2 * concurrency)
        )
        self._queues: list[asyncio.Queue[Planned | None]] = [asyncio.Queue(8) for _ in range(concurrency)]
        self._workers: list[asyncio.Task[None]] = []
        self._sent: OrderedDict[str, Request] = OrderedDict()

    async def take(self, planned: Planned) -> None:
        """Queue one action behind the patient's earlier ones; waits while too much is queued."""
        if not self._workers:
            self._workers = [asyncio.create_task(self._work(queue)) for queue in self._queues]
        done = next((worker for worker in self._workers if worker.done()), None)
        if done is not None:
            done.result()
        await self._queues[planned.patient % len(self._queues)].put(planned)

    async def close(self) -> None:
        """Wait until everything is answered."""
        try:
            if self._workers:
                await asyncio.gather(*(queue.put(None) for queue in self._queues), *self._workers)
        finally:
            await self._client.aclose()

    async def _work(self, queue: asyncio.Queue[Planned | None]) -> None:
        waiting: Planned | None = None
        while (planned := waiting or await queue.get()) is not None:
            waiting, together = None, [planned]
            if isinstance(planned.body, events.ClaimRequested) and not queue.empty():
                following = queue.get_nowait()
                if following is None:
                    await self._play(planned)
                    return
                if following.together and following.patient == planned.patient:
                    together.append(following)
                else:
                    waiting = following
            await asyncio.gather(*(self._play(each) for each in together))

    async def _play(self, planned: Planned) -> None:
        request = self._sent.get(planned.event_id) if planned.irregularity == "duplicate" else None
        if request is None:
            request = await self._request(planned)
        if not planned.damage:
            self._sent[planned.event_id] = request
            if len(self._sent) > _REMEMBERED:
                self._sent.popitem(last=False)
        sent_at_ms = time.time_ns() // 1_000_000
        answer, attempts = await self._send(request)
        self._write(planned, sent_at_ms, answer, attempts)

    async def _request(self, planned: Planned) -> Request:
        patient = self._town.patients[planned.patient]
        service, path, fields = composed(planned, patient, time.time_ns() // 1_000_000)
        if isinstance(planned.body, events.ListReconciled):
            fields["read_token"] = await self._read_token(planned)
        content = _encode(fields)
        return Request(
            self._urls[service] + path,
            _JSON | {"Medchain-Caller": stated(planned.actor), "Idempotency-Key": planned.event_id},
            unparseable(content, planned.damage) if planned.damage else content,
        )

    async def _read_token(self, planned: Planned) -> str:
        """The token of a list that was read just now; "-" when it cannot be read."""
        patient = self._town.patients[planned.patient]
        request = Request(
            f"{self._urls['medication-list']}/v1/list/read",
            _JSON | {"Medchain-Caller": stated(planned.actor)},
            _encode({"patient": {"national_id": patient.national_id.digits}}),
        )
        answer, _ = await self._send(request)
        return "-" if answer is None or not answer.is_success else str(answer.json().get("read_token", "-"))

    async def _send(self, request: Request) -> tuple[httpx.Response | None, int]:
        """The answer, repeated under the same key while the service cannot answer; None if it never could."""
        answer: httpx.Response | None = None
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                answer = await self._client.post(request.url, headers=request.headers, content=request.content)
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code != _SERVICE_UNAVAILABLE:
                return answer, attempt
            await asyncio.sleep(_RETRY_S)
        return answer, _ATTEMPTS

    def _write(self, planned: Planned, sent_at_ms: int, answer: httpx.Response | None, attempts: int) -> None:
        told = told_by(answer)
        self._history.write(
            Line(
                channel=self.name,
                event_id=event_id_of(planned.actor.system, planned.event_id),
                type=type(planned.body).__name__,
                patient=planned.patient,
                organisation=planned.actor.organisation,
                sent_at_ms=sent_at_ms,
                answered_at_ms=time.time_ns() // 1_000_000,
                outcome=outcome_of(answer, told),
                ids=ids_of(planned),
                status=None if answer is None else answer.status_code,
                reason=told.get("reason") or _last_part(told.get("type")),
                flags=tuple(told.get("flags", ())),
                named=told.get("named"),
                position=told.get("position"),
                irregularity=planned.irregularity,
                damage=planned.damage,
                attempts=attempts,
            )
        )


def composed(planned: Planned, patient: Patient, now_ms: int) -> tuple[str, str, dict[str, Any]]:
    """Service, path and JSON fields of the request that reports an action as if it arrived now."""
    happened_ms = timeshift.happened_ms(planned, now_ms)
    fields = timeshift.plain(planned.body, happened_ms - planned.occurred_at_ms)
    resource = RESOURCES[type(planned.body)]
    path = resource.path if resource.id_field is None else resource.path.format(fields.pop(resource.id_field))
    if isinstance(planned.body, events.ListReconciled):
        fields = {"read_token": planned.body.read_token}
    person = {"national_id": patient.national_id.digits, "name": patient.name}
    return (
        resource.service,
        path,
        {"patient": person, "occurred_at": timeshift.rfc3339(happened_ms)} | timeshift.outside(fields),
    )


def stated(actor: Actor) -> str:
    """Who calls, as the header says it."""
    caller = {"system": actor.system, "organisation": actor.organisation, "role": actor.role, "person": actor.person}
    return "; ".join(f"{name}={value}" for name, value in caller.items() if value is not None)


def told_by(answer: httpx.Response | None) -> dict[str, Any]:
    """The JSON object of an answer; empty when it has none."""
    if answer is None:
        return {}
    try:
        told = msgspec.json.decode(answer.content)
    except msgspec.DecodeError:
        return {}
    return told if isinstance(told, dict) else {}


def outcome_of(answer: httpx.Response | None, told: dict[str, Any]) -> str:
    """What became of a write, in the words of `history.Line`."""
    if answer is None or answer.is_server_error:
        return "failed"
    if answer.status_code == httpx.codes.CONFLICT:
        return "refused"
    return str(told.get("outcome", "pending")) if answer.is_success else "rejected"


def unparseable(content: bytes, damage: str) -> bytes:
    """A request that no service can read, one way for each damage."""
    ways = {
        "truncated": content[: len(content) // 2],
        "unknown_schema": b'"' + content + b'"',
        "wrong_magic": b"\xff\xfe" + content,
        "left_over": content + content,
        "empty": b"",
    }
    return ways[damage]


def _last_part(problem_type: object) -> str | None:
    return problem_type.rsplit("/", 1)[-1] if isinstance(problem_type, str) else None
