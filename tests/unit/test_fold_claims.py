"""Claims: who gets a prescription to itself, who does not, and why."""

import pytest

from schemas.reasons import NoticeKind
from tests.unit.fold_world import (
    MINUTE_MS,
    aborted,
    at,
    changed,
    claimed,
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
    paused,
    recalled,
    released,
)


def test_a_refused_claim_names_the_holder() -> None:
    then = given(issued(), claimed(by="P")).when(claimed(claim="C2", by="Q"))
    assert (then.outcome, then.named) == ("refused(held)", organisation("P"))


def test_a_refused_claim_leaves_no_trace_but_its_memory() -> None:
    world = given(issued(), claimed(by="P"))
    before = dict(world.fields)
    world.when(claimed(claim="C2", by="Q"))
    assert {name for name in world.fields if world.fields[name] != before.get(name)} == {"meta"}


def test_a_claim_before_the_earliest_date_names_the_date() -> None:
    then = given(issued(earliest=on(90))).when(claimed(at_ms=at(89, 23, 59)))
    assert (then.outcome, then.named) == ("refused(too_early)", on(90).isoformat())


def test_the_earliest_date_begins_at_midnight_in_oslo() -> None:
    assert given(issued(earliest=on(90))).when(claimed(at_ms=at(90, 0))).outcome == "applied"


def test_a_claim_is_judged_by_when_it_was_received() -> None:
    world = given(issued(valid_until=on(1)))
    said = claimed(at_ms=at(1, 23, 55))
    late = type(said)(said.by, said.body, said.at_ms, at(2, 0, 5))
    assert world.when(late).outcome == "refused(expired)"


def test_the_bound_pharmacy_is_named_to_others() -> None:
    then = given(issued(), dispatched(to="P")).when(claimed(by="Q"))
    assert (then.outcome, then.named) == ("refused(dispatched_to)", organisation("P"))


def test_held_goes_before_everything_but_death() -> None:
    world = given(
        issued(valid_until=on(2)), claimed(at_ms=at(1)), discontinued(at_ms=at(1, 9)), recalled(at_ms=at(1, 10))
    )
    assert world.when(claimed(claim="C2", by="Q", at_ms=at(5))).outcome == "refused(held)"


def test_completed_goes_before_expired() -> None:
    world = given(issued(refills=0, valid_until=on(2)), dispensed(at_ms=at(1)))
    assert world.when(claimed(at_ms=at(5))).outcome == "refused(completed)"


def test_expired_goes_before_dispatched_to_and_too_early() -> None:
    world = given(issued(valid_until=on(2), earliest=on(9)), dispatched(to="Q", at_ms=at(1)))
    assert world.when(claimed(at_ms=at(5))).outcome == "refused(expired)"


def test_dispatched_to_goes_before_too_early() -> None:
    world = given(issued(earliest=on(9)), dispatched(to="Q", at_ms=at(1)))
    assert world.when(claimed(at_ms=at(5))).outcome == "refused(dispatched_to)"


def test_a_changed_dosing_is_flagged_on_the_claim() -> None:
    world = given(issued(at_ms=at(0)), changed(at_ms=at(1)))
    assert world.when(claimed(at_ms=at(2))).flags == {"dosing_changed"}


def test_a_prescription_signed_after_the_change_has_its_own_dosing() -> None:
    world = given(issued(at_ms=at(0)), changed(at_ms=at(1)), issued("R2", at_ms=at(2)))
    assert world.when(claimed("R2", at_ms=at(3))).flags == set()


def test_a_change_of_something_else_is_no_change_of_dosing() -> None:
    world = given(issued(at_ms=at(0)), changed(indication_text="high blood sugar", at_ms=at(1)))
    assert world.when(claimed(at_ms=at(2))).flags == set()


def test_a_pause_is_flagged_only_while_it_lasts() -> None:
    world = given(issued(), paused(start=on(2), until=on(4)))
    flags = [world.when(claimed(claim=f"C{day}", at_ms=at(day))).flags for day in (1,)]
    world = given(issued(), paused(start=on(2), until=on(4)))
    flags.append(world.when(claimed(at_ms=at(4, 23))).flags)
    world = given(issued(), paused(start=on(2), until=on(4)))
    flags.append(world.when(claimed(at_ms=at(5, 0))).flags)
    assert flags == [set(), {"treatment_paused"}, set()]


def test_a_course_is_flagged_after_its_last_day() -> None:
    course = issued(use="course", dosing=dosing(end=on(10)))
    assert given(course).when(claimed(at_ms=at(10, 23))).flags == set()
    assert given(course).when(claimed(at_ms=at(11, 0))).flags == {"course_ended"}


def test_a_use_that_is_no_course_never_ends() -> None:
    assert given(issued(dosing=dosing(end=on(10)))).when(claimed(at_ms=at(50))).flags == set()


@pytest.mark.parametrize(("marked", "flags"), [(True, {"multidose_elsewhere"}), (False, set())])
def test_multidose_elsewhere_is_flagged_on_what_is_packed(marked: bool, flags: set[str]) -> None:  # noqa: FBT001 - a case
    world = given(multidose("P"), issued(multidose=marked))
    assert world.when(claimed(by="Q")).flags == flags


@pytest.mark.parametrize(("administration", "flags"), [("multidose", {"multidose_elsewhere"}), ("self", set())])
def test_multidose_elsewhere_is_flagged_on_what_a_doctor_had_packed_later(administration: str, flags: set[str]) -> None:
    world = given(multidose("P"), issued(), changed(administration="multidose", at_ms=at(1)))
    world.when(changed(administration=administration, at_ms=at(2)))
    assert world.when(claimed(by="Q", at_ms=at(3))).flags == flags


def test_multidose_whose_pharmacy_left_is_nowhere_else() -> None:
    world = given(multidose("P"), multidose_ended(by="P"), issued(multidose=True))
    assert world.when(claimed(by="Q")).flags == set()


def test_an_aborted_claim_sets_the_prescription_free() -> None:
    world = given(issued(), claimed(by="P"), aborted())
    assert (world.status(), world.when(claimed(claim="C2", by="Q")).outcome) == ("E", "applied")


def test_a_claim_cannot_be_aborted_twice() -> None:
    world = given(issued(), claimed(), aborted())
    assert world.when(aborted()).outcome == "refused(no_claim)"


def test_an_older_claim_does_not_end_a_newer_one() -> None:
    world = given(issued(), claimed(claim="C1"), aborted("C1"), claimed(claim="C2"))
    assert world.when(aborted("C1")).outcome == "refused(no_claim)"
    assert world.holder() == "P"


def test_a_release_tells_the_former_holder_why() -> None:
    world = given(issued(), claimed(by="Q"))
    notice = world.when(released()).notice(NoticeKind.CLAIM_RELEASED)
    assert (notice.organisation, notice.reason, notice.subject) == (
        organisation("Q"),
        "pharmacy closed down",
        id_of("C1"),
    )


def test_a_claim_is_released_by_an_operator_alone() -> None:
    world = given(issued(), claimed(by="Q"))
    assert world.when(released(by="P")).outcome == "refused(not_permitted)"


def test_a_held_prescription_that_expires_stays_held() -> None:
    world = given(issued(valid_until=on(10)), claimed(at_ms=at(9)))
    assert (world.status(at_ms=at(11)), world.holder()) == ("U", "P")


def test_a_claim_on_what_is_shown_as_other_prescriptions_is_a_claim_like_any() -> None:
    assert given(issued(item_group="consumable")).when(claimed()).outcome == "applied"


def test_a_refused_claim_stays_refused_when_the_reason_is_gone() -> None:
    world = given(issued(), claimed(by="P"))
    world.when(claimed(claim="C2", by="Q"))
    refused_claim = world.last
    given(aborted("C1"), world=world)
    then = world.again(refused_claim)
    first = then.judgement.first
    assert first is not None
    assert (then.outcome, first.reason, world.status()) == ("duplicate", 4, "E")


def test_time_between_claim_and_answer_does_not_matter_to_the_fold() -> None:
    world = given(issued())
    world.now_ms += 60 * MINUTE_MS
    assert world.when(claimed()).outcome == "applied"
