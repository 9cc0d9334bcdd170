"""The rulings that no acceptance scenario reaches, one sentence each, on the oracle."""

from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Final

from schemas import events as ev
from tests.oracle.histories import NO_WHOLE_LIST
from tests.oracle.story import (
    FIRST_DAY,
    METFORMIN,
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


def issued(**changed: Any) -> Story:
    """R1 of T1, signed by A."""
    story = Story()
    assert said(story.tell("A", prescription("R1", **changed))) == "applied"
    return story


def claim(name: str, rx: str = "R1") -> ev.ClaimRequested:
    return ev.ClaimRequested(claim=named(name), prescription=named(rx))


def recall(rx: str = "R1") -> ev.PrescriptionRecalled:
    return ev.PrescriptionRecalled(prescription=named(rx), reason="other")


def stop(at_ms: int, treatment: str = "T1") -> ev.TreatmentDiscontinued:
    return ev.TreatmentDiscontinued(treatment=named(treatment), at_ms=at_ms, reason="other")


def pause(start: date, until: date | None = None) -> ev.TreatmentPaused:
    return ev.TreatmentPaused(treatment=named("T1"), start=start, until=until, reason="operation")


def reverse(dispense: str, reversal: str = "V1", quantity: ev.Quantity | None = None) -> ev.DispenseReversed:
    return ev.DispenseReversed(reversal=named(reversal), dispense=named(dispense), reason="mistake", quantity=quantity)


def dispatch(name: str, pharmacy: str, *, every: bool = False) -> ev.DispatchRequested:
    return ev.DispatchRequested(
        dispatch=named(name), prescription=named("R1"), pharmacy=organisation(pharmacy), every=every
    )


WITHDRAWN = ev.TreatmentWithdrawn(treatment=named("T1"), reason="wrong patient")
RESUMED = ev.TreatmentResumed(treatment=named("T1"), reason="better")
REINSTATED = ev.TreatmentReinstated(treatment=named("T1"), reason="needed after all")
DIED = ev.PatientDied(on=FIRST_DAY + timedelta(days=3))


# --- The same event twice ---------------------------------------------------------------------------------------------


def test_the_same_record_again_is_a_duplicate() -> None:
    story = issued()
    assert said(story.repeat(0)) == "duplicate"


def test_the_same_content_under_a_new_event_id_is_a_duplicate() -> None:
    story = issued()
    assert said(story.tell("A", prescription("R1"))) == "duplicate"


def test_the_same_content_from_another_organisation_is_a_conflict() -> None:
    story = issued()
    assert said(story.tell("B", prescription("R1"))) == "refused(conflicting_duplicate)"


def test_an_event_id_with_other_content_is_a_conflict() -> None:
    story = issued()
    event_id = named("event 0")
    assert said(story.tell("A", prescription("R2"), event_id=event_id)) == "refused(conflicting_duplicate)"
    assert said(story.tell("A", prescription("R2"))) == "applied"


def test_composed_and_decomposed_letters_are_the_same_text() -> None:
    story = issued(note="k\u00e5re")
    assert said(story.tell("A", prescription("R1", note="ka\u030are"))) == "duplicate"


def test_an_amount_is_the_same_with_and_without_trailing_zeros() -> None:
    story = issued(quantity=tablets("30"))
    assert said(story.tell("A", prescription("R1", quantity=tablets("30.0000")))) == "duplicate"


def test_an_identity_that_was_sealed_anew_is_no_other_content() -> None:
    story = issued(identity=b"sealed once")
    assert said(story.tell("A", prescription("R1", identity=b"sealed twice"))) == "duplicate"


def test_a_refused_claim_id_stays_refused_under_a_new_event_id() -> None:
    story = issued()
    story.tell("P", claim("C1"))
    assert said(story.tell("Q", claim("C2"))) == "refused(held)"
    story.tell("P", ev.ClaimAborted(claim=named("C1"), reason="left"))
    assert said(story.tell("Q", claim("C2"))) == "duplicate"
    assert said(story.tell("Q", claim("C3"))) == "applied"


# --- Waiting ----------------------------------------------------------------------------------------------------------


def test_a_recall_waits_for_its_prescription_and_closes_it_when_it_comes() -> None:
    story = Story()
    assert said(story.tell("B", recall())) == "applied prescription_unknown"
    assert said(story.tell("P", claim("C1"))) == "refused(unknown)"
    came = story.tell("A", prescription("R1"))
    assert story.rx().status == "T"
    assert told(came) == ["recalled_by_other to A"]


def test_a_waiting_hand_out_that_completed_before_a_waiting_recall_makes_it_completed() -> None:
    story = Story()
    story.tell("P", hand_out("D1", completed=True))
    story.tell("A", recall())
    story.tell("A", prescription("R1"))
    assert story.rx().status == "R"


def test_a_waiting_reversal_from_another_pharmacy_is_refused_after_all() -> None:
    story = issued()
    assert said(story.tell("Q", reverse("D1"))) == "applied dispense_unknown"
    came = story.tell("P", hand_out("D1"))
    assert "outcome_changed to Q" in told(came)
    assert story.rx().dispenses_done == 1
    assert story.treatment().flags == ("outcome_changed",)


def test_a_waiting_reversal_from_the_dispenser_takes_the_hand_out_back_when_it_comes() -> None:
    story = issued()
    story.tell("P", reverse("D1"))
    story.tell("P", hand_out("D1", completed=True))
    assert (story.rx().status, story.rx().dispenses_done) == ("E", 0)


def test_a_waiting_stop_stops_what_was_signed_before_it() -> None:
    story = Story()
    assert said(story.tell("A", stop(at(5)))) == "applied treatment_unknown"
    assert said(story.tell("A", prescription("R1"))) == "applied"
    assert (story.treatment().status, story.rx().status) == ("discontinued", "T")


def test_a_renewal_that_overtakes_what_it_renews_recalls_it_when_it_comes() -> None:
    story = Story()
    late = prescription("R2", "T2", renews=named("R1"), issued_at_ms=at(1))
    assert said(story.tell("A", late)) == "applied prescription_unknown"
    story.tell("A", prescription("R1"))
    assert (story.rx("R1").status, story.rx("R2").status) == ("T", "E")
    assert story.rx("R2").flags == ("renews_other_treatment",)


def test_registrations_and_requests_on_the_unknown_are_refused() -> None:
    story = Story()
    unknown: list[ev.Body] = [
        WITHDRAWN,
        RESUMED,
        REINSTATED,
        ev.TreatmentChanged(treatment=named("T1"), reason="x"),
        claim("C1"),
        dispatch("W1", "P"),
        ev.DispatchWithdrawn(prescription=named("R1"), reason="x"),
        ev.RenewalRequested(request=named("Q1"), prescription=named("R1"), to=organisation("A")),
    ]
    assert {said(story.tell("A", body)) for body in unknown} == {"refused(unknown)"}
    assert said(story.tell("P", ev.ClaimAborted(claim=named("C9"), reason="x"))) == "refused(no_claim)"
    assert said(story.tell("A", ev.RenewalDeclined(request=named("Q9"), reason="x"))) == "refused(unknown)"


# --- Quantity and returns ---------------------------------------------------------------------------------------------


def test_packages_convert_by_their_stated_content() -> None:
    story = issued(quantity=tablets(100))
    package = ev.DispensedLine(quantity=ev.Quantity(value=Decimal(2), unit="package"), content=tablets(50))
    story.tell("P", hand_out("D1", lines=(package,)))
    assert (story.rx().handed_out, story.rx().dispenses_left) == (Decimal(100), 1)


def test_a_prescription_of_packages_is_measured_by_their_content() -> None:
    packed = ev.Package(item_number="123456", name="Metformin", content=tablets(100))
    medication = ev.Medication(product=packed, form="tablet", atc="A10BA02")
    story = issued(quantity=ev.Quantity(value=Decimal(1), unit="package"), medication=medication)
    story.tell("P", hand_out("D1", amount=50))
    assert story.rx().handed_out == Decimal("0.5")


def test_another_strength_is_not_comparable_and_the_pharmacist_decides() -> None:
    story = issued()
    other = ev.DispensedLine(quantity=tablets(15), strength="1000 mg")
    story.tell("P", hand_out("D1", lines=(other,), period_completed=True))
    assert (story.rx().handed_out, story.rx().dispenses_left) == (Decimal(0), 1)


def test_more_than_ten_per_cent_short_is_no_period_whatever_the_pharmacist_says() -> None:
    story = issued(quantity=tablets(100))
    story.tell("P", hand_out("D1", amount=89, period_completed=True))
    assert story.rx().dispenses_left == 2


def test_two_periods_at_once_are_ahead_of_time_and_use_up_both() -> None:
    story = issued()
    assert said(story.tell("P", hand_out("D1", amount=60))) == "applied ahead_of_period dispensed_without_claim"
    assert (story.rx().status, story.rx().refills_left) == ("R", 0)


def test_ten_per_cent_over_the_total_is_not_too_much() -> None:
    story = issued(refills=0)
    assert said(story.tell("P", hand_out("D1", amount=33))) == "applied dispensed_without_claim"


def test_returned_goods_cannot_exceed_what_was_handed_out() -> None:
    story = issued()
    story.tell("P", hand_out("D1"))
    assert said(story.tell("P", reverse("D1", "V1", tablets(20)))) == "applied"
    assert said(story.tell("P", reverse("D1", "V2", tablets(11)))) == "refused(over_returned)"
    assert said(story.tell("P", reverse("D1", "V3", tablets(10)))) == "applied"
    assert (story.rx().returned, story.rx().handed_out) == (Decimal(30), Decimal(30))


PACKED: Final = ev.Medication(
    product=ev.Package(item_number="123456", name="Metformin", content=tablets(50)), form="tablet", atc="A10BA02"
)
TWO_PACKAGES: Final = ev.Quantity(value=Decimal(2), unit="package")


def of_packages(**line: Any) -> ev.MedicationDispensed:
    """Two packages that do not say themselves what they hold."""
    return hand_out("D1", lines=(ev.DispensedLine(quantity=TWO_PACKAGES, **line),))


def test_returned_packages_hold_what_the_prescribed_one_does_unless_they_are_others() -> None:
    story = issued(medication=PACKED, quantity=TWO_PACKAGES)
    story.tell("P", of_packages())
    assert said(story.tell("P", reverse("D1", "V1", tablets(101)))) == "refused(over_returned)"
    assert said(story.tell("P", reverse("D1", "V2", tablets(100)))) == "applied"
    other = issued(medication=PACKED, quantity=TWO_PACKAGES)
    other.tell("P", of_packages(item_number="654321"))
    assert said(other.tell("P", reverse("D1", "V1", tablets(150)))) == "applied"


def test_a_return_proves_too_large_when_the_prescription_comes() -> None:
    story = Story()
    story.tell("P", of_packages())
    assert said(story.tell("P", reverse("D1", "V1", tablets(60)))) == "applied"
    assert said(story.tell("P", reverse("D1", "V2", tablets(60)))) == "applied"
    came = story.tell("A", prescription("R1", medication=PACKED, quantity=TWO_PACKAGES))
    assert sorted(told(came)) == ["dispensed to A", "outcome_changed to P", "reversed to A"]
    assert "outcome_changed" in story.rx().flags
    assert story.rx().returned == Decimal("1.2")


def test_a_second_reversal_is_applied_and_moves_nothing() -> None:
    story = issued()
    story.tell("P", hand_out("D1"))
    assert said(story.tell("P", reverse("D1", "V1"))) == "applied"
    assert said(story.tell("P", reverse("D1", "V2"))) == "applied already_reversed"


# --- Flags of a hand-out ----------------------------------------------------------------------------------------------


def test_a_partial_hand_out_by_another_pharmacy_leaves_the_claim() -> None:
    story = issued()
    story.tell("P", claim("C1"))
    verdict = story.tell("Q", hand_out("D1", amount=10))
    assert said(verdict) == "applied dispensed_without_claim"
    assert told(verdict) == ["dispensed to A"]
    assert story.rx().holder == organisation("P")


def test_another_product_against_a_reservation_is_flagged() -> None:
    story = issued(substitution_reserved=True)
    line = ev.DispensedLine(quantity=tablets(30), substituted=True)
    assert (
        said(story.tell("P", hand_out("D1", lines=(line,)))) == "applied dispensed_without_claim substitution_reserved"
    )


def test_a_hand_out_after_death_is_applied_with_a_flag() -> None:
    story = issued()
    story.tell("A", DIED, received_at_ms=at(4))
    after = story.tell("P", hand_out("D1"), received_at_ms=at(5))
    assert said(after) == "applied dispensed_after_death dispensed_without_claim"
    before = story.tell("P", hand_out("D2"), occurred_at_ms=at(2), received_at_ms=at(6))
    assert said(before) == "applied dispensed_without_claim"


def test_a_hand_out_after_withdrawal_says_so() -> None:
    story = issued()
    story.tell("A", WITHDRAWN)
    assert said(story.tell("P", hand_out("D1"))) == "applied dispensed_after_withdrawal dispensed_without_claim"
    assert story.treatment().flags == ("withdrawn",)


def test_a_hand_out_during_a_pause_is_flagged() -> None:
    story = issued()
    story.tell("A", pause(FIRST_DAY))
    assert said(story.tell("P", claim("C1"))) == "applied treatment_paused"
    assert said(story.tell("P", hand_out("D1"))) == "applied treatment_paused"


# --- Recall -----------------------------------------------------------------------------------------------------------


def test_a_second_recall_is_applied_without_a_second_notice() -> None:
    story = issued()
    assert told(story.tell("B", recall())) == ["recalled_by_other to A"]
    again = story.tell("B", recall())
    assert (said(again), told(again)) == ("applied already_recalled", [])


def test_a_renewal_by_another_doctor_tells_the_issuer() -> None:
    story = issued()
    verdict = story.tell("B", prescription("R2", issued_at_ms=at(1)))
    assert told(verdict) == ["recalled_by_other to A"]


def test_the_renewal_of_an_expired_prescription_tells_nobody() -> None:
    story = issued(valid_until=FIRST_DAY)
    verdict = story.tell("B", prescription("R2", issued_at_ms=at(5)), received_at_ms=at(5))
    assert (said(verdict), told(verdict)) == ("applied", [])


# --- Dispatch ---------------------------------------------------------------------------------------------------------


def test_a_dispatch_binds_when_the_present_claim_ends() -> None:
    story = issued()
    story.tell("Q", claim("C1"))
    assert told(story.tell("citizen", dispatch("W1", "P"))) == []
    assert story.rx().dispatched_to is None
    assert told(story.tell("Q", ev.ClaimAborted(claim=named("C1"), reason="left"))) == ["order to P"]
    refused = story.tell("Q", claim("C2"))
    assert (said(refused), refused.named) == ("refused(dispatched_to)", organisation("P"))


def test_a_dispatch_lapses_after_thirty_days() -> None:
    story = issued()
    story.tell("citizen", dispatch("W1", "P"))
    assert said(story.tell("Q", claim("C1"), received_at_ms=at(30))) == "refused(dispatched_to)"
    assert said(story.tell("Q", claim("C2"), received_at_ms=at(31))) == "applied"


def test_a_dispatch_ties_one_hand_out_or_every_one() -> None:
    for every, answer in ((False, "applied"), (True, "refused(dispatched_to)")):
        story = issued()
        story.tell("citizen", dispatch("W1", "P", every=every))
        story.tell("P", claim("C1"))
        story.tell("P", hand_out("D1"))
        assert said(story.tell("Q", claim("C2"))) == answer


def test_a_recall_tells_the_bound_pharmacy() -> None:
    story = issued()
    story.tell("citizen", dispatch("W1", "P"))
    assert told(story.tell("A", recall())) == ["recalled_while_dispatched to P"]


def test_a_dispatch_is_withdrawn_by_who_may() -> None:
    withdrawn = ev.DispatchWithdrawn(prescription=named("R1"), reason="changed my mind")
    story = issued()
    assert said(story.tell("citizen", withdrawn)) == "refused(no_dispatch)"
    story.tell("citizen", dispatch("W1", "P"))
    assert said(story.tell("Q", withdrawn)) == "refused(not_permitted)"
    verdict = story.tell("citizen", withdrawn)
    assert (said(verdict), told(verdict)) == ("applied", ["order_void to P"])
    assert said(story.tell("Q", claim("C1"))) == "applied"


def test_an_operator_frees_a_claim_and_the_holder_is_told() -> None:
    story = issued()
    story.tell("P", claim("C1"))
    released = ev.ClaimReleased(claim=named("C1"), reason="the pharmacy burnt down")
    assert said(story.tell("Q", released)) == "refused(not_permitted)"
    assert told(story.tell("operator", released)) == ["claim_released to P"]
    assert story.rx().status == "E"


# --- Treatments -------------------------------------------------------------------------------------------------------


def test_an_older_prescription_that_arrives_late_is_recalled_at_once() -> None:
    story = Story()
    story.tell("A", prescription("R2", issued_at_ms=at(2)))
    story.tell("A", prescription("R1", issued_at_ms=at(1)))
    assert (story.rx("R1").status, story.rx("R2").status) == ("T", "E")


def test_equally_signed_prescriptions_go_by_the_greater_id() -> None:
    story = issued()
    story.tell("A", prescription("R2"))
    greater, lesser = sorted(("R1", "R2"), key=named, reverse=True)
    assert (story.rx(greater).status, story.rx(lesser).status) == ("E", "T")


def test_another_substance_is_flagged() -> None:
    story = issued()
    other = ev.Medication(product=ev.Substance(name="Glimepiride"), form="tablet", atc="A10BB12")
    assert (
        said(story.tell("A", prescription("R2", issued_at_ms=at(1), medication=other))) == "applied substance_changed"
    )
    assert story.treatment().flags == ("substance_changed",)


def test_a_stop_counts_from_its_own_time_whenever_it_comes() -> None:
    story = issued()
    story.tell("A", prescription("R2", issued_at_ms=at(9)), received_at_ms=at(9))
    late = story.tell("B", stop(at(5)), received_at_ms=at(10))
    assert said(late) == "applied prescribed_after_discontinuation"
    assert (story.treatment().status, story.rx("R2").status) == ("active", "E")


def test_a_second_stop_is_remembered_and_moves_nothing() -> None:
    story = issued()
    story.tell("A", stop(at(1)), received_at_ms=at(1))
    version = story.list().version
    assert said(story.tell("A", stop(at(8)), received_at_ms=at(8))) == "applied already_discontinued"
    assert story.list().version == version
    story.tell("A", prescription("R2", issued_at_ms=at(5)), received_at_ms=at(9))
    assert (story.treatment().status, story.rx("R2").status) == ("discontinued", "T")


def test_a_stopped_treatment_takes_no_change_pause_or_resumption() -> None:
    story = issued()
    story.tell("A", stop(at(1)), received_at_ms=at(1))
    change = ev.TreatmentChanged(treatment=named("T1"), reason="x", dosing=daily("2"))
    for body in (change, pause(FIRST_DAY), RESUMED):
        assert said(story.tell("A", body)) == "refused(discontinued)"


def test_reinstating_leaves_the_prescriptions_recalled() -> None:
    story = issued()
    assert said(story.tell("A", REINSTATED)) == "refused(not_discontinued)"
    story.tell("A", stop(at(1)), received_at_ms=at(1))
    assert said(story.tell("A", REINSTATED)) == "applied"
    assert (story.treatment().status, story.rx().status) == ("active", "T")
    assert said(story.tell("P", claim("C1"))) == "refused(recalled)"


def test_a_withdrawn_treatment_is_hidden_until_something_shows_it() -> None:
    story = issued()
    story.tell("A", WITHDRAWN)
    assert not story.shows()
    assert said(story.tell("A", WITHDRAWN)) == "applied already_withdrawn"
    story.tell("P", hand_out("D1"))
    assert story.treatment().status == "discontinued"


def test_a_pause_holds_from_its_day_through_its_last() -> None:
    story = issued()
    story.tell("A", pause(FIRST_DAY + timedelta(days=2), FIRST_DAY + timedelta(days=4)))
    assert [story.treatment(at_ms=at(day)).status for day in (1, 2, 4, 5)] == ["active", "paused", "paused", "active"]
    assert said(story.tell("A", pause(FIRST_DAY + timedelta(days=3)))) == "applied already_paused"


def test_a_pause_from_now_is_one_of_its_own_though_another_is_to_come() -> None:
    story = issued()
    story.tell("A", pause(FIRST_DAY + timedelta(days=2), FIRST_DAY + timedelta(days=4)))
    assert said(story.tell("B", pause(FIRST_DAY))) == "applied"
    assert story.treatment(at_ms=at(1)).status == "paused"


def test_a_new_prescription_leaves_a_paused_treatment_paused() -> None:
    story = issued()
    assert said(story.tell("A", RESUMED)) == "refused(not_paused)"
    story.tell("A", pause(FIRST_DAY))
    story.tell("A", prescription("R2", issued_at_ms=at(1)))
    assert story.treatment().status == "paused"
    assert said(story.tell("A", RESUMED)) == "applied"
    assert story.treatment().status == "active"


def test_a_newer_prescription_brings_its_own_dosing() -> None:
    story = issued()
    story.tell("B", ev.TreatmentChanged(treatment=named("T1"), reason="kidneys", dosing=daily("0.5")))
    assert story.treatment().dosing.dosing == daily("0.5")
    story.tell("A", prescription("R2", issued_at_ms=at(1), dosing=daily("2")), received_at_ms=at(1))
    assert story.treatment().dosing.dosing == daily("2")
    assert said(story.tell("P", claim("C1", "R2"))) == "applied"


def test_the_dosing_of_a_renewal_holds_from_its_earliest_date() -> None:
    story = issued()
    later = FIRST_DAY + timedelta(days=30)
    story.tell("A", prescription("R2", issued_at_ms=at(1), dosing=daily("2"), earliest_dispense=later))
    assert [story.treatment(at_ms=at(day)).dosing.dosing for day in (29, 30)] == [daily("1"), daily("2")]


def test_the_use_that_is_reported_stands_beside_the_dosing() -> None:
    story = Story()
    use = ev.UseReported(treatment=named("T1"), use="not_taking", by="patient")
    assert said(story.tell("citizen", use)) == "applied treatment_unknown"
    story.tell("A", ev.TreatmentRecorded(treatment=named("T1"), kind="otc", medication=METFORMIN, dosing=daily()))
    shown = story.treatment()
    assert shown.reported_use is not None
    assert (shown.kind, shown.reported_use.use, shown.dosing.dosing) == ("otc", "not_taking", daily())


# --- The list as a whole ----------------------------------------------------------------------------------------------


VERIFIED: Final = "v"


def reconcile(story: Story, who: str, version: int, read_at_ms: int | None = None) -> str:
    at_ms = story.now_ms if read_at_ms is None else read_at_ms
    return said(story.tell(who, ev.ListReconciled(read_token=VERIFIED, version=version, read_at_ms=at_ms)))


def test_a_list_is_confirmed_by_a_doctor_with_a_fresh_token() -> None:
    story = issued()
    version = story.list().version
    four_hours = 4 * 3_600_000
    assert reconcile(story, "A", version, story.now_ms + 60_000 - four_hours) == "applied"
    assert reconcile(story, "A", version, story.now_ms + 60_000 - four_hours - 1) == "refused(token_expired)"
    assert reconcile(story, "nurse", version) == "refused(not_permitted)"
    assert reconcile(story, "B", version) == "applied"
    assert reconcile(story, "B", version - 1) == "refused(stale)"


def test_who_read_a_list_with_something_missing_confirms_none() -> None:
    assert reconcile(issued(), "A", NO_WHOLE_LIST) == "refused(stale)"
    assert reconcile(Story(), "A", NO_WHOLE_LIST) == "refused(stale)"


def test_what_the_version_moves_with() -> None:
    story = issued()
    moved: dict[str, bool] = {}

    def tell(what: str, who: str, body: ev.Body) -> None:
        before = story.list().version
        assert story.tell(who, body).outcome == "applied"
        moved[what] = story.list().version != before

    tell("claim", "P", claim("C1"))
    tell("dispatch", "citizen", dispatch("W1", "Q"))
    tell("hand-out", "P", hand_out("D1"))
    tell("reversal", "P", reverse("D1"))
    tell("unseen hand-out", "P", hand_out("D9", "R9"))
    tell("its reversal", "P", reverse("D9", "V9"))
    tell("waiting recall", "A", recall("R8"))
    tell("recall", "A", recall())
    tell("use", "citizen", ev.UseReported(treatment=named("T1"), use="otherwise", by="patient"))
    tell("death", "A", DIED)
    tell("second death", "A", DIED)
    assert {what for what, does in moved.items() if does} == {
        "unseen hand-out",
        "its reversal",
        "recall",
        "use",
        "death",
    }


def test_none_known_and_not_asked_are_different() -> None:
    story = Story()
    assert story.list().allergy_status == "not_asked"
    none = ev.AllergyRecorded(allergy=named("A0"), none_known=True)
    story.tell("A", none)
    assert story.list().allergy_status == "none_known"
    story.tell("A", ev.AllergyRecorded(allergy=named("A1"), substance="penicillin"))
    assert story.list().allergy_status == "recorded"
    again = ev.AllergyRecorded(allergy=named("A2"), none_known=True)
    assert said(story.tell("A", again)) == "refused(allergies_recorded)"
    story.tell("A", ev.AllergyRefuted(allergy=named("A1"), reason="tested"))
    assert story.list().allergy_status == "not_asked"


def test_multidose_has_one_doctor_and_one_pharmacy() -> None:
    def assign(doctor: str, pharmacy: str, days: int = 14) -> ev.MultidoseAssigned:
        number = {"A": "9144889", "B": "9144900"}[doctor]
        return ev.MultidoseAssigned(doctor=number, pharmacy=organisation(pharmacy), start=FIRST_DAY, packing_days=days)

    ended = ev.MultidoseEnded(reason="moved to a home")
    story = Story()
    assert said(story.tell("A", assign("A", "P"))) == "applied"
    assert said(story.tell("A", assign("A", "P"))) == "duplicate"
    elsewhere = story.tell("A", assign("A", "Q"))
    assert (said(elsewhere), elsewhere.named) == ("refused(multidose_elsewhere)", organisation("P"))
    assert told(story.tell("B", assign("B", "P"))) == ["multidose_taken_over to A"]
    assert said(story.tell("A", ended)) == "refused(not_responsible)"
    assert told(story.tell("P", ended)) == ["multidose_part_ended to B"]
    packed = story.list().multidose
    assert packed is not None
    assert (packed.doctor, packed.pharmacy) == ("9144900", None)
    assert said(story.tell("P", ended)) == "refused(not_responsible)"
    assert said(story.tell("B", assign("B", "Q"))) == "applied"
    assert said(story.tell("B", ended)) == "applied"
    assert story.list().multidose is None
    assert said(story.tell("B", ended)) == "refused(not_responsible)"


def test_a_retracted_death_gives_back_what_it_recalled() -> None:
    story = issued()
    retracted = ev.DeathRetracted(reason="another person")
    assert said(story.tell("A", retracted)) == "refused(not_deceased)"
    assert told(story.tell("B", DIED)) == ["recalled_by_other to A"]
    assert story.rx().status == "T"
    assert said(story.tell("P", claim("C1"))) == "refused(deceased)"
    assert told(story.tell("B", retracted)) == ["death_retracted to A"]
    assert story.rx().status == "E"


def test_a_renewal_request_is_answered_once() -> None:
    story = issued()
    asked = ev.RenewalRequested(request=named("Q1"), prescription=named("R1"), to=organisation("A"))
    assert told(story.tell("P", asked)) == ["renewal_requested to A"]
    declined = ev.RenewalDeclined(request=named("Q1"), reason="come and see me")
    assert told(story.tell("A", declined)) == ["renewal_declined to P"]
    assert said(story.tell("A", ev.RenewalDeclined(request=named("Q1"), reason="again"))) == "refused(no_request)"


def test_a_record_that_cannot_be_read_makes_the_list_incomplete_since_then() -> None:
    story = issued()
    story.spoil()
    first = story.now_ms
    story.spoil()
    assert story.list().incomplete_since_ms == first
    assert said(story.tell("P", claim("C1"))) == "applied list_incomplete"
    assert reconcile(story, "A", story.list().version) == "refused(list_incomplete)"


def test_a_prescription_expires_after_its_last_whole_day() -> None:
    story = issued(valid_until=FIRST_DAY)
    assert [story.rx(at_ms=at(0, "23:59")).status, story.rx(at_ms=at(1, "00:00")).status] == ["E", "F"]
