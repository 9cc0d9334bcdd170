"""A write as one row of a table: the resource, the event that it records, and where its id comes from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Request, Response
from msgspec import Struct
from starlette.datastructures import Headers

from schemas.events import Body
from schemas.reasons import DoorReason
from services.admission.errors import TurnedAway
from services.identity.registers import InvalidIdentifier, parse_uuid
from services.problems import (
    PROBLEM_RESPONSES,
    not_found,
    turned_away,
)
from services.problems.guard import MESSAGE_IN_SCOPE, Given, given_in
from services.recording.answers import Answering, answer_to_one, answer_to_several
from services.recording.caller import Caller, caller
from services.recording.direct import Handler
from services.recording.documents import answer_documents, body_document
from services.recording.recorder import Asked, Recorder
from services.telemetry.traces import TRACEPARENT, well_formed

_LONGEST_KEY: Final = 255


class Write(Struct, frozen=True, kw_only=True):
    """One resource that takes writes.

    path: with `{id}` where an id stands in the URL, which `id_of` then names in the event. about: what the answer's
    `resource` is. lines: the field by which a message may carry several. roles: who alone finds this resource.
    """

    path: str
    records: type[Body]
    about: type[Struct]
    id_of: str | None = None
    lines: str | None = None
    roles: frozenset[str] | None = None

    @property
    def known(self) -> frozenset[str]:
        """What the body of the request does not say, because the URL does."""
        return frozenset() if self.id_of is None else frozenset({self.id_of})


async def idempotency_key(
    idempotency_key: Annotated[
        str | None, Header(description="a name for this write; the same for a repetition")
    ] = None,
) -> str:
    """The key of a write: printable, at most 255 characters. Raises a 400 problem without one."""
    key = (idempotency_key or "").strip()
    if not key or len(key) > _LONGEST_KEY or not key.isprintable():
        raise turned_away(DoorReason.NO_IDEMPOTENCY_KEY)
    return key


def router_of(writes: Iterable[Write]) -> APIRouter:
    """The routes of a table of writes."""
    router = APIRouter()
    for write in writes:
        router.add_api_route(
            write.path,
            _handler(write),
            methods=["POST"],
            name=write.records.__name__,
            operation_id=f"record_{write.path.strip('/').replace('/', '_').replace('{id}', 'id').replace('-', '_')}",
            summary=_first_line(write.records),
            description=f"Records {write.records.__name__}. `resource` in the answer: {_first_line(write.about)}",
            status_code=201,
            response_class=Response,
            responses={**PROBLEM_RESPONSES, **answer_documents(write.about, write.lines)},
            openapi_extra={
                "requestBody": body_document(write.records, write.known, write.lines),
                **_id_document(write),
            },
        )
    return router


def _first_line(described: type) -> str:
    return (described.__doc__ or "").strip().split("\n")[0]


def _handler(write: Write) -> Any:
    async def handle(
        request: Request,
        who: Annotated[Caller, Depends(caller)],
        key: Annotated[str, Depends(idempotency_key)],
        _prefer: Annotated[
            str, Header(alias="prefer", description="`respond-async`: do not wait for the outcome")
        ] = "",
        traceparent: Annotated[str | None, Header()] = None,
    ) -> Response:
        return await _recorded(write, request, Asked(who, key, traceparent, _is_async(request.headers)))

    return handle


def direct_of(writes: Iterable[Write]) -> dict[str, Handler]:
    """What answers at the same addresses without the framework's help."""
    return {write.path: _direct_handler(write) for write in writes}


def _direct_handler(write: Write) -> Handler:
    async def handle(request: Request) -> Response:
        headers = request.headers
        who = await caller(headers.get("medchain-caller"))
        key = await idempotency_key(headers.get("idempotency-key"))
        return await _recorded(write, request, Asked(who, key, headers.get(TRACEPARENT), _is_async(headers)))

    return handle


def _is_async(headers: Headers) -> bool:
    """Whether `respond-async` is among the preferences (RFC 7240: any case, in one header or several)."""
    stated = (
        each.partition(";")[0].strip().lower() for header in headers.getlist("prefer") for each in header.split(",")
    )
    return "respond-async" in stated


async def _recorded(write: Write, request: Request, asked: Asked) -> Response:
    if write.roles is not None and asked.caller.role not in write.roles:
        raise not_found()
    given = await message_of(request)
    asked = asked._replace(traceparent=well_formed(asked.traceparent))
    return await take(request.app.state.recorder, write, given, _known(write, request), asked)


async def message_of(request: Request) -> Given:
    """What a request's body says. Raises a 400 problem for a body that is no JSON."""
    given: Given | None = request.scope.get(MESSAGE_IN_SCOPE)
    return given_in(await request.body()) if given is None else given


async def take(recorder: Recorder, write: Write, given: Given, known: dict[str, str], asked: Asked) -> Response:
    """One write, from what was sent to its answer. Raises Problem, LogUnavailable."""
    try:
        admitted = recorder.door.admit_request(
            write.records, given.value, received_at_ms=recorder.clock.now_ms(), known=known, lines=write.lines
        )
        if given.faults:
            raise given.turned_away()
        recorded = await recorder.record(admitted, asked)
    except TurnedAway as error:
        raise given.turned_away(error.errors()) from None
    answering = Answering(asked.caller.organisation, recorder.sealer, recorder.list_public_url)
    if write.lines is not None and isinstance(given.value, dict) and write.lines in given.value:
        response = answer_to_several(recorded, answering)
    else:
        response = answer_to_one(recorded[0], answering)
    if asked.is_async:
        response.headers["Preference-Applied"] = "respond-async"
    return response


def _known(write: Write, request: Request) -> dict[str, str]:
    """The id from the URL. One that is no id names nothing that is there."""
    if write.id_of is None:
        return {}
    try:
        return {write.id_of: parse_uuid(request.path_params["id"])}
    except InvalidIdentifier:
        raise not_found() from None


def _id_document(write: Write) -> dict[str, Any]:
    if write.id_of is None:
        return {}
    described = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}
    return {"parameters": [described | {"description": f"the {write.id_of}'s id"}]}
