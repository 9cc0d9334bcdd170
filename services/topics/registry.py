"""schemas/topics.yaml as types: which topics there are, and with which partitions and settings."""

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import yaml

EVENTS_TOPIC: Final = "medication-events"
"""The log itself."""
DECLARED: Final = Path(__file__).resolve().parents[2] / "schemas" / "topics.yaml"
# Kafka's own alphabet without the capitals and the underscore: a dot and an underscore would collide in metric names.
PARTY: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")


class InvalidPartyError(ValueError):
    """A system, pharmacy or organisation whose name cannot be part of a topic's name."""


class UndeclaredTopicError(KeyError):
    """A topic that topics.yaml does not declare."""


class Declaration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of topics.yaml. `settings` are Kafka's topic settings, by Kafka's names."""

    about: str
    key: str
    partitions: int
    kept: str
    settings: dict[str, str]
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    schemas: tuple[str, ...]
    example: str


class OneBroker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a single-node cluster uses instead of production's replication and settings."""

    replication: int
    settings: dict[str, str]


class Parties(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The outside parties with their own topics.

    Raises:
        InvalidPartyError: one of the names has characters that a topic's name cannot have.
    """

    systems: tuple[str, ...] = ()
    pharmacies: tuple[str, ...] = ()
    organisations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in (*self.systems, *self.pharmacies, *self.organisations):
            if not PARTY.fullmatch(name):
                raise InvalidPartyError(
                    f"{name!r} cannot name a topic: small letters, digits and hyphens only, at most 64"
                )

    def __or__(self, other: "Parties") -> "Parties":
        """All of both, each once, in order."""
        return Parties(
            systems=tuple(dict.fromkeys(self.systems + other.systems)),
            pharmacies=tuple(dict.fromkeys(self.pharmacies + other.pharmacies)),
            organisations=tuple(dict.fromkeys(self.organisations + other.organisations)),
        )

    def of(self, placeholder: str) -> tuple[str, ...]:
        """The parties that a topic's `<placeholder>` stands for."""
        return {"system": self.systems, "pharmacy": self.pharmacies, "organisation": self.organisations}[placeholder]


class Topic(NamedTuple):
    """One topic as a cluster should have it."""

    name: str
    partitions: int
    replication: int
    settings: dict[str, str]


class Topics(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of topics.yaml."""

    settings: dict[str, str]
    replication: int
    one_broker: OneBroker
    topics: dict[str, Declaration]
    parties: Parties

    def declaration(self, topic: str) -> Declaration:
        """The declaration of a topic, or of the pattern that it belongs to.

        Raises:
            UndeclaredTopicError: there is none.
        """
        stem, _, party = topic.partition(".")
        for pattern, declared in self.topics.items():
            if pattern == topic or (
                party and pattern.startswith(f"{stem}.<") and (PARTY.fullmatch(party) or party[0] == "<")
            ):
                return declared
        raise UndeclaredTopicError(topic)

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has: what keys are hashed over, whatever a cluster says."""
        return self.declaration(topic).partitions

    def wanted(self, parties: Parties | None = None, *, one_broker: bool = False) -> Iterator[Topic]:
        """Every topic that a cluster should have: for the known parties, and for those given besides."""
        everyone = self.parties | (parties or Parties())
        for pattern in self.topics:
            stem, _, placeholder = pattern.partition(".")
            names = [f"{stem}.{party}" for party in everyone.of(placeholder.strip("<>"))] if placeholder else [pattern]
            for name in names:
                yield self.topic(name, one_broker=one_broker)

    def topic(self, name: str, *, one_broker: bool = False) -> Topic:
        """One topic with everything that holds for it.

        Raises:
            UndeclaredTopicError: topics.yaml does not know it.
        """
        declared = self.declaration(name)
        overrides = self.one_broker.settings if one_broker else {}
        replication = self.one_broker.replication if one_broker else self.replication
        return Topic(name, declared.partitions, replication, self.settings | declared.settings | overrides)


@functools.cache
def load(path: Path = DECLARED) -> Topics:
    """topics.yaml, checked.

    Raises:
        msgspec.ValidationError: a field is missing, unknown or of the wrong type; the text says where.
    """
    return msgspec.convert(yaml.safe_load(path.read_text(encoding="utf-8")), Topics)
