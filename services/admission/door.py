"""Judges one message by itself alone: the entry point of the door, the same for HTTP and for submissions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from msgspec import Struct
from pydantic import BaseModel, ValidationError

from schemas import events
from schemas.events import Body, PatientIdentity, Submission
from schemas.fields import Instant, Line, Word
from schemas.reasons import DoorReason
from services.admission.completion import completed, is_timed
from services.admission.errors import Finding, Findings, Place, TurnedAway, findings_of
from services.admission.fields import instant
from services.admission.models import MOST_ELEMENTS, fields_of, model_of
from services.admission.read_token import InvalidReadToken, ReadToken, ReadTokens
from services.admission.rules import CLAIM_AGE_MS, FUTURE_TOLERANCE_MS, broken_rules, broken_rules_of_valid, door_rule
from services.identity.national_id import InvalidNationalId, NationalId
from services.identity.pseudonym import Pseudonymiser


class Person(Struct, frozen=True, kw_only=True):
    """Whom a request is about: the national id in any of its kinds, and the name that a pharmacy will be shown."""

    national_id: Word
    name: Line | None = None


class Report(Struct, frozen=True, kw_only=True):
    """The envelope of every write over HTTP: whom it is about, and when it happened (default: now)."""

    patient: Person
    occurred_at_ms: Instant | None = None


ENVELOPE: Final = frozenset({"patient", "occurred_at"})


class Part(NamedTuple):
    """One body of a message, checked but not yet completed: the contract's field names and values."""

    struct: type[Body]
    place: Place
    """Where it is in the message."""
    fields: Mapping[str, Any]
    token: ReadToken | None

    @property
    def is_timed(self) -> bool:
        """Whether the time of the event becomes content of it (see `completion.is_timed`)."""
        return is_timed(self.struct, self.fields)

    def body(self, event_id: str, patient: str, occurred_at_ms: int) -> Body:
        """The body of the event with this id, of the patient with this pseudonym."""
        return completed(
            self.struct,
            self.fields,
            event_id=event_id,
            patient=patient,
            occurred_at_ms=occurred_at_ms,
            token=self.token,
        )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Admitted:
    """A message that passed: whom it is about, when it happened (None: now), and its bodies.

    `is_late`: a claim that was made too long ago to be a new one. Whether it is, only the list knows: see
    `services.recording.lateness`.
    """

    national_id: NationalId
    name: str | None
    patient: str
    """The pseudonym."""
    occurred_at_ms: int | None
    parts: tuple[Part, ...]
    is_late: bool = False


class Lines(NamedTuple):
    """The bodies of a message as they were sent, each with its place."""

    bodies: Sequence[tuple[Place, Any]]
    findings: Sequence[Finding]


# --- What concerns the envelope ----------------------------------------------------------------------------------


@door_rule(Person, PatientIdentity)
def the_national_id_is_a_valid_one(national_id: str) -> Iterator[Finding]:
    """A national identity number of any kind, with today's or the 2032 checksum."""
    try:
        NationalId.parse(national_id)
    except InvalidNationalId as error:
        yield Finding(("national_id",), error.reason)


@door_rule(PatientIdentity)
def the_kind_is_the_numbers(national_id: str, kind: str) -> Iterator[Finding]:
    """A submission says which kind of number it holds; another kind means that the sender mixed up two numbers."""
    try:
        parsed = NationalId.parse(national_id)
    except InvalidNationalId:
        return
    if parsed.kind.value != kind:
        yield Finding(("kind",), DoorReason.CONTRADICTS)


@door_rule(Report, Submission)
def nothing_has_happened_in_the_future(occurred_at_ms: int, received_at_ms: int) -> Iterator[Finding]:
    """`occurred_at` more than 5 minutes in the future is turned away."""
    if occurred_at_ms > received_at_ms + FUTURE_TOLERANCE_MS:
        yield Finding(("occurred_at",), DoorReason.OCCURRED_IN_FUTURE)


def _is_late(struct: type[Body], envelope: Mapping[str, int]) -> bool:
    """A claim that is received more than 15 minutes after it was made."""
    occurred_at_ms = envelope.get("occurred_at_ms")
    if struct is not events.ClaimRequested or occurred_at_ms is None:
        return False
    return envelope["received_at_ms"] - occurred_at_ms > CLAIM_AGE_MS


# --- The door ----------------------------------------------------------------------------------------------------


class Door:
    """Judges messages. Knows the keys of the platform, and nothing of any patient."""

    def __init__(self, pseudonymiser: Pseudonymiser, tokens: ReadTokens) -> None:
        self._pseudonymiser = pseudonymiser
        self._tokens = tokens

    def patient_key(self, national_id: NationalId) -> str:
        """The pseudonym under which the chain knows a patient."""
        return self._pseudonymiser.patient_key(national_id)

    def admit_request(
        self,
        struct: type[Body],
        given: object,
        *,
        received_at_ms: int,
        known: Mapping[str, str] | None = None,
        lines: str | None = None,
    ) -> Admitted:
        """A write over HTTP. `known`: ids from the URL. `lines`: the field that holds several bodies, if it may.

        Raises TurnedAway with everything that is wrong.
        """
        if not isinstance(given, dict):
            raise TurnedAway([Finding((), DoorReason.WRONG_TYPE)])
        outer = {name: value for name, value in given.items() if name in ENVELOPE}
        inner = {name: value for name, value in given.items() if name not in ENVELOPE}
        if lines is None or lines not in given:
            return self._admit(Report, outer, struct, Lines([((), inner)], []), received_at_ms, known or {})
        outer |= {name: value for name, value in inner.items() if name != lines}
        return self._admit(Report, outer, struct, _lines(lines, given[lines]), received_at_ms, known or {})

    def admit_submission(self, struct: type[Body], given: Mapping[str, Any], *, received_at_ms: int) -> Admitted:
        """A submission in the form that it would have as JSON. Raises TurnedAway with everything that is wrong."""
        outer = {name: value for name, value in given.items() if name != "bodies"}
        return self._admit(Submission, outer, struct, _lines("bodies", given["bodies"]), received_at_ms, {})

    def _admit(
        self,
        around: type[Struct],
        outer: dict[str, Any],
        struct: type[Body],
        lines: Lines,
        received_at_ms: int,
        known: Mapping[str, str],
    ) -> Admitted:
        envelope = _envelope_times(outer, received_at_ms)
        findings = Findings(lines.findings)
        surrounding = _checked(model_of(around, frozenset({"bodies"})), outer, (), findings)
        findings.add(_broken(around, outer, surrounding, envelope))
        checked: list[tuple[Place, BaseModel | None]] = []
        for place, body in lines.bodies:
            if findings.is_full:
                break
            valid = _checked(model_of(struct, frozenset(known)), body, place, findings)
            checked.append((place, valid))
            findings.add(finding.under(place) for finding in _broken(struct, body, valid, envelope))
        national_id = _national_id(outer)
        patient = "" if national_id is None else self.patient_key(national_id)
        tokens = {place: self._token(struct, body, patient, place, findings) for place, body in checked}
        is_late = _is_late(struct, envelope)
        if findings or surrounding is None or national_id is None:
            findings.add([Finding(("occurred_at",), DoorReason.CLAIM_TOO_OLD)] if is_late else [])
            raise TurnedAway(findings)
        return Admitted(
            national_id=national_id,
            name=surrounding.patient.name,  # type: ignore[attr-defined]  # both envelopes have one
            patient=patient,
            occurred_at_ms=surrounding.occurred_at_ms,  # type: ignore[attr-defined]  # as above
            parts=tuple(
                Part(struct, place, {**fields_of(body), **known}, tokens[place])
                for place, body in checked
                if body is not None
            ),
            is_late=is_late,
        )

    def _token(
        self, struct: type[Body], body: BaseModel | None, patient: str, place: Place, findings: Findings
    ) -> ReadToken | None:
        """What the read token of a reconciliation says; a token that is not ours, or another's, is turned away."""
        if struct is not events.ListReconciled or body is None or not patient:
            return None
        fields = fields_of(body)
        try:
            token = self._tokens.verify(patient, fields["read_token"])
        except InvalidReadToken:
            findings.add([Finding((*place, "read_token"), DoorReason.TOKEN_NOT_VALID)])
            return None
        for name, said in (("version", token.version), ("read_at_ms", token.read_at_ms)):
            if fields[name] is not None and fields[name] != said:
                findings.add([Finding((*place, name.removesuffix("_ms")), DoorReason.CONTRADICTS)])
        return token


def _checked(model: type[BaseModel], given: Any, place: Place, findings: Findings) -> BaseModel | None:
    """The model of what was given; None if it does not fit, and then `findings` grows by all that is wrong."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        findings.add(found.under(place) for found in findings_of(error))
        return None


def _broken(
    struct: type[Struct], given: object, valid: BaseModel | None, envelope: dict[str, int]
) -> Iterator[Finding]:
    """What the rules find; they read the model where there is one, and what is in order of a message that has none."""
    return broken_rules(struct, given, envelope) if valid is None else broken_rules_of_valid(struct, valid, envelope)


def _lines(name: str, given: object) -> Lines:
    if not isinstance(given, list | tuple):
        reason = DoorReason.NULL_NOT_ALLOWED if given is None else DoorReason.WRONG_TYPE
        return Lines([], [Finding((name,), reason)])
    if not given:
        return Lines([], [Finding((name,), DoorReason.TOO_FEW)])
    if len(given) > MOST_ELEMENTS:
        return Lines([], [Finding((name,), DoorReason.TOO_MANY)])
    return Lines([((name, index), body) for index, body in enumerate(given)], [])


def _envelope_times(outer: Mapping[str, Any], received_at_ms: int) -> dict[str, int]:
    """The times that rules may ask for; without `occurred_at_ms` when it was sent and cannot be read."""
    times = {"received_at_ms": received_at_ms}
    if outer.get("occurred_at") is None:
        return times | {"occurred_at_ms": received_at_ms}
    try:
        return times | {"occurred_at_ms": instant(outer["occurred_at"])}
    except ValueError:  # pydantic's own errors are among them
        return times


def _national_id(outer: Mapping[str, Any]) -> NationalId | None:
    patient = outer.get("patient")
    digits = patient.get("national_id") if isinstance(patient, dict) else None
    try:
        return NationalId.parse(digits) if isinstance(digits, str) else None
    except InvalidNationalId:
        return None
