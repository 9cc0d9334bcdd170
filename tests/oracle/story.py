"""Writes small histories of one patient for tests: one line an event, ids by name, a minute between events."""

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

from schemas import events as ev
from schemas import medication_list as ml
from schemas.reasons import ParkReason
from tests.oracle.history import OSLO, LogRecord, Unreadable, Verdict
from tests.oracle.naive import judge, show
from tests.organisations import organisation_number

FIRST_DAY: Final = date(2026, 3, 2)
MINUTE_MS: Final = 60_000
WHO: Final = {
    "A": ev.Source(system="ehr-a", organisation=organisation_number(1), role="doctor", person="9144889"),
    "B": ev.Source(system="ehr-b", organisation=organisation_number(2), role="doctor", person="9144900"),
    "nurse": ev.Source(system="ehr-a", organisation=organisation_number(1), role="nurse", person="9144927"),
    "locum": ev.Source(system="ehr-a", organisation=organisation_number(1), role="doctor"),
    "citizen": ev.Source(system="portal", organisation=organisation_number(4), role="citizen"),
    "operator": ev.Source(system="desk", organisation=organisation_number(5), role="operator"),
    "P": ev.Source(system="till-p", organisation=organisation_number(6), role="pharmacist"),
    "Q": ev.Source(system="till-q", organisation=organisation_number(7), role="pharmacist"),
}
METFORMIN: Final = ev.Medication(
    product=ev.Substance(name="Metformin"), form="tablet", atc="A10BA02", strength="500 mg"
)


def named(name: str) -> str:
    """The id that stands for a name."""
    return str(uuid5(NAMESPACE_URL, f"medchain:story:{name}"))


def organisation(who: str) -> str:
    """The organisation number of somebody."""
    return WHO[who].organisation


def at(days: float, clock: str = "09:00") -> int:
    """Milliseconds at that time of a day, so many days after the first."""
    day = FIRST_DAY + timedelta(days=days)
    return int(datetime.combine(day, time.fromisoformat(clock), OSLO).astimezone(UTC).timestamp() * 1000)


def tablets(value: float | str) -> ev.Quantity:
    """An amount of tablets."""
    return ev.Quantity(value=Decimal(str(value)), unit="tablet")


def daily(value: str = "1", start: date | None = None, end: date | None = None) -> ev.Dosing:
    """So many tablets each morning."""
    fixed = ev.FixedDose(dose=ev.Dose(low=Decimal(value), unit="tablet"), times_of_day=("morning",))
    return ev.Dosing(periods=(ev.DosingPeriod(start=start, end=end, fixed=(fixed,)),))


def prescription(rx: str, treatment: str = "T1", **changed: Any) -> ev.PrescriptionIssued:
    """Thirty tablets with one refill, signed on the first day, valid a year, changed as said."""
    fields: dict[str, Any] = {
        "prescription": named(rx),
        "treatment": named(treatment),
        "issued_at_ms": at(0),
        "valid_until": FIRST_DAY + timedelta(days=365),
        "medication": METFORMIN,
        "quantity": tablets(30),
        "refills": 1,
        "dosing": daily(),
    }
    return ev.PrescriptionIssued(**fields | changed)


def hand_out(dispense: str, rx: str = "R1", amount: float = 30, **changed: Any) -> ev.MedicationDispensed:
    """So many tablets handed out, neither period nor prescription said to be completed, changed as said."""
    fields: dict[str, Any] = {
        "dispense": named(dispense),
        "prescription": named(rx),
        "lines": (ev.DispensedLine(quantity=tablets(amount)),),
        "period_completed": False,
        "completed": False,
    }
    return ev.MedicationDispensed(**fields | changed)


@dataclass(slots=True)
class Story:
    """A history as it grows. `tell` appends one event and gives its verdict."""

    patient: str = "0123456789abcdef0123456789abcdef"
    records: list[LogRecord] = field(default_factory=list)
    now_ms: int = at(0)

    def tell(self, who: str, body: ev.Body, **envelope: Any) -> Verdict:
        """`envelope`: event_id, occurred_at_ms, received_at_ms; what is not said goes on by a minute."""
        self.now_ms = envelope.get("received_at_ms", self.now_ms + MINUTE_MS)
        fields: dict[str, Any] = {
            "event_id": named(f"event {len(self.records)}"),
            "patient": self.patient,
            "occurred_at_ms": self.now_ms,
            "received_at_ms": self.now_ms,
            "source": WHO[who],
        }
        event: ev.Event[ev.Body] = ev.Event(body=body, **fields | envelope)
        self.records.append(LogRecord(0, len(self.records), self.now_ms, event))
        return judge(self.records)[-1]

    def repeat(self, offset: int) -> Verdict:
        """The same record once more."""
        self.records.append(LogRecord(0, len(self.records), self.now_ms, self.records[offset].event))
        return judge(self.records)[-1]

    def spoil(self) -> Verdict:
        """A record that cannot be read."""
        self.now_ms += MINUTE_MS
        self.records.append(LogRecord(0, len(self.records), self.now_ms, Unreadable(ParkReason.UNREADABLE)))
        return judge(self.records)[-1]

    def list(self, at_ms: int | None = None) -> ml.MedicationList:
        """The list now, or for another clock."""
        return show(self.records, self.now_ms if at_ms is None else at_ms)

    def treatment(self, name: str = "T1", at_ms: int | None = None) -> ml.ShownTreatment:
        """One entry that is shown."""
        return next(entry for entry in self.entries(at_ms) if entry.treatment == named(name))

    def shows(self, name: str = "T1", at_ms: int | None = None) -> bool:
        """Whether an entry is shown."""
        return any(entry.treatment == named(name) for entry in self.entries(at_ms))

    def entries(self, at_ms: int | None = None) -> tuple[ml.ShownTreatment, ...]:
        """All entries, also those under "other prescriptions"."""
        shown = self.list(at_ms)
        return shown.treatments + shown.other_prescriptions

    def rx(self, name: str = "R1", at_ms: int | None = None) -> ml.ShownPrescription:
        """One prescription."""
        return next(p for entry in self.entries(at_ms) for p in entry.prescriptions if p.prescription == named(name))


def said(verdict: Verdict) -> str:
    """A verdict in one line: outcome, reason, flags."""
    reason = f"({verdict.reason})" if verdict.reason else ""
    return " ".join([f"{verdict.outcome}{reason}", *sorted(map(str, verdict.flags))])


def told(verdict: Verdict) -> list[str]:
    """Its notices and orders in short: kind and whom."""
    whom = {source.organisation: name for name, source in WHO.items() if name not in ("nurse", "locum")}
    notices = [f"{notice.kind} to {whom[notice.organisation]}" for notice in verdict.notices]
    return notices + [f"order to {whom[order.pharmacy]}" for order in verdict.orders]
