"""What a step of a scenario expects, each sentence held to what the services answered and show."""

import json
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from schemas import events as ev
from services.medication_list.read_api.presenting import to_json
from tests.acceptance.answered import Answered
from tests.acceptance.header_checks import check_sentence, check_unsaid_flags
from tests.acceptance.journey import Journey
from tests.acceptance.translate import ACTORS, ORGANISATIONS
from tests.acceptance.unclear import Unclear

Said = re.Match[str]


def milliseconds(instant: str) -> int:
    """Of an instant as the services write it."""
    return round(datetime.fromisoformat(instant).timestamp() * 1000)


# --- Outcomes ---------------------------------------------------------------------------------------------------------


def is_parked(journey: Journey, _said: Said) -> None:
    assert journey.step is not None
    digits = journey.patient(journey.step.patient).digits
    last = journey.chain.history(digits, ACTORS["clinician C"])[-1]
    assert (last["position"], last["outcome"]) == (journey.position[journey.step.patient], "parked")
    assert last["reason"] == "unknown_schema"
    assert "content" not in last


def is_turned_away_whole(journey: Journey, _said: Said) -> None:
    told = journey.the_answer
    assert told.outcome == "turned away"
    faults = {(each["pointer"], each["reason"]) for each in told.document["errors"]}
    assert journey.step is not None
    names = [name for name, event in journey.play.sent.items() if isinstance(event.body, ev.PrescriptionIssued)]
    assert faults == {
        (f"/prescriptions/{names.index(name)}/{field}", "missing") for name, field in journey.step.without.items()
    }


# --- Answers ----------------------------------------------------------------------------------------------------------


def answers_claim(journey: Journey, _said: Said) -> None:
    given, claimed = journey.the_answer.document["resource"], journey.the_answer.body
    assert isinstance(claimed, ev.ClaimRequested)
    signed = [event.body for event in journey.play.sent.values() if isinstance(event.body, ev.PrescriptionIssued)]
    issued = json.loads(to_json(next(each for each in signed if each.prescription == claimed.prescription)))
    shown = given["prescription"]
    assert shown["prescription"] == claimed.prescription
    assert {key: shown["issued"][key] for key in ("medication", "quantity", "dosing")} == {
        key: issued[key] for key in ("medication", "quantity", "dosing")
    }
    assert given["dosing_in_force"]["dosing"]["periods"]
    assert given["dosing_in_force"]["text"]
    whole = journey.now.whole
    assert (given["allergy_status"], given["allergies"]) == (whole["allergy_status"], whole["allergies"])
    assert set(given["flags"]) == journey.the_answer.flags
    letter = journey.of_whom[journey.step.n] if journey.step else "X"
    assert given["patient"] == {"national_id": journey.patient(letter).digits, "name": journey.name_of(letter)}


def answers_both_dosings(journey: Journey, _said: Said) -> None:
    given = journey.the_answer.document["resource"]
    in_force, own = given["dosing_in_force"], given["prescription"]["issued"]
    assert dose_of(in_force["dosing"]) == 0.5
    assert dose_of(own["dosing"]) == 1
    assert in_force["strength"] == own["medication"]["strength"] == "500 mg"
    assert "500 mg" in in_force["text"]


def dose_of(dosing: dict[str, Any]) -> float:
    return float(dosing["periods"][0]["fixed"][0]["dose"]["low"])


# --- Prescriptions ----------------------------------------------------------------------------------------------------


def has_status(journey: Journey, said: Said) -> None:
    shown = journey.prescription(said["rx"])
    assert shown["status"] == said["status"]
    if said["holder"]:
        assert shown.get("holder") == ORGANISATIONS.get(said["holder"])
    if said["left"]:
        assert shown["dispenses_left"] == int(said["left"])
    if said["flag"]:
        assert said["flag"] in shown["flags"]
    if said["status"] in "EU" and not shown["issued"].get("locked"):
        path = f"/v1/prescriptions/{shown['prescription']}/status"
        answer = journey.chain.get("medication-list", path, ACTORS["prescriber A"])
        assert shown.items() <= answer.json().items(), "the status of one prescription and the search agree"


def finds_some(journey: Journey, _said: Said) -> None:
    found = {each["prescription"]: (each["status"], each.get("holder")) for each in journey.found}
    assert found == {
        journey.play.id_of("R1"): ("E", None),
        journey.play.id_of("R2"): ("U", ORGANISATIONS["P"]),
    }


# --- The list ---------------------------------------------------------------------------------------------------------


def shows_incomplete(journey: Journey, _said: Said) -> None:
    whole = journey.now.whole
    assert journey.entry("T1") is not None
    assert whole["complete"] is False
    assert milliseconds(whole["incomplete_since"]) == journey.parked.timestamp
    assert whole["read_token"]


def comes_as_an_order(_journey: Journey, _said: Said) -> None:
    """Read from the pharmacy's topic when the scenario has ended: see `end_checks.orders_of`."""


CHECKS: Final[dict[str, Callable[[Journey, Said], None]]] = {
    r"parked": is_parked,
    r"turned away at the door as a whole, with every error of every line": is_turned_away_whole,
    r"the answer carries the whole prescription, the dosing in force, allergies and flags": answers_claim,
    r"the answer carries the dosing in force \(half a tablet\) and the prescription's own .*": answers_both_dosings,
    r"(?P<rx>R\d+) status (?P<status>[EURTF])( held by (?P<holder>P|Q|nobody)|, dispenses left (?P<left>\d+))?(, flag (?P<flag>\w+))?": has_status,
    r"returns R1 \(E\) and R2 \(U, held by P\)": finds_some,
    r"shows T1, says that it is incomplete.*": shows_incomplete,
    r"one order, with the whole prescription, .*": comes_as_an_order,
}


def check_step(seen: Answered, unclear: Unclear) -> None:
    """Hold the present step to each of its expectations, in a check of its own or in the header's words.

    What a past list shows is not asked here: it goes by the broker's time, and only the services' clock can be set.
    """
    for expected in [] if seen.step.as_of_ms is not None else seen.step.expect:
        try:
            with unclear.noted(f"step {seen.step.n}"):
                _check(seen, expected)
        except AssertionError as error:
            answered = [document for _, document in seen.documents()]
            error.add_note(f"step {seen.step.n}: {expected}; answered {answered}")
            raise
    check_unsaid_flags(seen, seen.play.scenario)


def _check(seen: Answered, expected: str) -> None:
    for pattern, holds in CHECKS.items():
        said = re.fullmatch(pattern, expected)
        if said is not None:
            holds(seen.journey, said)
            return
    check_sentence(seen, expected)
