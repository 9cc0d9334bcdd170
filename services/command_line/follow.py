"""Follows one patient through the platform over real HTTP, and prints what happened, its outcome and the list after it."""

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import httpx
import msgspec
from rich.console import Console, Group
from rich.panel import Panel
from rich.text import Text

from services.simulator.http_channel import outcome_of, stated
from services.simulator.medicines import Medicine, medicines
from services.simulator.population import Actor, Patient, Town

_STATUS: Final = {"E": "dispensable", "U": "being dispensed", "R": "completed", "T": "recalled", "F": "expired"}
_COLOUR: Final = {"applied": "green", "duplicate": "cyan", "refused": "yellow"}
_TIMEOUT_S: Final = 15.0
_ENCODER: Final = msgspec.json.Encoder(decimal_format="number")


class StoryBrokenError(RuntimeError):
    """A step of the story did not end as it must."""


class Story:
    """One patient, two pharmacies, a doctor, and what they send to each other."""

    def __init__(self, urls: Mapping[str, str], town: Town, patient: Patient, out: Console) -> None:
        """`urls`: base URLs of prescriber, pharmacy and medication-list. The patient is one whom nobody knows yet."""
        self.doctor, self.citizen = town.doctors[0], town.citizen
        self.pharmacy, self.other = town.pharmacies[0], town.pharmacies[1]
        self._urls = urls
        self._patient = patient
        self._out = out
        self._client = httpx.Client(timeout=_TIMEOUT_S, trust_env=False)
        self._names = {
            self.pharmacy.organisation: "Apotek Nord",
            self.other.organisation: "Apotek Sør",
            self.doctor.organisation: "Dr. Fjellvik's office",
        }
        self.steps: list[dict[str, Any]] = []

    def tell(self) -> list[dict[str, Any]]:
        """Play the story from the first prescription to the renewal; returns what each step answered.

        Raises StoryBrokenError where a step ends otherwise than the rules say.
        """
        try:
            metformin = _medicine("Metformin Sandoz")
            first = self._prescribed_and_fought_over(metformin)
            self._handed_out_twice(first, metformin)
            self._changed_and_renewed(first, metformin)
            self._recalled(_medicine("Apocillin"))
            self._confirmed()
        finally:
            self._client.close()
        return self.steps

    def _prescribed_and_fought_over(self, medicine: Medicine) -> dict[str, str]:
        ids = {"prescription": _new_id(), "treatment": _new_id(), "claim": _new_id()}
        self._step(
            "The doctor asks about allergies: none known",
            self.doctor,
            "prescriber",
            "/v1/allergies",
            {"none_known": True, "source": "patient"},
        )
        self._step(
            f"The doctor prescribes {medicine.brand}, with 3 refills",
            self.doctor,
            "prescriber",
            "/v1/prescriptions",
            _prescription(medicine, ids, 3),
        )
        claim = {"claim": ids["claim"], "prescription": ids["prescription"]}
        self._step("Apotek Nord claims it, to hand it out", self.pharmacy, "pharmacy", "/v1/claims", claim)
        rival = {"claim": _new_id(), "prescription": ids["prescription"]}
        self._step(
            "Apotek Sør claims it at the same time, and is told who holds it",
            self.other,
            "pharmacy",
            "/v1/claims",
            rival,
            must="refused",
        )
        return ids

    def _handed_out_twice(self, ids: dict[str, str], medicine: Medicine) -> None:
        dispense = _dispense(medicine, ids, self._id("first"))
        self._step(
            "Apotek Nord hands out one package", self.pharmacy, "pharmacy", "/v1/dispenses", dispense, key="first"
        )
        self._step(
            "Its system is not sure that it was heard, and reports the same again",
            self.pharmacy,
            "pharmacy",
            "/v1/dispenses",
            dispense,
            key="first",
            must="duplicate",
        )
        unclaimed = {**_dispense(medicine, ids, self._id("second")), "offline": True}
        del unclaimed["claim"]
        self._step(
            "Apotek Sør hands out without a claim: recorded, and flagged",
            self.other,
            "pharmacy",
            "/v1/dispenses",
            unclaimed,
        )
        reverse = {"reversal": _new_id(), "reason": "Ikke hentet"}
        self._step(
            "The patient never came for it: Apotek Sør takes it back",
            self.other,
            "pharmacy",
            f"/v1/dispenses/{self._id('second')}/reverse",
            reverse,
        )

    def _changed_and_renewed(self, ids: dict[str, str], medicine: Medicine) -> None:
        today = datetime.now(UTC).date()
        doubled = msgspec.to_builtins(medicine.dosing(today, doubled=True), builtin_types=(Decimal,))
        change = {"reason": "HbA1c for høy", "dosing": doubled}
        self._step(
            "The doctor doubles the dose",
            self.doctor,
            "prescriber",
            f"/v1/treatments/{ids['treatment']}/change",
            change,
        )
        request = {
            "request": _new_id(),
            "prescription": ids["prescription"],
            "to": self.doctor.organisation,
            "message": "Jeg har snart ikke flere igjen.",
        }
        self._step("The patient asks for a renewal", self.citizen, "prescriber", "/v1/renewal-requests", request)
        renewed = {"prescription": _new_id(), "treatment": ids["treatment"]}
        body = {**_prescription(medicine, renewed, 3), "renews": ids["prescription"], "dosing": doubled}
        self._step(
            "The doctor renews: the old prescription is recalled by the new one",
            self.doctor,
            "prescriber",
            "/v1/prescriptions",
            body,
        )

    def _recalled(self, medicine: Medicine) -> None:
        ids = {"prescription": _new_id(), "treatment": _new_id()}
        self._step(
            f"The doctor prescribes {medicine.brand} for a week",
            self.doctor,
            "prescriber",
            "/v1/prescriptions",
            _prescription(medicine, ids, 0),
        )
        self._step(
            "and recalls it an hour later",
            self.doctor,
            "prescriber",
            f"/v1/prescriptions/{ids['prescription']}/recall",
            {"reason": "discontinued"},
        )
        claim = {"claim": _new_id(), "prescription": ids["prescription"]}
        self._step(
            "Apotek Sør wants to claim what is recalled", self.other, "pharmacy", "/v1/claims", claim, must="refused"
        )

    def _confirmed(self) -> None:
        token = {"read_token": self.read_list()["read_token"]}
        self._step("The doctor reads the list and confirms it", self.doctor, "prescriber", "/v1/reconciliations", token)

    def read_list(self) -> dict[str, Any]:
        """The list as the read API answers it. Raises StoryBrokenError when it does not."""
        asked = {"patient": {"national_id": self._patient.national_id.digits}}
        answer = self._client.post(
            f"{self._urls['medication-list']}/v1/list/read",
            json=asked,
            headers={"Medchain-Caller": stated(self.doctor)},
        )
        if not answer.is_success:
            raise StoryBrokenError(f"the list cannot be read: {answer.status_code}")
        told: dict[str, Any] = answer.json()
        return told

    def _step(
        self,
        what: str,
        by: Actor,
        service: str,
        path: str,
        body: dict[str, Any],
        *,
        key: str = "",
        must: str = "applied",
    ) -> None:
        """Send one request, tell what came of it, and show the list after it."""
        sent = {"patient": {"national_id": self._patient.national_id.digits, "name": self._patient.name}, **body}
        headers = {
            "Medchain-Caller": stated(by),
            "Idempotency-Key": self._id(key) if key else _new_id(),
            "Content-Type": "application/json",
        }
        answer = self._client.post(self._urls[service] + path, content=_ENCODER.encode(sent), headers=headers)
        told = answer.json()
        outcome = outcome_of(answer, told)
        self.steps.append(
            {"what": what, "status": answer.status_code, "outcome": outcome, "flags": told.get("flags", [])}
        )
        self._out.print(self._panel(what, answer.status_code, outcome, told))
        if outcome != must:
            raise StoryBrokenError(
                f"{what}: {outcome} ({answer.status_code}) where it must be {must}: {told.get('title', '')} {told.get('errors', '')}"
            )

    def _panel(self, what: str, status: int, outcome: str, told: Mapping[str, Any]) -> Panel:
        head = Text.assemble((outcome, f"bold {_COLOUR.get(outcome, 'red')}"), f"  HTTP {status}")
        for word, style in ((_reason(told), "yellow"), (", ".join(told.get("flags", ())), "magenta")):
            if word:
                head.append(f"  {word}", style)
        holder = told.get("holder")
        if holder:
            head.append(f"  held by {self._names.get(holder, holder)}", "yellow")
        return Panel(Group(head, *self._lines(self.read_list())), title=what, title_align="left", border_style="dim")

    def _lines(self, answer: Mapping[str, Any]) -> list[Text]:
        """The list as a person reads it."""
        shown = answer.get("list", answer)
        lines = [self._treatment(each) for each in shown.get("treatments", ())]
        lines += [
            Text(f"  handed out, prescription not seen: {each['dispense']}")
            for each in shown.get("unseen_hand_outs", ())
        ]
        confirmed = "confirmed by a doctor" if shown.get("reconciled") else "not confirmed"
        lines.append(
            Text(f"  allergies: {shown.get('allergy_status', 'not_asked').replace('_', ' ')} · {confirmed}", "dim")
        )
        return lines

    def _treatment(self, treatment: Mapping[str, Any]) -> Text:
        medication, dosing = treatment["medication"], treatment["dosing"]
        line = Text.assemble(
            "  ",
            (_named(medication), "bold"),
            f": {dosing['text']}",
            (f" [{treatment['status']}]", "cyan"),
        )
        for prescription in treatment.get("prescriptions", ()):
            line.append(f"\n      {self._prescription(prescription)}")
        last = treatment.get("last_dispense")
        if last:
            line.append(f"\n      last handed out by {self._names.get(last['pharmacy'], last['pharmacy'])}", "dim")
        return line

    def _prescription(self, shown: Mapping[str, Any]) -> str:
        holder = shown.get("holder")
        parts = [f"{shown['status']} {_STATUS[shown['status']]}"]
        if holder:
            parts.append(f"held by {self._names.get(holder, holder)}")
        parts.append(f"{shown['dispenses_done']} handed out, {shown['dispenses_left']} left")
        if shown.get("flags"):
            parts.append("flags: " + ", ".join(shown["flags"]))
        return " · ".join(parts)

    def _id(self, key: str) -> str:
        """The same id for the same key within one patient's story."""
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self._patient.index}/{key}"))


def _named(medication: Mapping[str, Any]) -> str:
    """Name and strength; a package's name has its strength in it."""
    name, strength = str(medication["product"]["name"]), medication.get("strength")
    return name if not strength or strength in name else f"{name} {strength}"


def _medicine(brand: str) -> Medicine:
    return next(medicine for medicine in medicines() if medicine.brand == brand)


def _prescription(medicine: Medicine, ids: Mapping[str, str], refills: int) -> dict[str, Any]:
    today = datetime.now(UTC).date()
    return {
        "prescription": ids["prescription"],
        "treatment": ids["treatment"],
        "medication": msgspec.to_builtins(medicine.by_package, builtin_types=(Decimal,)),
        "quantity": {"value": 1, "unit": "package"},
        "refills": refills,
        "dosing": msgspec.to_builtins(medicine.dosing(today), builtin_types=(Decimal,)),
        "use": medicine.use,
        "indication_text": medicine.indication,
        "valid_until": (today + timedelta(days=365 if refills else 10)).isoformat(),
    }


def _dispense(medicine: Medicine, ids: Mapping[str, str], dispense: str) -> dict[str, Any]:
    line = {
        "quantity": {"value": 1, "unit": "package"},
        "item_number": medicine.item_number,
        "content": {"value": medicine.package, "unit": medicine.package_unit},
        "strength": medicine.strength,
        "batch": "LB2277",
    }
    return {
        "dispense": dispense,
        "prescription": ids["prescription"],
        "claim": ids["claim"],
        "lines": [line],
        "period_completed": True,
        "completed": False,
    }


def _reason(told: Mapping[str, Any]) -> str:
    kind = told.get("type")
    return str(kind).rsplit("/", 1)[-1] if kind else str(told.get("reason") or "")


def _new_id() -> str:
    return str(uuid.uuid4())
