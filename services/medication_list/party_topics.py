"""Which topics of outside parties the log has, so that an effect for a topic that is missing is never sent into a wait."""

import asyncio
from collections.abc import Collection
from contextlib import closing
from typing import Protocol

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from services.publishing.kafka_access import KafkaAccess
from services.publishing.log import LogUnavailable
from services.topics import cluster
from services.topics.registry import InvalidPartyError, Parties, Topics


class PartyTopics(Protocol):
    """The topics of outside parties."""

    async def have(self, topic: str) -> bool:
        """Whether the topic is there, made now where that is allowed. Raises LogUnavailable."""
        ...

    def look_again(self) -> None:
        """Forget what was seen: a topic may have come, or be gone."""
        ...

    def is_listed(self, system: str) -> bool:
        """Whether a system is one of those that take receipts over a topic."""
        ...


class KafkaPartyTopics:
    """Those of a cluster, as last seen: it is asked for each topic once, until it is to be looked at again."""

    def __init__(self, kafka: KafkaAccess, topics: Topics, *, create_missing: bool) -> None:
        self._kafka = kafka
        self._topics = topics
        self._create_missing = create_missing
        self._there: set[str] = set()
        self._missing: set[str] = set()

    async def have(self, topic: str) -> bool:
        """See `PartyTopics.have`."""
        if topic not in self._there and topic not in self._missing:
            try:
                self._there = await asyncio.to_thread(self._list)
                if topic not in self._there and self._create_missing:
                    self._there |= set(await asyncio.to_thread(self._create, topic))
            except KafkaError as error:
                raise LogUnavailable(f"the log does not name its topics ({type(error).__name__})") from error
            self._missing |= {topic} - self._there
        return topic in self._there

    def look_again(self) -> None:
        """See `PartyTopics.look_again`."""
        self._there = set()
        self._missing = set()

    def is_listed(self, system: str) -> bool:
        """See `PartyTopics.is_listed`: declared from the start, or given topics since."""
        return system in self._topics.parties.systems or f"submission-receipts.{system}" in self._there

    def _list(self) -> set[str]:
        with closing(KafkaAdminClient(**self._kafka.client_settings())) as admin:
            return set(admin.list_topics())

    def _create(self, topic: str) -> Collection[str]:
        kind, _, party = topic.partition(".")
        try:
            parties = {
                "dispense-orders": lambda: Parties(pharmacies=(party,)),
                "notices": lambda: Parties(organisations=(party,)),
            }[kind]()
        except (InvalidPartyError, KeyError):
            return ()  # an unlisted system gets no receipts topic, and no other kind is ours to make
        return cluster.create(self._kafka, self._topics, parties, one_broker=True)


class MemoryPartyTopics:
    """Those that a test says there are."""

    def __init__(self, there: Collection[str], systems: Collection[str] = ()) -> None:
        self.there = set(there)
        self.systems = set(systems)

    async def have(self, topic: str) -> bool:
        """See `PartyTopics.have`."""
        return topic in self.there

    def look_again(self) -> None:
        """See `PartyTopics.look_again`."""

    def is_listed(self, system: str) -> bool:
        """See `PartyTopics.is_listed`."""
        return system in self.systems or f"submission-receipts.{system}" in self.there
