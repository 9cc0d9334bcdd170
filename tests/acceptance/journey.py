"""One run of one scenario through the running chain: each step as its actor takes it, and what anyone can see after it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import httpx

from deploy.local.waiting import wait_until
from schemas import events as ev
from services.identity.national_id import NationalId, synthetic
from services.medication_list.read_api.presenting import to_json
from tests.acceptance.plain_checks import Judged
from tests.acceptance.translate import ACTORS, AnyEvent, Play, Raw, Step, actor_of
from tests.chain import WITHIN_S, Chain

UNREADABLE: Final = b"\xc3\x01this is no record of the contract"
CLINICIAN: Final = ACTORS["clinician C"]
PHARMACIST: Final = ACTORS["pharmacy P"]


class Resource(NamedTuple):
    """Where an event is written: the service, the path, and the field whose value stands in the path."""

    service: str
    path: str
    id_of: str | None = None


RESOURCES: Final[Mapping[type[ev.Body], Resource]] = {
    ev.PrescriptionIssued: Resource("prescriber", "/v1/prescriptions"),
    ev.PrescriptionRecalled: Resource("prescriber", "/v1/prescriptions/{id}/recall", "prescription"),
    ev.DispatchRequested: Resource("prescriber", "/v1/prescriptions/{id}/dispatch", "prescription"),
    ev.DispatchWithdrawn: Resource("prescriber", "/v1/prescriptions/{id}/dispatch/withdraw", "prescription"),
    ev.TreatmentRecorded: Resource("prescriber", "/v1/treatments"),
    ev.TreatmentPaused: Resource("prescriber", "/v1/treatments/{id}/pause", "treatment"),
    ev.TreatmentResumed: Resource("prescriber", "/v1/treatments/{id}/resume", "treatment"),
    ev.TreatmentReinstated: Resource("prescriber", "/v1/treatments/{id}/reinstate", "treatment"),
    ev.UseReported: Resource("prescriber", "/v1/treatments/{id}/use", "treatment"),
    ev.TreatmentChanged: Resource("prescriber", "/v1/treatments/{id}/change", "treatment"),
    ev.TreatmentDiscontinued: Resource("prescriber", "/v1/treatments/{id}/discontinue", "treatment"),
    ev.TreatmentWithdrawn: Resource("prescriber", "/v1/treatments/{id}/withdraw", "treatment"),
    ev.ListReconciled: Resource("prescriber", "/v1/reconciliations"),
    ev.AllergyRecorded: Resource("prescriber", "/v1/allergies"),
    ev.AllergyRefuted: Resource("prescriber", "/v1/allergies/{id}/refute", "allergy"),
    ev.MultidoseAssigned: Resource("prescriber", "/v1/multidose"),
    ev.MultidoseEnded: Resource("prescriber", "/v1/multidose/end"),
    ev.RenewalRequested: Resource("prescriber", "/v1/renewal-requests"),
    ev.RenewalDeclined: Resource("prescriber", "/v1/renewal-requests/{id}/decline", "request"),
    ev.PatientDied: Resource("prescriber", "/v1/deaths"),
    ev.DeathRetracted: Resource("prescriber", "/v1/deaths/retract"),
    ev.ClaimReleased: Resource("pharmacy", "/v1/claims/{id}/release", "claim"),
    ev.ClaimRequested: Resource("pharmacy", "/v1/claims"),
    ev.ClaimAborted: Resource("pharmacy", "/v1/claims/{id}/abort", "claim"),
    ev.MedicationDispensed: Resource("pharmacy", "/v1/dispenses"),
    ev.DispenseReversed: Resource("pharmacy", "/v1/dispenses/{id}/reverse", "dispense"),
}


@dataclass(frozen=True, slots=True)
class Told:
    """How one event was answered. `document`: the answer's, or the problem's; `body`: what had been sent."""

    status: int
    document: dict[str, Any]
    body: ev.Body | None
    """None of bytes that were no message."""

    @property
    def outcome(self) -> str:
        """By its status: 201 applied, 200 duplicate, 409 refused, every other 4xx turned away; and as the answer itself says."""
        known = {201: "applied", 200: "duplicate", 202: "parked", 409: "refused"}
        outcome = known.get(self.status, "turned away" if 400 <= self.status < 500 else f"answered {self.status}")
        assert self.document.get("outcome", outcome) == outcome
        return outcome

    @property
    def reason(self) -> str:
        """Of a problem."""
        return str(self.document["type"]).removeprefix("/problems/")

    @property
    def reason_or_none(self) -> str | None:
        """Of a problem; None of an answer that is none."""
        return self.reason if "type" in self.document else None

    @property
    def flags(self) -> set[str]:
        """Of this event."""
        return set(self.document["flags"])


NAMED: Final = {
    "held": "holder",
    "already_held": "holder",
    "dispatched_to": "pharmacy",
    "multidose_elsewhere": "pharmacy",
    "too_early": "earliest_dispense",
    "stale": "moved",
}
"""Under which name a refusal tells what it names."""


def judged_by(told: Told) -> Judged:
    """An answer as a judge would have said it."""
    if told.outcome in ("refused", "turned away"):
        named = told.document.get(NAMED.get(told.reason, ""))
        return Judged(told.outcome, told.reason, frozenset(), named)
    answer = told.document.get("named") or {}
    return Judged(told.outcome, None, frozenset(told.document.get("flags", ())), answer.get("answer"))


@dataclass(frozen=True, slots=True)
class View:
    """What is seen of one patient after a step: the list, and every prescription by id."""

    whole: dict[str, Any]
    prescriptions: dict[str, dict[str, Any]]

    @property
    def entries(self) -> list[dict[str, Any]]:
        """Of the list, other prescriptions among them."""
        return [*self.whole["treatments"], *self.whole["other_prescriptions"]]


@dataclass(slots=True)
class Journey:
    """A scenario on its way through the chain. `number` sets its patients apart from those of other journeys."""

    play: Play
    chain: Chain
    number: int
    step: Step | None = None
    told: list[Told] = field(default_factory=list)
    """How this step's events were answered."""
    found: list[dict[str, Any]] = field(default_factory=list)
    """What this step's search found."""
    views: dict[int, View] = field(default_factory=dict)
    """What the step's patient looked like after each step."""
    of_whom: dict[int, str] = field(default_factory=dict)
    """Whose step each was."""
    answers: dict[int, list[Told]] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    position: dict[str, str] = field(default_factory=dict)
    """The last one of each patient that an answer told."""
    positions: set[str] = field(default_factory=set)
    """All of them."""
    parked: Any = None
    """The record that was put into the log and cannot be read."""

    def steps(self) -> Iterator[Step]:
        """Take every step; what it brought can be looked at before the next."""
        for step in self.play:
            self.step, self.told, self.found = step, [], []
            self.chain.set_clock(step.at_ms)
            self._take(step)
            self.answers[step.n] = self.told
            self.views[step.n], self.of_whom[step.n] = self.look(step.patient), step.patient
            if step.token is not None:
                whole = self.views[step.n].whole
                self.tokens[step.token] = whole["read_token"]
                self.play.saw(step.token, whole["version"], step.at_ms, is_whole=whole["complete"])
            yield step

    @property
    def now(self) -> View:
        """After the present step."""
        assert self.step is not None
        return self.views[self.step.n]

    @property
    def judged(self) -> list[tuple[AnyEvent, Judged]]:
        """Every event that reached a service, and what it said became of it."""
        return [(event, judged_by(told)) for step in self.play.taken for event, told in self._answered(step)]

    @property
    def applied(self) -> list[AnyEvent]:
        """Those that took effect."""
        return [event for event, judged in self.judged if judged.outcome == "applied"]

    def _answered(self, step: Step) -> list[tuple[AnyEvent, Told]]:
        return list(zip(step.events, self.answers.get(step.n, ()), strict=False))

    @property
    def the_answer(self) -> Told:
        """To the one event of this step."""
        (told,) = self.told
        return told

    def patient(self, letter: str) -> NationalId:
        """The synthetic citizen that the scenario calls so."""
        return synthetic(10_000 + 10 * self.number + "XYZABCDEFG".index(letter))

    def name_of(self, letter: str) -> str:
        """The name under which a citizen is prescribed for."""
        return f"Citizen {letter} of {self.play.scenario['id']}"

    def look(self, letter: str) -> View:
        """What is seen of a patient now."""
        digits = self.patient(letter).digits
        found = self.chain.search(digits, PHARMACIST)
        return View(self.chain.read_list(digits, CLINICIAN), {each["prescription"]: each for each in found})

    def prescription(self, name: str) -> dict[str, Any]:
        """A prescription by its name in the scenario, after the present step.

        As the pharmacy's search finds it; a locked one, which no search by patient finds, as the list shows it.
        """
        letter = self.play.patients.get(name, "X")
        assert self.step is not None
        view = self.now if letter == self.step.patient else self.look(letter)
        natural = self.play.id_of(name)
        in_list = [shown for entry in view.entries for shown in entry.get("prescriptions", ())]
        locked = (shown for shown in in_list if shown["prescription"] == natural and shown["issued"].get("locked"))
        found = next(locked, None) or view.prescriptions.get(natural)
        assert found is not None, f"{name} is nowhere in the list"
        return found

    def entry(self, name: str) -> dict[str, Any] | None:
        """An entry of the list, None when it is not shown."""
        return next((each for each in self.now.entries if each["treatment"] == self.play.treatment_named(name)), None)

    def told_of(self, claim: str) -> list[Told]:
        """The answers to a claim by its name, and to its repetitions, in order."""
        answers = [told for answers in self.answers.values() for told in answers]
        natural = self.play.id_of(claim)
        return [each for each in answers if isinstance(each.body, ev.ClaimRequested) and each.body.claim == natural]

    # --- Steps --------------------------------------------------------------------------------------------------------

    def _take(self, step: Step) -> None:
        who = actor_of(step.actor)
        if step.action == "search_open_prescriptions":
            self.found = self._search(step, who)
        elif step.unreadable:
            self._spoil(step)
        elif step.raw is not None:
            self._send_raw(step, step.raw)
        elif len(step.events) > 1 and all(isinstance(event.body, ev.PrescriptionIssued) for event in step.events):
            self._send_order(step)
        else:
            for event in step.events:
                self._send(step, event)

    def _search(self, step: Step, who: ev.Source) -> list[dict[str, Any]]:
        if step.reference_number is None:
            return self.chain.search(self.patient(step.patient).digits, who, every=step.every)
        return self.chain.search_by_number(step.reference_number, who, every=step.every)

    def _send(self, step: Step, event: AnyEvent) -> None:
        """One event, as its actor writes it."""
        service, path, id_of = RESOURCES[type(event.body)]
        body = self._body(step, event.body)
        if id_of is not None:
            path = path.format(id=body.pop(id_of))
        answer = self.chain.post(
            service, path, self._around(step, event) | body, event.source, key=f"{self.number}/{event.event_id}"
        )
        self._hear(step, self._told(answer, event.body))

    def _told(self, answer: httpx.Response, body: ev.Body | None) -> Told:
        """An answer; of what was not judged in time, what the place says that it tells to ask at."""
        if answer.status_code == 202 and answer.json().get("outcome") == "pending":
            place = answer.headers["Location"].partition("/v1/")[2]
            wait_until(lambda: self._asked(place).status_code == 200, within_s=WITHIN_S, what=place)
            judged: dict[str, Any] = self._asked(place).json()
            return Told(
                {"applied": 201, "duplicate": 200, "refused": 409}.get(judged["outcome"], 202), _as_told(judged), body
            )
        return Told(answer.status_code, answer.json(), body)

    def _asked(self, place: str) -> httpx.Response:
        return self.chain.get("medication-list", f"/v1/{place}", CLINICIAN)

    def _send_raw(self, step: Step, raw: Raw) -> None:
        """Bytes, to the prescriber service or to the topic of the sender's system."""
        who = actor_of(step.actor)
        if raw.to_topic:
            self._hear(step, Told(422, self.chain.rejection_of(raw.content, who.system), None))
            return
        answer = self.chain.post_bytes("prescriber", "/v1/prescriptions", raw.content, raw.media_type, who)
        self._hear(step, Told(answer.status_code, answer.json(), None))

    def _send_order(self, step: Step) -> None:
        """Several prescriptions in one message."""
        lines = [self._body(step, event.body) for event in step.events]
        first = step.events[0]
        sent = self._around(step, first) | {"prescriptions": lines}
        answer = self.chain.post("prescriber", "/v1/prescriptions", sent, first.source, key=first.event_id)
        self._hear_all(step, answer)

    def _hear_all(self, step: Step, answer: httpx.Response) -> None:
        if answer.status_code == 422:
            self._hear(step, Told(422, answer.json(), step.events[0].body))
            return
        outcomes = answer.json()["outcomes"]
        for event, outcome in zip(step.events, outcomes, strict=True):
            self._hear(step, Told(answer.status_code, outcome, event.body))

    def _hear(self, step: Step, told: Told) -> None:
        self.told.append(told)
        if "position" in told.document:
            self.positions.add(told.document["position"])
            self.position[step.patient] = told.document["position"]

    def _around(self, step: Step, event: AnyEvent) -> dict[str, Any]:
        national_id = step.national_id or self.patient(step.patient).digits
        patient = {"national_id": national_id, "name": self.name_of(step.patient)}
        occurred_at = json.loads(to_json({"at_ms": event.occurred_at_ms}))["at"]
        return {"patient": patient, "occurred_at": occurred_at}

    def _body(self, step: Step, body: ev.Body) -> dict[str, Any]:
        """As JSON; without what the scenario leaves out, or leaves to the platform."""
        if isinstance(body, ev.ListReconciled):
            return {"read_token": self.tokens[body.read_token]}
        made: dict[str, Any] = json.loads(to_json(body))
        if made.get("prescription") in step.by_policy:
            del made["valid_until"]
        for name, missing in step.without.items():
            if made.get("prescription") == self.play.id_of(name):
                del made[missing]
        return made

    def _spoil(self, step: Step) -> None:
        """Put a record into the log that nobody can read, under the patient's key; wait until it was judged."""
        known = self.chain.record_at(self.position[step.patient])
        with self.chain.producer() as producer:
            sent = producer.send(known.topic, key=known.key, value=UNREADABLE, partition=known.partition).get(30)
        self.position[step.patient] = position = f"{sent.partition}-{sent.offset}"
        self.chain.read_list(self.patient(step.patient).digits, CLINICIAN, position)
        self.parked = self.chain.record_at(position)


def _as_told(judged: dict[str, Any]) -> dict[str, Any]:
    """What the list says of an event, as an answer to its sender would say it."""
    named = judged.get("named") or {}
    refusal = {"type": f"/problems/{judged.get('reason')}", **named} if judged["outcome"] == "refused" else {}
    return {"flags": [], **judged, **refusal}


class Neighbours:
    """Citizens outside all scenarios, one for each partition of the log: what happens to them comes behind all before."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._known: dict[str, NationalId] = {}
        self._next = 20_000

    def beside(self, position: str) -> NationalId:
        """The one whose events lie in the same partition as this position."""
        partition = position.split("-", maxsplit=1)[0]
        while partition not in self._known:
            self._next += 1
            citizen = synthetic(self._next)
            _, found = self.prescribe_for(citizen)
            self._known.setdefault(found.split("-")[0], citizen)
        return self._known[partition]

    def prescribe_for(self, citizen: NationalId) -> tuple[str, str]:
        """Sign something; the prescription's id, and its position."""
        signed = next(iter(Play(SIGNED))).events[0].body
        body: dict[str, Any] = json.loads(to_json(signed))
        for made_anew in ("prescription", "treatment", "issued_at", "valid_until"):
            del body[made_anew]
        sent = {"patient": {"national_id": citizen.digits}} | body
        answer = self._chain.post("prescriber", "/v1/prescriptions", sent, ACTORS["prescriber A"])
        assert answer.status_code == 201, answer.text
        return answer.json()["resource"]["prescription"], answer.json()["position"]

    def bring_about_a_notice(self, position: str) -> str:
        """A notice to A that comes behind all that came of this position; its own position."""
        citizen = self.beside(position)
        prescription, _ = self.prescribe_for(citizen)
        sent = {"patient": {"national_id": citizen.digits}, "reason": "other"}
        path = f"/v1/prescriptions/{prescription}/recall"
        answer = self._chain.post("prescriber", path, sent, ACTORS["prescriber B"])
        assert answer.status_code == 201, answer.text
        return str(answer.json()["position"])


SIGNED: Final[Mapping[str, Any]] = {
    "id": "NEIGHBOUR",
    "steps": [{"n": 1, "actor": "prescriber A", "action": "issue", "object": "R1", "expect": ["applied"]}],
}
