"""Given, when, then for the fold: one patient's store in memory, fed through `evolve` the way the processor feeds it.

A `World` keeps bytes, as the store does, reads only what an event names or points at, and judges anew whenever the fold
asks for more. Every judgement is made a second time with the whole patient read: what is loaded must never matter.
"""

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Final, cast
from uuid import NAMESPACE_URL, uuid5
from zoneinfo import ZoneInfo

from schemas import events as ev
from schemas.codec import digest_of, encode
from schemas.reasons import NoticeKind
from services.medication_list.fold import (
    EVERYTHING,
    Judgement,
    LogEntry,
    NotLoadedError,
    Patient,
    entry_of,
    evolve,
    named_by,
    park,
    pointed_at,
)
from services.medication_list.fold.judgement import NoticeDue, OrderDue
from services.medication_list.fold.remembering import event_key, natural_key
from services.medication_list.fold.standing import Usage, status, usage
from services.medication_list.fold.state import (
    ALLERGIES,
    META,
    Allergies,
    AllergyState,
    Meta,
    PrescriptionState,
    State,
    TreatmentState,
    Waiting,
    allergy_awaited,
    hand_out_field,
    prescription_field,
    treatment_field,
    waiting_field,
)
from services.medication_list.read_api.view import show_treatment
from services.medication_list.stored.packing import (
    pack_effect,
    pack_field,
    pack_memory,
    unpack_effect,
    unpack_field,
    unpack_memory,
)

OSLO: Final = ZoneInfo("Europe/Oslo")
D0: Final = date(2026, 3, 2)
MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
PATIENT: Final = uuid5(NAMESPACE_URL, "fold world: patient").hex
AnyEvent = ev.Event[ev.Body]


def on(days: int) -> date:
    """The date so many days after d0."""
    return D0 + timedelta(days=days)


def at(days: int, hour: int = 8, minute: int = 0) -> int:
    """An instant by Oslo's clocks, in milliseconds."""
    day = on(days)
    return int(datetime(day.year, day.month, day.day, hour, minute, tzinfo=OSLO).timestamp() * 1000)


def id_of(name: str) -> str:
    """The id that stands for a name: R1, T1, D1, C1, ..."""
    return str(uuid5(NAMESPACE_URL, f"fold world: {name}"))


ACTORS: Final = {
    "A": ev.Source(system="ehr-a", organisation="910000001", role="doctor", person="9100001"),
    "A2": ev.Source(system="ehr-a", organisation="910000001", role="doctor", person="9100003"),
    "B": ev.Source(system="ehr-b", organisation="910000002", role="doctor", person="9100002"),
    "N": ev.Source(system="ehr-a", organisation="910000001", role="nurse", person="9100009"),
    "P": ev.Source(system="pharmacy-p", organisation="920000001", role="pharmacist"),
    "Q": ev.Source(system="pharmacy-q", organisation="920000002", role="pharmacist"),
    "citizen": ev.Source(system="portal", organisation="930000001", role="citizen"),
    "operator": ev.Source(system="operations", organisation="940000001", role="operator"),
    "registry": ev.Source(system="registry", organisation="950000001", role="system"),
}
NAME_OF: Final = {source.organisation: name for name, source in reversed(ACTORS.items())}


def organisation(actor: str) -> str:
    """The organisation number of an actor."""
    return ACTORS[actor].organisation


# --- What is said, and by whom -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Said:
    """A body and its sender. at_ms: when it happened; received_at_ms: when it came, at_ms unless said."""

    by: str
    body: ev.Body
    at_ms: int | None = None
    received_at_ms: int | None = None
    event_id: str | None = None


MEDICATION: Final = ev.Medication(
    product=ev.Substance(name="Metformin"), form="tablet", atc="A10BA02", strength="500 mg"
)


def tablets(value: str | float | Decimal) -> ev.Quantity:
    """So many tablets."""
    return ev.Quantity(value=Decimal(str(value)), unit="tablet")


def dosing(dose: str = "1", end: date | None = None) -> ev.Dosing:
    """A dose each morning, until and with `end` if there is one."""
    fixed = ev.FixedDose(dose=ev.Dose(low=Decimal(dose), unit="tablet"), times_of_day=("morning",))
    return ev.Dosing(periods=(ev.DosingPeriod(end=end, fixed=(fixed,)),))


def issued(  # noqa: PLR0913 - a prescription has many terms, and a test names those that it is about
    rx: str = "R1",
    treatment: str = "T1",
    *,
    by: str = "A",
    at_ms: int | None = None,
    received_at_ms: int | None = None,
    signed_ms: int | None = None,
    quantity: ev.Quantity | None = None,
    refills: int = 3,
    valid_until: date = D0 + timedelta(days=365),
    earliest: date | None = None,
    renews: str | None = None,
    series: str | None = None,
    medication: ev.Medication = MEDICATION,
    **terms: object,
) -> Said:
    """A prescription of 100 tablets with three refills, unless said. signed_ms: when it was signed, at_ms unless said."""
    moment = signed_ms if signed_ms is not None else at_ms if at_ms is not None else at(0)
    body = ev.PrescriptionIssued(
        prescription=id_of(rx),
        treatment=id_of(treatment),
        issued_at_ms=moment,
        valid_until=valid_until,
        medication=medication,
        quantity=quantity or tablets(100),
        refills=refills,
        dosing=cast("ev.Dosing", terms.pop("dosing", dosing())),
        earliest_dispense=earliest,
        renews=id_of(renews) if renews else None,
        series_id=id_of(series) if series else None,
        **terms,  # type: ignore[arg-type]  # further terms, as PrescriptionIssued names them
    )
    return Said(by, body, at_ms, received_at_ms)


def recalled(rx: str = "R1", reason: str = "other", by: str = "A", at_ms: int | None = None) -> Said:
    """A recall."""
    return Said(by, ev.PrescriptionRecalled(prescription=id_of(rx), reason=reason), at_ms)


def recorded(treatment: str = "T1", by: str = "A", kind: str = "otc", **terms: object) -> Said:
    """A treatment without a prescription."""
    at_ms = cast("int | None", terms.pop("at_ms", None))
    body = ev.TreatmentRecorded(
        treatment=id_of(treatment),
        kind=kind,
        medication=cast("ev.Medication", terms.pop("medication", MEDICATION)),
        dosing=cast("ev.Dosing", terms.pop("dosing", dosing())),
        **terms,  # type: ignore[arg-type]  # further terms, as TreatmentRecorded names them
    )
    return Said(by, body, at_ms)


def claimed(rx: str = "R1", claim: str = "C1", by: str = "P", at_ms: int | None = None) -> Said:
    """A claim."""
    return Said(by, ev.ClaimRequested(claim=id_of(claim), prescription=id_of(rx)), at_ms)


def aborted(claim: str = "C1", by: str = "P", at_ms: int | None = None) -> Said:
    """A claim given back."""
    return Said(by, ev.ClaimAborted(claim=id_of(claim), reason="customer left"), at_ms)


def released(claim: str = "C1", by: str = "operator") -> Said:
    """A claim freed by an operator."""
    return Said(by, ev.ClaimReleased(claim=id_of(claim), reason="pharmacy closed down"))


def dispensed(  # noqa: PLR0913 - as above
    dispense: str = "D1",
    rx: str = "R1",
    *,
    by: str = "P",
    at_ms: int | None = None,
    received_at_ms: int | None = None,
    quantity: ev.Quantity | None = None,
    period_completed: bool = True,
    completed: bool = False,
    lines: tuple[ev.DispensedLine, ...] = (),
) -> Said:
    """A hand-out of 100 tablets, unless said."""
    body = ev.MedicationDispensed(
        dispense=id_of(dispense),
        prescription=id_of(rx),
        lines=lines or (ev.DispensedLine(quantity=quantity or tablets(100)),),
        period_completed=period_completed,
        completed=completed,
    )
    return Said(by, body, at_ms, received_at_ms)


def reversed_(
    dispense: str = "D1", *, by: str = "P", reversal: str | None = None, returned: ev.Quantity | None = None
) -> Said:
    """A hand-out taken back, or goods that came back."""
    name = reversal or f"reversal of {dispense} by {by}"
    body = ev.DispenseReversed(
        reversal=id_of(name), dispense=id_of(dispense), reason="reported by mistake", quantity=returned
    )
    return Said(by, body)


def dispatched(
    rx: str = "R1", to: str = "P", *, dispatch: str | None = None, every: bool = False, at_ms: int | None = None
) -> Said:
    """A citizen ties the next dispense (or every one) to a pharmacy."""
    name = dispatch or f"dispatch of {rx} to {to}"
    body = ev.DispatchRequested(dispatch=id_of(name), prescription=id_of(rx), pharmacy=organisation(to), every=every)
    return Said("citizen", body, at_ms)


def dispatch_withdrawn(rx: str = "R1", by: str = "citizen", at_ms: int | None = None) -> Said:
    """A dispatch taken back."""
    return Said(by, ev.DispatchWithdrawn(prescription=id_of(rx), reason="will fetch it elsewhere"), at_ms)


def changed(treatment: str = "T1", by: str = "A", at_ms: int | None = None, **what: object) -> Said:
    """A treatment changed: its dosing, unless said."""
    what = what or {"dosing": dosing("0.5")}
    body = ev.TreatmentChanged(treatment=id_of(treatment), reason="kidney function", **what)  # type: ignore[arg-type]  # as TreatmentChanged names them
    return Said(by, body, at_ms)


def paused(
    treatment: str = "T1", start: date = D0, until: date | None = None, *, by: str = "A", at_ms: int | None = None
) -> Said:
    """A pause."""
    body = ev.TreatmentPaused(treatment=id_of(treatment), start=start, until=until, reason="operation")
    return Said(by, body, at_ms)


def resumed(treatment: str = "T1", by: str = "A", at_ms: int | None = None) -> Said:
    """The end of a pause."""
    return Said(by, ev.TreatmentResumed(treatment=id_of(treatment), reason="recovered"), at_ms)


def discontinued(
    treatment: str = "T1", stopped_ms: int | None = None, *, by: str = "A", at_ms: int | None = None
) -> Said:
    """A stop. stopped_ms: the time from which it counts, at_ms unless said; one of both must be there."""
    moment = stopped_ms if stopped_ms is not None else at_ms
    assert moment is not None, "a stop has its time"
    body = ev.TreatmentDiscontinued(treatment=id_of(treatment), at_ms=moment, reason="treatment_finished")
    return Said(by, body, at_ms)


def reinstated(treatment: str = "T1", by: str = "A", at_ms: int | None = None) -> Said:
    """A stop taken back."""
    return Said(by, ev.TreatmentReinstated(treatment=id_of(treatment), reason="stopped by mistake"), at_ms)


def withdrawn(treatment: str = "T1", by: str = "A", at_ms: int | None = None) -> Said:
    """A wrong registration taken back."""
    return Said(by, ev.TreatmentWithdrawn(treatment=id_of(treatment), reason="wrong patient"), at_ms)


def use_reported(treatment: str = "T1", use: str = "otherwise", at_ms: int | None = None) -> Said:
    """How it is really taken."""
    return Said("A", ev.UseReported(treatment=id_of(treatment), use=use, by="patient"), at_ms)


def allergic(allergy: str = "A1", **what: object) -> Said:
    """An allergy; with none_known=True: nobody knows of any."""
    what = what or {"substance": "penicillin"}
    return Said("A", ev.AllergyRecorded(allergy=id_of(allergy), **what))  # type: ignore[arg-type]  # as AllergyRecorded names them


def refuted(allergy: str = "A1") -> Said:
    """An allergy that proved not to be one."""
    return Said("A", ev.AllergyRefuted(allergy=id_of(allergy), reason="tested negative"))


def multidose(pharmacy: str = "P", by: str = "A", packing_days: int = 14) -> Said:
    """A doctor takes on multi-dose with a pharmacy."""
    doctor = ACTORS[by].person or "9109999"
    body = ev.MultidoseAssigned(doctor=doctor, pharmacy=organisation(pharmacy), start=D0, packing_days=packing_days)
    return Said(by, body)


def multidose_ended(by: str = "A") -> Said:
    """Multi-dose, or a pharmacy's part in it, ends."""
    return Said(by, ev.MultidoseEnded(reason="moved"))


def died(day: date = D0, by: str = "registry", at_ms: int | None = None) -> Said:
    """The patient's death."""
    return Said(by, ev.PatientDied(on=day), at_ms)


def death_retracted(by: str = "registry", at_ms: int | None = None) -> Said:
    """It was another person."""
    return Said(by, ev.DeathRetracted(reason="mistaken identity"), at_ms)


def renewal_requested(rx: str = "R1", request: str = "Q1", to: str = "A", by: str = "citizen") -> Said:
    """A request for renewal."""
    body = ev.RenewalRequested(request=id_of(request), prescription=id_of(rx), to=organisation(to))
    return Said(by, body)


def renewal_declined(request: str = "Q1", by: str = "A") -> Said:
    """A no to it."""
    return Said(by, ev.RenewalDeclined(request=id_of(request), reason="needs a visit"))


def reconciled(version: int, by: str = "A", at_ms: int | None = None, read_ms: int | None = None) -> Said:
    """The list is confirmed as it was read at read_ms (a minute before, unless said)."""
    moment = at_ms if at_ms is not None else at(0, 9)
    read = read_ms if read_ms is not None else moment - MINUTE_MS
    return Said(by, ev.ListReconciled(read_token="checked at the door", version=version, read_at_ms=read), moment)  # noqa: S106 - no secret: the door verified it


def closed(offset: int, by: str = "operator") -> Said:
    """A parked record is closed."""
    return Said(by, ev.ParkedRecordClosed(offset=offset, reason="cut off, and reported again"))


# --- The world ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Then:
    """What became of one event."""

    judgement: Judgement
    fields_read: int
    bytes_read: int
    bytes_put: int

    @property
    def outcome(self) -> str:
        """applied, duplicate, refused(reason) or parked."""
        verdict = self.judgement.verdict
        return f"refused({verdict.reason})" if verdict.reason else verdict.outcome

    @property
    def flags(self) -> set[str]:
        """The flags of the event."""
        return {str(flag) for flag in self.judgement.verdict.flags}

    @property
    def named(self) -> str | None:
        """What a refusal or an answer names."""
        named = self.judgement.verdict.named
        return named[1] if named else None

    @property
    def notices(self) -> list[tuple[str, str]]:
        """(kind, actor whose organisation is told), sorted."""
        effects = self.judgement.effects
        return sorted((str(e.kind), NAME_OF[e.organisation]) for e in effects if isinstance(e, NoticeDue))

    @property
    def orders(self) -> list[str]:
        """Actors whose pharmacies get an order, sorted."""
        return sorted(NAME_OF[e.pharmacy] for e in self.judgement.effects if isinstance(e, OrderDue))

    def notice(self, kind: NoticeKind) -> NoticeDue:
        """The only notice of a kind."""
        (found,) = (e for e in self.judgement.effects if isinstance(e, NoticeDue) and e.kind is kind)
        return found


@dataclass(slots=True)
class World:
    """One patient's part of the store. `whole_too`: judge each event with the whole patient read as well."""

    fields: dict[str, bytes] = field(default_factory=dict)
    memory: dict[bytes, bytes] = field(default_factory=dict)
    now_ms: int = at(0)
    offset: int = 0
    patient: str = PATIENT
    whole_too: bool = True
    history: list[tuple[AnyEvent, Then]] = field(default_factory=list)

    # --- When ---

    def when(self, said: Said) -> Then:
        """Say it a minute later, or at its own time."""
        received_ms = said.received_at_ms if said.received_at_ms is not None else said.at_ms
        if received_ms is None:
            received_ms = self.now_ms + MINUTE_MS
        return self.feed(
            ev.Event(
                event_id=said.event_id or id_of(f"event {self.offset}"),
                patient=self.patient,
                occurred_at_ms=said.at_ms if said.at_ms is not None else received_ms,
                received_at_ms=received_ms,
                source=ACTORS[said.by],
                body=said.body,
            )
        )

    def feed(self, event: AnyEvent) -> Then:
        """Judge an event as the processor does, keep what changes, and check what must hold of every judgement."""
        self.now_ms = max(self.now_ms, event.received_at_ms)
        raw = encode(event)
        entry = entry_of(event, self.offset, digest_of(event), raw)
        patient = self._read_for(event)
        judgement = self._judge(patient, entry)
        if self.whole_too:
            # The store gives fields in whatever order.
            whole = Patient(dict(reversed(self.everything().items())), dict(patient.memory), complete=True)
            assert evolve(whole, entry) == judgement, "what was loaded changed the judgement"
        read = [name for name in patient.fields if name in self.fields]
        then = Then(
            judgement,
            fields_read=len(patient.fields),
            bytes_read=sum(len(self.fields[name]) for name in read),
            bytes_put=self._take(judgement),
        )
        self.offset += 1
        self.history.append((event, then))
        return then

    def park(self, at_ms: int | None = None) -> Then:
        """A record of this patient that nobody can read."""
        meta = cast("Meta | None", self._field(META))
        received_ms = at_ms if at_ms is not None else self.now_ms + MINUTE_MS
        self.now_ms = max(self.now_ms, received_ms)
        judgement = park(meta, self.offset, received_ms, 1)
        put = self._take(judgement)
        self.offset += 1
        return Then(judgement, 1, 0, put)

    def again(self, event: AnyEvent, event_id: str | None = None) -> Then:
        """The same event once more; with another id: the same content under a new event."""
        return self.feed(_with_id(event, event_id) if event_id else event)

    @property
    def last(self) -> AnyEvent:
        """The event that was judged last."""
        return self.history[-1][0]

    # --- As the processor does it ---

    def _read_for(self, event: AnyEvent) -> Patient:
        fields = {name: self._field(name) for name in named_by(event.body)}
        fields |= {name: self._field(name) for name in pointed_at(event.body, fields) if name not in fields}
        keys = (event_key(event.event_id), natural_key(event))
        memory = {
            key: unpack_memory(key, self.memory[key]) if key in self.memory else None for key in keys if key is not None
        }
        return Patient(fields, memory)

    def _judge(self, patient: Patient, entry: LogEntry) -> Judgement:
        while True:
            fields, memory = dict(patient.fields), dict(patient.memory)
            try:
                judgement = evolve(patient, entry)
            except NotLoadedError as error:
                missing = error.field
            else:
                assert (patient.fields, patient.memory) == (fields, memory), "what was given was changed"
                return judgement
            assert missing not in patient.fields, "asked for what was read"
            if missing == EVERYTHING:
                patient = Patient({**self.everything()}, patient.memory, complete=True)
            else:
                patient.fields[missing] = self._field(missing)

    def _take(self, judgement: Judgement) -> int:
        """Keep what changed; returns how many bytes were written."""
        written = 0
        for name, value in judgement.puts.items():
            if value is None:
                self.fields.pop(name, None)
                continue
            packed = pack_field(value)
            assert unpack_field(name, packed) == value, f"{name} does not survive packing"
            self.fields[name] = packed
            written += len(packed)
        for key, remembered in judgement.remember.items():
            packed = pack_memory(remembered)
            assert unpack_memory(key, packed) == remembered, "memory does not survive packing"
            self.memory[key] = packed
            written += len(packed)
        for effect in judgement.effects:
            packed = pack_effect(self.offset, self.patient, effect)
            assert unpack_effect(packed).due == effect, "an effect does not survive packing"
        return written

    def _field(self, name: str) -> State | None:
        packed = self.fields.get(name)
        return None if packed is None else unpack_field(name, packed)

    def everything(self) -> dict[str, State]:
        """Every field that stands."""
        return {name: unpack_field(name, packed) for name, packed in self.fields.items()}

    # --- Then ---

    @property
    def meta(self) -> Meta:
        """What concerns the patient as a whole."""
        return cast("Meta | None", self._field(META)) or Meta()

    @property
    def allergies(self) -> tuple[AllergyState, ...]:
        """All that is recorded about allergies."""
        return (cast("Allergies | None", self._field(ALLERGIES)) or Allergies()).entries

    def prescription(self, rx: str = "R1") -> PrescriptionState:
        """A prescription that was seen."""
        return cast("PrescriptionState", self._field(prescription_field(id_of(rx))))

    def treatment(self, treatment: str = "T1") -> TreatmentState:
        """A treatment that was seen."""
        return cast("TreatmentState", self._field(treatment_field(id_of(treatment))))

    def knows(self, rx: str) -> bool:
        """Whether a prescription was seen."""
        return prescription_field(id_of(rx)) in self.fields

    def waiting(self, awaited: str) -> int:
        """How many facts wait for what has an id."""
        fields = (treatment_field, prescription_field, hand_out_field, allergy_awaited)
        found = (cast("Waiting | None", self._field(waiting_field(of(id_of(awaited))))) for of in fields)
        return sum(len(waiting.facts) for waiting in found if waiting)

    def status(self, rx: str = "R1", at_ms: int | None = None) -> str:
        """E, U, R, T or F, now or at another time."""
        return status(self.prescription(rx), self.meta.death, self.now_ms if at_ms is None else at_ms)

    def holder(self, rx: str = "R1") -> str | None:
        """The actor that holds a prescription."""
        claim = self.prescription(rx).claim
        return NAME_OF[claim.pharmacy] if claim else None

    def usage(self, rx: str = "R1") -> Usage:
        """What the standing hand-outs have used."""
        return usage(self.prescription(rx))

    def handed_out(self, rx: str = "R1") -> int:
        """What the standing hand-outs add up to, in whole tablets."""
        amount = self.usage(rx).amount
        assert amount == int(amount), "the tests hand out whole tablets"
        return int(amount)

    def refills_left(self, rx: str = "R1") -> int:
        """Refills left by the ruling's formula."""
        prescription = self.prescription(rx)
        return min(prescription.refills, prescription.refills + 1 - self.usage(rx).periods)

    def flags_on(self, rx: str = "R1") -> set[int]:
        """Codes of the flags of the standing hand-outs."""
        return {code for each in self.prescription(rx).hand_outs if not each.reversed for code in each.flags}

    def treatment_is(self, treatment: str = "T1", *, clock_ms: int | None = None) -> str:
        """unknown, active, paused, discontinued, withdrawn or course ended, now or by another clock."""
        shown = show_treatment(self.everything(), id_of(treatment), self.now_ms if clock_ms is None else clock_ms)
        if shown is None:
            return "unknown"
        if shown.status == "discontinued" and "withdrawn" in shown.flags:
            return "withdrawn"
        return "course ended" if shown.status == "completed" else shown.status


def _with_id(event: AnyEvent, event_id: str) -> AnyEvent:
    return ev.Event(
        event_id=event_id,
        patient=event.patient,
        occurred_at_ms=event.occurred_at_ms,
        received_at_ms=event.received_at_ms,
        source=event.source,
        body=event.body,
    )


def given(*history: Said, world: World | None = None) -> World:
    """A world in which this was said, one thing a minute; each of it must have been applied."""
    world = world or World()
    for said in history:
        then = world.when(said)
        assert then.outcome == "applied", f"{type(said.body).__name__}: {then.outcome}"
    return world
