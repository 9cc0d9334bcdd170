"""Dispatches: the next dispense, or every one, tied to a pharmacy; and the orders that go out."""

import pytest

from schemas.codec import decode
from schemas.events import Event, PrescriptionIssued, TreatmentChanged
from schemas.reasons import Flag
from services.medication_list.fold.judgement import OrderDue
from tests.unit.fold_world import (
    Said,
    Then,
    aborted,
    allergic,
    at,
    changed,
    claimed,
    death_retracted,
    died,
    discontinued,
    dispatch_withdrawn,
    dispatched,
    dispensed,
    given,
    id_of,
    issued,
    on,
    recalled,
    released,
    reversed_,
)


def _order(then: Then) -> OrderDue:
    (order,) = (effect for effect in then.judgement.effects if isinstance(effect, OrderDue))
    return order


def test_a_dispatch_binds_at_once_and_its_order_goes_out() -> None:
    world = given(issued())
    then = world.when(dispatched(to="P"))
    assert (then.orders, world.when(claimed(by="Q")).outcome) == (["P"], "refused(dispatched_to)")


def test_an_order_carries_the_prescription_as_signed_and_the_dosing_in_force() -> None:
    world = given(issued(at_ms=at(0)), changed(at_ms=at(1)), allergic())
    order = _order(world.when(dispatched(to="P")))
    signed, dosed = decode(order.signed), decode(order.dosed or b"")
    assert isinstance(signed, Event)
    assert isinstance(signed.body, PrescriptionIssued)
    assert isinstance(dosed, Event)
    assert isinstance(dosed.body, TreatmentChanged)
    assert signed.body.prescription == id_of("R1")
    assert [entry.recorded.substance for entry in order.allergies.entries] == ["penicillin"]
    assert order.flags == (Flag.DOSING_CHANGED,)


def test_an_order_without_a_change_carries_the_prescription_alone() -> None:
    assert _order(given(issued()).when(dispatched(to="P"))).dosed is None


def test_while_held_a_dispatch_waits_for_the_claim_to_end() -> None:
    world = given(issued(), claimed(by="Q"))
    requested = world.when(dispatched(to="P"))
    ended = world.when(dispensed(by="Q"))
    assert (requested.orders, ended.orders) == ([], ["P"])


@pytest.mark.parametrize("end", [aborted(by="Q"), released()])
def test_it_binds_however_the_claim_ends(end: object) -> None:
    world = given(issued(), claimed(by="Q"), dispatched(to="P"))
    assert world.when(end).orders == ["P"]  # type: ignore[arg-type]  # parametrized


def test_it_does_not_bind_on_what_the_hand_out_closed() -> None:
    world = given(issued(refills=0), claimed(by="Q"), dispatched(to="P"))
    assert world.when(dispensed(by="Q", completed=True)).orders == []


def test_it_does_not_bind_on_what_was_recalled_meanwhile() -> None:
    world = given(issued(), claimed(by="Q"), dispatched(to="P"), recalled())
    assert world.when(aborted(by="Q")).orders == []


def test_the_latest_holds_and_the_former_pharmacy_is_told() -> None:
    world = given(issued(), dispatched(to="P"))
    then = world.when(dispatched(to="Q"))
    assert (then.orders, then.notices) == (["Q"], [("order_void", "P")])
    assert world.when(claimed(by="P")).outcome == "refused(dispatched_to)"


def test_a_dispatch_ties_the_next_dispense_alone() -> None:
    world = given(issued(), dispatched(to="P"), claimed(by="P"), dispensed("D1", by="P"))
    assert world.when(claimed(claim="C2", by="Q")).outcome == "applied"


def test_a_dispatch_of_every_dispense_stays() -> None:
    world = given(issued(), dispatched(to="P", every=True), claimed(by="P"), dispensed("D1", by="P"))
    assert world.when(claimed(claim="C2", by="Q")).outcome == "refused(dispatched_to)"


def test_a_hand_out_by_another_leaves_it() -> None:
    world = given(issued(), dispatched(to="P"), dispensed("D1", by="Q"))
    assert world.when(claimed(by="Q")).outcome == "refused(dispatched_to)"


def test_a_hand_out_by_another_that_completes_makes_the_order_void() -> None:
    world = given(issued(refills=0), dispatched(to="P"))
    assert ("order_void", "P") in world.when(dispensed(by="Q", completed=True)).notices


def test_an_aborted_claim_leaves_the_dispatch() -> None:
    world = given(issued(), dispatched(to="P"), claimed(by="P"), aborted())
    assert world.when(claimed(claim="C2", by="Q")).outcome == "refused(dispatched_to)"


def test_it_lapses_after_the_thirtieth_day() -> None:
    for day, hour, outcome in ((30, 23, "refused(dispatched_to)"), (31, 0, "applied")):
        world = given(issued(), dispatched(to="P", at_ms=at(0, 9)))
        assert world.when(claimed(by="Q", at_ms=at(day, hour))).outcome == outcome


def test_it_lapses_after_the_earliest_date_if_that_is_later() -> None:
    for day, outcome in ((130, "refused(dispatched_to)"), (131, "applied")):
        world = given(issued(earliest=on(100)), dispatched(to="P", at_ms=at(0, 9)))
        assert world.when(claimed(by="Q", at_ms=at(day))).outcome == outcome


def test_a_lapsed_one_cannot_be_withdrawn() -> None:
    world = given(issued(), dispatched(to="P", at_ms=at(0, 9)))
    assert world.when(dispatch_withdrawn(at_ms=at(40))).outcome == "refused(no_dispatch)"


@pytest.mark.parametrize(
    ("by", "notices"), [("citizen", [("order_void", "P")]), ("A", [("order_void", "P")]), ("P", [])]
)
def test_citizen_prescriber_and_the_bound_pharmacy_may_withdraw(by: str, notices: list[tuple[str, str]]) -> None:
    world = given(issued(), dispatched(to="P"))
    then = world.when(dispatch_withdrawn(by=by))
    assert (then.outcome, then.notices) == ("applied", notices)
    assert world.when(claimed(by="Q")).outcome == "applied"


def test_another_pharmacy_may_not_withdraw() -> None:
    world = given(issued(), dispatched(to="P"))
    assert world.when(dispatch_withdrawn(by="Q")).outcome == "refused(not_permitted)"


def test_one_that_was_withdrawn_is_gone() -> None:
    world = given(issued(), dispatched(to="P"), dispatch_withdrawn())
    assert world.when(dispatch_withdrawn()).outcome == "refused(no_dispatch)"


def test_a_recall_tells_the_bound_pharmacy() -> None:
    world = given(issued(), dispatched(to="P"))
    assert world.when(recalled()).notices == [("recalled_while_dispatched", "P")]


def test_the_bound_pharmacy_that_holds_is_told_once() -> None:
    world = given(issued(), dispatched(to="P"), claimed(by="P"))
    assert world.when(recalled()).notices == [("recalled_while_held", "P")]


def test_a_stop_tells_the_bound_pharmacy_too() -> None:
    world = given(issued(at_ms=at(0)), dispatched(to="P"))
    assert world.when(discontinued(at_ms=at(1))).notices == [("recalled_while_dispatched", "P")]


def test_the_same_request_again_changes_nothing() -> None:
    world = given(issued(), dispatched(to="P"))
    then = world.again(world.last, event_id=id_of("another try"))
    assert (then.outcome, then.orders) == ("duplicate", [])


def test_a_dispatch_does_not_move_the_list() -> None:
    world = given(issued())
    version = world.meta.version
    given(dispatched(to="P"), dispatch_withdrawn(), world=world)
    assert world.meta.version == version


# --- What waited for a claim that left the prescription closed --------------------------------------------------------


def test_a_dispatch_that_waited_binds_when_the_hand_out_that_closed_it_is_taken_back() -> None:
    world = given(issued(refills=0), claimed(by="P"), dispatched(to="Q"))
    closed = world.when(dispensed(by="P", completed=True))
    taken_back = world.when(reversed_(by="P"))
    assert (closed.orders, taken_back.orders, world.status()) == ([], ["Q"], "E")
    assert world.when(claimed(claim="C2", by="P")).outcome == "refused(dispatched_to)"


def test_it_stays_waiting_while_what_is_taken_back_leaves_it_closed() -> None:
    world = given(issued(refills=0), claimed(by="P"), dispatched(to="Q"), recalled())
    given(dispensed(by="P", completed=True), world=world)
    assert (world.when(reversed_(by="P")).orders, world.status()) == ([], "T")


def test_it_binds_when_a_death_that_closed_it_is_retracted() -> None:
    world = given(issued(), claimed(by="P"), dispatched(to="Q"), died())
    ended = world.when(aborted())
    assert (ended.orders, world.when(death_retracted()).orders) == ([], ["Q"])


@pytest.mark.parametrize("every", [False, True])
def test_the_order_of_what_is_bound_goes_out_once_more_when_a_death_is_retracted(*, every: bool) -> None:
    """Its pharmacy was told of the recall, and nobody else may dispense."""
    world = given(issued(), dispatched(to="P", every=every))
    assert ("recalled_while_dispatched", "P") in world.when(died()).notices
    retracted = world.when(death_retracted())
    assert (retracted.orders, world.status()) == (["P"], "E")
    assert world.when(claimed(by="Q")).outcome == "refused(dispatched_to)"
    assert world.when(claimed(claim="C2", by="P")).outcome == "applied"


def test_it_goes_out_also_where_the_bound_pharmacy_gave_its_claim_back_meanwhile() -> None:
    world = given(issued(), dispatched(to="P"), claimed(by="P"), died(), aborted(by="P"))
    assert world.when(death_retracted()).orders == ["P"]


@pytest.mark.parametrize(
    "meanwhile",
    [
        [claimed(by="P"), died()],
        [died(), recalled()],
        [died(), discontinued(at_ms=at(1))],
        [died(), dispatch_withdrawn()],
        [died(), dispensed(by="P", completed=True)],
    ],
    ids=["held", "recalled", "stopped", "withdrawn", "completed"],
)
def test_it_goes_out_for_nothing_else(meanwhile: list[Said]) -> None:
    world = given(issued(), dispatched(to="P"), *meanwhile)
    assert world.when(death_retracted()).orders == []


def test_it_does_not_go_out_once_more_when_it_has_lapsed() -> None:
    world = given(issued(), dispatched(to="P", at_ms=at(0)), died())
    assert world.when(death_retracted(at_ms=at(31))).orders == []


def test_it_does_not_bind_once_it_has_lapsed() -> None:
    world = given(issued(refills=0), claimed(by="P"), dispatched(to="Q", at_ms=at(1)))
    given(dispensed(by="P", completed=True, at_ms=at(2)), world=world)
    world.now_ms = at(40)
    assert world.when(reversed_(by="P")).orders == []


def test_a_reversal_that_came_before_its_hand_out_lets_it_bind_when_that_comes() -> None:
    world = given(issued(refills=0), claimed(by="P"), dispatched(to="Q"), reversed_(by="P"))
    then = world.when(dispensed(by="P", completed=True))
    assert (then.orders, world.status()) == (["Q"], "E")


def test_an_order_that_anothers_hand_out_made_void_goes_out_again_when_that_is_taken_back() -> None:
    world = given(issued(refills=0), dispatched(to="P"))
    void = world.when(dispensed(by="Q", completed=True))
    assert ("order_void", "P") in void.notices
    taken_back = world.when(reversed_(by="Q"))
    assert (taken_back.orders, world.when(claimed(by="Q")).outcome) == (["P"], "refused(dispatched_to)")
