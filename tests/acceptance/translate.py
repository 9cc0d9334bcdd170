"""Makes events of the acceptance scenarios: who does what, with every id, time and quantity filled in.

A `Play` yields a scenario's steps one after the other. It is lazy, because a reconciliation needs the version that an
earlier read of the same play saw: whoever runs it tells it by `Play.saw`.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

import msgspec
import yaml

from schemas import events as ev
from services.admission.read_token import ReadToken
from services.topics.registry import Parties
from tests.acceptance.not_built import NOT_BUILT, NotBuiltError
from tests.acceptance.terms import TIMES, Terms
from tests.acceptance.values import (
    D0,
    MINUTE_MS,
    NO_VALUE,
    OSLO,
    NotUnderstoodError,
    amount,
    calendar_day,
    code_of,
    dosing_period,
    instant,
    medication,
    quantity,
    year_later,
    years_and_days_of_policy,
)
from tests.organisations import organisation_number

SCENARIOS: Final = Path(__file__).with_name("scenarios.yaml")
MORE_SCENARIOS: Final = Path(__file__).with_name("more_scenarios.yaml")
MORE_WORDS: Final = Path(__file__).with_name("more_words.yaml")
AnyEvent = ev.Event[ev.Body]

ACTORS: Final[Mapping[str, ev.Source]] = {
    "prescriber A": ev.Source(system="ehr-a", organisation=organisation_number(1), role="doctor", person="9144889"),
    "prescriber B": ev.Source(system="ehr-b", organisation=organisation_number(2), role="doctor", person="9144900"),
    "clinician C": ev.Source(system="ehr-c", organisation=organisation_number(3), role="doctor", person="9144927"),
    "prescriber A2": ev.Source(system="ehr-a", organisation=organisation_number(1), role="doctor", person="9144943"),
    "nurse N": ev.Source(system="ehr-a", organisation=organisation_number(1), role="nurse", person="9144935"),
    "prescriber system": ev.Source(system="ehr-a", organisation=organisation_number(1), role="system"),
    "citizen": ev.Source(system="portal", organisation=organisation_number(4), role="citizen"),
    "proxy": ev.Source(system="portal", organisation=organisation_number(4), role="proxy"),
    "operator": ev.Source(system="desk", organisation=organisation_number(5), role="operator"),
    "pharmacy P": ev.Source(system="till-p", organisation=organisation_number(6), role="pharmacist", person="7654321"),
    "pharmacy Q": ev.Source(system="till-q", organisation=organisation_number(7), role="pharmacist", person="7654333"),
}
ORGANISATIONS: Final[Mapping[str, str]] = {
    "OA": ACTORS["prescriber A"].organisation,
    "OB": ACTORS["prescriber B"].organisation,
    "OC": ACTORS["clinician C"].organisation,
    "portal": ACTORS["citizen"].organisation,
    "P": ACTORS["pharmacy P"].organisation,
    "Q": ACTORS["pharmacy Q"].organisation,
}
PARTIES: Final = Parties(
    systems=tuple(dict.fromkeys(source.system for source in ACTORS.values())),
    pharmacies=(ORGANISATIONS["P"], ORGANISATIONS["Q"]),
    organisations=tuple(source.organisation for source in ACTORS.values()),
)
"""Whom the platform must know: those have topics."""
CHANGES_NOTHING: Final = frozenset({"read_list", "search_open_prescriptions", "receives"})
AT_THE_DOOR: Final = re.compile(
    r"(turned away|rejected)\b|((the )?answer(s|ed)?|status|HTTP)?( is| with)? ?4(00|04|13|15|22|xx)\b(?! of| \w+s\b)"
)
"""How a sentence begins that says so: no refusal by the fold, which is "refused"."""
AS_AN_ID: Final = re.compile(r"[A-Z]\d+")


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `events` are appended in order; a read has none, and `at_ms` is then the reader's clock.

    action, target: as in the file. token: the name that a read's version goes by. door: turned away before the log.
    unreadable: a record of the patient that cannot be decoded takes the place of an event. raw: bytes that somebody sends.
    """

    n: int
    actor: str
    action: str
    patient: str
    at_ms: int
    expect: tuple[str, ...]
    target: str = ""
    events: tuple[AnyEvent, ...] = ()
    token: str | None = None
    door: bool = False
    unreadable: bool = False
    raw: "Raw | None" = None
    every: bool = False
    """Of a search: also what cannot be dispensed."""
    reference_number: str | None = None
    """Of a search by it alone."""
    as_of_ms: int | None = None
    """Of a read: the list as it was known then."""
    national_id: str | None = None
    """In the place of the patient's own."""
    without: Mapping[str, str] = field(default_factory=dict)
    """Prescriptions that are sent without a field that they must have."""
    by_policy: frozenset[str] = frozenset()
    """Ids of prescriptions that are sent without an end: the platform has the policy."""

    def actor_is(self, source: ev.Source) -> bool:
        """Whether somebody of that organisation took the step."""
        return any(event.source.organisation == source.organisation for event in self.events)


@dataclass(frozen=True, slots=True)
class Raw:
    """What is sent that need be no message: over HTTP, or to the system's own topic of submissions."""

    content: bytes
    media_type: str = "application/json"
    to_topic: bool = False


@cache
def scenarios() -> dict[str, dict[str, Any]]:
    """Every scenario by its id."""
    return _by_id(yaml.safe_load(SCENARIOS.read_text(encoding="utf-8")))


@cache
def more_words() -> dict[str, dict[str, Any]]:
    """Scenarios of our own in the words of those, one or more for each word that none of them uses."""
    return _by_id(yaml.safe_load(MORE_WORDS.read_text(encoding="utf-8")))


@cache
def more_scenarios() -> dict[str, dict[str, Any]]:
    """Every scenario of our own by its id; their steps are numbered as they come."""
    return _by_id(yaml.safe_load(MORE_SCENARIOS.read_text(encoding="utf-8")))


def _by_id(loaded: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    for scenario in loaded["scenarios"]:
        for n, step in enumerate(scenario["steps"], start=1):
            step.setdefault("n", n)
            step["expect"] = sentences(step.get("expect"))
        scenario["then"] = sentences(scenario.get("then"))
    named = {str(scenario["id"]): scenario for scenario in loaded["scenarios"]}
    assert len(named) == len(loaded["scenarios"]), "of two scenarios under one id the first would never be played"
    return named


def sentences(said: Any) -> list[str]:
    """Of one or several; one with a colon in it is a mapping to YAML."""
    if said is None:
        return []
    if isinstance(said, Mapping):
        return [f"{name}: {value}" for name, value in said.items()]
    return [text for each in said for text in sentences(each)] if isinstance(said, list) else [str(said)]


def actor_of(said: str) -> ev.Source:
    """Who that is; "doctor A" and "P" are as good as the header's names."""
    if said in ACTORS:
        return ACTORS[said]
    letter = re.search(r"\b([ABCNPQ])\b", said)
    found = next((name for name in ACTORS if letter and name.endswith(f" {letter[1]}")), None)
    if found is None:
        raise NotUnderstoodError(f"nobody is called {said!r}")
    return ACTORS[found]


def organisation_of(said: object) -> str:
    """The number of an organisation that is called OA, A, prescriber A, or P."""
    name = str(said).strip()
    return ORGANISATIONS.get(name) or ORGANISATIONS.get(f"O{name}") or actor_of(name).organisation


@dataclass(slots=True)
class Play:
    """One run of one scenario. `run` sets its ids apart from other runs; `pseudonyms` names the patient keys to use."""

    scenario: Mapping[str, Any]
    run: str = "play"
    pseudonyms: Mapping[str, str] = field(default_factory=dict)
    now_ms: int = instant("d0") - MINUTE_MS
    sent: dict[str, AnyEvent] = field(default_factory=dict)
    """The last event about each natural id, by its name in the scenario."""
    taken: list[Step] = field(default_factory=list)
    tokens: dict[str, tuple[int, int]] = field(default_factory=dict)
    claims: dict[tuple[str, str], str] = field(default_factory=dict)
    ended: dict[tuple[str, str], str] = field(default_factory=dict)
    """The last claim of each pharmacy on each prescription that is over, or never came to be one."""
    handed: dict[str, dict[str, Decimal]] = field(default_factory=dict)
    """Of each prescription, the standing hand-outs and what each gave."""
    patients: dict[str, str] = field(default_factory=dict)
    made: int = 0

    def __iter__(self) -> Iterator[Step]:
        """The steps in order; each is made when it is asked for."""
        for step in self.scenario["steps"]:
            where = f"{self.scenario['id']}, step {step['n']}"
            said = f"{step.get('actor')} {step.get('action')} {step.get('object', '')}".strip()
            try:
                self.taken.append(self._step(step))
            except NotUnderstoodError as error:
                raise NotUnderstoodError(f"{where}, {said}: {error}") from None
            except NO_VALUE as error:
                raise NotUnderstoodError(
                    f"{where}, {said}: nobody understands {step.get('with')} ({error!r})"
                ) from error
            yield self.taken[-1]

    def saw(self, token: str, version: int, at_ms: int, *, is_whole: bool) -> None:
        """Tell what a read with that token name saw, before the next step is asked for."""
        self.tokens[token] = (ReadToken(version, at_ms, is_whole).confirmed_version, at_ms)

    def id_of(self, name: str) -> str:
        """The id that stands for a name of this scenario."""
        return str(uuid5(NAMESPACE_URL, f"medchain:{self.run}:{self.scenario['id']}:{name}"))

    def treatment_of(self, prescription: str) -> str:
        """The treatment id of a prescription's name."""
        issued = self.sent[prescription].body
        assert isinstance(issued, ev.PrescriptionIssued)
        return issued.treatment

    def treatment_named(self, name: str) -> str:
        """The id of T1, or of the treatment that R1 is in."""
        if name.startswith("R"):
            return self.treatment_of(name) if name in self.sent else self.id_of(f"T{name[1:]}")
        return self.id_of(name)

    def pseudonym(self, patient: str) -> str:
        """The key of a patient of this play."""
        made = uuid5(NAMESPACE_URL, f"medchain:{self.run}:{self.scenario['id']}:patient {patient}").hex
        return self.pseudonyms.get(patient, made)

    # --- One step -----------------------------------------------------------------------------------------------------

    def _step(self, step: Mapping[str, Any]) -> Step:
        action, target = str(step["action"]), str(step.get("object", ""))
        if action in NOT_BUILT:
            raise NotBuiltError(NOT_BUILT[action])
        said = step.get("with") or {}
        fields = Terms({"steps": said} if isinstance(said, list) else said)
        made = self._made(step, action, target, fields)
        if fields.unread:
            raise NotUnderstoodError(f"nobody reads the field {', '.join(map(repr, fields.unread))}")
        return made

    def _made(self, step: Mapping[str, Any], action: str, target: str, fields: Terms) -> Step:
        patient = self._patient_of(target, fields)
        expect = tuple(step["expect"])
        door = any(AT_THE_DOOR.match(text) for text in expect)
        received_ms, occurred_ms = self._times(fields, door=door)
        plain = Step(step["n"], str(step["actor"]), action, patient, received_ms, expect, target, door=door)
        if action in CHANGES_NOTHING:
            return _reading(plain, fields)
        if action == "submit":
            return _submission(plain, fields)
        envelope = Envelope(self, actor_of(plain.actor), patient, occurred_ms, received_ms, expect)
        events = tuple(self._events(action, envelope, target, fields))
        without = dict(re.findall(r"(R\d+) without (\w+)", target))
        national_id = str(fields["national_id"]) if "national_id" in fields else None
        by_policy = frozenset(_by_policy(events, fields))
        return replace(plain, events=events, without=without, national_id=national_id, by_policy=by_policy)

    def _events(self, action: str, envelope: "Envelope", target: str, fields: Terms) -> Iterator[AnyEvent]:
        if action not in MAKERS:
            raise NotUnderstoodError(f"nobody knows the action {action!r}")
        return MAKERS[action](self, envelope, target, fields)

    def _times(self, fields: Terms, *, door: bool) -> tuple[int, int]:
        """When the step is received, and when it happened; the clock of the play goes on from there.

        What is turned away for its time says when it happened, and is received as any other step.
        """
        said = [fields[key] for key in TIMES if key in fields and not (door and key == "occurred_at")]
        received_ms = instant(said[0], self.now_ms) if said else self.now_ms + MINUTE_MS
        occurred_ms = instant(fields["occurred_at"], self.now_ms) if "occurred_at" in fields else received_ms
        self.now_ms = received_ms
        return received_ms, occurred_ms

    def _patient_of(self, target: str, fields: Terms) -> str:
        """X, unless the scenario says which of two; an object keeps its patient."""
        said = re.search(r"\bpatient ([XYZ])\b|^([XYZ])$", target)
        names = re.findall(r"\b[A-Z]\d+\b", target)
        known = (self.patients[name] for name in names if name in self.patients)
        patient = (
            said[1] or said[2] if said else str(fields["patient"])[-1] if "patient" in fields else next(known, "X")
        )
        self.patients |= dict.fromkeys((name for name in names if name not in self.patients or said), patient)
        self.patients.setdefault("", patient)
        return patient

    def new_event_id(self) -> str:
        """An event id that no other event of this play has."""
        self.made += 1
        return self.id_of(f"event {self.made}")


def _reading(plain: Step, fields: Terms) -> Step:
    named = re.search(r"\bv\d+\b", " ".join([*plain.expect, str(fields.get("read_token", ""))]))
    at_ms = instant(fields["clock"]) if "clock" in fields else plain.at_ms
    as_of_ms = instant(fields["as_of"]) if "as_of" in fields else None
    every = bool(fields.get("all", "all" in plain.target.split()))
    number = str(fields["reference_number"]) if "reference_number" in fields else None
    token = named[0] if named else None
    return replace(plain, token=token, at_ms=at_ms, as_of_ms=as_of_ms, every=every, reference_number=number)


def _submission(plain: Step, fields: Terms) -> Step:
    """Bytes that no contract knows: of a patient's key in the log, or, to be turned away, before a service."""
    if "parked" in plain.expect:
        return replace(plain, unreadable=True)
    text = " ".join([plain.target, *map(str, fields.values())]).lower()
    content = str(fields.get("content", fields.get("bytes", fields.get("body", "{ no message"))))
    if "too large" in text or "larger than" in text or "413" in " ".join(plain.expect):
        content = f'{{"note": "{"x" * 2_000_000}"}}'
    if "empty" in text:
        content = ""
    other_type = "not json" in text and "415" in " ".join(plain.expect)
    media_type = str(fields.get("content_type", "text/plain" if other_type else "application/json"))
    raw = Raw(content.encode(), media_type, to_topic="topic" in text or "kafka" in text or "submission" in text)
    return replace(plain, raw=raw, door=True)


def _by_policy(events: Sequence[AnyEvent], fields: Terms) -> Iterator[str]:
    """Prescriptions of a named kind of medicine whose end the scenario leaves to the policy."""
    is_named = bool({"atc", "kind"} & set(fields)) and "valid_until" not in fields
    for event in events:
        if isinstance(event.body, ev.PrescriptionIssued) and is_named:
            yield event.body.prescription


@dataclass(frozen=True, slots=True)
class Envelope:
    """What surrounds the bodies of one step. expect: what the scenario says will come of it."""

    play: Play
    source: ev.Source
    patient: str
    occurred_ms: int
    received_ms: int
    expect: tuple[str, ...] = ()

    def expects(self, word: str) -> bool:
        """Whether the step is to come to that."""
        return any(word in text for text in self.expect)

    def around(self, body: ev.Body, *names: str) -> AnyEvent:
        """The body as an event, remembered under its names."""
        made: AnyEvent = ev.Event(
            event_id=self.play.new_event_id(),
            patient=self.play.pseudonym(self.patient),
            occurred_at_ms=self.occurred_ms,
            received_at_ms=self.received_ms,
            source=self.source,
            body=body,
        )
        self.play.sent |= dict.fromkeys(names, made)
        return made


Maker = Callable[[Play, Envelope, str, Terms], Iterator[AnyEvent]]


def _named(target: str, letter: str) -> list[str]:
    """Every object of this letter that a step is about: "R1, R2", "R1 (patient Y)", "claim C1 on R1"."""
    return list(dict.fromkeys(re.findall(rf"\b{letter}\d+\b", target)))


def _one(target: str, letters: str) -> str:
    """The first object of one of these letters."""
    found = re.search(rf"\b[{letters}]\d+\b", target)
    if found is None:
        raise NotUnderstoodError(f"{target!r} names none of {', '.join(letters)}")
    return found[0]


# --- Prescriptions ----------------------------------------------------------------------------------------------------


def _dosing(fields: Terms, unit: str = "tablet") -> ev.Dosing:
    start, end = (calendar_day(fields[name]) if name in fields else None for name in ("start", "end"))
    said = fields.get("dosing")
    if isinstance(said, list):
        parts = [Terms(each) for each in said]
        periods = tuple(period for part in parts for period in _dosing(part, unit).periods)
    else:
        periods = dosing_period(said, start, end, unit)
    return ev.Dosing(periods=periods, per_scheme=not periods, text=fields.get("dosing_text"))


MEDICATION: Final = medication({})


def _issue(play: Play, envelope: Envelope, target: str, fields: Terms) -> Iterator[AnyEvent]:
    renewed = re.search(r"renews (R\d+)", f"{target} renews {fields.get('renews', '')}")
    for rx in _named(target.split("renews", maxsplit=1)[0], "R"):
        own = fields.of(rx)
        yield envelope.around(_prescription(play, envelope, rx, target, own, renewed[1] if renewed else None), rx)


def _treatment_id(play: Play, rx: str, target: str, fields: Terms, renewed: str | None) -> str:
    named = re.search(r"in (?:treatment )?(T\d+)", f"{target} in {fields.get('treatment', '')}")
    if named:
        return play.id_of(named[1])
    if renewed and renewed in play.sent:
        return play.treatment_of(renewed)
    # Its own is T1 to the steps that come, unless that is another one already.
    own = play.id_of(f"T{rx[1:]}")
    is_taken = any(getattr(event.body, "treatment", None) == own for event in play.sent.values())
    return play.id_of(f"treatment of {rx}") if is_taken else own


KEPT: Final = (
    "reference_number",
    "in_doctors_name",
    "from_hospital",
    "substitution_reason",
    "indication_text",
    "indication_code",
    "route",
    "renal_note",
    "note",
    "prescriber_name",
    "locked",
    "multidose",
)
"""Fields of a prescription that are sent as the scenario has them."""


def _prescription(
    play: Play, envelope: Envelope, rx: str, target: str, fields: Terms, renewed: str | None
) -> ev.PrescriptionIssued:
    issued_ms = instant(fields["issued_at"], play.now_ms) if "issued_at" in fields else envelope.occurred_ms
    earliest, series = (fields.get(name) for name in ("earliest_dispense", "series_id"))
    asked, content = amount(fields.get("quantity", "100 tablets"))
    medicine = medication(fields, asked.unit, content)
    unit = (content.unit if content else "tablet") if asked.unit == "package" else asked.unit
    return ev.PrescriptionIssued(
        prescription=play.id_of(rx),
        treatment=_treatment_id(play, rx, target, fields, renewed),
        issued_at_ms=issued_ms,
        valid_until=_valid_until(fields, medicine.atc, issued_ms),
        medication=medicine,
        quantity=asked,
        refills=_refills(fields, envelope),
        dosing=_dosing(fields, unit),
        use=code_of("use", fields.get("use", "regular")),
        item_group=code_of("item_group", fields.get("item_group", "medicine")),
        group=str(fields.get("group", "C")),
        earliest_dispense=calendar_day(earliest) if earliest else None,
        renews=play.id_of(renewed) if renewed else None,
        series_id=play.id_of(str(series)) if series else None,
        reimbursement=_reimbursement(fields.get("reimbursement")),
        weight=_weight(fields.get("weight"), issued_ms),
        substitution_reserved=_is_reserved(fields) or False,
        **{name: fields[name] for name in KEPT if name in fields},
    )


def _valid_until(fields: Terms, atc: str | None, issued_ms: int) -> Any:
    """As said; else a year, or what holds for a kind of medicine that the scenario names."""
    if fields.get("valid_until"):
        return calendar_day(fields["valid_until"])
    issued_on = datetime.fromtimestamp(issued_ms / 1000, UTC).astimezone(OSLO).date()
    years, days = years_and_days_of_policy(atc) if "atc" in fields or "kind" in fields else (1, 0)
    return year_later(issued_on, years) if years else issued_on + timedelta(days=days)


def _refills(fields: Terms, envelope: Envelope) -> int:
    """Three unless said. Of group A or B none, which the default would have turned away, unless that is what is expected."""
    is_bound = str(fields.get("group", "C")) in "AB" and not fields.get("reimbursement")
    is_turned_away = any(AT_THE_DOOR.match(text) for text in envelope.expect)
    return int(fields.get("refills", 0 if is_bound and not is_turned_away else 3))


def _reimbursement(said: Any) -> ev.Reimbursement | None:
    if said in (None, False):
        return None
    named = said if isinstance(said, Mapping) else {"basis": said}
    code = named.get("code")
    basis = code_of("reimbursement_basis", named.get("basis", "200"))
    return ev.Reimbursement(basis=basis, code=None if code is None else str(code))


def _weight(said: Any, issued_ms: int) -> ev.Weight | None:
    if said is None:
        return None
    named = Terms(said) if isinstance(said, Mapping) else Terms({"kg": str(said).removesuffix("kg").strip()})
    issued_on = datetime.fromtimestamp(issued_ms / 1000, UTC).astimezone(OSLO).date()
    return ev.Weight(kg=Decimal(str(named["kg"])), on=calendar_day(named["on"]) if "on" in named else issued_on)


def _is_reserved(fields: Terms) -> bool | None:
    """Whether the prescriber reserves against substitution; None where nothing is said of it."""
    if "substitution_reserved" in fields:
        return bool(fields["substitution_reserved"])
    if "substitution" not in fields:
        return None
    said = fields["substitution"]
    return not said if isinstance(said, bool) else not str(said).lower().startswith(("allowed", "generic", "yes"))


def _recall(play: Play, envelope: Envelope, target: str, fields: Terms) -> Iterator[AnyEvent]:
    reason, name = code_of("recall_reason", fields.get("reason", "other")), fields.get("recall")
    for rx in _named(target, "R"):
        body = ev.PrescriptionRecalled(prescription=play.id_of(rx), reason=reason)
        yield envelope.around(body, *([str(name)] if name else []), f"recall of {rx}")


def _dispatch(play: Play, envelope: Envelope, target: str, fields: Terms) -> Iterator[AnyEvent]:
    said = target.rsplit(" to ", maxsplit=1)[-1] if " to " in target else fields.get("pharmacy", fields.get("to", "P"))
    for rx in _named(target.split(" to ", maxsplit=1)[0], "R"):
        name = str(fields.get("dispatch", f"dispatch of {rx} to {said}"))
        body = ev.DispatchRequested(
            dispatch=play.id_of(name),
            prescription=play.id_of(rx),
            pharmacy=organisation_of(str(said).split(" (", maxsplit=1)[0]),
            every=bool(fields.get("every", False)),
            delivery=code_of("delivery", fields.get("delivery", "pick_up")),
        )
        yield envelope.around(body, name, f"{rx} to {said}", f"dispatch of {rx}")


def _withdraw_dispatch(play: Play, envelope: Envelope, target: str, fields: Terms) -> Iterator[AnyEvent]:
    reason = str(fields.get("reason", "will fetch it elsewhere"))
    for rx in _named(target, "R"):
        yield envelope.around(ev.DispatchWithdrawn(prescription=play.id_of(rx), reason=reason))


def _ask_renewal(play: Play, envelope: Envelope, target: str, fields: Terms) -> Iterator[AnyEvent]:
    """Of whom the prescription is, unless said."""
    for rx in _named(target, "R"):
        name = str(fields.get("request", f"request for {rx}"))
        issuer = play.sent[rx].source.organisation if rx in play.sent else ORGANISATIONS["OA"]
        body = ev.RenewalRequested(
            request=play.id_of(name),
            prescription=play.id_of(rx),
            to=organisation_of(fields["to"]) if "to" in fields else issuer,
            message=fields.get("message"),
        )
        yield envelope.around(body, name, f"request for {rx}")


def _decline_renewal(play: Play, envelope: Envelope, target: str, fields: Terms) -> Iterator[AnyEvent]:
    name = str(fields.get("request", target))
    name = f"request for {name}" if re.fullmatch(r"R\d+", name) else name
    reason = str(fields.get("reason", "needs a consultation"))
    yield envelope.around(ev.RenewalDeclined(request=play.id_of(name), reason=reason))


# --- At the pharmacy --------------------------------------------------------------------------------------------------


def _claim(play: Play, envelope: Envelope, target: str, fields: Terms) -> Iterator[AnyEvent]:
    given = str(fields.get("claim", " ".join(_named(target, "C"))))
    names = iter(AS_AN_ID.findall(given))
    for rx in _named(target, "R"):
        name = next(names, f"claim {play.new_event_id()}")
        is_refused = rf"({rx}:? |{name}:? )?(is )?(refused|turned away|rejected|duplicate)"
        stands = not any(re.match(is_refused, text) for text in envelope.expect)
        (play.claims if stands else play.ended)[envelope.source.organisation, rx] = play.id_of(name)
        yield envelope.around(ev.ClaimRequested(claim=play.id_of(name), prescription=play.id_of(rx)), name)


def _abort(play: Play, envelope: Envelope, target: str, fields: Terms) -> Iterator[AnyEvent]:
    reason = str(fields.get("reason", "customer left"))
    for claim in _claims_meant(play, envelope, target, fields):
        yield envelope.around(ev.ClaimAborted(claim=claim, reason=reason), f"abort of {target}")


def _release(play: Play, envelope: Envelope, target: str, fields: Terms) -> Iterator[AnyEvent]:
    reason = str(fields.get("reason", "the pharmacy cannot give it back"))
    for claim in _claims_meant(play, envelope, target, fields):
        yield envelope.around(ev.ClaimReleased(claim=claim, reason=reason), f"release of {target}")


def _claims_meant(play: Play, envelope: Envelope, target: str, fields: Terms) -> Iterator[str]:
    """C1 as named; of R1 the sender's own claim, else that of another, else one that is over or never was."""
    names = AS_AN_ID.findall(str(fields["claim"])) if "claim" in fields else _named(target, "C")
    own = envelope.source.organisation
    for name in names:
        play.claims = {
            place: claim for place, claim in play.claims.items() if (place[0], claim) != (own, play.id_of(name))
        }
    yield from map(play.id_of, names)
    for rx in [] if names else _named(target, "R"):
        mine, over = play.claims.pop((own, rx), None), play.ended.get((own, rx))
        if mine is not None:
            play.ended[own, rx] = mine
        others = [claim for (_, of), claim in [*play.claims.items(), *play.ended.items()] if of == rx]
        over = over if envelope.expects("no_claim") else None
        yield mine or over or next(iter(others), None) or play.id_of(f"no claim of {rx}")


def _dispense(play: Play, envelope: Envelope, target: str, fields: Terms) -> Iterator[AnyEvent]:
    names = AS_AN_ID.findall(str(fields.get("dispense", " ".join(_named(target, "D")))))
    for number, rx in enumerate(_named(target, "R")):
        # One that the scenario has no name for gets one that it does not use.
        unused = (f"D{n}" for n in range(90, 1000) if f"D{n}" not in play.sent)
        name = names[number] if number < len(names) else next(unused)
        play.patients[name] = envelope.patient
        yield envelope.around(_hand_out(play, envelope, rx, name, fields), name)


def _hand_out(play: Play, envelope: Envelope, rx: str, name: str, fields: Terms) -> ev.MedicationDispensed:
    issued = play.sent[rx].body if rx in play.sent else None
    prescribed = issued if isinstance(issued, ev.PrescriptionIssued) else None
    full = prescribed.quantity if prescribed else quantity("100 tablets")
    lines = _lines(fields, full)
    standing = play.handed.setdefault(rx, {})
    before = sum(standing.values(), Decimal(0))
    standing[name] = sum((_counted(line, full, prescribed) for line in lines), Decimal(0))
    whole = full.value or Decimal(1)
    fills = (before + standing[name]) // whole > before // whole
    claimed = play.claims.pop((envelope.source.organisation, rx), None)
    if claimed is not None:
        play.ended[envelope.source.organisation, rx] = claimed
    number, reserved_by = fields.get("dispense_number"), fields.get("reserved_by")
    return ev.MedicationDispensed(
        dispense=play.id_of(name),
        prescription=play.id_of(rx),
        lines=lines,
        period_completed=bool(fields.get("period_completed", fills)),
        completed=bool(fields.get("completed", False)),
        claim=play.id_of(str(fields["claim"])) if "claim" in fields else claimed,
        dispense_number=number,
        reserved_by=code_of("reserved_by", reserved_by) if reserved_by else None,
        offline=bool(fields.get("offline", False)),
        interventions=_interventions(fields.get("interventions", fields.get("intervention"))),
        price=_price(fields.get("price")),
    )


def _lines(fields: Terms, full: ev.Quantity) -> tuple[ev.DispensedLine, ...]:
    if "lines" in fields:
        return tuple(line for each in fields["lines"] for line in _lines(_line_terms(each), full))
    given, content = amount(fields["quantity"]) if "quantity" in fields else (full, None)
    item_number = fields.get("item_number", fields.get("package"))
    return (
        ev.DispensedLine(
            quantity=given,
            content=quantity(fields["content"]) if "content" in fields else content,
            strength=fields.get("strength"),
            item_number=None if item_number is None else str(item_number),
            name=fields.get("medication"),
            substituted=bool(fields.get("substituted", False)),
            batch=None if "batch" not in fields else str(fields["batch"]),
        ),
    )


def _line_terms(said: Any) -> Terms:
    return Terms(said if isinstance(said, Mapping) else {"quantity": said})


def _counted(line: ev.DispensedLine, full: ev.Quantity, issued: ev.PrescriptionIssued | None) -> Decimal:
    """How much of the prescribed unit a line gives: packages by what they hold, nothing where that is not known."""
    if line.quantity.unit == full.unit:
        return line.quantity.value
    product = issued.medication.product if issued else None
    holds = line.content or (product.content if isinstance(product, ev.Package) else None)
    if holds is None:
        return Decimal(0)
    if line.quantity.unit == "package" and holds.unit == full.unit:
        return line.quantity.value * holds.value
    return (
        line.quantity.value / holds.value if (holds.unit, full.unit) == (line.quantity.unit, "package") else Decimal(0)
    )


def _interventions(said: Any) -> tuple[ev.InterventionMade, ...]:
    each = said if isinstance(said, list) else [] if said is None else [said]
    return tuple(ev.InterventionMade(code=code_of("intervention", one)) for one in each)


def _price(said: Any) -> ev.Price | None:
    return None if said is None else ev.Price(total_nok=Decimal(str(said).split(" ", maxsplit=1)[0]))


def _reverse(play: Play, envelope: Envelope, target: str, fields: Terms) -> Iterator[AnyEvent]:
    said = fields.get("returned", fields.get("quantity"))
    returned = quantity(said) if said is not None else None
    for dispense in _named(target, "D"):
        name = str(fields.get("reversal", f"reversal of {dispense} by {envelope.source.organisation}"))
        body = ev.DispenseReversed(
            reversal=play.id_of(name),
            dispense=play.id_of(dispense),
            reason=str(fields.get("reason", "returned" if returned else "reported by mistake")),
            quantity=returned,
        )
        if returned is None and not envelope.expects("refused"):
            for standing in play.handed.values():
                standing.pop(dispense, None)
        yield envelope.around(body, name, f"reversal of {dispense}")


# --- Treatments and the whole list ------------------------------------------------------------------------------------


def _treatments(play: Play, target: str) -> Iterator[tuple[str, str]]:
    """Name and id of each treatment that a step is about; R1 stands for the one that it is in."""
    names = _named(target, "T") or _named(target, "R")
    if not names:
        raise NotUnderstoodError(f"{target!r} names no treatment")
    return ((name, play.treatment_named(name)) for name in names)


def _discontinue(play: Play, envelope: Envelope, target: str, fields: Terms) -> Iterator[AnyEvent]:
    reason = code_of("discontinuation_reason", fields.get("reason", "treatment_finished"))
    stopped_ms = instant(fields["stops"]) if "stops" in fields else envelope.occurred_ms
    for name, treatment in _treatments(play, target):
        body = ev.TreatmentDiscontinued(treatment=treatment, at_ms=stopped_ms, reason=reason, note=fields.get("note"))
        yield envelope.around(body, f"stop of {name}")


def _record(play: Play, envelope: Envelope, target: str, fields: Terms) -> Iterator[AnyEvent]:
    named = _named(target, "T") or [_one(target, "T")]
    kind = code_of("recorded_kind", fields.get("kind", target.replace(named[0], "").strip(" ,()") or "otc"))
    kept = {
        name: str(fields[name]) for name in ("paper_prescription", "indication_text", "informant") if name in fields
    }
    product = Terms({name: value for name, value in fields.items() if name != "kind"})
    for name in named:
        body = ev.TreatmentRecorded(
            treatment=play.id_of(name),
            kind=kind,
            medication=medication(product),
            dosing=_dosing(fields),
            use=code_of("use", fields.get("use", "regular")),
            **kept,
        )
        yield envelope.around(body, name, f"record of {name}")


def _pause(play: Play, envelope: Envelope, target: str, fields: Terms) -> Iterator[AnyEvent]:
    """From the day of the step unless said, and open."""
    until = fields.get("until", fields.get("end"))
    start = calendar_day(fields.get("start", datetime.fromtimestamp(envelope.occurred_ms / 1000, UTC)))
    reason = str(fields.get("reason", "side effects"))
    for name, treatment in _treatments(play, target):
        body = ev.TreatmentPaused(
            treatment=treatment, start=start, until=calendar_day(until) if until else None, reason=reason
        )
        yield envelope.around(body, f"pause of {name}")


def _resume(play: Play, envelope: Envelope, target: str, fields: Terms) -> Iterator[AnyEvent]:
    reason = str(fields.get("reason", "well again"))
    for name, treatment in _treatments(play, target):
        yield envelope.around(ev.TreatmentResumed(treatment=treatment, reason=reason), f"resume of {name}")


def _reinstate(play: Play, envelope: Envelope, target: str, fields: Terms) -> Iterator[AnyEvent]:
    reason = str(fields.get("reason", "stopped by mistake"))
    for name, treatment in _treatments(play, target):
        yield envelope.around(ev.TreatmentReinstated(treatment=treatment, reason=reason), f"reinstate of {name}")


def _use(play: Play, envelope: Envelope, target: str, fields: Terms) -> Iterator[AnyEvent]:
    """By whose word: by that of whoever sends it, unless said."""
    senders = {"citizen": "patient", "proxy": "relative", "pharmacist": "pharmacy"}
    by = code_of("reported_by", fields.get("by", senders.get(envelope.source.role, "clinician")))
    use = code_of("reported_use", fields.get("use", "as_stated"))
    for name, treatment in _treatments(play, target):
        body = ev.UseReported(treatment=treatment, use=use, by=by, note=fields.get("note"))
        yield envelope.around(body, f"use of {name}")


def _withdraw(play: Play, envelope: Envelope, target: str, fields: Terms) -> Iterator[AnyEvent]:
    reason = str(fields.get("reason", "registered by mistake"))
    for name, treatment in _treatments(play, target):
        yield envelope.around(ev.TreatmentWithdrawn(treatment=treatment, reason=reason), f"withdrawal of {name}")


def _change(play: Play, envelope: Envelope, target: str, fields: Terms) -> Iterator[AnyEvent]:
    """Of the dosing, unless something else is said."""
    kept = {"indication_text": str(fields["indication_text"])} if "indication_text" in fields else {}
    reserved, administration = _is_reserved(fields), fields.get("administration")
    others = bool(kept) or reserved is not None or administration is not None
    dosing = _dosing(fields) if {"dosing", "dosing_text", "start", "end"} & set(fields) or not others else None
    for name, treatment in _treatments(play, target):
        body = ev.TreatmentChanged(
            treatment=treatment,
            reason=str(fields.get("reason", "works better")),
            dosing=dosing,
            substitution_reserved=reserved,
            administration=code_of("administration", administration) if administration else None,
            **kept,
        )
        yield envelope.around(body, f"change of {name}")


def _reconcile(play: Play, envelope: Envelope, target: str, fields: Terms) -> Iterator[AnyEvent]:
    """With the token of the last read, unless said."""
    named = re.search(r"\bv\d+\b", f"{fields.get('read_token', '')} {target}")
    token = named[0] if named else next(reversed(play.tokens), "")
    if token not in play.tokens:
        raise NotUnderstoodError(f"no read was given the token {token!r}")
    version, at_ms = play.tokens[token]
    yield envelope.around(ev.ListReconciled(read_token=token, version=version, read_at_ms=at_ms), "reconcile")


def _multidose(_play: Play, envelope: Envelope, target: str, fields: Terms) -> Iterator[AnyEvent]:
    """Of whoever sends it, from d0, for a fortnight each, unless said."""
    said = fields.get("doctor")
    doctor = envelope.source.person if said is None else actor_of(str(said)).person
    if doctor is None:
        raise NotUnderstoodError(f"multi-dose is assigned by a doctor, not by {said or envelope.source.role}")
    pharmacy = target.split(" to ")[1] if " to " in target else fields.get("pharmacy", fields.get("to", "P"))
    next_pack = fields.get("next_pack")
    body = ev.MultidoseAssigned(
        doctor=doctor,
        pharmacy=organisation_of(pharmacy),
        start=calendar_day(fields["start"]) if "start" in fields else D0,
        packing_days=int(str(fields.get("packing_days", 14)).split(" ", maxsplit=1)[0]),
        next_pack=calendar_day(next_pack) if next_pack else None,
    )
    yield envelope.around(body, "multidose_assign")


def _end_multidose(_play: Play, envelope: Envelope, _target: str, fields: Terms) -> Iterator[AnyEvent]:
    yield envelope.around(ev.MultidoseEnded(reason=str(fields.get("reason", "moved"))), "multidose_end")


def _death(_play: Play, envelope: Envelope, target: str, fields: Terms) -> Iterator[AnyEvent]:
    """On the day of the step unless said; or taken back."""
    if fields.get("retract") or "retract" in target:
        yield from _retract_death(_play, envelope, target, fields)
        return
    on = calendar_day(fields.get("on", datetime.fromtimestamp(envelope.occurred_ms / 1000, UTC)))
    yield envelope.around(ev.PatientDied(on=on), "death")


def _retract_death(_play: Play, envelope: Envelope, _target: str, fields: Terms) -> Iterator[AnyEvent]:
    yield envelope.around(ev.DeathRetracted(reason=str(fields.get("reason", "another person"))), "retraction")


ALLERGY: Final = ("reaction", "atc", "onset", "severity", "certainty", "source")


def _allergy(play: Play, envelope: Envelope, target: str, fields: Terms) -> Iterator[AnyEvent]:
    """To a substance; or none known, where object or field says so."""
    named, plain = _named(target, "A"), target.lower().replace("_", " ")
    name = str(fields.get("id", named[0] if named else f"allergy {play.new_event_id()}"))
    if fields.get("none_known") or "none known" in plain or "no known" in plain:
        yield envelope.around(ev.AllergyRecorded(allergy=play.id_of(name), none_known=True), name)
        return
    said = fields.get("substance", re.sub(r"\bA\d+\b|\bto\b|[():,]", " ", target).strip() or None)
    substance = None if said in (None, "patient") else str(said)
    coded = {each: fields[each] for each in ALLERGY if each in fields}
    for each, kind in (("severity", "severity"), ("certainty", "certainty"), ("source", "allergy_source")):
        if each in coded:
            coded[each] = code_of(kind, coded[each])
    if "onset" in coded:
        coded["onset"] = calendar_day(coded["onset"])
    if substance is None and "atc" not in coded:
        substance = "penicillin"
    yield envelope.around(ev.AllergyRecorded(allergy=play.id_of(name), substance=substance, **coded), name)


def _refute(play: Play, envelope: Envelope, target: str, fields: Terms) -> Iterator[AnyEvent]:
    name = str(fields.get("id", target if AS_AN_ID.fullmatch(target) else _one(target, "A")))
    reason = str(fields.get("reason", "tested negative"))
    yield envelope.around(ev.AllergyRefuted(allergy=play.id_of(name), reason=reason), f"refutation of {name}")


# --- Once more --------------------------------------------------------------------------------------------------------


def _redeliver(play: Play, envelope: Envelope, target: str, _fields: Terms) -> Iterator[AnyEvent]:
    """The same event once more, byte for byte."""
    yield from _meant(play, envelope, target)


def _meant(play: Play, envelope: Envelope, target: str) -> list[AnyEvent]:
    """What a step speaks of: C1, "recall of R1", "the recall", "step 3"; R1 at a pharmacy is what that did with R1."""
    name = target.removeprefix("the ").split(" (", maxsplit=1)[0].strip()
    numbered = re.fullmatch(r"(?:steps? )?(\d+)(?:(?:-| to )(\d+))?", name)
    if numbered is not None:
        last = int(numbered[2] or numbered[1])
        return [event for step in play.taken if int(numbered[1]) <= step.n <= last for event in step.events]
    known = play.sent.get(name)
    own = [step for step in play.taken if step.events and step.actor_is(envelope.source)]
    if known is not None and (known.source == envelope.source or not name.startswith("R")):
        return [known]
    acted = [step for step in own if step.action.startswith(name.split(" ", maxsplit=1)[0].rstrip("s"))]
    about = [step for step in own if set(AS_AN_ID.findall(name)) & set(AS_AN_ID.findall(step.target))]
    found = [step for step in acted if step in about] or acted or about
    if found:
        return list(found[-1].events)
    if known is None:
        raise NotUnderstoodError(f"no step before brought {target!r}")
    return [known]


def _redeliver_changed(play: Play, envelope: Envelope, target: str, fields: Terms) -> Iterator[AnyEvent]:
    """The natural id once more under a new event id, with other content: what the fields say, else another sender alone.

    Where neither differs and a conflict is expected, something else in it does.
    """
    name = target.split(" on ", maxsplit=1)[0].split(" in ", maxsplit=1)[0]
    known = play.sent.get(name) or _meant(play, envelope, name)[-1]
    other_rx, other_t = re.search(r" on (R\d+)", target), re.search(r" in (T\d+)", target)
    places = {"prescription": other_rx, "treatment": other_t}
    changes = {key: play.id_of(found[1]) for key, found in places.items() if found} | _changes(play, known.body, fields)
    is_same = not changes and known.source == envelope.source
    if is_same and envelope.expects("refused"):
        changes = _some_change(known.body)
    yield envelope.around(msgspec.structs.replace(known.body, **changes))


def _changes(play: Play, body: ev.Body, fields: Terms) -> dict[str, Any]:
    """The contract's values of what a scenario changes in a message."""
    found: dict[str, Any] = {}
    for name in sorted(set(fields) - {*TIMES, "patient", "national_id"}):
        if isinstance(body, ev.MedicationDispensed) and name in LINE_FIELDS:
            line = found.get("lines", body.lines)[0]
            value = quantity(fields[name]) if name == "quantity" else fields[name]
            found["lines"] = (msgspec.structs.replace(line, **{name: value}), *body.lines[1:])
            continue
        field = "quantity" if name == "returned" else "dosing" if name in ("start", "end", "dosing_text") else name
        if field not in body.__struct_fields__:
            raise NotUnderstoodError(f"{type(body).__name__} has no {name!r} to change")
        found[field] = _as_changed(play, body, field, fields)
    return found


LINE_FIELDS: Final = ("quantity", "strength", "substituted", "batch")
"""Of a hand-out's line."""


def _as_changed(play: Play, body: ev.Body, field: str, fields: Terms) -> Any:
    """The contract's value of one field."""
    if field == "dosing":
        return _dosing(fields)
    value = fields["returned"] if field == "quantity" and "returned" in fields else fields[field]
    if field in ("prescription", "treatment", "claim", "dispense"):
        return play.id_of(str(value))
    if field == "reason" and isinstance(body, ev.PrescriptionRecalled):
        return code_of("recall_reason", value)
    readers: Mapping[str, Callable[[Any], Any]] = {
        "quantity": quantity,
        **dict.fromkeys(("valid_until", "earliest_dispense", "until", "on"), calendar_day),
        **dict.fromkeys(("to", "pharmacy"), organisation_of),
    }
    return readers[field](value) if field in readers else value


def _some_change(body: ev.Body) -> dict[str, Any]:
    """Something that the scenario leaves open."""
    if isinstance(body, ev.MedicationDispensed):
        line = body.lines[0]
        more = msgspec.structs.replace(line.quantity, value=line.quantity.value + 1)
        return {"lines": (msgspec.structs.replace(line, quantity=more), *body.lines[1:])}
    if isinstance(body, ev.ClaimRequested):
        return {"prescription": str(uuid5(NAMESPACE_URL, body.prescription))}
    if isinstance(body, ev.DispatchRequested):
        return {"every": not body.every}
    others = {"note": "with meals", "reaction": "rash", "message": "soon", "reason": "another reason"}
    found = [(name, value) for name, value in others.items() if name in body.__struct_fields__]
    if not found:
        raise NotUnderstoodError(f"nothing in {type(body).__name__} can be another")
    return dict(found[:1])


def _repeat(play: Play, envelope: Envelope, target: str, fields: Terms) -> Iterator[AnyEvent]:
    """What was sent before, as often as said: the same content under new event ids; where that is to be applied, new ids too."""
    times = int(str(fields.get("times", fields.get("count", 1))).split(" ", maxsplit=1)[0])
    if "steps" in fields or target.split(" ", maxsplit=1)[0] in MAKERS:
        for _ in range(times):
            yield from _batch(play, envelope, target, fields)
        return
    meant = _meant(play, envelope, target or f"step {play.taken[-1].n}")
    for _ in range(times):
        for event in meant:
            play.new_event_id()
            yield envelope.around(_anew(play, event.body) if "applied" in envelope.expect else event.body)


OWN_IDS: Final[Mapping[type[ev.Body], str]] = {
    ev.ClaimRequested: "claim",
    ev.MedicationDispensed: "dispense",
    ev.DispenseReversed: "reversal",
    ev.DispatchRequested: "dispatch",
    ev.RenewalRequested: "request",
}


def _anew(play: Play, body: ev.Body) -> ev.Body:
    """With a natural id of its own, where it has one."""
    name = OWN_IDS.get(type(body))
    return body if name is None else msgspec.structs.replace(body, **{name: play.id_of(f"{name} {play.made} again")})


def _batch(play: Play, envelope: Envelope, target: str, fields: Terms) -> Iterator[AnyEvent]:
    """Several steps in one: as a list in `steps`, else as "claim R1, claim R2" or "issue R1, R2"."""
    plain = {"doctor": "issue", "pharmacist": "claim"}.get(envelope.source.role, "")
    spoken = f"{plain} {target}" if re.match(r"R\d", target) else target
    said = fields.get("steps") or [_spoken(part) for part in re.split(r"; | and (?=[a-z])|, (?=[a-z])", spoken)]
    for each in said:
        step = each if isinstance(each, Mapping) else _spoken(str(each))
        action, own = str(step.get("action", "")), Terms(step.get("with") or {})
        if action not in MAKERS:
            raise NotUnderstoodError(f"nobody knows the action {action!r} in a batch")
        by = actor_of(str(step["actor"])) if "actor" in step else envelope.source
        about = str(step.get("object") or " ".join(AS_AN_ID.findall(target)))
        yield from MAKERS[action](play, replace(envelope, source=by), about, own)
        if own.unread:
            raise NotUnderstoodError(f"nobody reads the field {', '.join(map(repr, own.unread))}")


def _spoken(said: str) -> Mapping[str, Any]:
    """Such as claim R1."""
    action, _, target = said.strip().partition(" ")
    return {"action": action, "object": target}


MAKERS: Final[Mapping[str, Maker]] = {
    "issue": _issue,
    "renew": _issue,
    "recall": _recall,
    "dispatch_to_pharmacy": _dispatch,
    "claim": _claim,
    "abort_claim": _abort,
    "dispense": _dispense,
    "reverse_dispense": _reverse,
    "withdraw_dispatch": _withdraw_dispatch,
    "request_renewal": _ask_renewal,
    "decline_renewal": _decline_renewal,
    "release_claim": _release,
    "record": _record,
    "pause": _pause,
    "resume": _resume,
    "reinstate": _reinstate,
    "use": _use,
    "discontinue": _discontinue,
    "withdraw": _withdraw,
    "change": _change,
    "reconcile": _reconcile,
    "multidose_assign": _multidose,
    "multidose_end": _end_multidose,
    "death": _death,
    "retract_death": _retract_death,
    "record_allergy": _allergy,
    "refute_allergy": _refute,
    "redeliver": _redeliver,
    "redeliver_changed": _redeliver_changed,
    "repeat": _repeat,
    "batch": _batch,
}
