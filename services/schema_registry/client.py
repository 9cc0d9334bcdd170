"""The few calls of a Confluent-compatible registry that the chain needs, each bounded in time and distinguished by outcome.

Confluent's own client would bring a second Kafka library and its own retries, which sleep in the caller's thread.
"""

from collections.abc import Mapping
from http import HTTPStatus
from threading import Lock
from typing import Any, Final, Self
from urllib.parse import quote

import httpx
import msgspec

from schemas.framing import RegistryUnavailableError
from services.canonical_log import get_logger
from services.clock import Clock

COMPATIBILITY: Final = "FULL_TRANSITIVE"
TIMEOUT_S: Final = 2.0
"""For connecting, and for each answer: the processor asks while its consumer group waits for it."""
AWAY_MS: Final = 2_000
"""After a failure nobody is asked for so long: a registry that hangs must not hold up every record for its timeout."""
MISSING_MS: Final = 10_000
"""So long a number without a schema is not asked for again: damaged records come in floods, and a replica may be late."""
_MISSING_KEPT: Final = 10_000
_LARGEST_NUMBER: Final = 2**31 - 1
"""A registry's numbers are signed; on the wire they have a bit more. Asked for one beyond, it says 404 in words of its web
server, which say nothing of a schema: as if it were away, and nobody could be read for a while."""
_ACCEPT: Final = "application/vnd.schemaregistry.v1+json"
_UNKNOWN_SCHEMA: Final = 40403
"""The registry's own word for it; any other 404 comes from something that is no registry, or not its address."""
_LATER: Final = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)


class RegistryRefusedError(Exception):
    """The registry answers, but refuses our release; the text is one sentence for the operator."""


class RegistryClient:
    """A registry at a URL (with `user:password@` where it asks for them). Blocking; any thread may use it. `close` it."""

    def __init__(self, url: str, clock: Clock) -> None:
        base = httpx.URL(url.rstrip("/") + "/")
        self.address = f"{base.host}:{base.port}" if base.port else base.host
        self._http = httpx.Client(base_url=base, timeout=TIMEOUT_S, headers={"Accept": _ACCEPT})
        self._clock = clock
        self._lock = Lock()
        self._away_until_ms = 0
        self._missing_until_ms: dict[int, int] = {}

    def schema_of(self, schema_id: int) -> Mapping[str, Any] | None:
        """The Avro schema with that number, None if the registry has none. Raises RegistryUnavailableError."""
        if schema_id > _LARGEST_NUMBER:
            return None
        now_ms = self._clock.monotonic_ms()
        if now_ms < self._missing_until_ms.get(schema_id, 0):
            return None
        if now_ms < self._away_until_ms:
            raise RegistryUnavailableError("the schema registry did not answer a moment ago")
        try:
            return self._asked(schema_id)
        except RegistryUnavailableError:
            self._away_until_ms = self._clock.monotonic_ms() + AWAY_MS
            get_logger().warning("schema_registry_unavailable")
            raise

    def require_compatibility(self, subject: str) -> bool:
        """Have the registry refuse what breaks FULL_TRANSITIVE under a subject; False if it wants the subject first.

        Raises RegistryUnavailableError, RegistryRefusedError.
        """
        if self._compatibility(subject) == COMPATIBILITY:
            return True
        answer = self._call("PUT", f"config/{_escaped(subject)}", {"compatibility": COMPATIBILITY})
        if answer.status_code == HTTPStatus.NOT_FOUND:
            return False
        # Another process of ours that starts beside this one may have been first; some registries call that a conflict.
        if answer.status_code != HTTPStatus.CONFLICT or self._compatibility(subject) != COMPATIBILITY:
            self._require_ok(answer, f"{COMPATIBILITY} for {subject}")
        return True

    def register(self, subject: str, schema: Mapping[str, Any], what: str) -> int:
        """The number of a schema, registered under the subject if it was not; `what` names it in a refusal.

        Raises RegistryUnavailableError, RegistryRefusedError.
        """
        text = msgspec.json.encode(schema).decode()
        path = f"subjects/{_escaped(subject)}/versions"
        answer = self._call("POST", path, {"schema": text})
        if answer.status_code == HTTPStatus.CONFLICT:
            # It does not fit, or another process registered it in this moment: only the first is so again.
            answer = self._call("POST", path, {"schema": text})
        self._require_ok(answer, f"{what} under {subject}")
        return int(_content(answer)["id"])

    def close(self) -> None:
        """Let go of its connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _asked(self, schema_id: int) -> Mapping[str, Any] | None:
        answer = self._call("GET", f"schemas/ids/{schema_id}")
        content = _content(answer)
        if answer.status_code == HTTPStatus.NOT_FOUND and content.get("error_code") == _UNKNOWN_SCHEMA:
            self._note_missing(schema_id)
            return None
        if not answer.is_success or not isinstance(content.get("schema"), str):
            raise RegistryUnavailableError(f"the schema registry answers {answer.status_code} for a schema")
        return _as_avro(content)

    def _compatibility(self, subject: str) -> str | None:
        answer = self._call("GET", f"config/{_escaped(subject)}")
        return _content(answer).get("compatibilityLevel") if answer.is_success else None

    def _note_missing(self, schema_id: int) -> None:
        with self._lock:
            if len(self._missing_until_ms) >= _MISSING_KEPT:
                self._missing_until_ms.clear()
            self._missing_until_ms[schema_id] = self._clock.monotonic_ms() + MISSING_MS

    def _call(self, method: str, path: str, content: Mapping[str, str] | None = None) -> httpx.Response:
        try:
            answer = self._http.request(method, path, json=content)
        except httpx.HTTPError as error:
            raise RegistryUnavailableError(f"the schema registry does not answer ({type(error).__name__})") from error
        if answer.status_code in _LATER or answer.is_server_error:
            raise RegistryUnavailableError(f"the schema registry answers {answer.status_code}")
        return answer

    def _require_ok(self, answer: httpx.Response, what: str) -> None:
        if not answer.is_success:
            said = str(_content(answer).get("message") or f"status {answer.status_code}").strip()
            raise RegistryRefusedError(f"The schema registry at {self.address} refuses {what}: {said}")


def _escaped(subject: str) -> str:
    return quote(subject, safe="")


def _content(answer: httpx.Response) -> Mapping[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _as_avro(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema as Avro's JSON; an empty one, which is none of ours, for what is another language or no record."""
    try:
        found = msgspec.json.decode(content["schema"]) if content.get("schemaType", "AVRO") == "AVRO" else {}
    except msgspec.DecodeError:
        return {}
    return found if isinstance(found, dict) else {}
