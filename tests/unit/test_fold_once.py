"""The same event twice, the same thing twice, and the same id with other content."""

import pytest

from schemas import events as ev
from schemas.reasons import Reason
from tests.unit.fold_world import (
    Said,
    World,
    allergic,
    at,
    claimed,
    dispatched,
    dispensed,
    given,
    id_of,
    issued,
    multidose,
    recorded,
    renewal_requested,
    reversed_,
    tablets,
)

NATURAL = [
    (issued(), issued(refills=1)),
    (recorded(), recorded(kind="supplement")),
    (claimed(), claimed("R2")),
    (dispensed(), dispensed(quantity=tablets(10))),
    (reversed_(), reversed_(returned=tablets(1))),
    (dispatched(), dispatched(to="Q", dispatch="dispatch of R1 to P")),
    (allergic(), allergic(substance="nuts")),
    (renewal_requested(), renewal_requested(to="B")),
]


def _prepared(first: Said) -> World:
    """A world in which it can be applied."""
    world = World()
    if not isinstance(first.body, ev.PrescriptionIssued | ev.TreatmentRecorded):
        given(issued(), issued("R2", "T2"), world=world)
    if isinstance(first.body, ev.DispenseReversed):
        given(dispensed(), world=world)
    return world


@pytest.mark.parametrize(("first", "other"), NATURAL)
def test_the_same_event_again_changes_nothing(first: Said, other: Said) -> None:
    assert first.body != other.body
    world = given(first, world=_prepared(first))
    before = dict(world.fields)
    then = world.again(world.last)
    assert (then.outcome, then.judgement.effects, then.judgement.remember) == ("duplicate", (), {})
    assert {name for name in world.fields if world.fields[name] != before.get(name)} == {"meta"}


@pytest.mark.parametrize(("first", "other"), NATURAL)
def test_the_same_thing_under_a_new_event_id_changes_nothing(first: Said, other: Said) -> None:
    assert first.body != other.body
    world = given(first, world=_prepared(first))
    before = dict(world.fields)
    then = world.again(world.last, event_id=id_of("another event"))
    assert (then.outcome, then.judgement.effects) == ("duplicate", ())
    assert {name for name in world.fields if world.fields[name] != before.get(name)} == {"meta"}


@pytest.mark.parametrize(("first", "other"), NATURAL)
def test_the_same_natural_id_with_other_content_is_refused(first: Said, other: Said) -> None:
    world = given(first, world=_prepared(first))
    then = world.when(other)
    assert (then.outcome, then.judgement.effects) == ("refused(conflicting_duplicate)", ())


def test_the_same_event_id_with_other_content_is_refused() -> None:
    world = given(issued())
    said = Said("A", issued("R2").body, event_id=world.last.event_id)
    assert world.when(said).outcome == "refused(conflicting_duplicate)"
    assert not world.knows("R2")


def test_the_same_report_by_another_organisation_is_other_content() -> None:
    world = given(issued(), dispensed(by="P"))
    assert world.when(dispensed(by="Q")).outcome == "refused(conflicting_duplicate)"


def test_a_conflicting_report_of_a_hand_out_is_shown_once() -> None:
    world = given(issued(), dispensed())
    version = world.meta.version
    world.when(dispensed(quantity=tablets(10)))
    conflicting = world.last
    moved = world.meta.version
    fields = dict(world.fields)
    world.again(conflicting)
    assert (moved > version, world.meta.version) == (True, moved)
    assert {name for name in fields if fields[name] != world.fields[name]} == {"meta"}


def test_a_conflicting_report_before_the_prescription_is_kept() -> None:
    world = given(dispensed())
    before = world.fields[f"out:{id_of('D1')}"]
    assert world.when(dispensed(quantity=tablets(10))).outcome == "refused(conflicting_duplicate)"
    assert world.fields[f"out:{id_of('D1')}"] != before


def test_text_in_another_unicode_form_is_the_same_text() -> None:
    world = given(issued(note="na\u00efve"))
    said = issued(note="nai\u0308ve")
    assert world.when(said).outcome == "duplicate"


def test_a_refused_event_stays_refused() -> None:
    world = given(issued(), claimed(by="P"))
    world.when(claimed(claim="C2", by="Q"))
    first = world.again(world.last).judgement.first
    assert first is not None
    assert first.reason == Reason.HELD.code


def test_a_refused_claim_id_is_spent() -> None:
    world = given(issued(), claimed(by="P"))
    world.when(claimed(claim="C2", by="Q"))
    world.when(dispensed())
    assert world.when(claimed(claim="C2", by="Q")).outcome == "duplicate"
    assert world.when(claimed(claim="C3", by="Q")).outcome == "applied"


def test_a_hand_out_delivered_again_after_its_reversal_stays_reversed() -> None:
    world = given(issued(refills=0), claimed(), dispensed(completed=True))
    report = world.last
    given(reversed_(), world=world)
    assert (world.again(report).outcome, world.status(), world.handed_out()) == ("duplicate", "E", 0)


def test_the_same_assignment_to_multidose_is_said_once() -> None:
    world = given(multidose("P"))
    version = world.meta.version
    assert (world.when(multidose("P")).outcome, world.meta.version) == ("duplicate", version)


def test_ids_of_different_kinds_do_not_meet() -> None:
    world = given(issued("same", "same"), claimed("same", claim="same"), dispensed("same", rx="same"))
    assert world.when(reversed_("same", reversal="same")).outcome == "applied"


def test_an_event_long_ago_is_still_known() -> None:
    world = given(issued(at_ms=at(0)))
    first = world.last
    for day in range(1, 60):
        world.when(recorded(f"T{day}", at_ms=at(day)))
    assert world.again(first).outcome == "duplicate"
