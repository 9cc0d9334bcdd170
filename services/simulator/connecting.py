"""Finds the platform to play the town through, and opens channels into it."""

from enum import StrEnum
from typing import Final

from msgspec import Struct
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.framing import PLAIN, Framing
from services.command_line.named_platform import (
    PSEUDONYM_KEY,
    SEALING_KEY,
    NoPlatformError,
    named_platform,
    with_key,
)
from services.identity.pseudonym import Pseudonymiser
from services.identity.sealing import Sealer
from services.publishing.kafka_access import KafkaAccess
from services.simulator.history import History
from services.simulator.http_channel import HttpChannel
from services.simulator.log_channel import LogChannel
from services.simulator.playing import Channel
from services.simulator.population import Town
from services.simulator.submission_channel import SubmissionChannel

SERVICES: Final = ("prescriber", "pharmacy", "medication-list")


class Via(StrEnum):
    """The channel through which the town's actions enter."""

    LOG = "log"
    HTTP = "http"
    SUBMISSIONS = "submissions"
    BOTH = "both"
    ALL = "all"


_SHARES: Final[dict[Via, dict[Via, int]]] = {
    Via.LOG: {Via.LOG: 1},
    Via.HTTP: {Via.HTTP: 1},
    Via.SUBMISSIONS: {Via.SUBMISSIONS: 1},
    Via.BOTH: {Via.HTTP: 1, Via.SUBMISSIONS: 1},
    Via.ALL: {Via.LOG: 6, Via.HTTP: 2, Via.SUBMISSIONS: 2},
}


class Where(Struct, frozen=True):
    """A platform as the town needs to know it. Keys are hexadecimal, needed only by the log channel."""

    kafka: KafkaAccess
    urls: dict[str, str]
    pseudonym_key: str | None = None
    sealing_key: str | None = None
    schema_registry: str | None = None

    def __repr__(self) -> str:
        return f"Where({self.kafka})"


class _Urls(BaseSettings):
    """The ways in to a platform that the environment names."""

    model_config = SettingsConfigDict(env_prefix="MEDCHAIN_", frozen=True, env_ignore_empty=True)

    prescriber_url: str = "http://127.0.0.1:8801"
    pharmacy_url: str = "http://127.0.0.1:8802"
    list_url: str = "http://127.0.0.1:8803"


def named_where() -> Where:
    """The platform of the environment, else the one that runs here. Raises NoPlatformError."""
    platform = named_platform(needs_redis=False)
    if platform.folder is None:
        told = _Urls()
        urls = dict(zip(SERVICES, (told.prescriber_url, told.pharmacy_url, told.list_url), strict=True))
    else:
        urls = {name: platform.processes()[name] for name in SERVICES}
    keys = platform.keys
    return Where(platform.kafka, urls, keys.get(PSEUDONYM_KEY), keys.get(SEALING_KEY), platform.schema_registry)


def refuse_without_keys(via: Via, where: Where) -> None:
    """Raises NoPlatformError when the log is to be written and the platform's keys are not known, or are none."""
    if Via.LOG not in _SHARES[via]:
        return
    if where.pseudonym_key is None or where.sealing_key is None:
        raise NoPlatformError("To write the log itself, set MEDCHAIN_PSEUDONYM_KEY and MEDCHAIN_SEALING_KEY.")
    _with_keys(where)


def channels(via: Via, where: Where, town: Town, history: History, framing: Framing = PLAIN) -> dict[Channel, int]:
    """The channels of that way, each with its share of the patients.

    Raises NoPlatformError when the log is to be written and the platform's keys are not known, or are none.
    """
    refuse_without_keys(via, where)
    return {_channel(each, where, town, history, framing): share for each, share in _SHARES[via].items()}


def _channel(via: Via, where: Where, town: Town, history: History, framing: Framing) -> Channel:
    if via is Via.HTTP:
        return HttpChannel(where.urls, town, history)
    if via is Via.SUBMISSIONS:
        return SubmissionChannel(where.kafka, town, history, framing=framing)
    return LogChannel(where.kafka, town, *_with_keys(where), history, framing)


def _with_keys(where: Where) -> tuple[Pseudonymiser, Sealer]:
    keys = {PSEUDONYM_KEY: where.pseudonym_key, SEALING_KEY: where.sealing_key}
    return with_key(keys, PSEUDONYM_KEY, Pseudonymiser), with_key(keys, SEALING_KEY, Sealer)
