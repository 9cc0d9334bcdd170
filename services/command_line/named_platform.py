"""Which platform a command works on: the environment's, else the one that runs here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.publishing.kafka_access import KafkaAccess, KafkaSetting, kafka_access

PSEUDONYM_KEY: Final = "MEDCHAIN_PSEUDONYM_KEY"
SEALING_KEY: Final = "MEDCHAIN_SEALING_KEY"
READ_TOKEN_KEY: Final = "MEDCHAIN_READ_TOKEN_KEY"  # noqa: S105  the name of a variable
_BOTH: Final = "name both, or neither for the platform that runs here."
_BROKER: Final = re.compile(r"(?:[\w.-]+|\[[0-9A-Fa-f:.]+\]):\d{1,5}")
_REDIS_SCHEMES: Final = ("redis", "rediss", "unix")
_Made = TypeVar("_Made")


class NoPlatformError(Exception):
    """No platform is named and none runs here, or the environment names it wrongly: the text says what to set."""


class PlatformSettings(BaseSettings):
    """What the environment says of the platform; a variable that is empty says nothing."""

    model_config = SettingsConfigDict(env_prefix="MEDCHAIN_", frozen=True, env_ignore_empty=True)

    kafka: KafkaSetting | None = None
    redis: str | None = None
    schema_registry: str | None = None
    services: str = ""
    """name=URL of each process, separated by commas."""
    pseudonym_key: SecretStr | None = None
    sealing_key: SecretStr | None = None
    read_token_key: SecretStr | None = None
    access_record: Path | None = None
    """The file that says who looked at what, and why."""


@dataclass(frozen=True, slots=True)
class NamedPlatform:
    """The platform that a command works on. `folder`: of the one that runs here, if it is that one.

    `redis` is a URL, "" where none is named and the command needs none; `keys` are by their variables.
    """

    kafka: KafkaAccess
    redis: str
    schema_registry: str | None = None
    services: str = ""
    keys: Mapping[str, str | None] = field(default_factory=dict, repr=False)
    access_record: Path | None = None
    folder: Path | None = None

    def processes(self) -> Mapping[str, str]:
        """The URL of each process that is named. Raises NoPlatformError where the list is none."""
        pairs = (each.partition("=") for each in self.services.split(",") if each)
        named = {name.strip(): url.strip().rstrip("/") for name, _, url in pairs}
        if not all(named.values()):
            raise NoPlatformError("MEDCHAIN_SERVICES is a list of name=URL, separated by commas.")
        return named


def named_platform(
    *,
    needs_redis: bool = True,
    kafka: str | None = None,
    redis: str | None = None,
) -> NamedPlatform:
    """The environment's platform, else the one that runs here. What the command line says goes before what the environment does.

    Raises NoPlatformError, also where only one of the two addresses is named: what was meant for one platform must never be
    done to another because a variable was forgotten.
    """
    settings = PlatformSettings()
    brokers, url = kafka_access(kafka) if kafka else settings.kafka, redis or settings.redis or ""
    if brokers is not None and (url or not needs_redis):
        return _of(settings, brokers, url)
    if brokers is not None:
        raise NoPlatformError(f"MEDCHAIN_REDIS is not set, and the brokers are named: {_BOTH}")
    if url:
        raise NoPlatformError(f"MEDCHAIN_KAFKA is not set, and Redis is named: {_BOTH}")
    return _that_runs_here(settings, "MEDCHAIN_KAFKA and MEDCHAIN_REDIS" if needs_redis else "MEDCHAIN_KAFKA")


def runs_here(kafka: KafkaAccess) -> bool:
    """Whether these are the brokers (there is one) of the platform that runs here, however they were named."""
    from deploy.local.state import running  # noqa: PLC0415  costs time that a call with an address need not spend

    state = running()
    return state is not None and state.kafka == kafka.servers


def with_key(keys: Mapping[str, str | None], variable: str, make: Callable[[bytes], _Made]) -> _Made:
    """What is made of a key. Raises NoPlatformError where the key is not set, or none; its text never holds the key."""
    told = keys.get(variable)
    if not told:
        raise NoPlatformError(f"Set {variable}.")
    try:
        return make(bytes.fromhex(told))
    except ValueError:
        raise NoPlatformError(f"{variable} is not 64 hexadecimal characters.") from None


def _of(settings: PlatformSettings, kafka: KafkaAccess, redis: str) -> NamedPlatform:
    if not all(_BROKER.fullmatch(each.strip()) for each in kafka.addresses):
        raise NoPlatformError("MEDCHAIN_KAFKA is no list of host:port, separated by commas.")
    if redis and not _is_of_redis(redis):
        # Not repeated, for it may hold a password.
        raise NoPlatformError("MEDCHAIN_REDIS is no URL of a Redis server (redis://host:port/0).")
    told = {
        PSEUDONYM_KEY: settings.pseudonym_key,
        SEALING_KEY: settings.sealing_key,
        READ_TOKEN_KEY: settings.read_token_key,
    }
    keys = {name: None if key is None else key.get_secret_value() for name, key in told.items()}
    return NamedPlatform(kafka, redis, settings.schema_registry, settings.services, keys, settings.access_record)


def _that_runs_here(settings: PlatformSettings, wanted: str) -> NamedPlatform:
    from deploy.local.keys import keys_of  # noqa: PLC0415  costs time that a call with an address need not spend
    from deploy.local.state import running  # noqa: PLC0415  as above

    state = running()
    if state is None:
        raise NoPlatformError(f"No platform: `make up` starts one here, or set {wanted}.")
    folder = Path(state.directory)
    return NamedPlatform(
        KafkaAccess(state.kafka),
        state.redis,
        state.schema_registry or None,
        ",".join(f"{name}={each.url}" for name, each in state.programs.items() if each.url is not None),
        keys_of(folder),
        settings.access_record,
        folder,
    )


def _is_of_redis(told: str) -> bool:
    try:
        url = urlsplit(told)
        _ = url.port  # raises where it is no number, or none that a port can have
    except ValueError:
        return False
    return url.scheme in _REDIS_SCHEMES
