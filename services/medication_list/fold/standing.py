"""A prescription's status: computed from holder, hand-outs and recalls, never stored."""

from collections.abc import Sequence
from decimal import Decimal
from operator import attrgetter
from typing import Final, NamedTuple

from schemas.events import DispensedLine, MedicationDispensed, Package, PrescriptionIssued
from services.medication_list.fold.policy import PERIOD_TOLERANCE
from services.medication_list.fold.state import Death, HandOut, PrescriptionState

NEVER = 1 << 62
NOTHING = Decimal(0)
ENOUGH_OF_A_PERIOD = 1 - PERIOD_TOLERANCE
TOO_MUCH = 1 + PERIOD_TOLERANCE
_when_it_happened: Final = attrgetter("occurred_at_ms", "dispense")


class Usage(NamedTuple):
    """What the hand-outs that stand have used: periods, amount in the counting unit, and which of them completed."""

    periods: int
    amount: Decimal
    completions: tuple[HandOut, ...] = ()

    @property
    def completed_at(self) -> int:
        """Place in the log of the first completion; NEVER if none stands."""
        return min((each.place for each in self.completions), default=NEVER)


UNUSED = Usage(0, NOTHING)


def usage(prescription: PrescriptionState) -> Usage:
    """Walks the standing hand-outs in the order in which they happened: the same ones, reported in any order, use the same.

    A hand-out that says completed completes, and so does the one with whose report the last period was used up.
    """
    if not prescription.hand_outs:
        return UNUSED
    standing = [each for each in prescription.hand_outs if not each.reversed]
    if not standing:
        return UNUSED
    periods, amount = _used(prescription, standing)
    used_up_by = _report_that_used_up(prescription, standing) if periods > prescription.refills else None
    completions = tuple([each for each in standing if each.completed or each is used_up_by])
    return Usage(min(periods, prescription.refills + 1), amount, completions)


def _used(prescription: PrescriptionState, standing: Sequence[HandOut]) -> tuple[int, Decimal]:
    """Periods used up, and the amount in all.

    An exact or larger amount uses up the period, and what is over counts towards the next. Up to 10 % short, or not
    comparable, the pharmacist's `period_completed` decides.
    """
    periods, total, current = 0, NOTHING, NOTHING
    for hand_out in sorted(standing, key=_when_it_happened) if len(standing) > 1 else standing:
        before = periods
        total += hand_out.amount
        current += hand_out.amount
        if current >= prescription.amount:
            periods += int(current // prescription.amount)
            current %= prescription.amount
        if hand_out.period_completed:
            is_enough = current >= prescription.amount * ENOUGH_OF_A_PERIOD
            if is_enough or (not hand_out.is_comparable and periods == before):
                periods, current = periods + 1, NOTHING
    return periods, total


def _report_that_used_up(prescription: PrescriptionState, standing: list[HandOut]) -> HandOut:
    """The first in log order that, with those reported before it, leaves no period."""
    for count, hand_out in enumerate(standing, start=1):
        periods, _ = _used(prescription, standing[:count])
        if periods > prescription.refills:
            return hand_out
    raise AssertionError("all of them together use it up")


def total_of(prescription: PrescriptionState) -> Decimal:
    """All that may be handed out, in the counting unit."""
    return prescription.amount * (prescription.refills + 1)


def first_recall(prescription: PrescriptionState, death: Death | None, at_ms: int) -> int:
    """Place of the first recall in effect at that time; NEVER if none. A death recalls until it is retracted."""
    place = death.place if death is not None else NEVER
    for recall in prescription.recalls:
        if recall.place < place and recall.from_ms <= at_ms:
            place = recall.place
    return place


def status(prescription: PrescriptionState, death: Death | None, at_ms: int) -> str:
    """E, U, R, T or F: held is U; else the first closer in effect, in log order, decides; else validity."""
    return "U" if prescription.claim is not None else status_unheld(prescription, death, at_ms)


def status_unheld(prescription: PrescriptionState, death: Death | None, at_ms: int) -> str:
    """The status if nobody held it."""
    completed_at = usage(prescription).completed_at if prescription.hand_outs else NEVER
    recalled_at = first_recall(prescription, death, at_ms)
    if completed_at < recalled_at:
        return "R"
    if recalled_at < NEVER:
        return "T"
    return "F" if at_ms >= prescription.valid_until_ms else "E"


def counting_unit(issued: PrescriptionIssued) -> tuple[str, Decimal, Decimal | None]:
    """(unit, amount of one period, content of one package): packages convert by their stated content."""
    unit, amount = issued.quantity.unit, issued.quantity.value
    product = issued.medication.product
    content = product.content if isinstance(product, Package) else None
    if unit == "package" and content is not None:
        return content.unit, amount * content.value, content.value
    if content is not None and content.unit == unit:
        return unit, amount, content.value
    return unit, amount, None


def amount_of(report: MedicationDispensed, prescription: PrescriptionState) -> tuple[Decimal, bool]:
    """What a report handed out in the prescription's counting unit, and whether all of it is comparable with it."""
    total, is_comparable = NOTHING, True
    for line in report.lines:
        amount = _amount_of_line(line, prescription)
        if amount is None:
            is_comparable = False
        else:
            total += amount
    return total, is_comparable


def _amount_of_line(line: DispensedLine, prescription: PrescriptionState) -> Decimal | None:
    if _is_of_another_strength(line, prescription):
        return None
    if line.quantity.unit == prescription.unit:
        return line.quantity.value
    if line.quantity.unit != "package":
        return None
    content = content_of(line, prescription)
    return line.quantity.value * content[1] if content is not None and content[0] == prescription.unit else None


def content_of(line: DispensedLine, prescription: PrescriptionState | None) -> tuple[str, Decimal] | None:
    """What a package of it holds, as (unit, value): by its own word, else what the prescribed one holds.

    None where nobody says so: a line that names another product or strength is not the prescribed one.
    """
    if line.content is not None:
        return line.content.unit, line.content.value
    if prescription is None or prescription.package_content is None:
        return None
    if line.item_number not in (None, prescription.item_number) or _is_of_another_strength(line, prescription):
        return None
    return prescription.unit, prescription.package_content


def _is_of_another_strength(line: DispensedLine, prescription: PrescriptionState) -> bool:
    stated, prescribed = line.strength, prescription.strength
    return bool(stated and prescribed and stated != prescribed and _spelled(stated) != _spelled(prescribed))


def _spelled(strength: str) -> str:
    """A strength without the differences of spelling that mean nothing: "500 mg", "500mg", "0,5 g" stays another."""
    return strength.casefold().replace(" ", "").replace("\N{NO-BREAK SPACE}", "").replace(",", ".")
