"""What the processes of a platform say of themselves when they are asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import httpx
from msgspec import Struct

ANSWERS_WITHIN_S: Final = 5.0


class ServiceStatus(Struct, frozen=True):
    """What one process reports: ready, degraded, not_ready, or silent; why; and by how much its clock differs."""

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
    except httpx.HTTPError as error:
        return ServiceStatus(name, url, "silent", (f"It does not answer ({type(error).__name__}).",))
    said = ready.json()
    state = said["status"] if ready.is_success else "not_ready"
    troubles = tuple(f"{each['reason']}: {each['text']}" for each in said.get("troubles", ()))
    return ServiceStatus(
        name, url, state, troubles, metrics.text if metrics.is_success else "", ready.headers.get("date")
    )
