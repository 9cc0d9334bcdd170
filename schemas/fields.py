"""The named kinds of field in the contract: what a value means on the wire, and what the door demands of it."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated


@dataclass(frozen=True, slots=True)
class Rule:
    """What the door checks of a field. The fold and the codec ignore it: they see only what passed.

    kind: uuid, instant, hpr, organisation, atc, item_number, pseudonym, text, code, number or count.
    codes: the name of a code list in `schemas.codes` (kind code).
    max_length: in characters after NFC (kind text). least, most: inclusive bounds (kind number, count).
    """

    kind: str
    codes: str = ""
    max_length: int = 0
    least: str = ""
    most: str = ""


Id = Annotated[str, Rule("uuid")]
"""A UUID in lower-case text form."""
Instant = Annotated[int, Rule("instant")]
"""Milliseconds since the epoch, UTC. At the HTTP edge: RFC 3339 with an offset."""
Hpr = Annotated[str, Rule("hpr")]
OrganisationNumber = Annotated[str, Rule("organisation")]
Atc = Annotated[str, Rule("atc")]
ItemNumber = Annotated[str, Rule("item_number")]
"""A package's number in the medicine catalogue (varenummer): six digits."""
Pseudonym = Annotated[str, Rule("pseudonym")]
Word = Annotated[str, Rule("text", max_length=64)]
Line = Annotated[str, Rule("text", max_length=300)]
Note = Annotated[str, Rule("text", max_length=4000)]
Signed = Annotated[str, Rule("text", max_length=600)]
Number = Annotated[Decimal, Rule("number", least="0.0001", most="100000")]
"""A positive decimal with at most four places; zero, negative, NaN and the absurd are turned away."""
Money = Annotated[Decimal, Rule("number", least="0", most="10000000")]
Count = Annotated[int, Rule("count", least="0", most="1000")]
Refills = Annotated[int, Rule("count", least="0", most="99")]

# Codes: strings, not Avro enums, so that a code list can grow without breaking a reader that is older than it.
Role = Annotated[str, Rule("code", codes="role")]
NationalIdKind = Annotated[str, Rule("code", codes="national_id_kind")]
Unit = Annotated[str, Rule("code", codes="unit")]
Form = Annotated[str, Rule("code", codes="form")]
TimeOfDay = Annotated[str, Rule("code", codes="time_of_day")]
Weekday = Annotated[str, Rule("code", codes="weekday")]
ItemGroup = Annotated[str, Rule("code", codes="item_group")]
PrescriptionGroup = Annotated[str, Rule("code", codes="prescription_group")]
Use = Annotated[str, Rule("code", codes="use")]
ReimbursementBasis = Annotated[str, Rule("code", codes="reimbursement_basis")]
RecallReason = Annotated[str, Rule("code", codes="recall_reason")]
DiscontinuationReason = Annotated[str, Rule("code", codes="discontinuation_reason")]
RecordedKind = Annotated[str, Rule("code", codes="recorded_kind")]
ReservedBy = Annotated[str, Rule("code", codes="reserved_by")]
Intervention = Annotated[str, Rule("code", codes="intervention")]
InterventionChange = Annotated[str, Rule("code", codes="intervention_change")]
Severity = Annotated[str, Rule("code", codes="severity")]
Certainty = Annotated[str, Rule("code", codes="certainty")]
AllergySource = Annotated[str, Rule("code", codes="allergy_source")]
Delivery = Annotated[str, Rule("code", codes="delivery")]
ReportedUse = Annotated[str, Rule("code", codes="reported_use")]
ReportedBy = Annotated[str, Rule("code", codes="reported_by")]
Administration = Annotated[str, Rule("code", codes="administration")]
Route = Annotated[str, Rule("code", codes="route")]
IndicationCode = Annotated[str, Rule("text", max_length=20)]
