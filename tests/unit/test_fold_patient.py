"""What concerns the patient as a whole: allergies, multi-dose, reconciliation, death, renewals, what cannot be read."""

import pytest

from schemas.reasons import Flag, NoticeKind
from services.admission.read_token import NO_WHOLE_LIST
from tests.unit.fold_world import (
    HOUR_MS,
    Said,
    World,
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
    multidose,
    multidose_ended,
    on,
    organisation,
    paused,
    recalled,
    reconciled,
    recorded,
    refuted,
    released,
    renewal_declined,
    renewal_requested,
    reversed_,
    tablets,
    use_reported,
    withdrawn,
)

# --- Allergies -------------------------------------------------------------------------------------------------------


def _standing(world: World) -> list[str | None]:
    allergies = world.allergies
    return [entry.recorded.substance for entry in allergies if not entry.refuted]


def test_an_allergy_stands_until_it_is_refuted() -> None:
    world = given(allergic("A1"))
    stood = _standing(world)
    given(refuted("A1"), world=world)
    assert (stood, _standing(world)) == (["penicillin"], [])


def test_none_known_is_refused_while_allergies_stand() -> None:
    world = given(allergic("A1"))
    assert world.when(allergic("A2", none_known=True)).outcome == "refused(allergies_recorded)"


def test_none_known_may_be_said_when_all_are_refuted() -> None:
    world = given(allergic("A1"), refuted("A1"))
    assert world.when(allergic("A2", none_known=True)).outcome == "applied"


def test_a_new_allergy_replaces_none_known() -> None:
    world = given(allergic("A1", none_known=True), allergic("A2"))
    assert [entry.recorded.none_known for entry in world.allergies if not entry.refuted] == [False]


def test_an_allergy_is_refuted_once() -> None:
    world = given(allergic("A1"), refuted("A1"))
    assert world.when(refuted("A1")).flags == {"already_refuted"}


# --- Multi-dose ------------------------------------------------------------------------------------------------------


def test_another_doctor_may_take_over_and_the_former_is_told() -> None:
    then = given(multidose("P", by="A")).when(multidose("P", by="B"))
    assert (then.outcome, then.notices) == ("applied", [("multidose_taken_over", "A")])


def test_another_pharmacy_is_refused_and_told_which_has_it() -> None:
    then = given(multidose("P")).when(multidose("Q"))
    assert (then.outcome, then.named) == ("refused(multidose_elsewhere)", organisation("P"))


def test_a_nurse_cannot_assign() -> None:
    assert World().when(multidose("P", by="N")).outcome == "refused(not_permitted)"


def test_the_registered_doctor_ends_it() -> None:
    world = given(multidose("P", by="A"))
    assert (world.when(multidose_ended(by="A")).outcome, world.meta.multidose) == ("applied", None)


@pytest.mark.parametrize("by", ["B", "Q", "A2"])
def test_nobody_else_ends_it(by: str) -> None:
    world = given(multidose("P", by="A"))
    assert world.when(multidose_ended(by=by)).outcome == "refused(not_responsible)"


def test_the_pharmacy_ends_its_part_and_the_doctor_is_told() -> None:
    world = given(multidose("P", by="A"))
    then = world.when(multidose_ended(by="P"))
    assert (then.notices, world.when(multidose("Q", by="A")).outcome) == ([("multidose_part_ended", "A")], "applied")


# --- Reconciliation --------------------------------------------------------------------------------------------------


def test_two_doctors_may_confirm_the_same_version() -> None:
    world = given(issued())
    version = world.meta.version
    assert [world.when(reconciled(version, by=by)).outcome for by in ("A", "B")] == ["applied", "applied"]


def test_a_nurse_cannot_confirm() -> None:
    world = given(issued())
    assert world.when(reconciled(world.meta.version, by="N")).outcome == "refused(not_permitted)"


@pytest.mark.parametrize(("age_ms", "outcome"), [(4 * HOUR_MS, "applied"), (4 * HOUR_MS + 1, "refused(token_expired)")])
def test_what_was_read_more_than_four_hours_ago_is_not_confirmed(age_ms: int, outcome: str) -> None:
    world = given(issued())
    said = reconciled(world.meta.version, at_ms=at(1), read_ms=at(1) - age_ms)
    assert world.when(said).outcome == outcome


def test_an_empty_list_can_be_confirmed() -> None:
    world = World()
    assert world.when(reconciled(world.meta.version)).outcome == "applied"


@pytest.mark.parametrize(
    ("moving", "named"),
    [
        (issued("R2", "T2"), "R2"),
        (recalled(), "R1"),
        (recorded("T3"), "T3"),
        (changed(), "T1"),
        (paused(), "T1"),
        (use_reported(), "T1"),
        (discontinued(stopped_ms=at(0, 20)), "R1 T1"),
        (withdrawn(), "R1 T1"),
    ],
)
def test_a_list_that_moved_on_is_not_confirmed_and_says_what_moved(moving: Said, named: str) -> None:
    world = given(issued())
    version = world.meta.version
    given(moving, world=world)
    then = world.when(reconciled(version))
    assert (then.outcome, then.named) == ("refused(stale)", ",".join(map(id_of, named.split())))


@pytest.mark.parametrize(
    ("moving", "named"),
    [(allergic(), "allergies"), (multidose(), "multidose"), (died(), "death"), (dispensed("D9", rx="R9"), None)],
)
def test_what_else_moved_is_named_too(moving: Said, named: str | None) -> None:
    world = given(issued())
    version = world.meta.version
    given(moving, world=world)
    then = world.when(reconciled(version))
    assert then.outcome == "refused(stale)"
    assert (named or id_of("R9")) in (then.named or "").split(",")


def test_only_what_moved_since_is_named() -> None:
    world = given(dispensed("D9", rx="R9"), issued())
    version = world.meta.version
    given(recorded("T3"), world=world)
    assert world.when(reconciled(version)).named == id_of("T3")


def test_who_read_a_list_with_something_missing_confirms_none_and_is_told_all_that_stands() -> None:
    """Nothing else: neither hand-outs that never moved the list, nor the patient as a whole."""
    world = given(issued("R1", "T1"), dispensed("D1"), recorded("T3"))
    then = world.when(reconciled(NO_WHOLE_LIST))
    assert (then.outcome, set((then.named or "").split(","))) == ("refused(stale)", {id_of("R1"), id_of("T3")})
    world.park()
    assert world.when(reconciled(NO_WHOLE_LIST)).outcome == "refused(list_incomplete)"


def test_the_version_before_any_event_is_not_that_of_no_list() -> None:
    then = World().when(reconciled(NO_WHOLE_LIST))
    assert (then.outcome, then.named) == ("refused(stale)", None)


def test_claims_dispatches_hand_outs_and_requests_do_not_move_the_list() -> None:
    world = given(issued())
    version = world.meta.version
    given(
        claimed(),
        aborted(),
        claimed(claim="C2"),
        released("C2"),
        dispatched(),
        dispatch_withdrawn(),
        dispensed(),
        reversed_(returned=tablets(5)),
        reversed_(reversal="V2"),
        renewal_requested(),
        renewal_declined(),
        world=world,
    )
    assert world.meta.version == version
    assert world.when(reconciled(version)).outcome == "applied"


def test_confirming_does_not_move_the_list() -> None:
    world = given(issued())
    version = world.meta.version
    given(reconciled(version), world=world)
    assert world.meta.version == version


# --- Death -----------------------------------------------------------------------------------------------------------


def test_a_death_recalls_what_is_dispensable_and_tells() -> None:
    world = given(issued("R1", "T1"), issued("R2", "T2"), claimed("R2"))
    then = world.when(died())
    assert (world.status("R1"), world.status("R2")) == ("T", "U")
    assert then.notices == [("recalled_by_other", "A"), ("recalled_by_other", "A"), ("recalled_while_held", "P")]


def test_the_answer_to_a_claim_after_a_death_is_deceased() -> None:
    assert given(issued(), died()).when(claimed()).outcome == "refused(deceased)"


def test_a_second_death_keeps_the_first_day() -> None:
    world = given(died(on(1)))
    then = world.when(died(on(2)))
    death = world.meta.death
    assert death is not None
    assert (then.flags, death.on) == ({"already_deceased"}, on(1))


def test_a_retraction_takes_back_the_recalls_by_death_and_tells_the_issuers() -> None:
    world = given(issued(), died())
    then = world.when(death_retracted())
    assert (then.notices, world.status()) == ([("death_retracted", "A")], "E")


def test_a_retraction_leaves_other_recalls() -> None:
    world = given(issued(), recalled(), died(), death_retracted())
    assert world.status() == "T"


def test_a_recall_after_a_death_outlives_its_retraction() -> None:
    world = given(issued(), died(), recalled(), death_retracted())
    assert world.status() == "T"


def test_a_stop_after_a_death_outlives_its_retraction() -> None:
    world = given(issued(at_ms=at(0)), died(), discontinued(at_ms=at(1)), death_retracted())
    assert (world.status(), world.treatment_is()) == ("T", "discontinued")


def test_a_prescription_that_arrives_after_the_death_is_recalled() -> None:
    world = given(died())
    then = world.when(issued(by="B"))
    assert (world.status(), then.notices) == ("T", [("recalled_by_other", "B")])


def test_what_was_completed_stays_completed() -> None:
    world = given(issued(refills=0), dispensed(completed=True), died())
    assert world.status() == "R"


def test_a_hand_out_after_the_death_is_kept_with_its_flag() -> None:
    world = given(issued(), claimed(), died(on(0)))
    then = world.when(dispensed(at_ms=at(1)))
    assert (then.flags, world.handed_out()) == ({"dispensed_after_death"}, 100)


def test_a_hand_out_of_an_unknown_prescription_says_it_too() -> None:
    world = given(died(on(0)))
    then = world.when(dispensed(at_ms=at(1)))
    assert then.flags == {"dispensed_after_death", "dispensed_without_claim", "prescription_unknown"}


# --- Requests for renewal --------------------------------------------------------------------------------------------


def test_a_request_is_told_to_whom_it_asks_and_a_no_to_who_asked() -> None:
    world = given(issued())
    asked, declined = world.when(renewal_requested(to="B")), world.when(renewal_declined(by="B"))
    assert asked.notices == [("renewal_requested", "B")]
    assert declined.notices == [("renewal_declined", "citizen")]
    assert declined.notice(NoticeKind.RENEWAL_DECLINED).reason == "needs a visit"


def test_a_request_is_declined_once() -> None:
    world = given(issued(), renewal_requested(to="B"), renewal_declined(by="B"))
    assert world.when(renewal_declined(by="B")).outcome == "refused(no_request)"


# --- What cannot be read ---------------------------------------------------------------------------------------------


def test_the_list_is_incomplete_since_the_first_record_that_could_not_be_read() -> None:
    world = given(issued())
    outcome = world.park(at(1)).outcome
    world.park(at(2))
    assert (outcome, world.meta.incomplete_since_ms) == ("parked", at(1))


def test_each_record_that_could_not_be_read_is_remembered() -> None:
    world = World()
    known = len(world.memory)
    world.park()
    world.park()
    assert len(world.memory) == known + 2


def test_claims_are_applied_with_a_flag_while_the_list_is_incomplete() -> None:
    world = given(issued())
    world.park()
    assert world.when(claimed()).flags == {Flag.LIST_INCOMPLETE}


def test_later_events_go_on() -> None:
    world = given(issued())
    world.park()
    given(issued("R2", "T2"), claimed("R2"), world=world)
    assert world.status("R2") == "U"


def test_an_incomplete_list_is_not_confirmed() -> None:
    world = given(issued())
    world.park()
    assert world.when(reconciled(world.meta.version)).outcome == "refused(list_incomplete)"
