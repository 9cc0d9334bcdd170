"""Which topics the log does not take, and when each is tried again: the trouble of one party's topic is no outage of the log."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from services.clock import Clock
from services.publishing.log import TopicRefused

FIRST_REST_MS: Final = 2_000
_LONGEST_REST_MS: Final = 60_000
"""*Policy*: a topic whose partition has no leader holds every round up that it is tried in, for as long as the log takes to
give a record up, so that it is tried ever less often; and a party whose topic works again waits a minute at most."""


class Refused(NamedTuple):
    """A topic that rests: what the log said, and whether it is so for certain, and not by what happened around it once."""

    error: Exception
    is_certain: bool


class Verdict(NamedTuple):
    """What a round told: the topics that rest from now on, and why it failed if it may have been the log that did."""

    refused: Mapping[str, Refused]
    failure: Exception | None


@dataclass(slots=True)
class _Rest:
    for_ms: int
    until_ms: int | None
    """None where it is over, and the topic has yet to be confirmed."""
    error: Exception


class RefusedTopics:
    """Judges each round by what else was confirmed in it.

    Where something was, or where the log named a topic, the topic is at fault: it *rests* for two seconds, and twice as long
    each time that it fails again. Where nothing was, nobody can tell the topic from the log: the round has failed, and its
    topics are *doubted*, which is to say passed over until all else was tried. So an outbox that begins with hundreds of effects
    for a dead topic is read on, and what comes behind them tells which of the two it was.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rests: dict[str, _Rest] = {}
        self._doubted: dict[str, Exception] = {}
        self.is_log_in_doubt = False
        """Whether the last that is known of the log is that it did not answer."""

    def passes_over(self, topic: str) -> bool:
        """Whether nothing is to be sent to a topic now."""
        rest = self._rests.get(topic)
        return topic in self._doubted or (rest is not None and rest.until_ms is not None)

    def judge(self, confirmed: set[str], unconfirmed: Mapping[str, Exception]) -> Verdict:
        """Take in a round: the topics that were confirmed something, and those that were not, with the first reason of each."""
        for topic in confirmed - unconfirmed.keys():
            self._rests.pop(topic, None)
        refused = dict(unconfirmed)
        # A log that refuses a topic by name has answered; what else failed then may have failed with that.
        has_answered = bool(confirmed) or any(isinstance(each, TopicRefused) for each in refused.values())
        unexplained = [error for topic, error in refused.items() if topic not in self._rests]
        failure = unexplained[0] if unexplained and not has_answered else None
        if failure is not None:
            self.is_log_in_doubt = True
            # In an outage every topic fails: what is known of those that rest may be no more than that.
            resting = {topic: rest.error for topic, rest in self._rests.items()}
            self._rests.clear()
            self._doubted |= resting | refused
            refused = {}
        elif has_answered:
            self.is_log_in_doubt = False
            refused |= self._doubted
            self._doubted.clear()
        return Verdict({topic: self._rest(topic, error) for topic, error in refused.items()}, failure)

    def _rest(self, topic: str, error: Exception) -> Refused:
        before = self._rests.get(topic)
        for_ms = FIRST_REST_MS if before is None else min(_LONGEST_REST_MS, 2 * before.for_ms)
        self._rests[topic] = _Rest(for_ms, self._clock.monotonic_ms() + for_ms, error)
        return Refused(error, before is not None or isinstance(error, TopicRefused))

    def rested(self) -> Collection[str]:
        """The topics whose rest has ended since this was asked last: they are to be tried again."""
        now_ms = self._clock.monotonic_ms()
        over = [topic for topic, rest in self._rests.items() if rest.until_ms is not None and rest.until_ms <= now_ms]
        for topic in over:
            self._rests[topic].until_ms = None
        return over

    def all_else_was_tried(self) -> Collection[str]:
        """The topics that were doubted: they are to be tried again, since nothing else is left that could tell of the log.

        Where there are none, another relay sent what this one could not: nothing is left to doubt the log for.
        """
        doubted = list(self._doubted)
        self._doubted.clear()
        self.is_log_in_doubt = self.is_log_in_doubt and bool(doubted)
        return doubted
