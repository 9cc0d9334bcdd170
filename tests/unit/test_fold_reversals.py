"""Reversals and returns: what is taken back, and what is not."""

from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from schemas import events as ev
from schemas.reasons import Flag, NoticeKind, Reason
from services.medication_list.read_api.view import show_prescription
from tests.unit.fold_world import (
    MEDICATION,
    Said,
    at,
    claimed,
    discontinued,
    dispensed,
    given,
    id_of,
    issued,
    recalled,
    reversed_,
    tablets,
)


def _package(count: int) -> ev.Quantity:
    return ev.Quantity(value=Decimal(count), unit="package")


def test_a_reversal_takes_back_the_completion() -> None:
    world = given(issued(refills=0), claimed(), dispensed(completed=True), reversed_())
    assert (world.status(), world.handed_out()) == ("E", 0)


def test_a_reversal_takes_back_one_hand_out_alone() -> None:
    world = given(issued(refills=1), dispensed("D1"), dispensed("D2", completed=True), reversed_("D1"))
    assert (world.status(), world.handed_out()) == ("R", 100)


def test_a_completion_by_quantity_goes_with_any_part_of_it() -> None:
    world = given(issued(refills=1), dispensed("D1"), dispensed("D2"), reversed_("D1"))
    assert (world.status(), world.usage().periods) == ("E", 1)


@pytest.mark.parametrize("closer", [recalled(), discontinued(stopped_ms=at(0, 20)), issued("R2", signed_ms=at(0, 20))])
def test_what_was_recalled_replaced_or_stopped_stays_so(closer: object) -> None:
    world = given(issued(refills=0), claimed())
    given(closer, world=world)  # type: ignore[arg-type]  # parametrized
    given(dispensed(completed=True), world=world)
    assert world.status() == "R"
    given(reversed_(), world=world)
    assert world.status() == "T"


def test_another_pharmacy_cannot_reverse() -> None:
    world = given(issued(), dispensed(by="P"))
    assert world.when(reversed_(by="Q")).outcome == "refused(not_dispenser)"


def test_a_second_reversal_has_no_effect() -> None:
    world = given(issued(), dispensed(), reversed_(reversal="V1"))
    then = world.when(reversed_(reversal="V2"))
    assert (then.outcome, then.flags, then.notices) == ("applied", {"already_reversed"}, [])


def test_returned_goods_give_nothing_back() -> None:
    world = given(issued(refills=0), claimed(), dispensed(), reversed_(returned=tablets(30)))
    assert (world.status(), world.handed_out()) == ("R", 100)


def test_the_issuer_is_told_of_returned_goods() -> None:
    then = given(issued(), dispensed()).when(reversed_(returned=tablets(30)))
    assert then.notices == [("reversed", "A")]


def test_returns_add_up_to_at_most_what_was_handed_out() -> None:
    world = given(issued(), dispensed(), reversed_(reversal="V1", returned=tablets(60)))
    assert world.when(reversed_(reversal="V2", returned=tablets(41))).outcome == "refused(over_returned)"
    assert world.when(reversed_(reversal="V3", returned=tablets(40))).outcome == "applied"


def test_packages_come_back_as_packages_or_as_what_they_hold() -> None:
    lines = (ev.DispensedLine(quantity=_package(2), content=tablets(50)),)
    world = given(issued(), dispensed(lines=lines))
    assert world.when(reversed_(reversal="V1", returned=_package(3))).outcome == "refused(over_returned)"
    assert world.when(reversed_(reversal="V2", returned=tablets(101))).outcome == "refused(over_returned)"
    assert world.when(reversed_(reversal="V3", returned=_package(2))).outcome == "applied"


def test_what_cannot_be_compared_is_not_refused() -> None:
    world = given(issued(), dispensed())
    assert world.when(reversed_(returned=_package(1))).outcome == "applied"


PACKED = replace(MEDICATION, product=ev.Package(item_number="123456", name="Metformin", content=tablets(50)))
"""The prescribed package holds fifty tablets."""


def _packed(**terms: Any) -> Said:
    """Two packages of fifty tablets."""
    return issued(medication=PACKED, quantity=_package(2), **terms)


def _handed(*quantities: ev.Quantity, **line: Any) -> Said:
    return dispensed(lines=tuple(ev.DispensedLine(quantity=quantity, **line) for quantity in quantities))


@pytest.mark.parametrize(
    ("handed", "most", "more"),
    [
        (_package(2), tablets(100), tablets(101)),
        (_package(2), _package(2), _package(3)),
        (tablets(100), _package(2), _package(3)),
        (tablets(100), tablets(100), tablets(101)),
    ],
)
def test_where_the_hand_out_does_not_say_what_a_package_holds_the_prescribed_one_does(
    handed: ev.Quantity, most: ev.Quantity, more: ev.Quantity
) -> None:
    world = given(_packed(), _handed(handed))
    assert world.when(reversed_(reversal="V1", returned=more)).outcome == "refused(over_returned)"
    assert world.when(reversed_(reversal="V2", returned=most)).outcome == "applied"
    shown = show_prescription(world.everything(), id_of("R1"), world.now_ms)
    assert shown is not None
    assert (shown.returned, shown.total) == (Decimal(2), Decimal(8))


@pytest.mark.parametrize("named", [{"item_number": "654321"}, {"strength": "1000 mg"}])
def test_what_another_package_holds_is_not_known_by_the_prescribed_one(named: dict[str, str]) -> None:
    """A fact is not refused for what nobody knows."""
    world = given(_packed(), _handed(_package(2), **named))
    assert world.when(reversed_(reversal="V1", returned=tablets(150))).outcome == "applied"
    assert world.when(reversed_(reversal="V2", returned=_package(3))).outcome == "refused(over_returned)"


def test_packages_of_which_one_does_not_say_what_it_holds_are_only_counted() -> None:
    said, unsaid = ev.DispensedLine(quantity=_package(1), content=tablets(30)), ev.DispensedLine(quantity=_package(2))
    world = given(issued(), dispensed(lines=(said, unsaid)))
    assert world.when(reversed_(reversal="V1", returned=tablets(40))).outcome == "applied"
    assert world.when(reversed_(reversal="V2", returned=_package(3))).outcome == "applied"
    assert world.when(reversed_(reversal="V3", returned=_package(1))).outcome == "refused(over_returned)"


def test_what_came_back_is_judged_again_when_the_prescription_says_what_a_package_holds() -> None:
    world = given(_handed(_package(2)), reversed_(reversal="V1", returned=tablets(60)))
    assert world.when(reversed_(reversal="V2", returned=tablets(60))).outcome == "applied"
    over = world.last
    assert world.when(reversed_(reversal="V3", returned=tablets(40))).outcome == "applied"
    then = world.when(_packed())
    assert then.notices == [("dispensed", "A"), ("outcome_changed", "P"), ("reversed", "A")]
    changed = then.notice(NoticeKind.OUTCOME_CHANGED)
    assert (changed.subject, changed.outcome, changed.reason) == (over.event_id, "refused", "over_returned")
    first = world.again(over).judgement.first
    assert first is not None
    assert first.reason == Reason.OVER_RETURNED.code
    assert Flag.OUTCOME_CHANGED.code in world.prescription().flags
    shown = show_prescription(world.everything(), id_of("R1"), world.now_ms)
    assert shown is not None
    assert (shown.returned, shown.hand_outs[0].returned) == (Decimal(2), tablets(100))


@pytest.mark.parametrize("came_back", [(_package(1), tablets(20)), (tablets(20), _package(1))])
def test_packages_and_loose_goods_that_came_back_are_shown_as_what_they_hold(
    came_back: tuple[ev.Quantity, ...],
) -> None:
    said = [reversed_(reversal=f"V{number}", returned=each) for number, each in enumerate(came_back)]
    world = given(_packed(), _handed(_package(2)), *said)
    shown = show_prescription(world.everything(), id_of("R1"), world.now_ms)
    assert shown is not None
    assert (shown.returned, shown.hand_outs[0].returned) == (Decimal("1.4"), tablets(70))


def test_a_return_is_judged_again_also_where_all_was_taken_back_after_it() -> None:
    world = given(_handed(_package(2)), reversed_(reversal="V1", returned=tablets(101)), reversed_(reversal="V2"))
    then = world.when(_packed())
    assert then.notices == [("dispensed", "A"), ("outcome_changed", "P"), ("reversed", "A")]
    assert (world.status(), world.handed_out()) == ("E", 0)


def test_where_nothing_that_came_back_stands_the_issuer_is_told_of_none() -> None:
    world = given(_handed(_package(2)), reversed_(returned=tablets(101)))
    assert world.when(_packed()).notices == [("dispensed", "A"), ("outcome_changed", "P")]


def test_goods_that_come_back_after_a_reversal_have_no_effect() -> None:
    world = given(issued(), dispensed(), reversed_())
    assert world.when(reversed_(reversal="V2", returned=tablets(10))).flags == {"already_reversed"}


def test_a_reversed_hand_out_is_no_earlier_completion() -> None:
    world = given(issued(refills=0), dispensed("D1", at_ms=at(1), completed=True), reversed_("D1"))
    assert world.when(dispensed("D2", at_ms=at(2), completed=True)).flags == {"dispensed_without_claim"}


def test_a_reversal_after_which_a_claim_can_be_made_again() -> None:
    world = given(issued(refills=0), dispensed(completed=True), reversed_())
    assert world.when(claimed(by="Q")).outcome == "applied"


def test_a_reversal_does_not_move_the_list() -> None:
    world = given(issued(), dispensed())
    version = world.meta.version
    given(reversed_(), world=world)
    assert world.meta.version == version


def test_a_waiting_reversal_by_another_pharmacy_is_refused_when_its_hand_out_comes() -> None:
    world = given(issued())
    assert world.when(reversed_("D1", by="Q")).flags == {"dispense_unknown"}
    reversal = world.last
    then = world.when(dispensed("D1", by="P"))
    again = world.again(reversal)
    first = again.judgement.first
    assert first is not None
    assert ("outcome_changed", "Q") in then.notices
    assert (world.handed_out(), first.outcome, first.reason) == (100, 2, 16)
    assert Flag.OUTCOME_CHANGED.code in world.prescription().flags


def test_a_waiting_reversal_takes_effect_when_its_hand_out_comes() -> None:
    world = given(issued(), reversed_("D1"))
    then = world.when(dispensed("D1"))
    assert (world.handed_out(), then.notices) == (0, [("dispensed", "A"), ("reversed", "A")])


def test_hand_out_and_reversal_may_both_wait_for_the_prescription() -> None:
    world = given(reversed_("D1"), dispensed("D1"))
    then = world.when(issued())
    assert (world.handed_out(), world.status()) == (0, "E")
    assert then.notices == [("dispensed", "A"), ("reversed", "A")]


def test_goods_that_come_back_of_several_hand_outs_are_rounded_once() -> None:
    package = ev.DispensedLine(quantity=_package(1), content=tablets(30))
    unstated = ev.Medication(product=ev.Package(item_number="654321", name="Metformin"), form="tablet")
    world = given(issued(quantity=_package(1), medication=unstated))
    given(dispensed("D1", lines=(package,)), dispensed("D2", lines=(package,)), world=world)
    given(reversed_("D1", returned=tablets(20)), reversed_("D2", returned=tablets(5)), world=world)
    shown = show_prescription(world.everything(), id_of("R1"), world.now_ms)
    assert shown is not None
    assert shown.returned == Decimal("0.8333")
