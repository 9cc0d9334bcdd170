"""Every acceptance scenario, black-box: through HTTP and Kafka against the whole chain, with every word of it held to."""

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import pytest

from services.topics.registry import EVENTS_TOPIC, load
from tests.acceptance.answered import Answered
from tests.acceptance.end_checks import (
    THEN,
    End,
    check_nothing_else,
    check_notices,
    check_orders,
    check_then,
)
from tests.acceptance.final_checks import check_final
from tests.acceptance.journey import Journey, Neighbours
from tests.acceptance.not_built import each_to_be_played
from tests.acceptance.step_checks import CHECKS, check_step
from tests.acceptance.translate import Play, more_words, scenarios
from tests.acceptance.unclear import Unclear
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


FIRST_OF_MORE_WORDS: Final = 700
"""Their patients, apart from those of the given scenarios and of `our_journeys`."""


@pytest.mark.parametrize("name", each_to_be_played(scenarios() | more_words()))
def test_the_chain_comes_to_what_the_scenario_says(name: str, chain: Chain, mail: Mail) -> None:
    scenario: dict[str, Any] = (scenarios() | more_words())[name]
    answered = Answered(Journey(Play(scenario), chain, number_of(name)))
    unclear, versions, journey = Unclear(scenario), dict[str, int](), answered.journey
    for step in journey.steps():
        answered.version_before = versions.get(step.patient, -1)
        check_step(answered, unclear)
        versions[step.patient] = journey.now.whole["version"]
    # What one that failed before this brought about is not this one's.
    own = [each for each in mail.since(journey) if source_of(each) in journey.positions]
    end = End(journey, mail.neighbours, own)
    with unclear.noted("final"):
        check_final(answered, scenario.get("final") or {})
    check_nothing_else(end)
    check_notices(end, scenario)
    check_orders(end)
    check_then(end, answered, unclear, scenario["then"])
    # What a sentence of `then` had to bring about to be held to is not the next scenario's.
    mail.since(journey)
    unclear.tell()


def number_of(name: str) -> int:
    """Which sets a scenario's patients apart."""
    return [*scenarios()].index(name) if name in scenarios() else FIRST_OF_MORE_WORDS + [*more_words()].index(name)


def test_every_sentence_of_the_scenarios_is_understood_by_at_most_one_check_of_its_own() -> None:
    said = [text for each in scenarios().values() for step in each["steps"] for text in step["expect"]]
    ended = [text for each in scenarios().values() for text in each["then"]]
    for sentences, checks in ((said, CHECKS), (ended, THEN)):
        for sentence in sentences:
            matching = [pattern for pattern in checks if re.fullmatch(pattern, sentence)]
            assert len(matching) <= 1, f"{sentence!r}: {matching}"
        for pattern in checks:
            assert any(re.fullmatch(pattern, sentence) for sentence in sentences), f"{pattern!r} checks nothing"
