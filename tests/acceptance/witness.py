"""A scenario after one of its steps, whoever plays it: what the judges said, what readers see, and who was told what."""

from collections.abc import Iterator
from typing import Any, Protocol

from tests.acceptance.plain_checks import Judged, Seen
from tests.acceptance.translate import Step


class Witness(Seen, Protocol):
    """What the checks of the header's words look at: `Seen`, and more of it."""

    version_before: int
    """What the list of the step's patient said before it; -1 before the first."""

    @property
    def step(self) -> Step:
        """The present one."""

    def found(self) -> list[dict[str, Any]]:
        """What the step's search found."""

    def told(self) -> list[str] | None:
        """Every notice so far, as "kind to whom about what"; None where that is known at the end alone."""

    def orders(self) -> list[str] | None:
        """Every dispense order so far, as "whom about what"; None where that is known at the end alone."""

    def defer(self, sentence: str) -> None:
        """Look at a sentence when the scenario has ended."""

    def documents(self) -> list[tuple[int, dict[str, Any]]]:
        """Status and document of every answer to the step; none where no service answers."""

    def has_in_history(self, natural: str) -> bool:
        """Whether the patient's history has an event about this id."""

    def has_raised_an_alarm(self) -> bool:
        """Whether a contradiction of this scenario was told to the operators."""

    def is_unchanged(self) -> bool:
        """Whether the step left everything that is seen of the patient as it was."""


def judged_of(seen: Witness, name: str) -> Judged:
    """What became of the event of this step that has this name, or is about it."""
    natural = seen.play.treatment_named(name) if name.startswith("T") else seen.play.id_of(name)
    for event, judged in zip(seen.step.events, seen.judged(), strict=True):
        if natural in {getattr(event.body, field) for field in event.body.__struct_fields__ if field != "lines"}:
            return judged
    raise AssertionError(f"no event of the step is about {name}")


def entries(seen: Seen) -> list[dict[str, Any]]:
    """Of the list, other prescriptions among them."""
    whole = seen.whole()
    return [*whole.get("treatments", ()), *whole.get("other_prescriptions", ())]


def entry(seen: Seen, name: str) -> dict[str, Any] | None:
    """By its name, or by that of a prescription in it; None when it is not shown."""
    treatment = seen.play.treatment_named(name)
    return next((each for each in entries(seen) if each["treatment"] == treatment), None)


def shown_entry(seen: Seen, name: str) -> dict[str, Any]:
    """One that must be there."""
    found = entry(seen, name)
    assert found is not None, f"{name} is not shown"
    return found


def hand_outs(seen: Seen) -> Iterator[dict[str, Any]]:
    """Every hand-out that the list shows, also of a prescription that nobody has seen."""
    for each in entries(seen):
        for shown in each.get("prescriptions", ()):
            yield from shown.get("hand_outs", ())
    yield from seen.whole().get("unseen_hand_outs", ())


def is_shown(seen: Seen, name: str) -> bool:
    """Whether the list shows what is called so."""
    if name.startswith("T"):
        return entry(seen, name) is not None
    natural = seen.play.id_of(name)
    if name.startswith("R"):
        return natural in {rx["prescription"] for each in entries(seen) for rx in each.get("prescriptions", ())}
    if name.startswith("A"):
        return natural in {each["recorded"]["allergy"] for each in seen.whole().get("allergies", ())}
    return natural in {each["dispense"] for each in hand_outs(seen)}


def hand_out(seen: Seen, name: str) -> dict[str, Any]:
    """One that must be there."""
    natural = seen.play.id_of(name)
    found = next((each for each in hand_outs(seen) if each["dispense"] == natural), None)
    assert found is not None, f"{name} is not shown"
    return found


def flags_of(seen: Seen, name: str) -> set[str]:
    """Those that readers see on a prescription, an entry or a hand-out."""
    if name.startswith("R"):
        return set(seen.prescription(name).get("flags", ()))
    return set((shown_entry if name.startswith("T") else hand_out)(seen, name).get("flags", ()))
