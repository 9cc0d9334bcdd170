"""How a write is answered: the outcome of each of its events, as HTTP knows it."""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final

import msgspec
from fastapi import Response
from msgspec import Struct

from schemas.events import ClaimRequested
from schemas.medication_list import ShownClaim
from schemas.reasons import DoorReason, Reason
from services.identity.sealing import SealBroken, Sealer
from services.problems import Problem, refused
from services.recording.outcomes import NOTHING, First, Judgement
from services.recording.recorder import Recorded

RETRY_AFTER_S: Final = 1
_JSON: Final = "application/json"


class Patient(Struct, frozen=True):
    """Who a patient is, as the prescriber stated it."""

    national_id: str
    name: str | None


class ClaimAnswer(ShownClaim, frozen=True, omit_defaults=True):
    """The whole prescription that a claim is for, the dosing in force, allergies, the claim's flags, and who the patient is.

    `patient` is there for the pharmacy that holds the claim; null where the seal cannot be opened any more.
    """

    patient: Patient | None = None


class Answer(Struct, frozen=True, omit_defaults=True):
    """What became of one event. `resource` is what it is about, as it is now; its shape is the medication list's."""

    event_id: str
    outcome: str
    """applied, duplicate, refused, parked; or pending: in the log, and not judged yet."""
    position: str
    flags: tuple[str, ...]
    reason: str | None = None
    named: dict[str, Any] | None = None
    first: First | None = None
    resource: msgspec.Raw | None = None


class Answers(Struct, frozen=True):
    """What became of each event of a message with several, in its order."""

    outcomes: tuple[Answer, ...]


class Answering(Struct, frozen=True):
    """What answers are made with: who asks, and the key that opens an identity for the pharmacy that holds a claim."""

    organisation: str
    sealer: Sealer
    list_public_url: str
    """Where callers reach the medication list."""


def answer_to_one(recorded: Recorded, answering: Answering) -> Response:
    """201 applied, 200 duplicate, 202 pending or parked. Raises Problem: 409 refused, 422 for a key used again."""
    answer = _answer(recorded, answering)
    if answer.outcome == "refused":
        raise _refusal(answer)
    return _response(answer, _status(answer), recorded, answering)


def answer_to_several(recorded: list[Recorded], answering: Answering) -> Response:
    """All outcomes in order. 202 if one is pending, 200 if nothing new was applied, else 201."""
    answers = tuple(_answer(each, answering) for each in recorded)
    statuses = [_status(answer) for answer in answers if answer.outcome != "refused"]
    if not statuses:
        raise _refusal(answers[0])
    status = 202 if 202 in statuses else max(statuses)  # noqa: PLR2004 - HTTP's own number
    return _response(Answers(answers), status, _to_ask_for(recorded), answering)


def _to_ask_for(recorded: list[Recorded]) -> Recorded:
    """The last event not judged yet: all are in one partition, so once it is judged, all are. Otherwise the last parked one."""
    pending = [each for each in recorded if each.judgement is None]
    parked = [each for each in recorded if each.judgement is not None and each.judgement.outcome == "parked"]
    return (pending or parked or recorded)[-1]


def _answer(recorded: Recorded, answering: Answering) -> Answer:
    judgement = recorded.judgement
    position = _position(recorded)
    if judgement is None:
        return Answer(event_id=recorded.event.event_id, outcome="pending", position=position, flags=())
    return Answer(
        event_id=recorded.event.event_id,
        outcome=judgement.outcome,
        position=judgement.position or position,
        flags=judgement.flags,
        reason=judgement.reason,
        named=judgement.named,
        first=judgement.first,
        resource=_resource(recorded, judgement, answering),
    )


def _position(recorded: Recorded) -> str:
    """The place in the log, as the medication list's answers write it."""
    return f"{recorded.position.partition}-{recorded.position.offset}"


def _status(answer: Answer) -> int:
    return {"applied": 201, "duplicate": 200}.get(answer.outcome, 202)


def _refusal(answer: Answer) -> Problem:
    if answer.reason == Reason.CONFLICTING_DUPLICATE and answer.first is not None:
        # The fold knows the event id, which is made of the key: the same key came with another body.
        return Problem(422, DoorReason.IDEMPOTENCY_KEY_REUSED)
    told = {"event_id": answer.event_id, "position": answer.position}
    return refused(Reason(answer.reason or Reason.UNKNOWN), **told, **(answer.named or {}))


def _response(content: Answer | Answers, status: int, recorded: Recorded, answering: Answering) -> Response:
    headers = {}
    if status == 202:  # noqa: PLR2004 - HTTP's own number
        # With its position the event is found for ever; by its id alone, for as long as the list keeps such ids.
        asked = f"{recorded.event.event_id}?position={_position(recorded)}"
        headers["Location"] = f"{answering.list_public_url}/v1/events/{asked}"
        headers["Retry-After"] = str(RETRY_AFTER_S)
    return Response(msgspec.json.encode(content), status, headers, _JSON)


def _resource(recorded: Recorded, judgement: Judgement, answering: Answering) -> msgspec.Raw | None:
    """The resource as the list shows it; of a claim, with the patient's identity in the place of its sealed form."""
    if bytes(judgement.resource) == bytes(NOTHING):
        return None
    if not isinstance(recorded.event.body, ClaimRequested):
        return judgement.resource
    claimed = msgspec.json.decode(judgement.resource, type=dict[str, msgspec.Raw])
    sealed = msgspec.json.decode(claimed.pop("identity", NOTHING), type=str | None)
    if sealed is not None and _holder(claimed) == answering.organisation:
        claimed["patient"] = msgspec.Raw(msgspec.json.encode(_opened(sealed, recorded.event.patient, answering.sealer)))
    return msgspec.Raw(msgspec.json.encode(claimed))


def _holder(claimed: dict[str, msgspec.Raw]) -> str | None:
    """Who holds the claimed prescription now: nobody else learns whose it is."""
    held = msgspec.json.decode(claimed.get("prescription", NOTHING), type=dict[str, msgspec.Raw] | None)
    return None if held is None else msgspec.json.decode(held.get("holder", NOTHING), type=str | None)


def _opened(sealed: str, patient: str, sealer: Sealer) -> Patient | None:
    """Null where they were sealed by a key that is not ours any more."""
    try:
        identity = sealer.open(base64.b64decode(sealed), patient)
    except (SealBroken, binascii.Error):
        return None
    return Patient(identity.national_id.digits, identity.name or None)
