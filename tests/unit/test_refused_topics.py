"""Whether it is the topic that the log does not take, or the log that takes nothing."""

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.clock import ManualClock
from services.medication_list.relay.refused_topics import FIRST_REST_MS, RefusedTopics
from services.publishing.log import LogUnavailable, TopicRefused

AWAY: Final = LogUnavailable("not confirmed")
NO_RIGHT: Final = TopicRefused("no right")
LONGEST_REST_MS: Final = 60_000
TOPICS: Final = ("a", "b", "c", "d")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(0)


@pytest.fixture
def topics(clock: ManualClock) -> RefusedTopics:
    return RefusedTopics(clock)


def test_what_others_were_confirmed_beside_rests_and_only_the_second_time_in_a_row_is_it_certain(
    topics: RefusedTopics, clock: ManualClock
) -> None:
    refused, failure = topics.judge({"b"}, {"a": AWAY})
    assert (refused["a"].is_certain, failure) == (False, None)
    assert (topics.passes_over("a"), topics.passes_over("b")) == (True, False)
    assert topics.rested() == []
    clock.advance(FIRST_REST_MS)
    assert topics.rested() == ["a"]
    assert topics.rested() == []  # once: what holds it from here on holds it for another reason
    assert not topics.passes_over("a")
    assert topics.judge({"b"}, {"a": AWAY}).refused["a"].is_certain


def test_a_topic_rests_twice_as_long_each_time_up_to_a_minute_and_begins_anew_once_it_was_confirmed(
    topics: RefusedTopics, clock: ManualClock
) -> None:
    def rest_ms() -> int:
        topics.judge({"b"}, {"a": AWAY})
        before_ms = clock.monotonic_ms()
        while not topics.rested():
            clock.advance(500)
        return clock.monotonic_ms() - before_ms

    assert [rest_ms() for _ in range(7)] == [2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]
    topics.judge({"a"}, {})
    assert rest_ms() == FIRST_REST_MS


def test_where_nothing_was_confirmed_the_round_fails_and_what_else_waits_decides(topics: RefusedTopics) -> None:
    assert topics.judge(set(), {"a": AWAY}) == ({}, AWAY)
    assert topics.is_log_in_doubt
    assert topics.passes_over("a")
    refused, failure = topics.judge({"b"}, {})
    assert (list(refused), failure, topics.is_log_in_doubt) == (["a"], None, False)


def test_where_nothing_else_waits_the_doubted_are_tried_again_and_the_log_is_in_doubt_until_it_confirms(
    topics: RefusedTopics,
) -> None:
    topics.judge(set(), {"a": AWAY, "b": AWAY})
    assert sorted(topics.all_else_was_tried()) == ["a", "b"]
    assert (topics.is_log_in_doubt, topics.passes_over("a")) == (True, False)
    topics.judge({"a", "b"}, {})
    assert (topics.is_log_in_doubt, topics.passes_over("a")) == (False, False)


def test_a_log_is_in_doubt_no_longer_when_nothing_waits_that_it_did_not_confirm(topics: RefusedTopics) -> None:
    topics.judge(set(), {"a": AWAY})
    topics.all_else_was_tried()
    topics.all_else_was_tried()
    assert not topics.is_log_in_doubt


def test_a_log_that_refuses_a_topic_by_name_has_answered_and_what_failed_beside_it_rests_too(
    topics: RefusedTopics,
) -> None:
    refused, failure = topics.judge(set(), {"a": NO_RIGHT, "b": AWAY})
    assert {topic: each.is_certain for topic, each in refused.items()} == {"a": True, "b": False}
    assert failure is None


def test_a_known_topic_that_fails_alone_fails_no_round(topics: RefusedTopics, clock: ManualClock) -> None:
    topics.judge({"b"}, {"a": AWAY})
    clock.advance(FIRST_REST_MS)
    assert topics.rested() == ["a"]
    assert topics.judge(set(), {"a": AWAY}).failure is None


def test_an_outage_makes_no_topic_rest_for_longer(topics: RefusedTopics, clock: ManualClock) -> None:
    for _ in range(6):
        topics.judge({"b"}, {"a": AWAY})
        clock.advance(LONGEST_REST_MS)
        topics.rested()
    topics.judge({"b"}, {"a": AWAY})
    topics.judge(set(), {"b": AWAY})
    assert sorted(topics.all_else_was_tried()) == ["a", "b"]


ROUNDS = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from(TOPICS), st.sampled_from([None, AWAY, NO_RIGHT]), max_size=4),
        st.integers(0, 3_000),
        st.booleans(),
    ),
    max_size=30,
)


@given(ROUNDS)
def test_no_topic_is_passed_over_for_ever_and_none_that_was_just_confirmed(
    rounds: list[tuple[dict[str, Exception | None], int, bool]],
) -> None:
    clock = ManualClock(0)
    topics = RefusedTopics(clock)
    for answers, later_ms, is_all_tried in rounds:
        sent = {topic: answer for topic, answer in answers.items() if not topics.passes_over(topic)}
        confirmed = {topic for topic, answer in sent.items() if answer is None}
        unconfirmed = {topic: answer for topic, answer in sent.items() if answer is not None}
        verdict = topics.judge(confirmed, unconfirmed)
        assert (verdict.failure is not None) <= (not confirmed and set(unconfirmed.values()) == {AWAY})
        assert not any(map(topics.passes_over, confirmed))
        assert all(map(topics.passes_over, unconfirmed))
        clock.advance(later_ms)
        topics.rested()
        if is_all_tried and not sent:
            topics.all_else_was_tried()
    topics.all_else_was_tried()
    clock.advance(LONGEST_REST_MS)
    topics.rested()
    assert not any(map(topics.passes_over, TOPICS))
