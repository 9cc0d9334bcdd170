"""How much is left: periods, refills, and what is too much or too soon."""

from decimal import Decimal
from itertools import permutations

import pytest

from schemas import events as ev
from tests.unit.fold_world import Said, World, at, claimed, dispensed, given, issued, on, recalled, tablets


def _packages(count: int, content: ev.Quantity | None, item_number: str | None = None) -> tuple[ev.DispensedLine, ...]:
    quantity = ev.Quantity(value=Decimal(count), unit="package")
    return (ev.DispensedLine(quantity=quantity, content=content, item_number=item_number),)


def _prescribed_package(content: ev.Quantity | None) -> ev.Medication:
    package = ev.Package(item_number="123456", name="Metformin 500 mg", content=content)
    return ev.Medication(product=package, form="tablet", atc="A10BA02", strength="500 mg")


def test_a_whole_quantity_uses_up_one_refill() -> None:
    world = given(issued(refills=2), claimed(), dispensed())
    assert (world.refills_left(), world.status()) == (2, "E")


def test_the_last_period_completes_whatever_the_report_says() -> None:
    world = given(issued(refills=0), claimed(), dispensed(completed=False))
    assert world.status() == "R"


def test_a_partial_hand_out_uses_no_refill() -> None:
    world = given(issued(refills=1), dispensed(quantity=tablets(50), period_completed=False))
    assert (world.refills_left(), world.usage().periods) == (1, 0)


def test_two_halves_use_up_one_period() -> None:
    halves = [dispensed(name, quantity=tablets(50), period_completed=False) for name in ("D1", "D2")]
    world = given(issued(refills=1), *halves)
    assert (world.refills_left(), world.usage().periods) == (1, 1)


@pytest.mark.parametrize(("handed", "said", "periods"), [(90, True, 1), (89, True, 0), (99, False, 0), (100, False, 1)])
def test_within_a_tenth_the_pharmacist_decides(handed: int, said: bool, periods: int) -> None:  # noqa: FBT001 - a case
    world = given(issued(refills=1), dispensed(quantity=tablets(handed), period_completed=said))
    assert world.usage().periods == periods


def test_what_is_over_counts_towards_the_next_period() -> None:
    world = given(issued(refills=1), dispensed("D1", quantity=tablets(105)), dispensed("D2", quantity=tablets(95)))
    assert (world.usage().periods, world.status()) == (2, "R")


def test_another_strength_is_not_compared_so_the_pharmacist_decides() -> None:
    line = ev.DispensedLine(quantity=tablets(10), strength="1000 mg")
    world = given(issued(refills=1), dispensed(lines=(line,), period_completed=True))
    assert (world.usage().periods, world.handed_out()) == (1, 0)


def test_a_strength_spelled_otherwise_is_the_same_strength() -> None:
    line = ev.DispensedLine(quantity=tablets(100), strength="500mg")
    world = given(issued(refills=1), dispensed(lines=(line,), period_completed=False))
    assert world.handed_out() == 100


def test_packages_count_as_what_they_hold() -> None:
    world = given(issued(refills=1), dispensed(lines=_packages(2, tablets(50)), period_completed=False))
    assert (world.handed_out(), world.usage().periods) == (100, 1)


def test_a_prescription_of_packages_is_counted_by_their_content() -> None:
    two_packages = ev.Quantity(value=Decimal(2), unit="package")
    prescribed = issued(refills=0, quantity=two_packages, medication=_prescribed_package(tablets(50)))
    world = given(prescribed, dispensed(quantity=tablets(100), period_completed=False))
    assert world.status() == "R"


def test_a_package_of_unknown_content_is_the_prescribed_one_if_it_has_its_number() -> None:
    prescribed = issued(refills=0, medication=_prescribed_package(tablets(100)))
    world = given(prescribed, dispensed(lines=_packages(1, None, "123456"), period_completed=False))
    assert world.status() == "R"


def test_a_package_of_unknown_content_and_another_number_is_not_compared() -> None:
    prescribed = issued(refills=0, medication=_prescribed_package(tablets(100)))
    world = given(prescribed, dispensed(lines=_packages(1, None, "654321"), period_completed=False))
    assert (world.status(), world.handed_out()) == ("E", 0)


@pytest.mark.parametrize(("handed", "flagged"), [("110", False), ("110.5", True)])
def test_more_than_a_tenth_over_the_total_is_flagged(handed: str, flagged: bool) -> None:  # noqa: FBT001 - a case
    then = given(issued(refills=0), claimed()).when(dispensed(quantity=tablets(handed)))
    assert ("over_quantity" in then.flags) is flagged


def test_an_amount_that_cannot_be_compared_is_never_over() -> None:
    line = ev.DispensedLine(quantity=ev.Quantity(value=Decimal(900), unit="ml"))
    assert given(issued(refills=0), claimed()).when(dispensed(lines=(line,))).flags == set()


def test_two_periods_at_once_are_ahead_while_a_later_one_is_left() -> None:
    then = given(issued(refills=1), claimed()).when(dispensed(quantity=tablets(200)))
    assert then.flags == {"ahead_of_period"}


def test_the_last_period_has_none_to_be_ahead_of() -> None:
    world = given(issued(refills=1), dispensed("D1"), claimed())
    assert world.when(dispensed("D2", quantity=tablets(105))).flags == set()


def _reports() -> list[Said]:
    return [
        dispensed("D1", at_ms=at(1), received_at_ms=at(9), quantity=tablets(95), period_completed=True),
        dispensed("D2", at_ms=at(2), received_at_ms=at(9), quantity=tablets(50), period_completed=False, by="Q"),
        dispensed("D3", at_ms=at(3), received_at_ms=at(9), quantity=tablets(50), period_completed=False, by="Q"),
    ]


@pytest.mark.parametrize("order", tuple(permutations(range(3))))
def test_the_same_hand_outs_use_up_the_same_in_whatever_order_they_are_reported(order: tuple[int, ...]) -> None:
    reports = _reports()
    world = given(issued(refills=1, at_ms=at(0)), *[reports[index] for index in order])
    assert (world.usage().periods, world.status()) == (2, "R")


def test_a_report_that_comes_late_may_complete_with_an_earlier_one_and_end_a_claim() -> None:
    first, second, third = _reports()
    world = given(issued(refills=1, at_ms=at(0)), second, third, claimed(by="Q", at_ms=at(8)))
    then = world.when(first)
    assert (world.status(), then.notices) == ("R", [("claim_ended", "Q"), ("dispensed", "A")])


def test_a_recall_that_came_before_the_report_that_used_it_up_decides() -> None:
    """The later of two halves was reported first, then a recall, then the earlier half: nothing was used up before."""
    half = tablets(50)
    late_half = dispensed("D2", at_ms=at(5), quantity=half, period_completed=False)
    early_half = dispensed("D1", at_ms=at(2), received_at_ms=at(9), quantity=half, period_completed=False)
    world = given(issued(refills=0, at_ms=at(0)), late_half, recalled(at_ms=at(8)), early_half)
    assert (world.status(), world.usage().periods) == ("T", 1)


def test_nothing_left_says_completed_to_the_next_claim() -> None:
    world = given(issued(refills=0), dispensed())
    assert world.when(claimed()).outcome == "refused(completed)"


def test_a_completion_after_a_recall_leaves_it_recalled() -> None:
    world = given(issued(refills=0), recalled(), dispensed(completed=True))
    assert world.status() == "T"


def test_validity_is_the_last_whole_day_in_oslo() -> None:
    world = given(issued(valid_until=on(120)))
    late, next_day = at(120, 23, 59), at(121, 0)
    assert (world.status(at_ms=late), world.status(at_ms=next_day)) == ("E", "F")


def test_an_empty_world_knows_nothing() -> None:
    assert not World().knows("R1")
