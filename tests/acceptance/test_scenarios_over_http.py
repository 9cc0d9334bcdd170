"""Every acceptance scenario, black-box: through HTTP and Kafka against the whole chain, with every word of it held to."""

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import pytest

from services.topics.registry import EVENTS_TOPIC, load
from tests.acceptance.end_checks import (
    THEN,
    End,
    check_final,
    check_nothing_else,
    check_notices,
    check_orders,
    check_then,
)
from tests.acceptance.journey import Journey, Neighbours
from tests.acceptance.step_checks import CHECKS, check_step
from tests.acceptance.translate import Play, scenarios
from tests.chain import Chain, Message, Relayed, Topics

pytestmark = pytest.mark.integration


class Mail(NamedTuple):
    """What organisations are told: their topics, and how far the relay has come."""

    topics: Topics
    relayed: Relayed
    neighbours: Neighbours

    def since(self, journey: Journey) -> list[Message]:
        """All that is new on the topics, once the effects of all that the journey did have come."""
        return self._read_up_to(journey.position.values())

    def leave_out_what_others_did(self) -> None:
        """Read away what tests before these brought about on the same platform, also what the relay has yet to send."""
        self._read_up_to(f"{partition}-0" for partition in range(load().partitions(EVENTS_TOPIC)))

    def _read_up_to(self, positions: Iterable[str]) -> list[Message]:
        """All that is new, once everything due to the partitions of these positions by now has come."""
        behind = [self.neighbours.bring_about_a_notice(position) for position in positions]
        for position in behind:
            self.relayed.await_position(position)
        return [each for each in self.topics.read() if source_of(each) not in behind]


def source_of(message: Message) -> str:
    """The position of the event that brought it about."""
    return f"{message.message.source_partition}-{message.message.source_offset}"


@pytest.fixture(scope="module")
def mail(chain: Chain) -> Iterator[Mail]:
    mail = Mail(
        chain.topics(chain.topics_of_parties("notices", "dispense-orders")),
        Relayed({}, chain.topics(["relay-progress"])),
        Neighbours(chain),
    )
    # Else the first scenario would have to answer for whatever the platform was used for before it.
    mail.leave_out_what_others_did()
    yield mail
    mail.topics.close()
    mail.relayed.topics.close()


@pytest.mark.parametrize("name", scenarios())
def test_the_chain_comes_to_what_the_scenario_says(name: str, chain: Chain, mail: Mail) -> None:
    scenario: dict[str, Any] = scenarios()[name]
    journey = Journey(Play(scenario), chain, list(scenarios()).index(name))
    for _ in journey.steps():
        check_step(journey)
    end = End(journey, mail.neighbours, mail.since(journey))
    check_final(end, scenario.get("final") or {})
    check_nothing_else(end)
    check_notices(end, scenario["notices"])
    check_orders(end)
    check_then(end, scenario.get("then") or [])
    # What a sentence of `then` had to bring about to be held to is not the next scenario's.
    mail.since(journey)


def test_every_sentence_of_the_scenarios_is_understood_by_one_check_alone() -> None:
    said = [text for each in scenarios().values() for step in each["steps"] for text in step["expect"]]
    ended = [text for each in scenarios().values() for text in each.get("then") or ()]
    for sentences, checks in ((said, CHECKS), (ended, THEN)):
        for sentence in sentences:
            matching = [pattern for pattern in checks if re.fullmatch(pattern, sentence)]
            assert len(matching) == 1, f"{sentence!r}: {matching}"
        for pattern in checks:
            assert any(re.fullmatch(pattern, sentence) for sentence in sentences), f"{pattern!r} checks nothing"
