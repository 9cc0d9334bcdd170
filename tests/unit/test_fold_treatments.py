"""Treatments: recorded, stopped, withdrawn, paused, changed, and taken up again."""

from dataclasses import replace

import pytest

from schemas.reasons import Flag
from services.medication_list.fold.stopping import stop_in_force
from services.medication_list.read_api.view import show
from tests.unit.fold_world import (
    Said,
    aborted,
    at,
    changed,
    claimed,
    discontinued,
    dispensed,
    dosing,
    given,
    id_of,
    issued,
    on,
    paused,
    recorded,
    reinstated,
    resumed,
    use_reported,
    withdrawn,
)

BEFORE_1970_MS = at(-20_600)
"""In October 1969: what systems without a date send is often a day of that time, and an instant below 0."""

# --- Stops -----------------------------------------------------------------------------------------------------------


def test_a_stop_recalls_with_its_reason_and_tells_nobody_of_ones_own() -> None:
    world = given(issued(at_ms=at(0)))
    then = world.when(discontinued(at_ms=at(1)))
    assert (then.notices, world.status()) == ([], "T")
    assert [recall.reason for recall in world.prescription().recalls] == ["discontinued"]


def test_a_stop_by_another_doctor_is_told_to_the_issuer() -> None:
    world = given(issued(at_ms=at(0), by="A"))
    assert world.when(discontinued(at_ms=at(1), by="B")).notices == [("recalled_by_other", "A")]


def test_a_stop_leaves_what_was_signed_after_it() -> None:
    world = given(issued("R1", at_ms=at(0)), issued("R2", at_ms=at(10), by="B"))
    then = world.when(discontinued(stopped_ms=at(5), at_ms=at(11), by="A"))
    assert then.flags == {"prescribed_after_discontinuation"}
    assert then.notices == [("prescribed_after_discontinuation", "A")]
    assert (world.status("R2"), world.treatment_is()) == ("E", "active")


def test_a_prescription_after_a_stop_makes_the_treatment_active_again() -> None:
    world = given(issued("R1", at_ms=at(0)), discontinued(at_ms=at(10)))
    then = world.when(issued("R2", by="B", at_ms=at(20)))
    assert then.flags == {"prescribed_after_discontinuation"}
    assert then.notices == [("prescribed_after_discontinuation", "A")]
    assert (world.treatment_is(), world.status("R1"), world.status("R2")) == ("active", "T", "E")


def test_whoever_stopped_and_prescribes_again_is_not_told() -> None:
    world = given(issued("R1", at_ms=at(0)), discontinued(at_ms=at(10)))
    assert world.when(issued("R2", at_ms=at(20))).notices == []


def test_a_prescription_signed_before_the_stop_leaves_it_stopped() -> None:
    world = given(issued("R1", at_ms=at(0)), discontinued(at_ms=at(10)), issued("R2", signed_ms=at(9), at_ms=at(12)))
    assert (world.treatment_is(), world.status("R2")) == ("discontinued", "T")


def test_a_prescription_signed_at_the_very_stop_goes_on() -> None:
    world = given(issued("R1", at_ms=at(0)), discontinued(at_ms=at(10)), issued("R2", signed_ms=at(10), at_ms=at(12)))
    assert (world.treatment_is(), world.status("R2")) == ("active", "E")


def test_the_latest_stop_counts_though_an_earlier_one_is_shown() -> None:
    world = given(issued("R1", at_ms=at(0)), discontinued(at_ms=at(10)))
    assert world.when(discontinued(at_ms=at(30))).flags == {"already_discontinued"}
    given(issued("R2", signed_ms=at(20), at_ms=at(31)), world=world)
    assert (world.treatment_is(), world.status("R2")) == ("discontinued", "T")


def test_a_second_stop_moves_nothing() -> None:
    world = given(issued(at_ms=at(0)), discontinued(at_ms=at(10)))
    version, shown = world.meta.version, stop_in_force(world.treatment())
    given(discontinued(at_ms=at(11), by="B"), world=world)
    assert (world.meta.version, stop_in_force(world.treatment())) == (version, shown)


def test_a_stop_of_a_held_prescription_is_the_holders_to_decide() -> None:
    world = given(issued(at_ms=at(0)), claimed(at_ms=at(1)))
    then = world.when(discontinued(at_ms=at(2)))
    assert (then.notices, world.status()) == ([("recalled_while_held", "P")], "U")
    given(aborted(), world=world)
    assert world.status() == "T"


def test_a_recorded_treatment_can_be_stopped() -> None:
    world = given(recorded(), discontinued(at_ms=at(1)))
    assert world.treatment_is() == "discontinued"


def test_reinstating_leaves_the_prescriptions_recalled() -> None:
    world = given(issued(at_ms=at(0)), discontinued(at_ms=at(1)), reinstated(at_ms=at(2)))
    assert (world.treatment_is(), world.status()) == ("active", "T")
    assert world.when(claimed(at_ms=at(3))).outcome == "refused(recalled)"


def test_what_was_stopped_can_be_stopped_again_after_reinstating() -> None:
    world = given(issued(at_ms=at(0)), discontinued(at_ms=at(1)), reinstated(at_ms=at(2)))
    then = world.when(discontinued(at_ms=at(3)))
    assert (then.flags, world.treatment_is()) == (set(), "discontinued")


def test_a_late_prescription_is_recalled_by_a_stop_that_was_taken_back() -> None:
    world = given(issued("R0", at_ms=at(0)), discontinued(at_ms=at(5)), reinstated(at_ms=at(6)))
    given(issued("R1", signed_ms=at(3), at_ms=at(7)), world=world)
    assert (world.status("R1"), world.treatment_is()) == ("T", "active")


# --- Withdrawals -----------------------------------------------------------------------------------------------------


def test_a_withdrawal_recalls_with_its_own_reason() -> None:
    world = given(issued(at_ms=at(0)), withdrawn(at_ms=at(1)))
    assert (world.status(), world.prescription().recalls[0].reason) == ("T", "withdrawn")


def test_a_discontinued_treatment_can_be_withdrawn() -> None:
    world = given(issued(at_ms=at(0)), discontinued(at_ms=at(1)), withdrawn(at_ms=at(2)))
    assert world.when(claimed(at_ms=at(3))).outcome == "refused(withdrawn)"


def test_a_withdrawal_that_happened_before_a_known_stop_counts_all_the_same() -> None:
    world = given(issued(at_ms=at(0)), discontinued(at_ms=at(5)))
    said = withdrawn(at_ms=at(3))
    given(Said(said.by, said.body, at(3), at(6)), world=world)
    assert world.treatment_is() == "withdrawn"


@pytest.mark.parametrize("act", [changed(), paused(), resumed()])
def test_a_withdrawn_treatment_behaves_like_a_discontinued_one(act: Said) -> None:
    world = given(issued(at_ms=at(0)), withdrawn(at_ms=at(1)))
    assert world.when(act).outcome == "refused(discontinued)"


def test_a_withdrawn_treatment_can_be_reinstated() -> None:
    world = given(issued(at_ms=at(0)), withdrawn(at_ms=at(1)), reinstated(at_ms=at(2)))
    assert world.treatment_is() == "active"


def withdrawn_late(by: str = "A") -> Said:
    """Withdrawn on the fifth day, and reported on the eleventh."""
    return replace(withdrawn(by=by, at_ms=at(5)), received_at_ms=at(11))


def test_a_withdrawal_that_is_reported_late_leaves_what_was_signed_after_it_and_tells() -> None:
    world = given(issued("R1", at_ms=at(0)), issued("R2", at_ms=at(10), by="B"))
    then = world.when(withdrawn_late())
    assert then.flags == {"prescribed_after_discontinuation"}
    assert then.notices == [("prescribed_after_discontinuation", "A")]
    assert (world.status("R2"), world.treatment_is()) == ("E", "active")
    assert Flag.PRESCRIBED_AFTER_DISCONTINUATION.code in world.prescription("R2").flags


def test_who_prescribed_after_withdrawing_knows_it() -> None:
    world = given(issued("R1", at_ms=at(0)), issued("R2", at_ms=at(10)))
    then = world.when(withdrawn_late())
    assert (then.flags, then.notices) == ({"prescribed_after_discontinuation"}, [])


def test_a_late_withdrawal_of_what_is_stopped_already_says_nothing_of_going_on() -> None:
    world = given(issued("R1", at_ms=at(0)), issued("R2", at_ms=at(6)), discontinued(at_ms=at(10)))
    then = world.when(withdrawn_late())
    assert (then.flags, then.notices, world.treatment_is()) == (set(), [], "discontinued")


def test_a_prescription_after_a_withdrawal_makes_it_active_again() -> None:
    world = given(issued(at_ms=at(0)), withdrawn(at_ms=at(1)))
    then = world.when(issued("R2", by="B", at_ms=at(2)))
    assert (then.flags, world.treatment_is()) == ({"prescribed_after_discontinuation"}, "active")


# --- Pauses ----------------------------------------------------------------------------------------------------------


def test_a_prescription_for_a_paused_treatment_leaves_it_paused() -> None:
    world = given(issued(at_ms=at(0)), paused(), issued("R2", at_ms=at(1)))
    assert world.treatment_is() == "paused"


def test_a_second_pause_moves_nothing() -> None:
    world = given(issued(), paused(until=on(9)))
    version = world.meta.version
    then = world.when(paused(until=on(20)))
    assert (then.flags, world.meta.version) == ({"already_paused"}, version)
    assert [pause.until for pause in world.treatment().pauses] == [on(9)]


def test_a_second_pause_that_overlaps_moves_nothing_though_it_ends_later() -> None:
    world = given(issued(), paused(until=on(9)))
    assert world.when(paused(start=on(5), until=on(20), at_ms=at(5))).flags == {"already_paused"}
    assert world.treatment_is(clock_ms=at(10)) == "active"


def test_a_pause_of_what_is_paused_is_a_second_one_though_it_begins_later() -> None:
    world = given(issued(), paused(until=on(9)))
    assert world.when(paused(start=on(12), until=on(20), at_ms=at(5))).flags == {"already_paused"}
    assert [world.treatment_is(clock_ms=at(day)) for day in (9, 10, 12)] == ["paused", "active", "active"]


def test_two_pauses_that_are_both_to_come_stand_beside_each_other() -> None:
    world = given(issued(), paused(start=on(5), until=on(9)))
    assert world.when(paused(start=on(12), until=on(20), at_ms=at(1))).flags == set()
    days = (4, 9, 10, 12, 20, 21)
    expected = ["active", "paused", "active", "paused", "paused", "active"]
    assert [world.treatment_is(clock_ms=at(day)) for day in days] == expected


def test_a_pause_from_now_is_not_lost_to_one_that_is_to_come() -> None:
    world = given(issued(), paused(start=on(10), until=on(20)))
    assert world.when(paused(start=on(1), at_ms=at(1))).flags == set()
    assert (world.treatment_is(clock_ms=at(2)), world.treatment_is(clock_ms=at(30))) == ("paused", "paused")


def test_resuming_ends_what_is_in_force_and_leaves_what_is_to_come() -> None:
    world = given(issued(), paused(start=on(15), until=on(20)), paused(until=on(9)), resumed(at_ms=at(3)))
    assert [world.treatment_is(clock_ms=at(day)) for day in (4, 15, 21)] == ["active", "paused", "active"]
    assert world.when(resumed(at_ms=at(4))).outcome == "applied"
    assert world.treatment_is(clock_ms=at(15)) == "active"
    assert world.when(resumed(at_ms=at(5))).outcome == "refused(not_paused)"


def test_resuming_ends_all_that_is_in_force() -> None:
    world = given(issued(), paused(start=on(10), until=on(20)), paused(start=on(1), at_ms=at(1)))
    world.when(resumed(at_ms=at(12)))
    assert world.treatment_is(clock_ms=at(13)) == "active"


def test_a_pause_after_one_that_is_over_is_a_new_one() -> None:
    world = given(issued(), paused(until=on(2)))
    assert world.when(paused(start=on(5), at_ms=at(5))).flags == set()
    assert world.treatment_is() == "paused"


def test_a_pause_to_come_can_be_resumed() -> None:
    world = given(issued(), paused(start=on(20)), resumed())
    assert world.treatment_is(clock_ms=at(20)) == "active"


def test_what_is_over_cannot_be_resumed() -> None:
    world = given(issued(), paused(until=on(2)))
    assert world.when(resumed(at_ms=at(5))).outcome == "refused(not_paused)"


def test_a_pause_of_a_stopped_treatment_is_refused() -> None:
    world = given(issued(at_ms=at(0)), discontinued(at_ms=at(1)))
    assert world.when(paused(at_ms=at(2))).outcome == "refused(discontinued)"


# --- Changes and use -------------------------------------------------------------------------------------------------


def test_a_change_keeps_what_it_does_not_name() -> None:
    world = given(issued(at_ms=at(0)), changed(indication_text="sugar", at_ms=at(1)))
    given(changed(administration="care_service", at_ms=at(2)), world=world)
    treatment = world.treatment()
    assert (treatment.indication_text, treatment.administration, treatment.dosed_at_ms) == (
        "sugar",
        "care_service",
        None,
    )


def test_a_change_leaves_the_prescription_as_it_was_signed() -> None:
    world = given(issued(at_ms=at(0)))
    before = world.fields[f"signed:{id_of('R1')}"], world.prescription()
    given(changed(at_ms=at(1)), world=world)
    assert (world.fields[f"signed:{id_of('R1')}"], world.prescription()) == before


def test_what_was_signed_before_1970_has_its_own_dosing() -> None:
    world = given(issued(signed_ms=BEFORE_1970_MS))
    (entry,) = show(world.everything(), world.now_ms).treatments
    assert (entry.dosing.at_ms, entry.status) == (BEFORE_1970_MS, "active")
    assert world.when(claimed()).flags == set()


@pytest.mark.parametrize("first", [issued(signed_ms=BEFORE_1970_MS), recorded(at_ms=BEFORE_1970_MS)])
def test_a_change_before_1970_wins_over_what_was_before_it(first: Said) -> None:
    change = changed(dosing=dosing("2"), indication_text="sugar", at_ms=BEFORE_1970_MS + 1)
    world = given(first, change)
    (entry,) = show(world.everything(), world.now_ms).treatments
    assert (entry.dosing.at_ms, entry.indication_text) == (BEFORE_1970_MS + 1, "sugar")


def test_reported_use_stands_beside_the_dosing() -> None:
    world = given(issued(at_ms=at(0)), use_reported(use="not_taking", at_ms=at(1)))
    assert world.treatment().dosed_at_ms is None
    use = world.treatment().reported_use
    assert use is not None
    assert use.use == "not_taking"


def test_the_latest_use_by_its_own_time_is_shown() -> None:
    world = given(issued(at_ms=at(0)), use_reported(use="otherwise", at_ms=at(5)))
    said = use_reported(use="as_stated")
    given(Said(said.by, said.body, at(3), at(6)), world=world)
    use = world.treatment().reported_use
    assert use is not None
    assert use.use == "otherwise"


@pytest.mark.parametrize(
    ("said", "other"),
    [
        (issued(item_group="consumable"), True),
        (issued(item_group="nutrition"), True),
        (issued(use="vaccine"), True),
        (issued(), False),
        (recorded(use="vaccine"), True),
        (recorded(), False),
    ],
)
def test_vaccines_nutrition_and_consumables_are_other_prescriptions(said: Said, other: bool) -> None:  # noqa: FBT001 - a case
    shown = show(given(said).everything(), at(1))
    assert (len(shown.treatments), len(shown.other_prescriptions)) == ((0, 1) if other else (1, 0))


def test_a_recorded_treatment_is_prescribed_as_soon_as_somebody_prescribes_it() -> None:
    for order in ([recorded(), issued()], [issued(), recorded()]):
        assert given(*order).treatment().kind == "prescribed"


def test_a_hand_out_in_a_stopped_treatment_is_kept() -> None:
    world = given(issued(at_ms=at(0)), discontinued(at_ms=at(1)), dispensed(at_ms=at(2)))
    assert world.handed_out() == 100


def test_what_a_stop_changed_is_shown_on_the_newest_prescription() -> None:
    world = given(issued("R1", at_ms=at(0)), issued("R2", at_ms=at(10)), discontinued(stopped_ms=at(5), at_ms=at(11)))
    assert Flag.PRESCRIBED_AFTER_DISCONTINUATION.code in world.prescription("R2").flags
