"""What the processes of a platform say of themselves when they are asked."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Annotated, Final, Literal

import httpx
import msgspec
from msgspec import Struct
from prometheus_client.parser import text_string_to_metric_families

ANSWERS_WITHIN_S: Final = 5.0


class ServiceStatus(Struct, frozen=True):
    """What one process reports: ready, degraded, not_ready, or silent; why; what it counts; and what its clock says."""

    name: str
    url: str
    state: str
    troubles: tuple[str, ...] = ()
    metrics: str = ""
    date: str | None = None


def ask_services(services: Mapping[str, str]) -> tuple[ServiceStatus, ...]:
    """How each process says that it is, by name."""
    with httpx.Client(timeout=ANSWERS_WITHIN_S, trust_env=False) as client:
        return tuple(_ask(client, name, url) for name, url in sorted(services.items()))


def _ask(client: httpx.Client, name: str, url: str) -> ServiceStatus:
    try:
        ready, metrics = client.get(f"{url}/health/ready"), client.get(f"{url}/metrics")
    except httpx.InvalidURL:
        return _silent(name, url, "Its URL is none: see MEDCHAIN_SERVICES.")
    except httpx.HTTPError as error:
        return _silent(name, url, f"It does not answer ({type(error).__name__}).")
    try:
        state, found = _said(ready)
        counted = metrics.text if metrics.is_success else ""
        deque(text_string_to_metric_families(counted), maxlen=0)
    except (msgspec.DecodeError, ValueError):
        # A wrong port, or what stands before the process, like an ingress that finds nobody behind it.
        statuses = f"{ready.status_code} and {metrics.status_code}"
        return _silent(name, url, f"It answers, but not as one of ours ({statuses}).")
    troubles = tuple(f"{each.reason}: {each.text}" for each in found)
    return ServiceStatus(name, url, state, troubles, counted, ready.headers.get("date"))


def _silent(name: str, url: str, why: str) -> ServiceStatus:
    return ServiceStatus(name, url, "silent", (why,))


class _Trouble(Struct, frozen=True):
    reason: str
    text: str


class _Ready(Struct, frozen=True):
    """What stands at /health/ready."""

    status: Literal["ready", "degraded"]
    troubles: tuple[_Trouble, ...] = ()


class _NotReady(Struct, frozen=True):
    """The same where it is answered as a problem."""

    type: Annotated[str, msgspec.Meta(pattern="^/problems/")]
    troubles: tuple[_Trouble, ...] = ()


def _said(ready: httpx.Response) -> tuple[str, tuple[_Trouble, ...]]:
    """How it is and why. Raises msgspec.DecodeError where it is not of that form."""
    if ready.is_success:
        said = msgspec.json.decode(ready.content, type=_Ready)
        return said.status, said.troubles
    return "not_ready", msgspec.json.decode(ready.content, type=_NotReady).troubles
