"""The fields of a step under the contract's names; what nobody reads is told, so that no word of a scenario is passed over."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

TIMES: Final = ("received_at", "reported_at", "at", "occurred_at")
"""When a step is received: the first of them that it has."""
SYNONYMS: Final[Mapping[str, str]] = {
    "multi_dose": "multidose",
    "from": "start",
    "start_date": "start",
    "end_date": "end",
    "day": "on",
    "died_on": "on",
    "date": "on",
    "series": "series_id",
    "indication": "indication_text",
    "expires": "valid_until",
    "valid_to": "valid_until",
    "earliest": "earliest_dispense",
    "earliest_date": "earliest_dispense",
    "signed_at": "issued_at",
    "dosage": "dosing",
    "dose": "dosing",
    "name": "medication",
    "drug": "medication",
    "medicine": "medication",
    "product": "medication",
    "atc_code": "atc",
    "reference": "reference_number",
    "reimbursed": "reimbursement",
    "prescription_group": "group",
    "renal": "renal_note",
    "every_dispense": "every",
    "allergy": "id",
    "paper_id": "paper_prescription",
    "paper_prescription_id": "paper_prescription",
    "retracted": "retract",
    "retraction": "retract",
    "token": "read_token",
    "dispensed_quantity": "quantity",
    "refill": "refills",
    "stopped_at": "stops",
}
"""Words of the scenarios, and of those who read the header differently, for a field of the contract."""


class Terms(Mapping[str, Any]):
    """Fields by name. Whatever is read is noted; what remains is `unread`."""

    def __init__(self, said: Mapping[Any, Any], read: set[str] | None = None) -> None:
        self._said = {_name(key): value for key, value in said.items()}
        self._read = read if read is not None else set()

    def __getitem__(self, name: str) -> Any:
        value = self._said[name]
        self._read.add(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._said)

    def __len__(self) -> int:
        return len(self._said)

    def of(self, name: str) -> "Terms":
        """With what is said for one of several objects alone: `R5: {valid_until: d0+5d}`."""
        own = self.get(name, {})
        return Terms(self._said | {_name(key): value for key, value in own.items()}, self._read)

    @property
    def unread(self) -> list[str]:
        """Fields that nobody has read."""
        return sorted(set(self._said) - self._read)


def _name(key: object) -> str:
    """`on:` without quotes is a truth value to YAML."""
    if isinstance(key, bool):
        return "on" if key else "off"
    plain = str(key).strip().replace(" ", "_").replace("-", "_")
    return SYNONYMS.get(plain, plain)
