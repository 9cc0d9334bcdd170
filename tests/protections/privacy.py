"""I15: what keeps a patient's number, name and treatment out of logs, metrics, traces, keys and headers."""

import sys
import traceback
from types import SimpleNamespace
from typing import Any, Final

from services.canonical_log import libraries, processors
from services.canonical_log.allowed_keys import ALLOWED
from services.identity.pseudonym import Pseudonymiser
from services.identity.sealing import Sealer
from services.recording import routes
from services.recording.app import CanonicalLine
from services.telemetry import traces
from tests.protections.registry import instead, mutant

_LOGS: Final = "tests/unit/test_canonical_log.py::"
_OVER_HTTP: Final = "tests/integration/test_services_prescriber.py::"
_ANY_VALUE: Final = dict.fromkeys(ALLOWED, lambda _value: True)


class _Everything(dict[Any, Any]):
    """Has every key, and calls every value good."""

    def __contains__(self, _key: object) -> bool:
        return True

    def __missing__(self, _key: object) -> Any:
        return lambda _value: True


@mutant("I15", f"{_LOGS}test_a_key_outside_of_the_list_is_dropped_and_counted")
def any_key_logged() -> None:
    """A log line keeps whatever it is given."""
    instead(processors, "ALLOWED", _Everything())


@mutant("I15", f"{_LOGS}test_no_key_lets_a_stray_value_through")
def any_value_logged() -> None:
    """A key of the list may have a value of any form."""
    instead(processors, "ALLOWED", _ANY_VALUE)


@mutant("I15", f"{_LOGS}test_a_text_in_the_place_of_an_event_name_is_not_written")
def any_text_logged_as_an_event() -> None:
    """A sentence with values in it is written where a constant name is due."""
    instead(processors, "EVENT_NAME", lambda _text: True)


@mutant("I15", f"{_LOGS}test_an_exception_is_told_by_types_and_places_without_its_words")
def words_of_errors_logged() -> None:
    """An error is told as Python tells it."""

    def in_words(_exc_info: Any) -> list[dict[str, Any]]:
        return [{"type": "".join(traceback.format_exception(sys.exc_info()[1]))}]

    instead(processors, "_error_of", in_words)


@mutant("I15", f"{_LOGS}test_a_line_of_a_library_that_was_put_together_shows_only_its_place")
def lines_of_libraries_logged_as_they_are() -> None:
    """What a library says is written, though it may have put anything into it."""
    instead(libraries, "_literals", lambda _path: _Everything())


@mutant("I15", f"{_OVER_HTTP}test_no_national_id_or_name_is_in_keys_and_headers_of_the_log")
def pseudonym_is_the_national_id() -> None:
    """The key of the log is the patient's own number."""
    instead(Pseudonymiser, "patient_key", lambda _self, national_id: national_id.digits)


@mutant("I15", f"{_OVER_HTTP}test_no_national_id_or_name_is_in_keys_and_headers_of_the_log")
def identity_left_open() -> None:
    """Number and name stand in the record as they were sent."""

    def open_to_all(_self: Any, identity: Any, _bound_to: str) -> bytes:
        return f"{identity.national_id.digits} {identity.name}".encode()

    instead(Sealer, "seal", open_to_all)


@mutant("I15", f"{_OVER_HTTP}test_what_a_sender_puts_in_the_place_of_a_trace_does_not_reach_the_log")
def any_traceparent_goes_on() -> None:
    """A header of the record is what the sender put there."""
    instead(routes, "well_formed", lambda traceparent: traceparent)


@mutant("I15", "tests/unit/test_telemetry.py::test_what_callers_make_up_makes_no_new_series")
def requests_counted_by_address() -> None:
    """A metric's label is the address as it was asked for."""
    original = CanonicalLine.__call__

    async def as_asked(self: CanonicalLine, scope: Any, receive: Any, send: Any) -> None:
        async def noted(message: Any) -> None:
            scope["route"] = SimpleNamespace(path=scope["path"])
            await send(message)

        await original(self, scope, receive, noted)

    instead(CanonicalLine, "__call__", as_asked)


@mutant("I15", "tests/unit/test_traces.py::test_only_what_a_log_line_may_have_becomes_an_attribute")
def any_attribute_traced() -> None:
    """A span keeps whatever it is given."""
    instead(traces, "ALLOWED", _Everything())
