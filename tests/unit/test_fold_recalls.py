"""Recalls, replacements and series: what closes a prescription, from when, and who is told."""

import pytest

from schemas import events as ev
from schemas.reasons import Flag, NoticeKind
from tests.unit.fold_world import (
    MEDICATION,
    aborted,
    at,
    claimed,
    discontinued,
    dispensed,
    given,
    id_of,
    issued,
    on,
    organisation,
    recalled,
)


def test_the_answer_to_a_recall_says_which_it_was() -> None:
    free, held, done, gone = (given(issued(refills=0, at_ms=at(0), valid_until=on(9))) for _ in range(4))
    given(claimed(), world=held)
    given(dispensed(completed=True), world=done)
    answers = [world.when(recalled(at_ms=at(1))).named for world in (free, held, done)]
    answers += [gone.when(recalled(at_ms=at(20))).named, free.when(recalled(at_ms=at(2))).named]
    assert answers == ["recalled", "marked_with_dispenser", "already_dispensed", "expired", "already_recalled"]


def test_a_recall_while_held_is_for_the_holder_to_decide() -> None:
    world = given(issued(), claimed())
    then = world.when(recalled())
    assert (then.flags, world.status(), world.holder()) == ({"recalled"}, "U", "P")
    assert then.notice(NoticeKind.RECALLED_WHILE_HELD).reason == "other"


def test_a_recall_while_held_takes_effect_when_the_claim_ends() -> None:
    world = given(issued(), claimed(), recalled(), aborted())
    assert world.status() == "T"


def test_a_partial_hand_out_after_a_recall_while_held_leaves_it_recalled() -> None:
    world = given(issued(), claimed(), recalled())
    then = world.when(dispensed(quantity=None, period_completed=False))
    assert (then.flags, world.status()) == ({"dispensed_after_recall"}, "T")


def test_a_recall_by_another_doctor_is_told_to_the_issuer() -> None:
    then = given(issued(by="A")).when(recalled(by="B"))
    notice = then.notice(NoticeKind.RECALLED_BY_OTHER)
    assert (notice.organisation, notice.by, notice.prescription) == (
        organisation("A"),
        organisation("B"),
        id_of("R1"),
    )


def test_a_second_recall_tells_nobody_again() -> None:
    world = given(issued(), recalled(by="B"))
    then = world.when(recalled(by="B"))
    assert (then.flags, then.notices) == ({"already_recalled"}, [])


def test_a_recall_that_waited_closes_from_its_own_place() -> None:
    world = given(recalled(), dispensed(completed=True), issued(refills=0))
    assert world.status() == "T"


def test_a_hand_out_that_waited_before_the_recall_completes_first() -> None:
    world = given(dispensed(completed=True), recalled(), issued(refills=0))
    assert world.status() == "R"


# --- Replacements ----------------------------------------------------------------------------------------------------


def test_a_newer_prescription_replaces_the_older_without_naming_it() -> None:
    world = given(issued(at_ms=at(0)), issued("R2", at_ms=at(1)))
    assert (world.status("R1"), world.status("R2")) == ("T", "E")
    assert [recall.reason for recall in world.prescription().recalls] == ["renew"]


def test_ones_own_renewal_is_no_notice() -> None:
    world = given(issued(at_ms=at(0)))
    assert world.when(issued("R2", renews="R1", at_ms=at(1))).notices == []


def test_an_older_one_that_arrives_late_is_recalled_at_once() -> None:
    world = given(issued("R2", signed_ms=at(1), at_ms=at(2)))
    then = world.when(issued("R1", signed_ms=at(0), at_ms=at(3)))
    assert (then.flags, world.status("R1"), world.status("R2")) == (set(), "T", "E")


def test_an_older_one_that_arrives_late_leaves_the_newest_at_the_head() -> None:
    world = given(issued("R2", signed_ms=at(1)), issued("R1", signed_ms=at(0)))
    assert world.treatment().newest == id_of("R2")


def test_of_two_signed_at_once_the_greater_id_is_newer() -> None:
    world = given(issued("R1", signed_ms=at(0)), issued("R2", signed_ms=at(0)))
    newer, older = sorted(("R1", "R2"), key=id_of, reverse=True)
    assert (world.status(newer), world.status(older)) == ("E", "T")


def test_a_replacement_takes_effect_on_its_own_earliest_date() -> None:
    world = given(issued(at_ms=at(0)), issued("R2", at_ms=at(1), earliest=on(60)))
    assert [world.status("R1", at(59, 23)), world.status("R1", at(60, 0))] == ["E", "T"]


def test_until_then_it_is_dispensed_as_before() -> None:
    world = given(issued(at_ms=at(0)), issued("R2", at_ms=at(1), earliest=on(60)), claimed("R1", at_ms=at(10)))
    assert world.when(dispensed(at_ms=at(10, 9))).flags == set()


def test_an_older_one_that_arrives_late_is_dispensable_until_then_too() -> None:
    world = given(
        issued("R2", signed_ms=at(1), at_ms=at(2), earliest=on(60)), issued("R1", signed_ms=at(0), at_ms=at(3))
    )
    assert [world.status("R1", at(59, 23)), world.status("R1", at(60, 0))] == ["E", "T"]


def test_nobody_is_told_of_a_replacement_before_it_takes_effect() -> None:
    world = given(issued(at_ms=at(0)), claimed())
    assert world.when(issued("R2", by="B", at_ms=at(1), earliest=on(60))).notices == []


def test_renewing_what_is_in_another_treatment_recalls_it_and_is_flagged() -> None:
    world = given(issued("R1", "T1", at_ms=at(0)))
    then = world.when(issued("R2", "T2", renews="R1", at_ms=at(1)))
    assert (then.flags, world.status("R1"), world.status("R2")) == ({"renews_other_treatment"}, "T", "E")


def test_renewing_what_nobody_has_seen_recalls_it_when_it_comes() -> None:
    world = given(issued("R2", "T2", renews="R1", at_ms=at(1)))
    assert world.history[-1][1].flags == {"prescription_unknown"}
    given(issued("R1", "T1", signed_ms=at(0), at_ms=at(2)), world=world)
    assert world.status("R1") == "T"
    assert Flag.PRESCRIPTION_UNKNOWN.code not in world.prescription("R2").flags


def test_a_prescription_that_names_itself_renews_nothing() -> None:
    assert given(issued(renews="R1")).status() == "E"


def test_another_substance_in_the_same_treatment_is_flagged() -> None:
    other = ev.Medication(product=ev.Substance(name="Glipizide"), form="tablet", atc="A10BB07")
    world = given(issued(at_ms=at(0)))
    assert world.when(issued("R2", at_ms=at(1), medication=other)).flags == {"substance_changed"}


@pytest.mark.parametrize("atc", [None, "A10B", "A10BA02"])
def test_what_does_not_say_another_substance_is_not_flagged(atc: str | None) -> None:
    other = ev.Medication(product=MEDICATION.product, form="tablet", atc=atc)
    world = given(issued(at_ms=at(0)))
    assert world.when(issued("R2", at_ms=at(1), medication=other)).flags == set()


# --- Series ----------------------------------------------------------------------------------------------------------


def test_staged_prescriptions_leave_each_other_alone_in_either_order() -> None:
    staged = [issued(f"R{n}", series="S1", refills=0, signed_ms=at(0, 8, n), earliest=on(90 * n)) for n in range(3)]
    for order in (staged, staged[::-1]):
        world = given(*order)
        assert [world.status(f"R{n}", at(200)) for n in range(3)] == ["E", "E", "E"]


def test_a_newer_prescription_replaces_the_whole_series() -> None:
    staged = [issued(f"R{n}", series="S1", signed_ms=at(0, 8, n)) for n in range(3)]
    world = given(*staged, issued("R9", at_ms=at(1)))
    assert [world.status(f"R{n}") for n in range(3)] == ["T", "T", "T"]


def test_another_series_replaces_it_too() -> None:
    world = given(issued("R1", series="S1", at_ms=at(0)), issued("R2", series="S2", at_ms=at(1)))
    assert world.status("R1") == "T"


def test_a_late_member_of_a_replaced_series_is_recalled_at_once() -> None:
    world = given(issued("R1", series="S1", at_ms=at(0)), issued("R9", at_ms=at(1)))
    given(issued("R2", series="S1", signed_ms=at(0, 9), at_ms=at(2)), world=world)
    assert world.status("R2") == "T"


def test_what_series_replace_is_remembered_though_there_were_many() -> None:
    series = [issued(f"R{n}", series=f"S{n}", at_ms=at(n)) for n in range(1, 9)]
    world = given(*series, issued("late", series="S8", signed_ms=at(0), at_ms=at(20)))
    assert world.status("late") == "T"


# --- What arrives closed ---------------------------------------------------------------------------------------------


def test_who_signed_what_arrives_recalled_is_told() -> None:
    world = given(issued("R2", by="B", signed_ms=at(1)))
    assert world.when(issued("R1", by="A", signed_ms=at(0), at_ms=at(2))).notices == [("recalled_by_other", "A")]


def test_what_was_signed_before_a_stop_and_arrives_after_it_is_recalled() -> None:
    world = given(issued("R0", at_ms=at(0)), discontinued(at_ms=at(5)))
    then = world.when(issued("R1", signed_ms=at(3), at_ms=at(6)))
    assert (then.flags, world.status("R1"), world.treatment_is()) == (set(), "T", "discontinued")
