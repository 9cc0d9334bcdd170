"""What comes late, twice or ahead of what it names: each way in which the fold and the oracle once differed."""

import pytest

from schemas.medication_list import MedicationList
from services.medication_list.fold.judgement import NoticeDue
from services.medication_list.read_api.view import show
from tests.unit.fold_world import (
    Said,
    World,
    allergic,
    at,
    changed,
    claimed,
    death_retracted,
    died,
    discontinued,
    dispatched,
    dispensed,
    dosing,
    given,
    id_of,
    issued,
    multidose,
    multidose_ended,
    on,
    organisation,
    recalled,
    recorded,
    refuted,
    reinstated,
    renewal_declined,
    renewal_requested,
    reversed_,
    tablets,
    withdrawn,
)

COURSE_BY_CHANGE = changed(dosing=dosing(end=on(20)), at_ms=at(1))


def listed(world: World, day: int = 50) -> MedicationList:
    return show(world.everything(), at(day))


# --- Stops ------------------------------------------------------------------------------------------------------------


def test_a_prescription_says_that_its_treatment_had_been_stopped_though_nobody_had_seen_the_treatment() -> None:
    world = given(discontinued(at_ms=at(5), by="B"))
    then = world.when(issued(signed_ms=at(6), at_ms=at(7)))
    assert then.flags == {"prescribed_after_discontinuation"}
    assert then.notices == [("prescribed_after_discontinuation", "B")]


def test_of_several_stops_the_first_that_still_holds_is_shown_and_told() -> None:
    world = given(
        issued(at_ms=at(0)),
        discontinued(stopped_ms=at(3), at_ms=at(10)),
        discontinued(stopped_ms=at(5), at_ms=at(11), by="B"),
        discontinued(stopped_ms=at(9), at_ms=at(12)),
        issued("R2", signed_ms=at(4), at_ms=at(13)),
    )
    stopped = listed(world).treatments[0].stopped
    assert stopped is not None
    assert (stopped.at_ms, stopped.by.organisation) == (at(5), organisation("B"))


def test_a_stop_that_was_taken_back_still_recalls_what_was_signed_before_it_and_comes_late() -> None:
    world = given(
        recorded(at_ms=at(0)),
        discontinued(at_ms=at(5)),
        reinstated(at_ms=at(6)),
        discontinued(at_ms=at(4, 9)),
        reinstated(),
    )
    given(issued(signed_ms=at(2), at_ms=at(9)), world=world)
    assert [(recall.reason, recall.at_ms) for recall in world.prescription().recalls] == [("discontinued", at(5))]


def test_a_second_withdrawal_is_seen_in_the_worlds_order() -> None:
    world = given(issued(at_ms=at(0)), withdrawn(at_ms=at(20)))
    world.when(Said("A", withdrawn().body, at(5), at(21)))
    assert "dispensed_after_withdrawal" in world.when(dispensed(at_ms=at(10), received_at_ms=at(22))).flags


def test_what_the_log_did_not_know_yet_flags_no_hand_out_that_waited() -> None:
    world = given(dispensed(at_ms=at(10)), recalled(at_ms=at(9)), issued(signed_ms=at(0), at_ms=at(12)))
    world.when(died(on(5), at_ms=at(13)))
    (hand_out,) = listed(world).treatments[0].prescriptions[0].hand_outs
    assert hand_out.flags == ("dispensed_without_claim",)


# --- Prescriptions that come late -------------------------------------------------------------------------------------


def test_a_late_prescription_is_recalled_in_the_place_of_the_newer_one() -> None:
    world = given(
        issued("R2", at_ms=at(5)), dispensed(completed=True, at_ms=at(6)), issued(signed_ms=at(0), at_ms=at(7))
    )
    assert world.status("R1") == "T"


def test_what_waited_completed_it_first_and_then_no_death_recalls_it() -> None:
    world = given(dispensed(completed=True, at_ms=at(1)), died(on(1), at_ms=at(2)))
    then = world.when(issued(refills=0, signed_ms=at(0), at_ms=at(3)))
    assert (world.status(), then.notices) == ("R", [("dispensed", "A")])


def test_a_recall_that_waited_after_the_completion_says_so_whatever_came_after_it() -> None:
    world = given(dispensed(completed=True, at_ms=at(1)), recalled(at_ms=at(2)), died(on(3), at_ms=at(3)))
    given(issued(refills=0, signed_ms=at(0), at_ms=at(4)), world=world)
    assert "recalled_after_completion" in listed(world).treatments[0].prescriptions[0].flags


def test_a_renewal_learns_late_that_what_it_renews_is_of_another_treatment() -> None:
    world = given(issued("R2", "T2", renews="R1"), issued("R1", "T1"))
    (renewal,) = (each for each in listed(world).treatments if each.treatment == id_of("T2"))
    assert renewal.prescriptions[0].flags == ("renews_other_treatment",)


def test_a_colleague_in_the_same_practice_is_another_person() -> None:
    world = given(recalled(by="A2", at_ms=at(1)))
    assert world.when(issued(by="A", signed_ms=at(0), at_ms=at(2))).notices == [("recalled_by_other", "A")]
    stopped = given(issued(at_ms=at(0)), discontinued(at_ms=at(1), by="A2"))
    then = stopped.when(issued("R2", at_ms=at(2), by="A"))
    assert then.notices == [("prescribed_after_discontinuation", "A")]


# --- Changes ----------------------------------------------------------------------------------------------------------


def test_the_change_that_was_made_last_wins_over_the_one_that_came_last() -> None:
    world = given(issued(at_ms=at(0)), changed(at_ms=at(5), administration="self", dosing=dosing("2")))
    world.when(Said("B", changed(administration="care_service", dosing=dosing("3")).body, at(4), at(6)))
    (shown,) = listed(world).treatments
    assert (shown.dosing.dosing, shown.administration) == (dosing("2"), "self")


def test_what_was_recorded_does_not_hide_the_indication_of_a_prescription() -> None:
    world = given(recorded(indication_text="said by the patient", at_ms=at(5)))
    given(issued(signed_ms=at(1), at_ms=at(6), indication_text="diabetes"), world=world)
    assert listed(world).treatments[0].indication_text == "diabetes"


@pytest.mark.parametrize(("use", "status"), [("course", "completed"), ("regular", "active")])
def test_a_changed_dosing_ends_a_course_alone(use: str, status: str) -> None:
    world = given(issued(use=use, at_ms=at(0)), COURSE_BY_CHANGE)
    assert listed(world).treatments[0].status == status
    assert ("course_ended" in world.when(claimed(at_ms=at(30))).flags) is (use == "course")


def test_a_prescription_with_a_date_ahead_does_not_decide_yet_where_the_entry_is_shown() -> None:
    world = given(issued(at_ms=at(0)), issued("R2", at_ms=at(1), earliest=on(30), item_group="nutrition"))
    counts = [(len(listed(world, day).treatments), len(listed(world, day).other_prescriptions)) for day in (20, 30)]
    assert counts == [(1, 0), (0, 1)]


# --- Hand-outs and reversals ------------------------------------------------------------------------------------------


def test_the_first_report_may_itself_be_refused_and_is_shown_all_the_same() -> None:
    world = given(issued(at_ms=at(0)), recalled(at_ms=at(1)))
    world.when(Said("P", dispensed("D9").body, at(2), event_id=world.last.event_id))
    (shown,) = listed(world).treatments
    assert [report.dispense for report in shown.conflicting_reports] == [id_of("D9")]
    assert shown.flags == ("conflicting_report",)


def test_conflicting_reports_are_shown_in_log_order() -> None:
    world = given(issued(), dispensed("D1"), dispensed("D2"))
    for dispense, amount in (("D2", 1), ("D1", 2)):
        world.when(dispensed(dispense, quantity=tablets(amount)))
    reports = listed(world).treatments[0].conflicting_reports
    assert [report.dispense for report in reports] == [id_of("D2"), id_of("D1")]


def test_a_hand_out_after_the_death_says_so_while_its_prescription_is_not_seen() -> None:
    world = given(died(on(0), at_ms=at(1)), dispensed(at_ms=at(2)))
    assert "dispensed_after_death" in listed(world).unseen_hand_outs[0].flags


def test_more_than_was_handed_out_cannot_come_back_before_the_prescription_is_seen() -> None:
    world = given(dispensed(), reversed_(reversal="V1", returned=tablets(60)))
    assert world.when(reversed_(reversal="V2", returned=tablets(60))).outcome == "refused(over_returned)"
    returned = listed(world).unseen_hand_outs[0].returned
    assert returned == tablets(60)
    assert world.when(issued()).notices == [("dispensed", "A"), ("reversed", "A")]


def test_a_second_reversal_is_one_also_before_the_prescription_is_seen() -> None:
    world = given(dispensed(), reversed_(reversal="V1"))
    assert world.when(reversed_(reversal="V2")).flags == {"already_reversed"}


def test_a_second_reversal_of_the_unknown_waits_like_the_first() -> None:
    world = given(reversed_(reversal="V1"))
    assert world.when(reversed_(reversal="V2")).flags == {"dispense_unknown"}


def test_an_outcome_that_changed_before_the_prescription_is_seen_is_shown_when_it_comes() -> None:
    world = given(reversed_(by="Q"), dispensed(by="P"), issued())
    assert "outcome_changed" in listed(world).treatments[0].flags


def test_a_hand_out_that_was_taken_back_before_it_came_leaves_the_claim_and_the_order() -> None:
    world = given(issued(refills=0), claimed(by="P"), reversed_(by="Q"))
    then = world.when(dispensed(by="Q", completed=True))
    assert (world.holder(), then.notices) == ("P", [("dispensed", "A"), ("reversed", "A")])


def test_a_reversal_by_the_wrong_pharmacy_does_not_keep_the_claim() -> None:
    world = given(issued(refills=0), claimed(by="P"), reversed_(by="P"))
    then = world.when(dispensed(by="Q", completed=True))
    assert (world.holder(), ("claim_ended", "P") in then.notices) == (None, True)


def test_what_was_recalled_before_is_not_told_as_void_once_more() -> None:
    world = given(issued(refills=0), dispatched(to="P"), recalled())
    assert ("order_void", "P") not in world.when(dispensed(by="Q", completed=True)).notices


# --- The patient as a whole -------------------------------------------------------------------------------------------


def test_none_known_can_be_refuted_after_an_allergy_replaced_it_and_then_no_more() -> None:
    world = given(allergic("A1", none_known=True), allergic("A2"))
    version = world.meta.version
    assert (world.when(refuted("A1")).flags, world.meta.version) == (set(), version)
    assert world.when(refuted("A1")).flags == {"already_refuted"}
    assert listed(world).allergy_status == "recorded"


def test_a_second_refutation_of_the_unknown_waits_like_the_first() -> None:
    assert given(refuted()).when(refuted()).flags == {"allergy_unknown"}


def test_the_same_assignment_by_another_organisation_is_another() -> None:
    world = given(multidose("P", by="A"))
    body = multidose("P", by="A").body
    assert world.when(Said("B", body)).outcome == "applied"


def test_after_the_pharmacy_ended_its_part_another_can_be_assigned() -> None:
    world = given(multidose("P"), multidose_ended("P"))
    packed = listed(world).multidose
    assert packed is not None
    assert packed.pharmacy is None
    assert world.when(multidose("Q")).outcome == "applied"


def test_a_request_is_answered_once_and_by_whom_it_asks() -> None:
    world = given(issued(), renewal_requested(to="A"))
    assert world.when(renewal_declined(by="B")).outcome == "refused(not_permitted)"
    given(renewal_declined(by="A"), world=world)
    outcomes = [world.when(renewal_declined(request, by="B")).outcome for request in ("Q1", "Q2")]
    assert outcomes == ["refused(no_request)", "refused(unknown)"]


def test_a_retraction_is_told_of_what_the_death_alone_recalled() -> None:
    world = given(issued("R1", "T1"), issued("R2", "T2", by="B"), recalled("R1"), died())
    assert world.when(death_retracted()).notices == [("death_retracted", "B")]


def test_what_comes_late_tells_of_all_that_it_recalls_in_the_order_of_their_ids() -> None:
    """Fields come from the store in any order, and the same event tells the same each time that it is judged."""
    series = [issued(rx, by="A", series="S1", signed_ms=at(0)) for rx in ("R1", "R2", "R3", "R4")]
    newest = issued("R9", by="A", signed_ms=at(5), earliest=on(60))
    then = given(*series, newest).when(issued("R5", by="B", at_ms=at(6), signed_ms=at(3)))
    told = [each.prescription for each in then.judgement.effects if isinstance(each, NoticeDue)]
    assert told == sorted(id_of(rx) for rx in ("R1", "R2", "R3", "R4"))
