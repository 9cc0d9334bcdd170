"""What is told of a process whose address is answered by something else, or by nobody."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Final

import pytest

from services.operations.reaching import ServiceStatus, ask_services
from services.operations.status import outcomes_in

READY: Final = (200, b'{"status": "ready"}')
COUNTED: Final = (200, b'medchain_processor_events_total{outcome="applied"} 3.0\n')
PAGE: Final = b"<!doctype html>\n<title>502 Bad Gateway</title>\n"
TROUBLE: Final = (
    b'{"type": "/problems/broker_unreachable", "troubles": [{"reason": "broker_unreachable", "text": "Away."}]}'
)
Answer = tuple[int, bytes]


@contextmanager
def answering(answers: Mapping[str, Answer]) -> Iterator[str]:
    """A server at which each path has its status and body; gives its URL."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers[self.path]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def asked(ready: Answer, metrics: Answer) -> ServiceStatus:
    with answering({"/health/ready": ready, "/metrics": metrics}) as url:
        (said,) = ask_services({"relay": url})
    return said


@pytest.mark.parametrize(
    ("ready", "metrics"),
    [
        ((502, PAGE), (502, PAGE)),
        ((200, PAGE), (200, PAGE)),
        (READY, (200, PAGE)),
        ((200, b'{"status": "UP"}'), COUNTED),
        ((200, b'["ready"]'), COUNTED),
        ((404, b'{"detail": "Not Found"}'), (404, b"")),
        ((200, b'{"status": "degraded", "troubles": [1]}'), COUNTED),
        ((200, b"\xff"), COUNTED),
    ],
    ids=["a gateway", "a page", "no metrics", "another word", "a list", "not found", "no troubles", "no text"],
)
def test_what_answers_and_is_none_of_ours_is_silent_with_the_reason(ready: Answer, metrics: Answer) -> None:
    said = asked(ready, metrics)
    assert said.state == "silent"
    assert said.troubles == (f"It answers, but not as one of ours ({ready[0]} and {metrics[0]}).",)
    assert outcomes_in([said.metrics]) == {}


def test_one_of_ours_is_told_as_it_says_and_counts() -> None:
    said = asked(READY, COUNTED)
    assert (said.state, said.troubles, outcomes_in([said.metrics])) == ("ready", (), {"applied": 3.0})
    said = asked((503, TROUBLE), COUNTED)
    assert (said.state, said.troubles) == ("not_ready", ("broker_unreachable: Away.",))


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://relay:port", "Its URL is none"),
        ("relay:8810", "UnsupportedProtocol"),
        ("http://127.0.0.1:1", "Connect"),
    ],
)
def test_a_url_that_is_none_and_one_where_nobody_answers_are_silent_too(url: str, why: str) -> None:
    (said,) = ask_services({"relay": url})
    assert said.state == "silent"
    assert why in said.troubles[0]
