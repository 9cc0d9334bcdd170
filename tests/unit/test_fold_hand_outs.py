"""Hand-outs: what they end, whom they are told to, and what is irregular about them."""

import pytest

from schemas import events as ev
from schemas.reasons import Flag, NoticeKind
from tests.unit.fold_world import (
    at,
    changed,
    claimed,
    died,
    discontinued,
    dispensed,
    given,
    id_of,
    issued,
    on,
    organisation,
    paused,
    recalled,
    reinstated,
    resumed,
    tablets,
    withdrawn,
)

SUBSTITUTE = (ev.DispensedLine(quantity=tablets(100), substituted=True),)


def test_a_hand_out_by_the_holder_ends_its_claim() -> None:
    world = given(issued(), claimed(), dispensed())
    assert (world.holder(), world.status()) == (None, "E")


def test_a_partial_hand_out_by_another_leaves_the_claim() -> None:
    world = given(issued(), claimed(by="P"))
    then = world.when(dispensed(by="Q"))
    assert (then.flags, then.notices, world.holder()) == ({"dispensed_without_claim"}, [("dispensed", "A")], "P")


def test_a_hand_out_by_another_that_closes_ends_the_claim_and_tells() -> None:
    world = given(issued(refills=0), claimed(by="P"))
    then = world.when(dispensed(by="Q", completed=True))
    notice = then.notice(NoticeKind.CLAIM_ENDED)
    assert (notice.organisation, notice.by, notice.subject) == (organisation("P"), organisation("Q"), id_of("C1"))
    assert (world.status(), world.holder()) == ("R", None)


def test_the_former_holder_then_hands_out_without_claim_after_completion() -> None:
    world = given(issued(refills=0), claimed(by="P"), dispensed("D1", by="Q", completed=True))
    then = world.when(dispensed("D2", by="P", completed=True))
    assert then.flags == {"dispensed_without_claim", "dispensed_after_completion", "over_quantity"}
    assert world.handed_out() == 200


def test_a_holders_completion_counts_from_its_claim() -> None:
    world = given(issued(refills=0), claimed(), recalled())
    then = world.when(dispensed(completed=True))
    assert (then.flags, world.status()) == ({"dispensed_after_recall"}, "R")


def test_a_completion_without_claim_comes_too_late_for_a_recall() -> None:
    world = given(issued(refills=0), recalled(), dispensed(completed=True))
    assert world.status() == "T"


def test_after_a_recall_means_after_it_happened() -> None:
    world = given(issued(at_ms=at(0)), recalled(at_ms=at(0, 12)))
    early = world.when(dispensed("D1", at_ms=at(0, 10), received_at_ms=at(0, 18)))
    late = world.when(dispensed("D2", at_ms=at(0, 13), received_at_ms=at(0, 18)))
    assert (early.flags, late.flags) == (
        {"dispensed_without_claim"},
        {"dispensed_without_claim", "dispensed_after_recall"},
    )


def test_a_replacement_that_is_not_in_effect_yet_is_no_recall_of_a_hand_out() -> None:
    world = given(issued(at_ms=at(0)), issued("R2", at_ms=at(1), earliest=on(60)), claimed(at_ms=at(10)))
    assert world.when(dispensed(at_ms=at(10, 9))).flags == set()


def test_a_replacement_in_effect_is_one() -> None:
    world = given(issued(at_ms=at(0)), issued("R2", at_ms=at(1), earliest=on(60)))
    assert "dispensed_after_recall" in world.when(dispensed(at_ms=at(60, 9))).flags


def test_a_stop_that_is_reported_late_counts_from_its_own_time() -> None:
    world = given(issued(at_ms=at(0)), discontinued(stopped_ms=at(2), at_ms=at(9)))
    assert "dispensed_after_recall" in world.when(dispensed(at_ms=at(3), received_at_ms=at(10))).flags


def test_a_stop_of_what_was_replaced_before_is_seen_in_the_worlds_order() -> None:
    world = given(issued(at_ms=at(0)), issued("R2", at_ms=at(20)), discontinued(stopped_ms=at(5), at_ms=at(25), by="B"))
    then = world.when(dispensed(at_ms=at(10), received_at_ms=at(26)))
    assert then.flags == {"dispensed_without_claim", "dispensed_after_recall"}


def test_a_second_stop_that_moved_nothing_is_seen_too() -> None:
    world = given(issued(at_ms=at(0)), discontinued(at_ms=at(20)), discontinued(stopped_ms=at(5), at_ms=at(21)))
    assert "dispensed_after_recall" in world.when(dispensed(at_ms=at(10), received_at_ms=at(26))).flags


def test_a_withdrawal_of_what_was_recalled_before_is_seen_too() -> None:
    world = given(issued(at_ms=at(0)), recalled(at_ms=at(1)), withdrawn(at_ms=at(2)))
    then = world.when(dispensed(at_ms=at(3)))
    assert then.flags == {"dispensed_without_claim", "dispensed_after_recall", "dispensed_after_withdrawal"}


def test_what_was_signed_after_a_stop_is_not_after_a_recall() -> None:
    world = given(issued(at_ms=at(0)), discontinued(at_ms=at(1)), issued("R2", at_ms=at(2)), claimed("R2", at_ms=at(3)))
    assert world.when(dispensed(rx="R2", at_ms=at(4))).flags == set()


def test_reinstating_does_not_make_an_older_prescription_regular() -> None:
    world = given(issued(at_ms=at(0)), discontinued(at_ms=at(1)), reinstated(at_ms=at(2)))
    assert "dispensed_after_recall" in world.when(dispensed(at_ms=at(3))).flags


def test_after_expiry_means_the_day_after() -> None:
    world = given(issued(valid_until=on(10)), claimed(at_ms=at(9)))
    assert world.when(dispensed("D1", at_ms=at(10, 23, 59))).flags == set()
    assert world.when(dispensed("D2", at_ms=at(11, 0))).flags == {"dispensed_without_claim", "dispensed_after_expiry"}


def test_after_completion_means_after_it_happened() -> None:
    world = given(issued(refills=5, at_ms=at(0)), dispensed("D1", at_ms=at(5), completed=True))
    before = world.when(dispensed("D2", at_ms=at(4), received_at_ms=at(6)))
    after = world.when(dispensed("D3", at_ms=at(5, 9), received_at_ms=at(6)))
    assert ("dispensed_after_completion" in before.flags, "dispensed_after_completion" in after.flags) == (False, True)


def test_after_death_means_the_day_after() -> None:
    world = given(issued(), died(on(3), at_ms=at(4)))
    on_the_day = world.when(dispensed("D1", at_ms=at(3, 20), received_at_ms=at(5)))
    day_after = world.when(dispensed("D2", at_ms=at(4, 9), received_at_ms=at(5)))
    assert [("dispensed_after_death" in then.flags) for then in (on_the_day, day_after)] == [False, True]


@pytest.mark.parametrize("reserved", [True, False])
def test_a_substitute_is_flagged_where_the_doctor_reserved(reserved: bool) -> None:  # noqa: FBT001 - a case
    then = given(issued(substitution_reserved=reserved), claimed()).when(dispensed(lines=SUBSTITUTE))
    assert ("substitution_reserved" in then.flags) is reserved


def test_a_later_change_decides_about_substitution() -> None:
    reserved = given(issued(at_ms=at(0)), changed(substitution_reserved=True, at_ms=at(1)))
    freed = given(issued(at_ms=at(0), substitution_reserved=True), changed(substitution_reserved=False, at_ms=at(1)))
    flags = [world.when(dispensed(lines=SUBSTITUTE, at_ms=at(2))).flags for world in (reserved, freed)]
    assert flags == [{"dispensed_without_claim", "substitution_reserved"}, {"dispensed_without_claim"}]


def test_a_paused_treatment_is_flagged_by_when_it_happened() -> None:
    world = given(issued(), paused(start=on(2), until=on(3)))
    during = world.when(dispensed("D1", at_ms=at(3, 20), received_at_ms=at(8)))
    after = world.when(dispensed("D2", at_ms=at(4, 9), received_at_ms=at(8)))
    assert [("treatment_paused" in then.flags) for then in (during, after)] == [True, False]


def test_a_resumed_treatment_is_not_paused() -> None:
    world = given(issued(), paused(), resumed())
    assert world.when(dispensed()).flags == {"dispensed_without_claim"}


def test_the_flags_of_a_hand_out_stay_with_it() -> None:
    world = given(issued(), recalled(), dispensed())
    assert world.flags_on() == {Flag.DISPENSED_AFTER_RECALL.code, Flag.DISPENSED_WITHOUT_CLAIM.code}


def test_the_issuer_is_told_of_each_hand_out_with_its_flags() -> None:
    then = given(issued(), recalled()).when(dispensed())
    notice = then.notice(NoticeKind.DISPENSED)
    assert (notice.organisation, notice.subject, set(notice.flags)) == (organisation("A"), id_of("D1"), then.flags)


def test_a_hand_out_of_a_known_prescription_does_not_move_the_list() -> None:
    world = given(issued())
    version = world.meta.version
    given(claimed(), dispensed(), world=world)
    assert world.meta.version == version


# --- What stood when it was handed out, reported late ----------------------------------------------------------------


@pytest.mark.parametrize(("day", "flags"), [(2, set()), (4, {"treatment_paused"}), (8, set())])
def test_a_late_report_is_flagged_by_the_pause_that_stood_then(day: int, flags: set[str]) -> None:
    world = given(issued(), paused(start=on(3), at_ms=at(3)), resumed(at_ms=at(7)))
    then = world.when(dispensed(at_ms=at(day, 12), received_at_ms=at(9)))
    assert then.flags - {"dispensed_without_claim"} == flags


def test_a_late_report_of_the_day_of_resuming_compares_the_hour() -> None:
    world = given(issued(), paused(start=on(3), at_ms=at(3)), resumed(at_ms=at(7, 12)))
    before = world.when(dispensed("D1", at_ms=at(7, 11), received_at_ms=at(8)))
    after = world.when(dispensed("D2", at_ms=at(7, 13), received_at_ms=at(8, 9)))
    assert ("treatment_paused" in before.flags, "treatment_paused" in after.flags) == (True, False)


def test_a_late_report_from_an_earlier_pause_is_flagged_by_that_one() -> None:
    world = given(issued(), paused(start=on(1), until=on(3)), paused(start=on(20), at_ms=at(10)))
    then = world.when(dispensed(at_ms=at(2), received_at_ms=at(11)))
    assert "treatment_paused" in then.flags


@pytest.mark.parametrize(("day", "is_flagged"), [(1, False), (3, True), (6, False)])
def test_a_late_report_is_flagged_by_the_reservation_that_stood_then(day: int, *, is_flagged: bool) -> None:
    world = given(issued(), changed(substitution_reserved=True, at_ms=at(2)))
    given(changed(substitution_reserved=False, at_ms=at(5)), world=world)
    then = world.when(dispensed(lines=SUBSTITUTE, at_ms=at(day, 12), received_at_ms=at(9)))
    assert ("substitution_reserved" in then.flags) is is_flagged


def test_what_was_replaced_in_the_world_is_flagged_though_the_newer_one_came_after_a_third() -> None:
    world = given(issued("R1", at_ms=at(0)), issued("R3", at_ms=at(20)))
    given(issued("R2", signed_ms=at(10), at_ms=at(21)), world=world)
    before = world.when(dispensed("D1", "R1", at_ms=at(5), received_at_ms=at(22)))
    after = world.when(dispensed("D2", "R1", at_ms=at(15), received_at_ms=at(22, 9)))
    assert ("dispensed_after_recall" in before.flags, "dispensed_after_recall" in after.flags) == (False, True)


def test_what_arrives_late_was_replaced_by_the_first_of_the_newer_ones() -> None:
    world = given(issued("R2", at_ms=at(10)), issued("R3", at_ms=at(20)))
    given(issued("R1", signed_ms=at(0), at_ms=at(21)), world=world)
    then = world.when(dispensed("D1", "R1", at_ms=at(15), received_at_ms=at(22)))
    assert ("dispensed_after_recall" in then.flags, world.status("R1")) == (True, "T")


def test_a_renewal_from_a_later_day_does_not_hide_one_that_counted_before_the_recall() -> None:
    world = given(issued("R1", at_ms=at(0)), recalled("R1", at_ms=at(5)))
    given(issued("R2", signed_ms=at(3), earliest=on(100), at_ms=at(6)), world=world)
    given(issued("R3", signed_ms=at(4), at_ms=at(7)), world=world)
    then = world.when(dispensed("D1", "R1", at_ms=at(4, 12), received_at_ms=at(8)))
    assert "dispensed_after_recall" in then.flags


@pytest.mark.parametrize(("hour", "is_flagged"), [(11, False), (13, True)])
def test_on_the_day_of_a_death_a_hand_out_after_its_report_is_one_after_it(hour: int, *, is_flagged: bool) -> None:
    world = given(issued(at_ms=at(0)), died(on(5), at_ms=at(5, 12)))
    then = world.when(dispensed(at_ms=at(5, hour), received_at_ms=at(5, 14)))
    assert ("dispensed_after_death" in then.flags) is is_flagged
