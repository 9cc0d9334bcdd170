"""Laws of the door: it answers whatever comes, and what passes is what was sent."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from schemas import codec
from schemas.codes import CODES
from schemas.events import BODIES, Body, ClaimRequested, Event, PrescriptionIssued, Source
from services.admission.completion import event_id_of
from services.admission.door import Admitted
from services.admission.errors import TurnedAway
from services.admission.fields import LAST_YEAR, day, instant, number, text
from services.admission.plain import plain_of, rfc3339
from services.admission.read_token import InvalidReadToken, ReadToken
from services.admission.units import FORMS_OF_UNIT, fits_content, fits_form
from services.admission.validity import oslo_day, valid_until
from tests.unit.test_admission_door import DOOR, NOW_MS, PATIENT, TOKENS, a_prescription, admitted

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.decimals() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
PLACES = [(), ("medication",), ("medication", "product"), ("quantity",), ("dosing",), ("dosing", "periods", 0), ("patient",)]  # fmt: skip
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
INSTANTS = st.integers(min_value=-2_208_988_800_000, max_value=7_258_118_399_000)


def judged(struct: type[Body], sent: Any) -> Admitted | TurnedAway:
    """What the door says: nothing but these two ever."""
    try:
        return DOOR.admit_request(struct, sent, received_at_ms=NOW_MS)
    except TurnedAway as error:
        return error


@given(struct=st.sampled_from(BODIES), sent=JSON)
def test_whatever_comes_is_admitted_or_turned_away_with_errors(struct: type[Body], sent: Any) -> None:
    outcome = judged(struct, sent)
    assert isinstance(outcome, Admitted) or all(each.text for each in outcome.errors())


@given(place=st.sampled_from(PLACES), field=st.sampled_from(sorted(a_prescription())) | st.text(max_size=5), value=JSON)
def test_whatever_stands_in_a_field_of_a_good_message_the_door_answers(place: Any, field: str, value: Any) -> None:
    sent = a_prescription(patient=dict(PATIENT))
    inner: Any = sent
    for part in place:
        inner = inner[part]
    inner[field] = value
    passed = judged(PrescriptionIssued, sent)
    if isinstance(passed, TurnedAway):
        assert passed.errors()
        return
    body = passed.parts[0].body(event_id_of("journal", "key"), passed.patient, NOW_MS)
    source = Source(system="journal", organisation="974760673", role="doctor")
    event = Event(
        event_id=event_id_of("journal", "key"),
        patient=passed.patient,
        occurred_at_ms=NOW_MS,
        received_at_ms=NOW_MS,
        source=source,
        body=body,
    )
    assert codec.decode(codec.encode(event)) == event


@given(st.decimals(min_value=Decimal("0.0001"), max_value=Decimal(100_000), places=4))
def test_a_quantity_within_bounds_passes_exactly(value: Decimal) -> None:
    assert number(value, Decimal("0.0001"), Decimal(100_000)) == value


@given(INSTANTS)
def test_an_instant_read_back_is_the_same(at_ms: int) -> None:
    assert instant(rfc3339(at_ms)) == at_ms


@given(st.datetimes(min_value=datetime(1900, 1, 2), max_value=datetime(2200, 12, 30), timezones=st.timezones()))  # noqa: DTZ001 - hypothesis adds the zone
def test_an_instant_in_any_zone_is_the_same_instant(at: datetime) -> None:
    offset = at.utcoffset()
    if offset is None or offset.total_seconds() % 60:
        return  # RFC 3339 has no offsets of seconds
    assert instant(at.isoformat(timespec="milliseconds")) == (at - EPOCH) // timedelta(milliseconds=1)


@given(st.dates(min_value=date(1900, 1, 1), max_value=date(LAST_YEAR, 12, 31)))
def test_a_date_read_back_is_the_same(on: date) -> None:
    assert day(on.isoformat()) == on


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40).filter(str.strip))
def test_text_that_passed_passes_again_unchanged(value: str) -> None:
    once = text(value, 300)
    assert text(once, 300) == once


@given(version=st.integers(0, 2**62), at_ms=INSTANTS, is_whole=st.booleans(), changed=st.integers(0, 400))
def test_a_token_says_what_it_was_made_of_and_breaks_when_changed(
    version: int, at_ms: int, *, is_whole: bool, changed: int
) -> None:
    token = TOKENS.make("a" * 32, version, at_ms, is_whole=is_whole)
    assert TOKENS.verify("a" * 32, token) == ReadToken(version, at_ms, is_whole)
    at = changed % len(token)
    other = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
    try:
        assert TOKENS.verify("a" * 32, other) == ReadToken(version, at_ms, is_whole)
    except InvalidReadToken:
        return
    # The last character of base64 holds bits that mean nothing: only there can a change change nothing.
    assert at == len(token) - 1


@given(unit=st.sampled_from(sorted(FORMS_OF_UNIT)), content=st.sampled_from(sorted(FORMS_OF_UNIT)))
def test_units_that_fit_fit_both_ways(unit: str, content: str) -> None:
    assert fits_content(unit, content) == fits_content(content, unit)


def test_every_form_that_a_unit_knows_is_a_form_and_packages_fit_all() -> None:
    forms = set(CODES["form"])
    assert all(known <= forms for known in FORMS_OF_UNIT.values())
    assert set(FORMS_OF_UNIT) <= set(CODES["unit"])
    assert all(fits_form("package", form) for form in forms)


@given(at_ms=INSTANTS)
def test_a_prescription_is_valid_on_the_day_of_its_issue(at_ms: int) -> None:
    medication = admitted(PrescriptionIssued, a_prescription()).parts[0].fields["medication"]
    assert valid_until(medication, at_ms) > oslo_day(at_ms)


@given(key=st.text(max_size=20), other=st.text(max_size=20))
def test_an_event_id_belongs_to_one_key_of_one_system(key: str, other: str) -> None:
    assert (event_id_of("journal", key) == event_id_of("journal", other)) == (key == other)
    assert event_id_of("journal", key) != event_id_of("hospital", key)


def test_a_claim_in_the_form_of_a_submission_is_the_form_of_a_request() -> None:
    claim = ClaimRequested(claim="0" * 8, prescription="1" * 8)
    assert plain_of(claim) == {"claim": "0" * 8, "prescription": "1" * 8}
