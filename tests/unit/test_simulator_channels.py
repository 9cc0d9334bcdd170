"""What the town sends passes the real door, keeps its meaning when it is played now, and leaves an honest history."""

import json
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from schemas import codec
from schemas.events import BODIES, Event, ListReconciled, Source
from schemas.reasons import DoorReason
from services.admission.door import Door
from services.admission.errors import TurnedAway
from services.admission.plain import plain_of
from services.admission.read_token import ReadTokens
from services.identity.pseudonym import Pseudonymiser
from services.pharmacy.api import WRITES as PHARMACY_WRITES
from services.prescriber.api import WRITES as PRESCRIBER_WRITES
from services.recording.caller import parse_caller
from services.simulator import timeshift
from services.simulator.damage import damaged
from services.simulator.diary import DAMAGES, DAY_MS, Planned
from services.simulator.history import History, Line, read
from services.simulator.http_channel import RESOURCES, composed, stated, unparseable
from services.simulator.playing import play
from services.simulator.population import Town, patient
from services.simulator.rates import Rates
from services.simulator.submission_channel import order_key, submission_of, topic_of
from services.simulator.town import events, patients_for
from services.topics.registry import load

NOW_MS = 1_795_000_000_000


@pytest.fixture(scope="module")
def door() -> Door:
    return Door(Pseudonymiser(bytes(32)), ReadTokens(bytes(32)))


@pytest.fixture(scope="module")
def played() -> list[Planned]:
    return list(events(21, 12_000, rates=Rates(death=0.3)))


def turned_away(door: Door, planned: Planned) -> list[Any]:
    """What the real door finds wrong with an action that is sent over HTTP."""
    _, _, fields = composed(planned, patient(planned.patient), NOW_MS)
    given = json.loads(msgspec.json.Encoder(decimal_format="number").encode(fields), parse_float=Decimal)
    id_field = RESOURCES[type(planned.body)].id_field
    known = {id_field: str(getattr(planned.body, id_field))} if id_field else {}
    try:
        door.admit_request(type(planned.body), given, received_at_ms=NOW_MS, known=known)
    except TurnedAway as error:
        return list(error.findings)
    return []


def test_everything_in_the_town_passes_the_door_over_http(door: Door, played: list[Planned]) -> None:
    for planned in played:
        found = turned_away(door, planned)
        if isinstance(planned.body, ListReconciled):
            # The town cannot know a token: the channel reads the list for it.
            assert {finding.reason for finding in found} == {DoorReason.TOKEN_NOT_VALID}
        else:
            assert found == [], (planned.body, found)


def test_every_event_has_the_resource_that_the_services_offer() -> None:
    offered = {(write.records, write.path.replace("{id}", "{}")) for write in (*PRESCRIBER_WRITES, *PHARMACY_WRITES)}
    assert {(struct, resource.path) for struct, resource in RESOURCES.items()} == offered
    assert set(RESOURCES) == set(BODIES)


def test_who_calls_is_stated_as_the_services_read_it(played: list[Planned]) -> None:
    for planned in played[:500]:
        caller = parse_caller(stated(planned.actor))
        assert caller is not None
        assert (caller.system, caller.organisation) == (planned.actor.system, planned.actor.organisation)


def test_what_is_played_now_keeps_its_distances_in_time(played: list[Planned]) -> None:
    for planned in played[:2_000]:
        moved = timeshift.moved(planned.body, 400 * DAY_MS)
        for field in planned.body.__struct_fields__:
            before, after = getattr(planned.body, field), getattr(moved, field)
            if isinstance(before, date) and field != "earliest_dispense":
                assert (after - before).days == 400
            if field.endswith("at_ms"):
                assert after - before == 400 * DAY_MS


def test_what_is_played_now_happened_now_or_as_late_as_planned(played: list[Planned]) -> None:
    on_time = replace(played[0], occurred_at_ms=1_000, received_at_ms=1_900)
    assert timeshift.happened_ms(on_time, NOW_MS) == NOW_MS
    late = replace(played[0], occurred_at_ms=0, received_at_ms=DAY_MS)
    assert timeshift.happened_ms(late, NOW_MS) == NOW_MS - DAY_MS
    assert timeshift.happened_ms(replace(late, irregularity="duplicate"), NOW_MS) == NOW_MS


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_cannot_be_read(damage: str, played: list[Planned]) -> None:
    planned = played[0]
    source = Source(system="journal", organisation=planned.actor.organisation, role="doctor")
    event = Event(
        event_id=planned.event_id,
        patient="0" * 32,
        occurred_at_ms=1,
        received_at_ms=1,
        source=source,
        body=planned.body,
    )
    with pytest.raises(codec.UndecodableError):
        codec.decode(damaged(codec.encode(event), damage))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_request_is_no_json_object(damage: str) -> None:
    with pytest.raises((ValueError, AssertionError)):
        assert isinstance(json.loads(unparseable(b'{"a": 1}', damage)), dict)


def test_every_action_has_a_declared_topic_and_a_key_that_is_no_national_id(played: list[Planned]) -> None:
    for planned in played[:3_000]:
        kind = f"Submission{type(planned.body).__name__}"
        assert kind in load().declaration(topic_of(planned)).schemas
        assert patient(planned.patient).national_id.digits not in order_key(planned)


def test_a_patient_has_one_ordering_key_in_each_system(played: list[Planned]) -> None:
    keys = {(planned.actor.system, planned.patient): order_key(planned) for planned in played}
    assert len(set(keys.values())) == len(keys)


def test_a_history_is_read_as_it_was_written_and_counts_by_outcome(tmp_path: Path) -> None:
    lines = [
        Line(
            channel="http",
            event_id=str(number),
            type="PatientDied",
            patient=1,
            organisation="9",
            sent_at_ms=1,
            answered_at_ms=2,
            outcome=outcome,
            ids={},
        )
        for number, outcome in enumerate(("applied", "refused", "applied"))
    ]
    with History(tmp_path / "history.jsonl") as history:
        for line in lines:
            history.write(line)
    assert read(tmp_path / "history.jsonl") == lines
    assert history.counts == {("http", "applied"): 2, ("http", "refused"): 1}


class Listening:
    """A channel that writes down what it is given."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.heard: list[Planned] = []
        self.closed = False

    async def take(self, planned: Planned) -> None:  # noqa: D102  the port says it
        self.heard.append(planned)

    async def close(self) -> None:  # noqa: D102  as above
        self.closed = True


async def test_a_patient_goes_through_one_channel_and_keeps_their_order(played: list[Planned]) -> None:
    one, other = Listening("one"), Listening("other")
    done = await play(played, {one: 2, other: 1})
    assert done.actions == len(played) == len(one.heard) + len(other.heard)
    assert {each.patient for each in one.heard}.isdisjoint(each.patient for each in other.heard)
    for channel in (one, other):
        assert channel.closed
        theirs = {each.patient for each in channel.heard}
        assert channel.heard == [each for each in played if each.patient in theirs]


def test_a_town_has_a_patient_for_each_hundred_events() -> None:
    assert patients_for(100_000) == 1_000 == len(Town(1_000).patients)


def test_a_submission_of_every_kind_of_action_is_admitted(door: Door, played: list[Planned]) -> None:
    for planned in played[:3_000]:
        if isinstance(planned.body, ListReconciled):
            continue
        submission = submission_of(planned, patient(planned.patient), NOW_MS)
        given = plain_of(codec.decode(codec.encode(submission)))
        door.admit_submission(type(planned.body), given, received_at_ms=NOW_MS)
