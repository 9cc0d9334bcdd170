"""What a pharmacy sees of a list in which the patient locked something."""

import pytest

from schemas.medication_list import MedicationList
from services.medication_list.read_api.locked import withheld_from, withheld_of_all, without
from services.medication_list.read_api.view import show
from tests.unit.fold_world import (
    Said,
    World,
    at,
    claimed,
    dispatched,
    dispensed,
    given,
    id_of,
    issued,
    on,
    organisation,
    recorded,
    use_reported,
)


def _seen(world: World, pharmacy: str = "P") -> MedicationList:
    shown = show(world.everything(), world.now_ms)
    return without(shown, withheld_from(shown, organisation(pharmacy)))


def _entries(world: World, pharmacy: str = "P") -> dict[str, list[str]]:
    return {
        entry.treatment: [each.prescription for each in entry.prescriptions]
        for entry in _seen(world, pharmacy).treatments
    }


def test_what_is_not_locked_is_shown_as_it_stands() -> None:
    world = given(issued("R1", "T1"), recorded("T2"))
    assert _seen(world) == show(world.everything(), world.now_ms)


def test_an_entry_of_what_is_locked_is_not_shown_and_all_else_is() -> None:
    world = given(issued("R1", "T1", locked=True), issued("R2", "T2"))
    assert _entries(world) == {id_of("T2"): [id_of("R2")]}


@pytest.mark.parametrize("then", [claimed(by="P"), dispatched(to="P"), dispensed(by="P")])
def test_the_pharmacy_that_has_to_do_with_it_sees_it_and_others_do_not(then: Said) -> None:
    world = given(issued("R1", "T1", locked=True), then)
    assert (_entries(world, "P"), _entries(world, "Q")) == ({id_of("T1"): [id_of("R1")]}, {})


def test_an_older_one_that_was_locked_is_left_out_of_an_entry_that_is_open_now() -> None:
    world = given(issued("R1", "T1", locked=True, at_ms=at(0)), dispensed(by="Q"), issued("R2", "T1", at_ms=at(1)))
    assert _entries(world) == {id_of("T1"): [id_of("R2")]}
    (entry,) = _seen(world).treatments
    assert entry.last_dispense is None


def test_an_entry_is_not_shown_while_a_locked_one_of_it_can_be_dispensed() -> None:
    world = given(issued("R1", "T1", locked=True, at_ms=at(0)), issued("R2", "T1", earliest=on(60), at_ms=at(1)))
    assert _entries(world) == {}


def test_the_history_leaves_out_whatever_names_it() -> None:
    world = given(issued("R1", "T1", locked=True), issued("R2", "T2"))
    withheld = withheld_of_all(world.everything(), world.now_ms, organisation("P"))
    said = [claimed("R1"), use_reported("T1"), issued("R9", "T9", renews="R1"), claimed("R2"), use_reported("T2")]
    assert [withheld.is_about(each.body) for each in said] == [True, True, True, False, False]
