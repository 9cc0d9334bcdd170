"""A schema registry that speaks the part of Confluent's HTTP API that clients use, in this process; state outlives a stop.

It judges compatibility with the Avro library itself, over every version of a subject, as the setting asks.
"""

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import unquote

from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from avro.errors import AvroException
from avro.schema import parse

Answer = tuple[int, dict[str, Any]]
_TYPE: Final = "application/vnd.schemaregistry.v1+json"


class RegistryServer:
    """`url` is where it answers while it runs; `asked` is every request that it answered, in order."""

    def __init__(self, *, subject_first: bool = False, is_raced: bool = False) -> None:
        """Two ways of Apicurio's.

        `subject_first`: take a subject's setting only when it has a schema. `is_raced`: whatever is written for the first
        time, another client has just written too, which is called a conflict.
        """
        self.asked: list[str] = []
        self.settings: dict[str, str] = {}
        self.subjects: dict[str, list[int]] = {}
        self.schemas: dict[int, str] = {}
        self._subject_first = subject_first
        self._is_raced = is_raced
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """The base URL, the same after every start."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Answer from now on."""
        self._server = _Server(("127.0.0.1", self._port), _handler(self._answer))
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), name="registry", daemon=True).start()

    def stop(self) -> None:
        """Refuse connections, and keep what was registered."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def add(self, schema: Mapping[str, Any], subject: str = "anything") -> int:
        """Register a schema as some other program would, unjudged; returns its number."""
        with self._lock:
            return self._kept(subject, json.dumps(schema))

    def _answer(self, method: str, path: str, content: Mapping[str, Any]) -> Answer:
        with self._lock:
            self.asked.append(f"{method} {path}")
            if (method, found := re.fullmatch(r"/schemas/ids/(\d+)", path))[0] == "GET" and found:
                return self._schema(int(found[1]))
            if method == "GET" and (found := re.fullmatch(r"/config/([^/]+)", path)):
                return self._told_setting(unquote(found[1]))
            if method == "PUT" and (found := re.fullmatch(r"/config/([^/]+)", path)):
                return self._setting(unquote(found[1]), content)
            if method == "POST" and (found := re.fullmatch(r"/subjects/([^/]+)/versions", path)):
                return self._version(unquote(found[1]), content)
            return 404, {"error_code": 404, "message": "HTTP 404 Not Found"}

    def _schema(self, schema_id: int) -> Answer:
        if schema_id >= 2**31:
            return 404, {"error_code": 404, "message": "HTTP 404 Not Found"}  # no number to its web server
        if schema_id not in self.schemas:
            return 404, {"error_code": 40403, "message": f"Schema {schema_id} not found"}
        return 200, {"schema": self.schemas[schema_id]}

    def _told_setting(self, subject: str) -> Answer:
        if subject not in self.settings:
            return 404, {"error_code": 40408, "message": f"Subject '{subject}' has no setting of its own"}
        return 200, {"compatibilityLevel": self.settings[subject]}

    def _setting(self, subject: str, content: Mapping[str, Any]) -> Answer:
        if self._subject_first and subject not in self.subjects:
            return 404, {"error_code": 40401, "message": f"Subject '{subject}' not found"}
        is_new = subject not in self.settings
        self.settings[subject] = content["compatibility"]
        if self._is_raced and is_new:
            return 409, {"error_code": 409, "message": "A rule named 'COMPATIBILITY' already exists."}
        return 200, {"compatibility": content["compatibility"]}

    def _version(self, subject: str, content: Mapping[str, Any]) -> Answer:
        try:
            if content["schema"] not in self.schemas.values():
                parse(content["schema"])
        except AvroException as error:
            return 422, {"error_code": 42201, "message": f"Invalid schema: {error}"}
        others = [self.schemas[schema_id] for schema_id in self.subjects.get(subject, [])]
        if content["schema"] not in others and self.settings.get(subject) == "FULL_TRANSITIVE":
            for other in others:
                if not (_reads(content["schema"], other) and _reads(other, content["schema"])):
                    return 409, {"error_code": 409, "message": "Schema being registered is incompatible"}
        is_new = content["schema"] not in others
        schema_id = self._kept(subject, content["schema"])
        if self._is_raced and is_new:
            return 409, {"error_code": 409, "message": "It already exists."}
        return 200, {"id": schema_id}

    def _kept(self, subject: str, text: str) -> int:
        """One number for one schema, under whichever subject."""
        known = next((each for each, other in self.schemas.items() if other == text), None)
        schema_id = known or len(self.schemas) + 1
        self.schemas.setdefault(schema_id, text)
        under = self.subjects.setdefault(subject, [])
        if schema_id not in under:
            under.append(schema_id)
        return schema_id


@contextmanager
def a_registry(*, subject_first: bool = False, is_raced: bool = False) -> Iterator[RegistryServer]:
    """A running registry."""
    server = RegistryServer(subject_first=subject_first, is_raced=is_raced)
    server.start()
    try:
        yield server
    finally:
        server.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True


def _reads(reader: str, writer: str) -> bool:
    checker = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]  # the library has no types here
    judged = checker.get_compatibility(parse(reader), parse(writer))
    return judged.compatibility is SchemaCompatibilityType.compatible


def _handler(answer: Callable[[str, str, Mapping[str, Any]], Answer]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        # A connection for each request: a stopped registry must not go on answering on one that was kept.
        protocol_version = "HTTP/1.0"

        def _do(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            status, content = answer(self.command, self.path, json.loads(self.rfile.read(length) or b"{}"))
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", _TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_POST = _do  # noqa: N815 - the names that the library calls

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's own signature
            """Say nothing on the terminal."""

    return Handler
