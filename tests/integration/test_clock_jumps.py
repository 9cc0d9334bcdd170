"""A service's clock that is an hour off, or jumps back: what happened keeps the log's order, and what a policy turns away says why."""

import json
from typing import Any, Final
from uuid import UUID, uuid5

import httpx
import pytest

from services.identity.national_id import synthetic
from services.medication_list.read_api.presenting import to_json
from tests.acceptance.translate import ACTORS
from tests.acceptance.values import instant
from tests.chain import Chain
from tests.integration.services_stand import a_prescription

pytestmark = pytest.mark.integration

NOON_MS: Final = instant("d0 12:00")
HOUR_MS: Final = 3_600_000
DOCTOR, P, Q = ACTORS["prescriber A"], ACTORS["pharmacy P"], ACTORS["pharmacy Q"]


def claim_of(prescription: str, who: Any) -> str:
    """The id that a pharmacy gives its claim of a prescription."""
    return str(uuid5(UUID(prescription), who.organisation))


def claim(
    chain: Chain, patient: dict[str, str], prescription: str, who: Any, at_ms: int | None = None
) -> httpx.Response:
    asked: dict[str, Any] = {"patient": patient, "prescription": prescription, "claim": claim_of(prescription, who)}
    if at_ms is not None:
        asked |= json.loads(to_json({"occurred_at_ms": at_ms}))
    return chain.post("pharmacy", "/v1/claims", asked, who)


def prescribed(chain: Chain, number: int) -> tuple[dict[str, str], str, str]:
    """A patient, a prescription of hers, and its position."""
    patient = {"national_id": synthetic(number).digits, "name": "Kari Nordmann"}
    answer = chain.post("prescriber", "/v1/prescriptions", a_prescription(patient=patient), DOCTOR)
    assert answer.status_code == 201, answer.text
    return patient, answer.json()["resource"]["prescription"], answer.json()["position"]


def place_of(position: str) -> tuple[int, int]:
    partition, offset = position.split("-")
    return int(partition), int(offset)


def test_a_clock_that_jumps_back_and_forth_does_not_move_what_happened(chain: Chain) -> None:
    chain.set_clock(NOON_MS)
    patient, prescription, issued = prescribed(chain, 62_001)
    won = claim(chain, patient, prescription, P)
    assert won.status_code == 201, won.text
    chain.set_clock(NOON_MS - HOUR_MS)
    # By the clock Q asked an hour before P did, and before anything was signed. In the log it asked after it.
    lost = claim(chain, patient, prescription, Q)
    assert (lost.status_code, lost.json()["holder"]) == (409, P.organisation)
    recalled = chain.post(
        "prescriber", f"/v1/prescriptions/{prescription}/recall", {"patient": patient, "reason": "other"}, DOCTOR
    )
    assert (recalled.status_code, recalled.json()["flags"]) == (201, ["recalled"])
    chain.set_clock(NOON_MS + HOUR_MS)
    aborted = chain.post(
        "pharmacy",
        f"/v1/claims/{claim_of(prescription, P)}/abort",
        {"patient": patient, "reason": "other"},
        P,
    )
    assert aborted.status_code == 201, aborted.text
    positions = [issued, *(each.json()["position"] for each in (won, lost, recalled, aborted))]
    assert sorted(positions, key=place_of) == positions
    events = chain.history(patient["national_id"], DOCTOR)
    assert [each["position"] for each in events] == positions
    (shown,) = chain.search(patient["national_id"], P)
    assert (shown["status"], shown.get("holder")) == ("T", None)


@pytest.mark.parametrize(
    ("off_ms", "reason"), [(HOUR_MS, "claim_too_old"), (-HOUR_MS, "occurred_in_future")], ids=["ahead", "behind"]
)
def test_a_clock_that_is_an_hour_off_turns_claims_away_with_the_field_and_the_reason(
    chain: Chain, off_ms: int, reason: str
) -> None:
    chain.set_clock(NOON_MS)
    patient, prescription, _ = prescribed(chain, 62_010 + (off_ms > 0))
    before = len(chain.history(patient["national_id"], DOCTOR))
    chain.set_clock(NOON_MS + off_ms)
    answer = claim(chain, patient, prescription, P, at_ms=NOON_MS)
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    assert (error["pointer"], error["reason"]) == ("/occurred_at", reason)
    assert error["text"]
    chain.set_clock(NOON_MS)
    assert len(chain.history(patient["national_id"], DOCTOR)) == before, "it was turned away before the log"
    assert claim(chain, patient, prescription, P, at_ms=NOON_MS).status_code == 201
