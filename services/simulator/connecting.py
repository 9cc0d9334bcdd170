"""Finds the platform to play the town through, and opens channels into it."""

from enum import StrEnum
from typing import Final

from msgspec import Struct
from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.framing import PLAIN, Framing
from services.identity.pseudonym import Pseudonymiser
from services.identity.sealing import Sealer
from services.publishing.kafka_access import KafkaAccess, KafkaSetting
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


class SimulatorSettings(BaseSettings):
    """Where the platform is, if it is not the one that `make up` started."""

    model_config = SettingsConfigDict(env_prefix="MEDCHAIN_", frozen=True)

    kafka: KafkaSetting | None = None
    prescriber_url: str = "http://127.0.0.1:8801"
    pharmacy_url: str = "http://127.0.0.1:8802"
    list_url: str = "http://127.0.0.1:8803"
    pseudonym_key: SecretStr | None = None
    sealing_key: SecretStr | None = None
    schema_registry: str | None = None


class NoPlatformError(RuntimeError):
    """There is no platform to play through."""


def from_environment(settings: SimulatorSettings) -> Where | None:
    """The platform that the environment names, None if it names none."""
    if settings.kafka is None:
        return None
    urls = dict(zip(SERVICES, (settings.prescriber_url, settings.pharmacy_url, settings.list_url), strict=True))
    return Where(
        settings.kafka,
        urls,
        pseudonym_key=_told(settings.pseudonym_key),
        sealing_key=_told(settings.sealing_key),
        schema_registry=settings.schema_registry,
    )


def _told(key: SecretStr | None) -> str | None:
    return None if key is None else key.get_secret_value()


def refuse_without_keys(via: Via, where: Where) -> None:
    """Raises NoPlatformError when the log is to be written and the platform's keys are not known."""
    if Via.LOG in _SHARES[via] and (where.pseudonym_key is None or where.sealing_key is None):
        raise NoPlatformError("To write the log itself, set MEDCHAIN_PSEUDONYM_KEY and MEDCHAIN_SEALING_KEY.")


def channels(via: Via, where: Where, town: Town, history: History, framing: Framing = PLAIN) -> dict[Channel, int]:
    """The channels of that way, each with its share of the patients.

    Raises NoPlatformError when the log is to be written and the platform's keys are not known.
    """
    refuse_without_keys(via, where)
    return {_channel(each, where, town, history, framing): share for each, share in _SHARES[via].items()}


def _channel(via: Via, where: Where, town: Town, history: History, framing: Framing) -> Channel:
    if via is Via.HTTP:
        return HttpChannel(where.urls, town, history)
    if via is Via.SUBMISSIONS:
        return SubmissionChannel(where.kafka, town, history, framing=framing)
    assert where.pseudonym_key is not None
    assert where.sealing_key is not None
    pseudonymiser = Pseudonymiser(bytes.fromhex(where.pseudonym_key))
    return LogChannel(where.kafka, town, pseudonymiser, Sealer(bytes.fromhex(where.sealing_key)), history, framing)
