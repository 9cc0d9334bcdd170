"""Which topics of outside parties exist, so that sending an effect never waits for a missing topic."""

import asyncio
from collections.abc import Collection
from contextlib import closing, suppress
from typing import Protocol

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from services.publishing.kafka_access import KafkaAccess
from services.publishing.kafka_clients import connect
from services.publishing.log import LogUnavailable
from services.topics import cluster
from services.topics.registry import InvalidPartyError, Parties, Topics


class PartyTopics(Protocol):
    """The topics of outside parties."""

    async def existing(self, topics: Collection[str]) -> Collection[str]:
        """Those of these topics that are there, or are made now where that is allowed. Raises LogUnavailable."""
        ...

    def look_again(self) -> None:
        """Forget what was seen: a topic may have come, or be gone."""
        ...

    def is_listed(self, system: str) -> bool:
        """Whether a system is one of those that take receipts over a topic."""
        ...


class KafkaPartyTopics:
    """Those of a cluster, as last seen: one list answers for every topic that was ever asked for, until it is to be looked at again.

    A topic asked for the first time is looked for at once: a receipt whose topic is missing may be dropped by rule.
    """

    def __init__(self, kafka: KafkaAccess, topics: Topics, *, create_missing: bool) -> None:
        self._kafka = kafka
        self._topics = topics
        self._create_missing = create_missing
        self._there: set[str] | None = None
        self._missing: set[str] = set()

    async def existing(self, topics: Collection[str]) -> Collection[str]:
        """See `PartyTopics.existing`."""
        asked = set(topics)
        if self._there is None or asked - self._there - self._missing:
            try:
                self._there = await asyncio.to_thread(self._list)
                if self._create_missing and not asked <= self._there:
                    self._there |= set(await asyncio.to_thread(self._create, asked - self._there))
            except KafkaError as error:
                raise LogUnavailable(f"the log does not name its topics ({type(error).__name__})") from error
            self._missing = (self._missing | asked) - self._there
        return asked & self._there

    def look_again(self) -> None:
        """See `PartyTopics.look_again`."""
        self._there = None

    def is_listed(self, system: str) -> bool:
        """See `PartyTopics.is_listed`: declared from the start, or given topics since."""
        return system in self._topics.parties.systems or f"submission-receipts.{system}" in (self._there or ())

    def _list(self) -> set[str]:
        with closing(connect(KafkaAdminClient, self._kafka)) as admin:
            return set(admin.list_topics())

    def _create(self, topics: Collection[str]) -> Collection[str]:
        parties = Parties()
        for topic in topics:
            with suppress(InvalidPartyError):
                parties |= _receivers(topic)
        return () if parties == Parties() else cluster.create(self._kafka, self._topics, parties, one_broker=True)


def _receivers(topic: str) -> Parties:
    """Whose topic it is, where it is ours to make. Raises InvalidPartyError."""
    match topic.partition("."):
        case "dispense-orders", _, pharmacy:
            return Parties(pharmacies=(pharmacy,))
        case "notices", _, organisation:
            return Parties(organisations=(organisation,))
        case _:
            return Parties()  # an unlisted system gets no receipts topic


class MemoryPartyTopics:
    """Those that a test says there are."""

    def __init__(self, there: Collection[str], systems: Collection[str] = ()) -> None:
        self.there = set(there)
        self.systems = set(systems)

    async def existing(self, topics: Collection[str]) -> Collection[str]:
        """See `PartyTopics.existing`."""
        return self.there.intersection(topics)

    def look_again(self) -> None:
        """See `PartyTopics.look_again`."""

    def is_listed(self, system: str) -> bool:
        """See `PartyTopics.is_listed`."""
        return system in self.systems or f"submission-receipts.{system}" in self.there
