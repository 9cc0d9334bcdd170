"""Facts about what nobody has seen yet: they wait, and take effect in their own place."""

import pytest

from schemas.reasons import Flag
from tests.unit.fold_world import (
    D0,
    Said,
    World,
    allergic,
    at,
    changed,
    claimed,
    discontinued,
    dispatch_withdrawn,
    dispatched,
    dispensed,
    given,
    issued,
    paused,
    recalled,
    recorded,
    refuted,
    reinstated,
    renewal_requested,
    resumed,
    reversed_,
    tablets,
    use_reported,
    withdrawn,
)


@pytest.mark.parametrize(
    ("said", "flag", "awaited"),
    [
        (recalled(), "prescription_unknown", "R1"),
        (paused(), "treatment_unknown", "T1"),
        (discontinued(at_ms=at(1)), "treatment_unknown", "T1"),
        (use_reported(), "treatment_unknown", "T1"),
        (reversed_(), "dispense_unknown", "D1"),
        (refuted(), "allergy_unknown", "A1"),
    ],
)
def test_a_fact_about_the_unknown_is_applied_and_waits(said: Said, flag: str, awaited: str) -> None:
    world = World()
    then = world.when(said)
    assert (then.outcome, then.flags, world.waiting(awaited)) == ("applied", {flag}, 1)


@pytest.mark.parametrize(
    "said",
    [
        claimed(),
        dispatched(),
        dispatch_withdrawn(),
        renewal_requested(),
        changed(),
        resumed(),
        reinstated(),
        withdrawn(),
    ],
)
def test_a_registration_or_request_about_the_unknown_is_refused(said: Said) -> None:
    assert World().when(said).outcome == "refused(unknown)"


def test_a_hand_out_of_the_unknown_says_both() -> None:
    assert World().when(dispensed()).flags == {"dispensed_without_claim", "prescription_unknown"}


def test_a_hand_out_joins_when_its_prescription_comes_and_the_issuer_is_told() -> None:
    world = given(dispensed())
    then = world.when(issued(refills=1))
    assert then.notices == [("dispensed", "A")]
    assert (world.status(), world.refills_left(), world.handed_out(), world.waiting("R1")) == ("E", 1, 100, 0)
    assert world.flags_on() == {Flag.DISPENSED_WITHOUT_CLAIM.code}


def test_two_hand_outs_that_waited_count_both() -> None:
    world = given(dispensed("D1"), dispensed("D2", by="Q"), issued(refills=1))
    assert (world.status(), world.usage().periods) == ("R", 2)


def test_what_waited_is_judged_by_when_it_happened() -> None:
    world = given(dispensed(at_ms=at(1)), issued(at_ms=at(2), signed_ms=at(0)), recalled(at_ms=at(3)))
    assert Flag.DISPENSED_AFTER_RECALL.code not in world.flags_on()


def test_a_hand_out_is_flagged_for_a_recall_that_waited_beside_it() -> None:
    world = given(recalled(at_ms=at(1)), dispensed(at_ms=at(2)), issued(signed_ms=at(0), at_ms=at(3)))
    assert Flag.DISPENSED_AFTER_RECALL.code in world.flags_on()


def test_a_stop_that_waited_recalls_the_prescription_that_brings_its_treatment() -> None:
    world = given(discontinued(at_ms=at(5)), issued(signed_ms=at(3), at_ms=at(6)))
    assert (world.status(), world.treatment_is()) == ("T", "discontinued")


def test_a_stop_that_waited_spares_what_was_signed_after_it() -> None:
    world = given(discontinued(at_ms=at(5)), issued(signed_ms=at(6), at_ms=at(7)))
    assert (world.status(), world.treatment_is()) == ("E", "active")


def test_a_pause_that_waited_takes_effect_though_the_treatment_stopped_first() -> None:
    world = given(discontinued(at_ms=at(5)), paused(at_ms=at(6)), issued(signed_ms=at(3), at_ms=at(7)))
    assert [pause.start for pause in world.treatment().pauses] == [D0]


def test_what_waited_for_a_treatment_takes_effect_when_it_is_recorded() -> None:
    world = given(paused(), use_reported(), recorded())
    assert world.treatment_is() == "paused"
    assert world.treatment().reported_use is not None


def test_an_allergy_refuted_before_it_was_recorded_does_not_stand() -> None:
    world = given(refuted("A1"), allergic("A1"))
    assert world.when(allergic("A2", none_known=True)).outcome == "applied"


def test_returned_goods_may_wait_for_their_hand_out() -> None:
    world = given(issued(), reversed_(returned=tablets(30)))
    then = world.when(dispensed())
    assert then.notices == [("dispensed", "A"), ("reversed", "A")]
    assert world.when(reversed_(reversal="V2", returned=tablets(71))).outcome == "refused(over_returned)"


def test_more_returned_than_handed_out_is_refused_when_it_shows() -> None:
    world = given(issued(), reversed_(returned=tablets(300)))
    assert ("outcome_changed", "P") in world.when(dispensed()).notices


def test_the_outcome_of_what_waited_stays_as_it_was_answered() -> None:
    world = given(dispensed())
    report = world.last
    given(issued(), world=world)
    first = world.again(report).judgement.first
    assert first is not None
    assert Flag.PRESCRIPTION_UNKNOWN.code in first.flags


def test_a_claim_before_the_prescription_is_not_remembered_as_a_holder() -> None:
    world = World()
    world.when(claimed())
    given(issued(), world=world)
    assert world.status() == "E"


def test_a_hand_out_under_the_id_of_its_prescription_waits_for_the_one_and_is_the_other() -> None:
    world = given(reversed_("X", returned=tablets(30), reversal="V1"), dispensed("X", "X"))
    assert world.waiting("X") == 2, "the hand-out, and what came back of it"
    given(issued("X"), world=world)
    assert (world.status("X"), world.handed_out("X"), world.waiting("X")) == ("E", 100, 0)


def test_hand_outs_under_the_ids_of_each_others_prescriptions_wait_for_these() -> None:
    world = given(dispensed("X", "Y"), dispensed("Y", "X"))
    given(issued("X", "T1"), issued("Y", "T2"), world=world)
    assert (world.handed_out("X"), world.handed_out("Y")) == (100, 100)


def test_nothing_is_left_waiting_once_it_came() -> None:
    world = given(recalled(), dispensed(), reversed_(), paused(), discontinued(at_ms=at(1)), issued(at_ms=at(2)))
    assert [name for name in world.fields if name.startswith("waiting:")] == []
