"""Makes events of the acceptance scenarios: who does what, with every id, time and quantity filled in.

A `Play` yields a scenario's steps one after the other. It is lazy, because a reconciliation needs the version that an
earlier read of the same play saw: whoever runs it tells it by `Play.saw`.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5
from zoneinfo import ZoneInfo

import msgspec
import yaml

from schemas import events as ev
from services.admission.read_token import ReadToken
from services.identity.registers import organisation_number
from services.topics.registry import Parties

SCENARIOS: Final = Path(__file__).with_name("scenarios.yaml")
MORE_SCENARIOS: Final = Path(__file__).with_name("more_scenarios.yaml")
OSLO: Final = ZoneInfo("Europe/Oslo")
D0: Final = date(2026, 3, 2)
OPENS: Final = time(9)
MINUTE_MS: Final = 60_000
AnyEvent = ev.Event[ev.Body]
Fields = Mapping[str, Any]

ACTORS: Final[Mapping[str, ev.Source]] = {
    "prescriber A": ev.Source(system="ehr-a", organisation=organisation_number(1), role="doctor", person="9144889"),
    "prescriber B": ev.Source(system="ehr-b", organisation=organisation_number(2), role="doctor", person="9144900"),
    "clinician C": ev.Source(system="ehr-c", organisation=organisation_number(3), role="doctor", person="9144927"),
    "prescriber A2": ev.Source(system="ehr-a", organisation=organisation_number(1), role="doctor", person="9144943"),
    "nurse N": ev.Source(system="ehr-a", organisation=organisation_number(1), role="nurse", person="9144935"),
    "prescriber system": ev.Source(system="ehr-a", organisation=organisation_number(1), role="system"),
    "citizen": ev.Source(system="portal", organisation=organisation_number(4), role="citizen"),
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
    systems=tuple(source.system for source in ACTORS.values()),
    pharmacies=(ORGANISATIONS["P"], ORGANISATIONS["Q"]),
    organisations=tuple(source.organisation for source in ACTORS.values()),
)
"""Whom the platform must know: those have topics."""
USES: Final = {"9101 4 vaccine": "vaccine"}
STOP_REASONS: Final = {"7494 A treatment finished": "treatment_finished", "A": "treatment_finished"}
DOSES: Final = {"1 tablet morning": Decimal(1), "half a tablet morning": Decimal("0.5")}
CHANGES_NOTHING: Final = frozenset({"read_list", "search_open_prescriptions", "receives"})


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `events` are appended in order; a read has none, and `at_ms` is then the reader's clock.

    action: as in the file. token: the name that a read's version goes by. door: turned away before the log.
    unreadable: a record of the patient that cannot be decoded takes the place of an event.
    """

    n: int
    actor: str
    action: str
    patient: str
    at_ms: int
    expect: tuple[str, ...]
    events: tuple[AnyEvent, ...] = ()
    token: str | None = None
    door: bool = False
    unreadable: bool = False
    without: Mapping[str, str] = field(default_factory=dict)
    """Prescriptions that are sent without a field that they must have."""


@cache
def scenarios() -> dict[str, dict[str, Any]]:
    """Every scenario by its id."""
    loaded = yaml.safe_load(SCENARIOS.read_text(encoding="utf-8"))
    return {scenario["id"]: scenario for scenario in loaded["scenarios"]}


@cache
def more_scenarios() -> dict[str, dict[str, Any]]:
    """Every scenario of our own by its id; their steps are numbered as they come."""
    loaded = yaml.safe_load(MORE_SCENARIOS.read_text(encoding="utf-8"))
    for scenario in loaded["scenarios"]:
        for n, step in enumerate(scenario["steps"], start=1):
            step["n"] = n
    named = {scenario["id"]: scenario for scenario in loaded["scenarios"]}
    assert len(named) == len(loaded["scenarios"]), "of two scenarios under one id the first would never be played"
    return named


def instant(text: str) -> int:
    """Milliseconds of "d0+10d", "d0 08:00", "2026-06-30T23:50+02:00" or a date; without a time: within working hours."""
    if "T" in text:
        return int(datetime.fromisoformat(text).timestamp() * 1000)
    day_text, _, clock = text.partition(" ")
    at = datetime.combine(calendar_day(day_text), time.fromisoformat(clock) if clock else OPENS, OSLO)
    return int(at.astimezone(UTC).timestamp() * 1000)


def calendar_day(text: str) -> date:
    """The date of "d0", "d0+90d" or "2026-06-30"."""
    relative = re.fullmatch(r"d0(?:\+(\d+)d)?", text)
    return D0 + timedelta(days=int(relative[1] or 0)) if relative else date.fromisoformat(text)


def year_later(day: date) -> date:
    """The same day a year later; a year from 29 February ends on 28 February."""
    try:
        return day.replace(year=day.year + 1)
    except ValueError:
        return date(day.year + 1, 2, 28)


def quantity(text: str) -> ev.Quantity:
    """An amount of tablets, as "100 tablets"."""
    value, unit = text.split()
    return ev.Quantity(value=Decimal(value), unit=unit.removesuffix("s"))


@dataclass(slots=True)
class Play:
    """One run of one scenario. `run` sets its ids apart from other runs; `pseudonyms` names the patient keys to use."""

    scenario: Mapping[str, Any]
    run: str = "play"
    pseudonyms: Mapping[str, str] = field(default_factory=dict)
    now_ms: int = instant("d0") - MINUTE_MS
    sent: dict[str, AnyEvent] = field(default_factory=dict)
    """The last event about each natural id, by its name in the scenario."""
    tokens: dict[str, tuple[int, int]] = field(default_factory=dict)
    claims: dict[tuple[str, str], str] = field(default_factory=dict)
    handed: dict[str, Decimal] = field(default_factory=dict)
    patients: dict[str, str] = field(default_factory=dict)
    made: int = 0

    def __iter__(self) -> Iterator[Step]:
        """The steps in order; each is made when it is asked for."""
        for step in self.scenario["steps"]:
            yield self._step(step)

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

    def pseudonym(self, patient: str) -> str:
        """The key of a patient of this play."""
        made = uuid5(NAMESPACE_URL, f"medchain:{self.run}:{self.scenario['id']}:patient {patient}").hex
        return self.pseudonyms.get(patient, made)

    # --- One step -----------------------------------------------------------------------------------------------------

    def _step(self, step: Mapping[str, Any]) -> Step:
        fields, target, action = step.get("with") or {}, str(step["object"]), step["action"]
        patient = self._patient_of(target)
        received_ms, occurred_ms = self._times(fields)
        expect = tuple(step["expect"])
        plain = Step(step["n"], step["actor"], action, patient, received_ms, expect)
        if action in CHANGES_NOTHING:
            named = re.search(r"\bv\d+\b", " ".join(expect))
            at_ms = instant(fields["clock"]) if "clock" in fields else received_ms
            return replace(plain, token=named[0] if named else None, at_ms=at_ms)
        if action == "submit":
            return replace(plain, unreadable=True)
        envelope = Envelope(self, ACTORS[step["actor"]], patient, occurred_ms, received_ms)
        events = tuple(MAKERS[action](self, envelope, target, fields))
        door = any("turned away at the door" in text for text in expect)
        body = events[0].body
        if isinstance(body, ev.ClaimRequested) and "applied" in expect:
            self.claims[envelope.source.organisation, target] = body.claim
        return replace(plain, events=events, door=door, without=dict(re.findall(r"(R\d+) without (\w+)", target)))

    def _times(self, fields: Fields) -> tuple[int, int]:
        """When the step is received, and when it happened; the clock of the play goes on from there."""
        received = next(
            (fields[key] for key in ("received_at", "reported_at", "at", "occurred_at") if key in fields), None
        )
        received_ms = instant(received) if received is not None else self.now_ms + MINUTE_MS
        self.now_ms = received_ms
        return received_ms, instant(fields["occurred_at"]) if "occurred_at" in fields else received_ms

    def _patient_of(self, target: str) -> str:
        """X, unless the scenario says which of two; an object keeps its patient."""
        said, first = re.search(r"\(patient (\w)\)", target), re.match(r"[RDC]\d+", target)
        name = first[0] if first else ""
        patient = said[1] if said else self.patients.get(name, "X")
        self.patients[name] = patient
        return patient

    def new_event_id(self) -> str:
        """An event id that no other event of this play has."""
        self.made += 1
        return self.id_of(f"event {self.made}")


@dataclass(frozen=True, slots=True)
class Envelope:
    """What surrounds the bodies of one step."""

    play: Play
    source: ev.Source
    patient: str
    occurred_ms: int
    received_ms: int

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


Maker = Callable[[Play, Envelope, str, Fields], Iterator[AnyEvent]]


# --- Prescriptions ----------------------------------------------------------------------------------------------------


def _dosing(fields: Fields) -> ev.Dosing:
    dose = ev.Dose(low=DOSES[fields.get("dosing", "1 tablet morning")], unit="tablet")
    start, end = (calendar_day(fields[name]) if name in fields else None for name in ("start", "end"))
    period = ev.DosingPeriod(start=start, end=end, fixed=(ev.FixedDose(dose=dose, times_of_day=("morning",)),))
    return ev.Dosing(periods=(period,), text=fields.get("dosing_text"))


def _medication(fields: Fields) -> ev.Medication:
    """Metformin tablets; `package`: what one package of the prescribed product holds."""
    product: ev.Substance | ev.Package = ev.Substance(name="Metformin")
    if "package" in fields:
        product = ev.Package(item_number="123456", name="Metformin", content=quantity(fields["package"]))
    atc, strength = fields.get("atc", "A10BA02"), fields.get("strength", "500 mg")
    return ev.Medication(product=product, form="tablet", atc=atc, strength=strength)


MEDICATION: Final = _medication({})


def _issue(play: Play, envelope: Envelope, target: str, fields: Fields) -> Iterator[AnyEvent]:
    renewed = re.search(r"renews (R\d+)", target)
    for rx in re.findall(r"R\d+", target.split("renews", maxsplit=1)[0]):
        own = {**fields, **fields.get(rx, {})}
        yield envelope.around(_prescription(play, envelope, rx, target, own, renewed[1] if renewed else None), rx)


def _treatment_id(play: Play, rx: str, target: str, renewed: str | None) -> str:
    named = re.search(r"in (T\d+)", target)
    if named:
        return play.id_of(named[1])
    return play.treatment_of(renewed) if renewed else play.id_of(f"treatment of {rx}")


def _prescription(
    play: Play, envelope: Envelope, rx: str, target: str, fields: Fields, renewed: str | None
) -> ev.PrescriptionIssued:
    issued_ms = instant(fields["issued_at"]) if "issued_at" in fields else envelope.occurred_ms
    issued_on = datetime.fromtimestamp(issued_ms / 1000, UTC).astimezone(OSLO).date()
    until, earliest, series = (fields.get(name) for name in ("valid_until", "earliest_dispense", "series_id"))
    kept = ("locked", "substitution_reserved", "note", "group")
    use = str(fields.get("use", "regular"))
    return ev.PrescriptionIssued(
        prescription=play.id_of(rx),
        treatment=_treatment_id(play, rx, target, renewed),
        issued_at_ms=issued_ms,
        valid_until=calendar_day(until) if until else year_later(issued_on),
        medication=_medication(fields),
        quantity=quantity(fields.get("quantity", "100 tablets")),
        refills=fields.get("refills", 3),
        dosing=_dosing(fields),
        use=USES.get(use, use),
        item_group=fields.get("item_group", "medicine"),
        earliest_dispense=calendar_day(earliest) if earliest else None,
        renews=play.id_of(renewed) if renewed else None,
        series_id=play.id_of(series) if series else None,
        multidose=fields.get("multi_dose", False),
        **{name: fields[name] for name in kept if name in fields},
    )


def _recall(play: Play, envelope: Envelope, target: str, fields: Fields) -> Iterator[AnyEvent]:
    yield envelope.around(ev.PrescriptionRecalled(prescription=play.id_of(target), reason=fields["reason"]))


def _dispatch(play: Play, envelope: Envelope, target: str, fields: Fields) -> Iterator[AnyEvent]:
    rx, pharmacy = target.split(" to ")
    body = ev.DispatchRequested(
        dispatch=play.id_of(fields.get("dispatch", f"dispatch of {target}")),
        prescription=play.id_of(rx),
        pharmacy=ORGANISATIONS[pharmacy],
        every=fields.get("every", False),
    )
    yield envelope.around(body)


def _withdraw_dispatch(play: Play, envelope: Envelope, target: str, _fields: Fields) -> Iterator[AnyEvent]:
    yield envelope.around(ev.DispatchWithdrawn(prescription=play.id_of(target), reason="will fetch it elsewhere"))


def _ask_renewal(play: Play, envelope: Envelope, target: str, fields: Fields) -> Iterator[AnyEvent]:
    request, to = play.id_of(fields["request"]), ORGANISATIONS[fields["to"]]
    yield envelope.around(ev.RenewalRequested(request=request, prescription=play.id_of(target), to=to))


def _decline_renewal(play: Play, envelope: Envelope, target: str, fields: Fields) -> Iterator[AnyEvent]:
    yield envelope.around(ev.RenewalDeclined(request=play.id_of(target), reason=fields["reason"]))


# --- At the pharmacy --------------------------------------------------------------------------------------------------


def _claim(play: Play, envelope: Envelope, target: str, fields: Fields) -> Iterator[AnyEvent]:
    name = fields.get("claim", f"claim {play.new_event_id()}")
    yield envelope.around(ev.ClaimRequested(claim=play.id_of(name), prescription=play.id_of(target)), name)


def _abort(play: Play, envelope: Envelope, target: str, fields: Fields) -> Iterator[AnyEvent]:
    """Of the pharmacy's own claim; one that has none names the other's."""
    claims = play.claims
    mine = claims.pop((envelope.source.organisation, target), None)
    others = (claim for (_, rx), claim in claims.items() if rx == target)
    named = play.id_of(fields["claim"]) if "claim" in fields else mine or next(others)
    yield envelope.around(ev.ClaimAborted(claim=named, reason=fields["reason"]))


def _release(play: Play, envelope: Envelope, target: str, fields: Fields) -> Iterator[AnyEvent]:
    yield envelope.around(ev.ClaimReleased(claim=play.id_of(target), reason=fields["reason"]))


def _dispense(play: Play, envelope: Envelope, target: str, fields: Fields) -> Iterator[AnyEvent]:
    issued = play.sent[target].body if target in play.sent else None
    full = issued.quantity if isinstance(issued, ev.PrescriptionIssued) else quantity("100 tablets")
    handed = quantity(fields["quantity"]) if "quantity" in fields else full
    before = play.handed.get(target, Decimal(0))
    play.handed[target] = before + handed.value
    fills = (before + handed.value) // full.value > before // full.value
    body = ev.MedicationDispensed(
        dispense=play.id_of(fields["dispense"]),
        prescription=play.id_of(target),
        lines=(
            ev.DispensedLine(
                quantity=handed,
                content=quantity(fields["content"]) if "content" in fields else None,
                strength=fields.get("strength"),
                substituted=fields.get("substituted", False),
            ),
        ),
        period_completed=fields.get("period_completed", fills),
        completed=fields["completed"],
        claim=play.claims.pop((envelope.source.organisation, target), None),
        dispense_number=fields.get("dispense_number"),
    )
    play.patients[fields["dispense"]] = envelope.patient
    yield envelope.around(body, fields["dispense"])


def _reverse(play: Play, envelope: Envelope, target: str, fields: Fields) -> Iterator[AnyEvent]:
    returned = quantity(fields["returned"]) if "returned" in fields else None
    name = fields.get("reversal", f"reversal of {target} by {envelope.source.organisation}")
    body = ev.DispenseReversed(
        reversal=play.id_of(name),
        dispense=play.id_of(target),
        reason="returned" if returned else "reported by mistake",
        quantity=returned,
    )
    yield envelope.around(body, name)


# --- Treatments and the whole list ------------------------------------------------------------------------------------


def _discontinue(play: Play, envelope: Envelope, target: str, fields: Fields) -> Iterator[AnyEvent]:
    reason = STOP_REASONS[fields["reason"]]
    stopped_ms = instant(fields["stops"]) if "stops" in fields else envelope.occurred_ms
    yield envelope.around(ev.TreatmentDiscontinued(treatment=play.id_of(target), at_ms=stopped_ms, reason=reason))


def _record(play: Play, envelope: Envelope, target: str, fields: Fields) -> Iterator[AnyEvent]:
    body = ev.TreatmentRecorded(
        treatment=play.id_of(target),
        kind=fields["kind"],
        medication=_medication(fields),
        dosing=_dosing(fields),
        paper_prescription=fields.get("paper_prescription"),
    )
    yield envelope.around(body, target)


def _pause(play: Play, envelope: Envelope, target: str, fields: Fields) -> Iterator[AnyEvent]:
    until = calendar_day(fields["until"]) if "until" in fields else None
    start = calendar_day(fields["from"])
    yield envelope.around(
        ev.TreatmentPaused(treatment=play.id_of(target), start=start, until=until, reason=fields["reason"])
    )


def _resume(play: Play, envelope: Envelope, target: str, fields: Fields) -> Iterator[AnyEvent]:
    yield envelope.around(ev.TreatmentResumed(treatment=play.id_of(target), reason=fields["reason"]))


def _reinstate(play: Play, envelope: Envelope, target: str, fields: Fields) -> Iterator[AnyEvent]:
    yield envelope.around(ev.TreatmentReinstated(treatment=play.id_of(target), reason=fields["reason"]))


def _use(play: Play, envelope: Envelope, target: str, fields: Fields) -> Iterator[AnyEvent]:
    yield envelope.around(ev.UseReported(treatment=play.id_of(target), use=fields["use"], by=fields["by"]))


def _withdraw(play: Play, envelope: Envelope, target: str, fields: Fields) -> Iterator[AnyEvent]:
    reason = fields.get("reason", "registered by mistake")
    yield envelope.around(ev.TreatmentWithdrawn(treatment=play.id_of(target), reason=reason))


def _change(play: Play, envelope: Envelope, target: str, fields: Fields) -> Iterator[AnyEvent]:
    kept = {
        name: fields[name] for name in ("indication_text", "substitution_reserved", "administration") if name in fields
    }
    dosing = _dosing(fields) if "dosing" in fields or not kept else None
    body = ev.TreatmentChanged(treatment=play.id_of(target), reason=fields["reason"], dosing=dosing, **kept)
    yield envelope.around(body)


def _reconcile(play: Play, envelope: Envelope, _target: str, fields: Fields) -> Iterator[AnyEvent]:
    version, at_ms = play.tokens[fields["read_token"]]
    yield envelope.around(ev.ListReconciled(read_token=fields["read_token"], version=version, read_at_ms=at_ms))


def _multidose(_play: Play, envelope: Envelope, target: str, fields: Fields) -> Iterator[AnyEvent]:
    doctor, pharmacy = envelope.source.person, ORGANISATIONS[target.split(" to ")[1]]
    assert doctor is not None, "multi-dose is assigned by a doctor"
    days = fields.get("packing_days", 14)
    yield envelope.around(ev.MultidoseAssigned(doctor=doctor, pharmacy=pharmacy, start=D0, packing_days=days))


def _end_multidose(_play: Play, envelope: Envelope, _target: str, fields: Fields) -> Iterator[AnyEvent]:
    yield envelope.around(ev.MultidoseEnded(reason=fields["reason"]))


def _death(_play: Play, envelope: Envelope, _target: str, fields: Fields) -> Iterator[AnyEvent]:
    yield envelope.around(ev.PatientDied(on=calendar_day(fields["day"])))


def _retract_death(_play: Play, envelope: Envelope, _target: str, fields: Fields) -> Iterator[AnyEvent]:
    yield envelope.around(ev.DeathRetracted(reason=fields["reason"]))


def _allergy(play: Play, envelope: Envelope, target: str, fields: Fields) -> Iterator[AnyEvent]:
    """To a substance; or none known, where the target says so."""
    if target == "none known":
        body = ev.AllergyRecorded(allergy=play.id_of(fields["id"]), none_known=True)
    else:
        reaction, severity = fields.get("reaction"), fields.get("severity")
        body = ev.AllergyRecorded(
            allergy=play.id_of(fields["id"]), substance=target, reaction=reaction, severity=severity
        )
    yield envelope.around(body, fields["id"])


def _refute(play: Play, envelope: Envelope, target: str, fields: Fields) -> Iterator[AnyEvent]:
    yield envelope.around(ev.AllergyRefuted(allergy=play.id_of(target), reason=fields["reason"]))


def _redeliver(play: Play, _envelope: Envelope, target: str, _fields: Fields) -> Iterator[AnyEvent]:
    """The same event once more, byte for byte."""
    yield play.sent[target]


def _redeliver_changed(play: Play, envelope: Envelope, target: str, fields: Fields) -> Iterator[AnyEvent]:
    """The natural id once more under a new event id: a hand-out of another quantity, else with another note or sender."""
    body = play.sent[target].body
    if isinstance(body, ev.MedicationDispensed) and "quantity" in fields:
        line = msgspec.structs.replace(body.lines[0], quantity=quantity(fields["quantity"]))
        body = msgspec.structs.replace(body, lines=(line,))
    elif isinstance(body, ev.PrescriptionIssued) and "note" in fields:
        body = msgspec.structs.replace(body, note=fields["note"])
    yield envelope.around(body)


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
}
