"""Every error that leaves a service is a problem document that says what is wrong and repeats nothing of it."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI, Header
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from schemas.reasons import DoorReason, Reason
from services.problems import (
    PROBLEM_RESPONSES,
    FieldError,
    Problem,
    install,
    invalid,
    refused,
    turned_away,
    unavailable,
)
from services.problems.rendering import preferred_language

PATIENTS_NUMBER = "02013299997"


class Package(BaseModel):
    """A package by its number."""

    model_config = ConfigDict(extra="forbid")
    kind: Literal["package"]
    item: Annotated[str, Field(pattern="^[0-9]{6}$")]


class Mixture(BaseModel):
    """A mixture with directions."""

    kind: Literal["mixture"]
    directions: Annotated[str, Field(max_length=10)]


class Line(BaseModel):
    """One line of an order."""

    model_config = ConfigDict(extra="forbid")
    quantity: Annotated[int, Field(gt=0, le=1000)]
    medication: Annotated[Package | Mixture, Field(discriminator="kind")]


class Order(BaseModel):
    """What is sent."""

    model_config = ConfigDict(extra="forbid")
    patient: str
    lines: Annotated[list[Line], Field(min_length=1, max_length=3)]


class LogAwayError(Exception):
    """Stands for an error that another try may mend."""


def application() -> FastAPI:
    app = FastAPI()
    install(app, retryable={LogAwayError: DoorReason.LOG_UNAVAILABLE}, largest_bytes=4_096)

    @app.post("/orders", responses=PROBLEM_RESPONSES)
    async def order(order: Order, idempotency_key: Annotated[str, Header()]) -> dict[str, str]:
        return {"patient": order.patient, "key": idempotency_key}

    @app.get("/things/{thing}")
    async def thing(thing: UUID, limit: int = 10) -> str:
        return f"{thing}{limit}"

    @app.post("/raise/{what}")
    async def failing(what: str) -> None:
        raise {
            "held": refused(Reason.HELD, holder="974760673"),
            "log": LogAwayError(PATIENTS_NUMBER),
            "list": unavailable(DoorReason.LIST_UNAVAILABLE, retry_after_s=7, progress=0.5),
            "bug": RuntimeError(PATIENTS_NUMBER),
            "key": turned_away(DoorReason.NO_IDEMPOTENCY_KEY),
            "custom": invalid([FieldError("/a", DoorReason.WRONG_CHECKSUM, "Own words.")]),
        }[what]

    return app


class Client:
    """Asks an application in this process and takes what it answers, errors included."""

    def __init__(self, app: FastAPI) -> None:
        self._transport = httpx.ASGITransport(app, raise_app_exceptions=False)

    def request(self, method: str, path: str, **sent: Any) -> httpx.Response:
        """Send it and wait for the answer."""

        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(transport=self._transport, base_url="http://service") as client:
                return await client.request(method, path, **sent)

        return asyncio.run(ask())

    def get(self, path: str) -> httpx.Response:
        """A read."""
        return self.request("GET", path)

    def post(self, path: str, **sent: Any) -> httpx.Response:
        """A write."""
        return self.request("POST", path, **sent)


@pytest.fixture(scope="module")
def client() -> Client:
    return Client(application())


def post(client: Client, body: object, **headers: str) -> tuple[int, dict[str, Any]]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"content-type": "application/json", "idempotency-key": "k1", **headers}
    answer = client.post("/orders", content=content, headers=sent)
    if answer.status_code != 200:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == answer.status_code
        assert PATIENTS_NUMBER not in answer.text
    return answer.status_code, answer.json()


def reasons(problem: dict[str, Any]) -> set[tuple[str, str]]:
    return {(error["pointer"], error["reason"]) for error in problem["errors"]}


GOOD = {"patient": "p", "lines": [{"quantity": 1, "medication": {"kind": "package", "item": "123456"}}]}


def test_a_good_message_comes_through_with_its_whole_body(client: Client) -> None:
    assert post(client, GOOD) == (200, {"patient": "p", "key": "k1"})


def test_all_faults_of_all_fields_are_told_at_once_with_pointers_into_the_message(client: Client) -> None:
    body = {
        "patient": 5,
        "other": PATIENTS_NUMBER,
        "lines": [
            {"quantity": 0, "medication": {"kind": "package", "item": PATIENTS_NUMBER}},
            {"quantity": 1001, "medication": {"kind": "package"}},
            {"quantity": None, "medication": {"kind": "mixture", "directions": PATIENTS_NUMBER}},
        ],
    }
    status, problem = post(client, body)
    assert status == 422
    assert problem["type"] == "/problems/invalid"
    assert reasons(problem) == {
        ("/patient", "wrong_type"),
        ("/other", "unexpected_field"),
        ("/lines/0/quantity", "not_positive"),
        ("/lines/0/medication/item", "wrong_format"),
        ("/lines/1/quantity", "out_of_range"),
        ("/lines/1/medication/item", "missing"),
        ("/lines/2/quantity", "null_not_allowed"),
        ("/lines/2/medication/directions", "too_long"),
    }


def test_an_unknown_alternative_and_an_empty_list_are_told_where_they_stand(client: Client) -> None:
    status, problem = post(client, {"patient": "p", "lines": [{"quantity": 1, "medication": {"kind": "potion"}}]})
    assert (status, reasons(problem)) == (422, {("/lines/0/medication", "unknown_code")})
    status, problem = post(client, {"patient": "p", "lines": []})
    assert (status, reasons(problem)) == (422, {("/lines", "too_few")})


def test_a_text_says_the_limit(client: Client) -> None:
    body = {"patient": "p", "lines": [{"quantity": 1001, "medication": GOOD["lines"][0]["medication"]}]}  # type: ignore[index]
    _, problem = post(client, body)
    assert problem["errors"][0]["text"] == "The value is outside of what is reasonable (at most 1000)."


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b"{", 400, "not_parseable"),
        (b'{"a":' * 1_000, 413, "too_large"),
        (b"[" * 1_000, 400, "nested_too_deep"),
        (b'"' + b"x" * 5_000 + b'"', 413, "too_large"),
        (rb'{"patient": "\ud800"}', 422, "invalid"),
        (rb'{"patient": "a", "patient": "b"}', 422, "invalid"),
        (b'{"patient": NaN}', 422, "invalid"),
        (b'"\xff"', 400, "not_parseable"),
        (b"[]", 422, "invalid"),
        (b"null", 422, "invalid"),
        (b"", 422, "invalid"),
    ],
)
def test_bodies_that_no_handler_should_see_are_turned_away(client: Client, body: bytes, status: int, kind: str) -> None:
    answered, problem = post(client, body)
    assert (answered, problem["type"]) == (status, f"/problems/{kind}")


def test_an_answer_holds_no_more_errors_than_it_should_however_many_faults_a_body_has(client: Client) -> None:
    status, problem = post(client, b"[" + b",".join([b'"\\u0001"'] * 400) + b"]")
    assert (status, len(problem["errors"])) == (422, 200)


@pytest.mark.parametrize(
    "media", ["text/plain", "", "application/x-www-form-urlencoded", "application/json; charset=latin1"]
)
def test_another_content_type_is_not_read(client: Client, media: str) -> None:
    assert post(client, GOOD, **{"content-type": media})[0] == 415


@pytest.mark.parametrize("media", ["application/json; charset=UTF-8", "Application/JSON", "application/fhir+json"])
def test_kinds_of_json_are_read(client: Client, media: str) -> None:
    assert post(client, GOOD, **{"content-type": media})[0] == 200


def test_a_compressed_body_is_not_read(client: Client) -> None:
    assert post(client, GOOD, **{"content-encoding": "gzip"})[0] == 415


def test_a_body_without_announced_length_is_cut_off_at_the_limit(client: Client) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 1_000

    answer = client.post("/orders", content=chunks(), headers={"content-type": "application/json"})
    assert answer.status_code == 413


def test_a_missing_idempotency_key_is_400(client: Client) -> None:
    answer = client.post("/orders", json=GOOD)
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/no_idempotency_key")


def test_a_refusal_is_409_and_names_what_the_ruling_names(client: Client) -> None:
    answer = client.post("/raise/held")
    assert answer.status_code == 409
    assert answer.json() == {
        "type": "/problems/held",
        "title": "Another pharmacy is dispensing the prescription.",
        "status": 409,
        "holder": "974760673",
    }


def test_titles_and_texts_come_in_norwegian_for_who_prefers_it(client: Client) -> None:
    answer = client.post("/raise/held", headers={"accept-language": "nb-NO,nb;q=0.9,en;q=0.5"})
    assert answer.json()["title"] == "Et annet apotek har resepten under ekspedering."
    assert answer.headers["content-language"] == "nb"
    _, problem = post(client, {"lines": []}, **{"accept-language": "no"})
    assert {error["text"] for error in problem["errors"]} >= {"Feltet mangler."}


def test_own_words_of_an_error_stay(client: Client) -> None:
    answer = client.post("/raise/custom", headers={"accept-language": "nb"})
    assert answer.json()["errors"] == [{"pointer": "/a", "reason": "wrong_checksum", "text": "Own words."}]


@pytest.mark.parametrize(
    ("header", "language"),
    [("", "en"), ("de", "en"), ("nn", "nb"), ("en, nb", "en"), ("en;q=0.4, nb;q=0.5", "nb"), ("nb;q=0", "en"), ("nb;q=x", "en"), ("*", "en")],
)  # fmt: skip
def test_the_language_follows_the_weights(header: str, language: str) -> None:
    assert preferred_language(header) == language


@pytest.mark.parametrize(
    ("what", "kind", "after"), [("log", "log_unavailable", "1"), ("list", "list_unavailable", "7")]
)
def test_what_can_be_tried_again_is_503_with_retry_after(client: Client, what: str, kind: str, after: str) -> None:
    answer = client.post(f"/raise/{what}")
    assert (answer.status_code, answer.json()["type"]) == (503, f"/problems/{kind}")
    assert answer.headers["retry-after"] == after
    assert PATIENTS_NUMBER not in answer.text


def test_a_bug_is_500_and_tells_nothing_of_the_content(client: Client) -> None:
    answer = client.post("/raise/bug")
    assert answer.status_code == 500
    assert answer.json() == {"type": "/problems/unexpected", "title": "Something went wrong here.", "status": 500}


def test_what_is_not_there_is_404_in_the_same_words(client: Client) -> None:
    answers = [client.get("/nowhere"), client.get("/things/not-a-uuid")]
    assert {answer.status_code for answer in answers} == {404}
    assert {answer.json()["type"] for answer in answers} == {"/problems/not_found"}


@pytest.mark.parametrize("body", [b"{", rb'{"a": "\ud800"}', b"{}"])
@pytest.mark.parametrize("media", ["text/plain", "application/json"])
def test_a_body_is_not_judged_where_nobody_would_read_it(client: Client, body: bytes, media: str) -> None:
    headers = {"content-type": media}
    assert client.post("/nowhere", content=body, headers=headers).status_code == 404
    assert client.request("PUT", "/orders", content=body, headers=headers).status_code == 405


def test_another_method_is_405_and_says_which_are_allowed(client: Client) -> None:
    answer = client.get("/orders")
    assert (answer.status_code, answer.json()["type"]) == (405, "/problems/method_not_allowed")
    assert answer.headers["allow"] == "POST"


def test_a_fault_of_the_query_is_named_as_such(client: Client) -> None:
    answer = client.get("/things/6f1c0a52-3c1e-4d0e-9e43-0a7f5a1b2c3d?limit=x")
    assert answer.status_code == 422
    assert reasons(answer.json()) == {("#query/limit", "wrong_format")}


def test_a_model_can_name_the_reason_itself() -> None:
    app = FastAPI()
    install(app)

    def check(text: str) -> str:
        raise PydanticCustomError("wrong_checksum", "{text}", {"text": text})

    class Person(BaseModel):
        number: Annotated[str, AfterValidator(check)]

    @app.post("/people")
    async def people(person: Person) -> str:
        return person.number

    answer = Client(app).post("/people", json={"number": PATIENTS_NUMBER})
    assert reasons(answer.json()) == {("/number", "wrong_checksum")}
    assert PATIENTS_NUMBER not in answer.text


def test_the_openapi_document_shows_the_problems() -> None:
    paths = application().openapi()["paths"]
    assert set(paths["/orders"]["post"]["responses"]) >= {"400", "404", "409", "413", "415", "422", "503"}
    assert "application/problem+json" in paths["/orders"]["post"]["responses"]["409"]["content"]


def test_a_problem_says_its_status_and_reason_and_nothing_else_in_a_traceback() -> None:
    assert str(Problem(409, Reason.HELD, extra={"holder": PATIENTS_NUMBER})) == "409 held"
