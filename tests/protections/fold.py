"""I8: what keeps the fold from counting twice, and from going by the order of arrival or by what lies between."""

from importlib import import_module
from typing import Any, Final

from msgspec.structs import replace

from schemas.reasons import Flag
from services.medication_list.fold import Judgement, dispensing, patient, prescribing, standing, treating
from services.medication_list.fold.judgement import applied
from services.medication_list.fold.state import HandOut
from tests.protections.registry import instead, mutant

_LAWS: Final = "tests/unit/test_fold_laws.py::"
_ANY_ORDER: Final = f"{_LAWS}test_the_same_facts_in_any_order_of_arrival_come_to_the_same_end"
_evolve: Final[Any] = import_module("services.medication_list.fold.evolve")
"""The module; its package has the function under the same name."""


@mutant("I8", f"{_LAWS}test_hearing_anything_again_changes_nothing")
def duplicate_counted_again() -> None:
    """What is known already is judged once more."""

    def judged(draft: Any, event: Any, _known: Any) -> Judgement:
        verdict = _evolve.judge(draft, event)
        _evolve._close_draft(draft)
        return Judgement(verdict, draft.puts, {}, tuple(draft.effects))

    instead(_evolve, "_seen_before", judged)


@mutant("I8", _ANY_ORDER)
def late_prescription_overwrites_newer() -> None:
    """The entry shows the prescription that came last, and not the one that was signed last."""

    def with_latest(treatment: Any, issued: Any) -> Any:
        return replace(
            treatment, kind="prescribed", newest=issued.prescription, newest_at_ms=issued.issued_at_ms, use=issued.use
        )

    instead(prescribing, "_with_newest", with_latest)


@mutant("I8", _ANY_ORDER)
def late_prescription_not_replaced() -> None:
    """What comes late is not closed by what was signed after it and is here already."""
    instead(prescribing, "_newer_signed", lambda *_: None)


@mutant("I8", _ANY_ORDER)
def stop_closes_only_what_is_there() -> None:
    """A stop recalls what is there, and nothing that was signed before it and comes later."""
    original = prescribing._recalls_on_arrival

    def forgetful(draft: Any, event: Any, treatment: Any, newer: Any) -> Any:
        return original(draft, event, replace(treatment, stops=()), newer)

    instead(prescribing, "_recalls_on_arrival", forgetful)


@mutant("I8", _ANY_ORDER)
def what_overtakes_is_forgotten() -> None:
    """A fact about what nobody has seen yet is taken, flagged, and waits for nothing."""
    for module in (dispensing, patient, prescribing, treating):
        instead(module, "wait", lambda _draft, _awaited, _event, flag: applied(flag))


@mutant("I8", f"{_LAWS}test_the_same_hand_outs_reported_in_any_order_use_up_the_same")
def hand_outs_counted_as_reported() -> None:
    """Periods are used up in the order of the reports, and not of the hand-outs."""

    def when_it_came(hand_out: HandOut) -> tuple[int, str]:
        return hand_out.place, hand_out.dispense

    instead(standing, "_when_it_happened", when_it_came)


@mutant("I8", f"{_LAWS}test_what_lies_between_in_the_log_is_nothing_to_a_patient")
def gap_taken_for_a_loss() -> None:
    """Where another patient's record lies between two of one's own, the list is called incomplete."""
    original = _evolve.judge

    def suspicious(draft: Any, event: Any) -> Any:
        meta, verdict = draft.meta(), original(draft, event)
        return applied(*verdict.flags, Flag.LIST_INCOMPLETE) if draft.offset > meta.position else verdict

    instead(_evolve, "judge", suspicious)
