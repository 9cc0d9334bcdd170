"""What comes late, twice or ahead of what it names, on the oracle: where it was mended when held to the fold."""

from typing import Any

from schemas import events as ev
from tests.oracle.story import (
    FIRST_DAY,
    Story,
    at,
    daily,
    hand_out,
    named,
    organisation,
    prescription,
    said,
    tablets,
    told,
)

DIED = ev.PatientDied(on=FIRST_DAY)
RETRACTED = ev.DeathRetracted(reason="another person")


def issued(**changed: Any) -> Story:
    """R1 of T1, signed by A."""
    story = Story()
    story.tell("A", prescription("R1", **changed))
    return story


def recall(rx: str = "R1") -> ev.PrescriptionRecalled:
    return ev.PrescriptionRecalled(prescription=named(rx), reason="other")


def claim(name: str = "C1", rx: str = "R1") -> ev.ClaimRequested:
    return ev.ClaimRequested(claim=named(name), prescription=named(rx))


def stop(at_ms: int) -> ev.TreatmentDiscontinued:
    return ev.TreatmentDiscontinued(treatment=named("T1"), at_ms=at_ms, reason="other")


def reverse(reversal: str, quantity: ev.Quantity | None = None, dispense: str = "D1") -> ev.DispenseReversed:
    return ev.DispenseReversed(reversal=named(reversal), dispense=named(dispense), reason="mistake", quantity=quantity)


# --- Waiting ----------------------------------------------------------------------------------------------------------


def test_a_second_reversal_of_an_unknown_hand_out_waits_like_the_first() -> None:
    story = issued()
    assert [said(story.tell("P", reverse(name))) for name in ("V1", "V2")] == ["applied dispense_unknown"] * 2


def test_a_second_refutation_of_an_unknown_allergy_waits_like_the_first() -> None:
    story = Story()
    refuted = ev.AllergyRefuted(allergy=named("A1"), reason="tested")
    assert [said(story.tell("A", refuted)) for _ in range(2)] == ["applied allergy_unknown"] * 2


def test_refuting_a_none_known_that_was_replaced_moves_nothing() -> None:
    story = Story()
    story.tell("A", ev.AllergyRecorded(allergy=named("A1"), none_known=True))
    story.tell("A", ev.AllergyRecorded(allergy=named("A2"), substance="nuts"))
    version = story.list().version
    assert said(story.tell("A", ev.AllergyRefuted(allergy=named("A1"), reason="asked wrongly"))) == "applied"
    assert (story.list().version, story.list().allergy_status) == (version, "recorded")


def test_a_reversal_by_the_wrong_pharmacy_does_not_keep_a_claim_that_the_hand_out_ends() -> None:
    story = issued(refills=0)
    story.tell("P", claim())
    story.tell("P", reverse("V1"))
    came = story.tell("Q", hand_out("D1", completed=True))
    assert {"claim_ended to P", "outcome_changed to P"} <= set(told(came))
    assert (story.rx().status, story.rx().flags) == ("R", ("dispensed_without_claim", "outcome_changed"))


def test_a_recall_that_waited_after_a_completion_is_shown_as_that() -> None:
    story = Story()
    story.tell("P", hand_out("D1", completed=True))
    story.tell("A", recall())
    story.tell("A", prescription("R1", refills=0))
    assert (story.rx().status, "recalled_after_completion" in story.rx().flags) == ("R", True)


def test_what_the_log_did_not_know_at_the_place_of_a_hand_out_does_not_flag_it() -> None:
    story = Story()
    story.tell("P", hand_out("D1"), occurred_at_ms=at(2), received_at_ms=at(3))
    story.tell("A", recall(), occurred_at_ms=at(1), received_at_ms=at(4))
    story.tell("A", prescription("R1"), received_at_ms=at(5))
    assert story.rx().hand_outs[0].flags == ("dispensed_without_claim",)


# --- What is told -----------------------------------------------------------------------------------------------------


def test_a_colleague_of_the_same_organisation_is_another_person() -> None:
    story = issued()
    assert told(story.tell("nurse", recall())) == ["recalled_by_other to A"]


def test_whoever_stopped_learns_late_that_it_was_prescribed_after_that() -> None:
    story = issued(issued_at_ms=at(2))
    late = story.tell("B", stop(at(1)), received_at_ms=at(3))
    assert said(late) == "applied prescribed_after_discontinuation"
    assert told(late) == ["prescribed_after_discontinuation to B"]


def test_whoever_withdrew_learns_late_that_it_was_prescribed_after_that() -> None:
    story = issued(issued_at_ms=at(2))
    withdrawal = ev.TreatmentWithdrawn(treatment=named("T1"), reason="x")
    late = story.tell("B", withdrawal, occurred_at_ms=at(1), received_at_ms=at(3))
    assert said(late) == "applied prescribed_after_discontinuation"
    assert told(late) == ["prescribed_after_discontinuation to B"]
    assert story.treatment().status == "active"
    assert story.treatment().flags == ("prescribed_after_discontinuation",)


def test_what_was_recalled_while_held_is_not_told_again_by_a_death() -> None:
    story = issued()
    story.tell("P", claim())
    story.tell("B", recall())
    assert told(story.tell("B", DIED)) == []


def test_a_retraction_is_told_only_of_what_the_death_recalled() -> None:
    story = issued()
    story.tell("A", recall())
    story.tell("B", DIED)
    assert told(story.tell("B", RETRACTED)) == []


def test_the_order_of_what_is_bound_goes_out_once_more_when_a_death_is_retracted() -> None:
    story = issued()
    to = organisation("P")
    story.tell("citizen", ev.DispatchRequested(dispatch=named("W1"), prescription=named("R1"), pharmacy=to))
    assert "recalled_while_dispatched to P" in told(story.tell("B", DIED))
    assert [order.pharmacy for order in story.tell("B", RETRACTED).orders] == [to]


def test_a_second_reversal_is_told_to_nobody() -> None:
    story = issued()
    story.tell("P", hand_out("D1"))
    story.tell("P", reverse("V1"))
    assert told(story.tell("P", reverse("V2"))) == []


def test_the_recall_of_an_expired_prescription_is_told_to_the_pharmacy_that_has_its_order() -> None:
    story = issued(valid_until=FIRST_DAY)
    story.tell(
        "citizen", ev.DispatchRequested(dispatch=named("W1"), prescription=named("R1"), pharmacy=organisation("P"))
    )
    assert told(story.tell("A", recall(), received_at_ms=at(2))) == ["recalled_while_dispatched to P"]


def test_a_dispatch_does_not_bind_on_what_was_closed_when_the_claim_ended() -> None:
    story = issued()
    story.tell("P", claim())
    story.tell(
        "citizen", ev.DispatchRequested(dispatch=named("W1"), prescription=named("R1"), pharmacy=organisation("Q"))
    )
    story.tell("A", recall())
    assert told(story.tell("P", ev.ClaimAborted(claim=named("C1"), reason="left"))) == []
    assert story.rx().dispatched_to is None


def test_a_renewal_is_declined_by_whom_it_asks_alone() -> None:
    story = issued()
    asked = ev.RenewalRequested(request=named("Q1"), prescription=named("R1"), to=organisation("A"))
    story.tell("P", asked)
    declined = ev.RenewalDeclined(request=named("Q1"), reason="come and see me")
    assert said(story.tell("B", declined)) == "refused(not_permitted)"


# --- What wins --------------------------------------------------------------------------------------------------------


def test_the_change_that_was_made_last_wins_over_the_one_that_came_last() -> None:
    story = issued()
    late = ev.TreatmentChanged(treatment=named("T1"), reason="x", dosing=daily("3"), administration="self")
    changed = ev.TreatmentChanged(treatment=named("T1"), reason="x", dosing=daily("2"), administration="care_service")
    story.tell("A", changed, received_at_ms=at(5))
    story.tell("B", late, occurred_at_ms=at(4), received_at_ms=at(6))
    assert (story.treatment().dosing.dosing, story.treatment().administration) == (daily("2"), "care_service")


def test_a_late_prescription_is_replaced_by_the_first_of_the_newer_ones() -> None:
    story = Story()
    story.tell("A", prescription("R2", issued_at_ms=at(1)), received_at_ms=at(1))
    story.tell("B", prescription("R3", issued_at_ms=at(2)), received_at_ms=at(2))
    story.tell("A", prescription("R1"), received_at_ms=at(3))
    assert [shown.replaced_by for shown in story.rx("R1").recalls] == [named("R2")]


def test_a_second_stop_that_moved_nothing_is_seen_in_the_worlds_order() -> None:
    story = issued()
    story.tell("A", stop(at(20)), received_at_ms=at(20))
    story.tell("A", stop(at(5)), received_at_ms=at(21))
    handed = story.tell("P", hand_out("D1"), occurred_at_ms=at(10), received_at_ms=at(22))
    assert said(handed) == "applied dispensed_after_recall dispensed_without_claim"


def test_conflicting_reports_are_shown_once_under_the_prescription_of_the_first_report() -> None:
    story = issued()
    story.tell("A", prescription("R2", "T2"))
    story.tell("P", hand_out("D1", "R1"))
    now_ms = story.now_ms + 60_000
    for amount in (1, 2):
        other = hand_out("D1", "R2", lines=(ev.DispensedLine(quantity=tablets(amount)),))
        story.tell("P", other, occurred_at_ms=now_ms)
    assert (len(story.treatment("T1").conflicting_reports), story.treatment("T2").conflicting_reports) == (1, ())
