"""Golden bytes: every record that any release ever wrote stays readable, and says what it said."""

from uuid import UUID

import msgspec
import pytest

from schemas import codec
from schemas.events import BODIES, Body, Event, Submission
from schemas.golden import FOLDER, Example, add_missing, examples, newest_of

ALL = list(examples())


def identified(example: Example) -> str:
    return f"{example.name}/{example.version}/{example.title}"


@pytest.mark.parametrize("example", ALL, ids=identified)
def test_golden_bytes_say_what_their_example_says(example: Example) -> None:
    assert codec.decode(example.written) == example.message


@pytest.mark.parametrize("example", ALL, ids=identified)
def test_golden_bytes_begin_with_the_fingerprint_of_the_version_they_stand_under(example: Example) -> None:
    release = next(each for each in codec.releases() if (each.name, each.version) == (example.name, example.version))
    assert example.written.startswith(release.header)


@pytest.mark.parametrize(
    "example", [each for each in ALL if each.version == codec.newest(each.name).version], ids=identified
)
def test_the_newest_version_still_writes_its_golden_bytes(example: Example) -> None:
    assert codec.encode(example.message) == example.written


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_an_event_and_its_body_are_written_as_the_whole_is(body: type[Body]) -> None:
    for event in newest_of(body.__name__).values():
        written = codec.written(event)
        assert written.event is event
        assert written.record == codec.encode(event)
        # Whatever surrounds it, the same body has the same bytes, and they end the record.
        elsewhere = codec.written(msgspec.structs.replace(event, event_id=str(UUID(int=0)), occurred_at_ms=0))
        assert elsewhere.record != written.record
        assert elsewhere.body == written.body
        assert written.record.endswith(written.body)


def test_every_released_version_has_an_example() -> None:
    assert {(each.name, each.version) for each in ALL} == {(each.name, each.version) for each in codec.releases()}


def test_no_bytes_lie_about_without_their_example() -> None:
    assert {path.with_suffix(".json") for path in FOLDER.glob("*/*/*.bin")} == {each.path for each in ALL}


def test_adding_missing_bytes_changes_nothing_when_none_are_missing() -> None:
    assert add_missing() == []


def test_an_example_of_every_event_is_in_the_log_form_and_in_the_submitted_form() -> None:
    for body in BODIES:
        assert all(isinstance(each, Event) for each in newest_of(body.__name__).values())
        assert all(isinstance(each, Submission) for each in newest_of(f"Submission{body.__name__}").values())


def test_a_medication_of_each_kind_has_an_example() -> None:
    kinds = {type(each.body.medication.product).__name__ for each in newest_of("PrescriptionIssued").values()}
    assert kinds == {"Package", "Brand", "Substance", "Mixture"}
