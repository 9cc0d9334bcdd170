"""Which platform an operator asks about: the environment's, or else the one that runs on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
from msgspec import Struct
from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.casework.desk import CaseRefusedError
from services.publishing.kafka_access import KafkaAccess, KafkaSetting

ANSWERS_WITHIN_S: Final = 5.0
KEYS: Final = ("pseudonym_key", "sealing_key", "read_token_key")


class OperationsSettings(BaseSettings):
    """Where the platform is, if it is not the one that `make up` started."""

    model_config = SettingsConfigDict(env_prefix="MEDCHAIN_", frozen=True)

    kafka: KafkaSetting | None = None
    redis: str | None = None
    schema_registry: str | None = None
    services: str = ""
    """name=URL of each process to ask, separated by commas."""
    pseudonym_key: SecretStr | None = None
    sealing_key: SecretStr | None = None
    read_token_key: SecretStr | None = None


@dataclass(frozen=True, slots=True)
class Reached:
    """A platform: broker, Redis, the URL of each process, and the keys (by their variables) known here."""

    kafka: KafkaAccess
    redis: str
    services: Mapping[str, str]
    schema_registry: str | None = None
    keys: Mapping[str, str | None] = field(default_factory=dict)


class ServiceStatus(Struct, frozen=True):
    """What one process reports: ready, degraded, not_ready, or silent; why; and by how much its clock differs."""

    name: str
    url: str
    state: str
    troubles: tuple[str, ...] = ()
    metrics: str = ""
    date: str | None = None


def reach() -> Reached:
    """Raises CaseRefusedError where no platform is named, and none runs here."""
    from deploy.local.keys import keys_of  # noqa: PLC0415  costs time that a call with an address need not spend
    from deploy.local.state import running  # noqa: PLC0415  as above

    settings = OperationsSettings()
    if settings.kafka is not None and settings.redis is not None:
        secrets = {each: getattr(settings, each) for each in KEYS}
        keys = {_variable(each): None if key is None else key.get_secret_value() for each, key in secrets.items()}
        named = _named(settings.services)
        return Reached(settings.kafka, settings.redis, named, settings.schema_registry or None, keys)
    state = running()
    if state is None:
        raise CaseRefusedError("No platform: `make up` starts one here, or set MEDCHAIN_KAFKA and MEDCHAIN_REDIS.")
    urls = {name: each.url for name, each in state.programs.items() if each.url is not None}
    keys = {**keys_of(Path(state.directory))}
    return Reached(KafkaAccess(state.kafka), state.redis, urls, state.schema_registry or None, keys)


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


def _named(text: str) -> dict[str, str]:
    pairs: Iterable[tuple[str, str, str]] = (each.partition("=") for each in text.split(",") if each)
    named = {name.strip(): url.strip().rstrip("/") for name, _, url in pairs}
    if not all(named.values()):
        raise CaseRefusedError("MEDCHAIN_SERVICES is a list of name=URL, separated by commas.")
    return named


def _variable(setting: str) -> str:
    return f"MEDCHAIN_{setting.upper()}"
