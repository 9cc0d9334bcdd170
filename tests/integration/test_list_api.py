"""The read API on a real log and a real Redis: lists, outcomes, history, the past, and what is not shown."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing

import pytest
from kafka import KafkaAdminClient

from tests.integration.list_stand import PARTITIONS, ListStand, a_list_stand, position
from tests.unit.fold_world import claimed, dispensed, id_of, issued

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def the_stand(kafka: str, redis_url: str) -> Iterator[ListStand]:
    topic = f"test-{uuid.uuid4().hex}"
    with closing(KafkaAdminClient(bootstrap_servers=kafka)) as admin:
        admin.create_topics({topic: {"num_partitions": PARTITIONS, "replication_factor": 1}}, wait_for_metadata=True)
    with a_list_stand(kafka, redis_url, topic) as stand:
        yield stand


@pytest.fixture
def stand(the_stand: ListStand) -> ListStand:
    return the_stand


def test_a_patient_who_never_had_anything_has_an_empty_list(stand: ListStand) -> None:
    read = stand.read(stand.a_patient())
    assert (read["treatments"], read["allergy_status"], read["complete"], read["version"]) == (
        [],
        "not_asked",
        True,
        -1,
    )
    assert read["generation"] == stand.generation


def test_what_was_issued_claimed_and_handed_out_stands_in_the_list(stand: ListStand) -> None:
    patient = stand.a_patient()
    for said in (issued("R1"), claimed("R1"), dispensed("D1", "R1")):
        place = stand.say(patient, said)
    read = stand.read(patient)
    (treatment,) = read["treatments"]
    (prescription,) = treatment["prescriptions"]
    assert prescription["prescription"] == id_of("R1")
    assert (prescription["status"], prescription["handed_out"], prescription["total"]) == ("E", 100, 400)
    assert prescription["issued"]["issued_at"].endswith("Z")
    assert "identity" not in prescription["issued"]
    assert read["position"] == position(place)


def test_an_outcome_tells_the_prescription_as_it_is_now(stand: ListStand) -> None:
    patient = stand.a_patient()
    place = stand.say(patient, issued("R2"))
    answer = stand.outcome(patient, place, stand.last_event_id)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["outcome"], told["position"]) == ("applied", position(place))
    assert told["resource"]["status"] == "E"
