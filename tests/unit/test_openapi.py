"""The OpenAPI documents say what must be sent and what comes, and what is really answered is as they say."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate

from schemas.events import ClaimRequested, PrescriptionIssued
from schemas.medication_list import PrescriptionsPage
from services.identity.national_id import synthetic
from services.identity.sealing import SealedIdentityContent, Sealer
from services.medication_list.read_api import app as medication_list
from services.medication_list.read_api.list_answer import answered, stood
from services.medication_list.read_api.presenting import to_json
from services.medication_list.read_api.resources import resource_of
from services.medication_list.read_api.view import show, show_prescription
from services.pharmacy import api as pharmacy
from services.prescriber import api as prescriber
from services.publishing.log import Position
from services.recording.answers import Answering, answer_to_one, answer_to_several
from services.recording.outcomes import Judgement
from services.recording.recorder import Recorded
from tests.unit import fold_world as told
from tests.unit.fold_world import PATIENT, Said, World, at, id_of, organisation

SEALER = Sealer(b"s" * 32)
IDENTITY = SealedIdentityContent(synthetic(1), "Ola Nordmann")
ANSWERING = Answering(organisation("P"), SEALER, "http://list")


def never() -> Any:
    raise AssertionError("a document needs no running service")


APPS: Final = {
    "prescriber": prescriber.prescriber_app(never),
    "pharmacy": pharmacy.pharmacy_app(never),
    "medication list": medication_list.create_app(never),
}
DOCUMENTS: Final[Mapping[str, Any]] = {name: json.loads(json.dumps(app.openapi())) for name, app in APPS.items()}
WRITES: Final = {
    write.records: (DOCUMENTS[service]["paths"][write.path]["post"], DOCUMENTS[service])
    for service, writes in (("prescriber", prescriber.WRITES), ("pharmacy", pharmacy.WRITES))
    for write in writes
}
SEARCH: Final = DOCUMENTS["pharmacy"]["paths"]["/v1/prescriptions/search"]["post"]


def operations() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every operation for outsiders, with its path."""
    for document in DOCUMENTS.values():
        for path, methods in document["paths"].items():
            if path.startswith("/v1/"):
                yield from ((path, operation) for operation in methods.values())


def faults(described: Mapping[str, Any], document: Mapping[str, Any], value: object) -> list[str]:
    """What is wrong with a JSON value, by the JSON content of a body or an answer."""
    schema = described["content"]["application/json"]["schema"]
    validator = OAS31Validator({**schema, "components": document["components"]})
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]


@pytest.mark.parametrize("service", DOCUMENTS)
def test_the_document_is_valid_and_refers_to_all_that_it_holds(service: str) -> None:
    document = DOCUMENTS[service]
    validate(document)
    text = json.dumps(document)
    for name in document["components"]["schemas"]:
        assert f'"#/components/schemas/{name}"' in text


def test_a_header_without_which_a_request_is_turned_away_is_required() -> None:
    writes = [operation for operation, _ in WRITES.values()]
    for path, operation in operations():
        required = {each["name"] for each in operation["parameters"] if each["in"] == "header" and each["required"]}
        assert required == {"medchain-caller"} | ({"idempotency-key"} if operation in writes else set()), path


def test_the_headers_of_answers_are_described() -> None:
    for path, operation in operations():
        assert "Retry-After" in operation["responses"]["503"]["headers"], path
        assert operation["responses"]["401"]["content"], path
    for write, _ in WRITES.values():
        assert set(write["responses"]["202"]["headers"]) == {"Location", "Retry-After", "Preference-Applied"}


def test_a_list_says_how_many_elements_it_may_have() -> None:
    for operation, document in WRITES.values():
        for each in arrays_in(operation["requestBody"], document["components"]["schemas"], set()):
            assert each["maxItems"] == 100, each


def arrays_in(value: Any, schemas: Mapping[str, Any], seen: set[str]) -> Iterator[Mapping[str, Any]]:
    match value:
        case {"$ref": str(reference)}:
            name = reference.rpartition("/")[2]
            if name not in seen:
                yield from arrays_in(schemas[name], schemas, seen | {name})
        case {"type": "array"}:
            yield value
            yield from arrays_in(value["items"], schemas, seen)
        case dict() | list():
            for inner in value.values() if isinstance(value, dict) else value:
                yield from arrays_in(inner, schemas, seen)
        case _:
            return


PERSON = {"national_id": synthetic(1).digits}


@pytest.mark.parametrize("body", [{"patient": PERSON}, {"reference_number": "1234-5678", "all": True, "limit": 200}])
def test_a_search_is_described(body: object) -> None:
    assert faults(SEARCH["requestBody"], DOCUMENTS["pharmacy"], body) == []


@pytest.mark.parametrize(
    "body", [{"patient": synthetic(1).digits}, {"patients": [PERSON]}, {"patient": PERSON, "limit": 201}, []]
)
def test_a_search_that_is_turned_away_is_none_by_its_description(body: object) -> None:
    assert faults(SEARCH["requestBody"], DOCUMENTS["pharmacy"], body)


# --- What is answered ---------------------------------------------------------------------------------------------


def story(world: World) -> Iterator[Said]:
    """One event for every resource that takes writes."""
    sealed = SEALER.seal(IDENTITY, PATIENT)
    yield told.issued("R1", at_ms=at(0), identity=sealed, note="with food")
    yield told.allergic("A1")
    yield told.renewal_requested("R1")
    yield told.renewal_declined()
    yield told.dispatched("R1")
    yield told.dispatch_withdrawn("R1")
    yield told.claimed("R1", "C1")
    yield told.aborted("C1")
    yield told.claimed("R1", "C2")
    yield told.dispensed("D1", "R1")
    yield told.reversed_("D1")
    yield told.claimed("R1", "C3")
    yield told.released("C3")
    yield told.changed("T1")
    yield told.paused("T1")
    yield told.resumed("T1")
    yield told.use_reported("T1")
    yield told.discontinued("T1", at_ms=at(1))
    yield told.reinstated("T1")
    yield told.recalled("R1")
    yield told.recorded("T2")
    yield told.withdrawn("T2")
    yield told.refuted("A1")
    yield told.multidose()
    yield told.multidose_ended()
    version = show(world.everything(), world.now_ms).version
    yield told.reconciled(version, at_ms=world.now_ms + 1, read_ms=world.now_ms)
    yield told.died()
    yield told.death_retracted()


def recorded_in(world: World, said: Said) -> Recorded:
    """An event that the world has judged, with what the list shows of it."""
    then = world.when(said)
    assert then.outcome == "applied", said
    claimed = id_of("R1") if type(said.body).__name__ in {"ClaimAborted", "ClaimReleased"} else None
    flags = tuple(sorted(then.flags))
    resource = to_json(resource_of(world.everything(), said.body, flags, world.now_ms, claimed=claimed))
    judgement = Judgement("applied", flags=flags, resource=msgspec.Raw(resource))
    return Recorded(world.last, Position(3, world.offset - 1, 0), judgement)


def test_what_is_answered_to_a_write_is_what_its_document_says() -> None:
    world, seen = World(), set[type]()
    for said in story(world):
        recorded = recorded_in(world, said)
        operation, document = WRITES[type(said.body)]
        answer = json.loads(bytes(answer_to_one(recorded, ANSWERING).body))
        assert faults(operation["responses"]["201"], document, answer) == [], said
        assert faults(operation["responses"]["201"], document, {**answer, "resource": "anything"}), said
        seen.add(type(said.body))
    assert seen == set(WRITES)


def test_what_is_answered_to_several_prescriptions_and_before_they_are_judged_is_what_the_document_says() -> None:
    world = World()
    recorded = [recorded_in(world, told.issued(name, name, at_ms=at(0))) for name in ("R1", "R2")]
    operation, document = WRITES[PrescriptionIssued]
    for status, each in (("201", recorded), ("202", [each._replace(judgement=None) for each in recorded])):
        several = answer_to_several(each, ANSWERING)
        assert several.status_code == int(status)
        answer = json.loads(bytes(several.body))
        assert faults(operation["responses"][status], document, answer) == []
        answer["outcomes"][1]["resource"] = {"anything": 1}
        assert faults(operation["responses"][status], document, answer)


def test_what_is_read_is_what_the_documents_say() -> None:
    world = World()
    for said in story(world):
        world.when(said)
    fields = world.everything()
    stands = stood("g1-5fa1c0", 3, world.offset, world.now_ms, fields)
    page = PrescriptionsPage((show_prescription(fields, id_of("R1"), world.now_ms, ()),), None, *stands)  # type: ignore[arg-type]  # it is there
    found = json.loads(to_json(page))
    assert found["prescriptions"][0]["issued"]["note"] == "with food"
    assert faults(SEARCH["responses"]["200"], DOCUMENTS["pharmacy"], found) == []
    assert faults(SEARCH["responses"]["200"], DOCUMENTS["pharmacy"], {**found, "prescriptions": [{}]})
    document = DOCUMENTS["medication list"]
    whole = json.loads(to_json(answered(show(fields, world.now_ms), stands, as_of_ms=world.now_ms, read_token=None)))
    assert faults(document["paths"]["/v1/list/read"]["post"]["responses"]["200"], document, whole) == []


def test_a_claim_s_answer_says_who_the_patient_is_and_so_does_its_document() -> None:
    world = World()
    world.when(told.issued("R1", at_ms=at(0), identity=SEALER.seal(IDENTITY, PATIENT)))
    recorded = recorded_in(world, told.claimed("R1", "C1"))
    operation, document = WRITES[ClaimRequested]
    answer = json.loads(bytes(answer_to_one(recorded, ANSWERING).body))
    assert answer["resource"]["patient"] == {"national_id": IDENTITY.national_id.digits, "name": IDENTITY.name}
    for wrong in ({"national_id": 1, "name": "x"}, "sealed"):
        broken = {**answer, "resource": {**answer["resource"], "patient": wrong}}
        assert faults(operation["responses"]["201"], document, broken)
    unsealed = {**answer, "resource": {**answer["resource"], "patient": None}}
    assert faults(operation["responses"]["201"], document, unsealed) == []
