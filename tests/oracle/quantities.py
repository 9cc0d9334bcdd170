"""How much was handed out of a prescription: amounts in one unit, and the periods that they use up."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal

from schemas.events import DispensedLine, MedicationDispensed, Package, PrescriptionIssued, Quantity

MAY_BE_SHORT = Decimal("0.9")
MAY_BE_OVER = Decimal("1.1")


@dataclass(frozen=True, slots=True)
class Measure:
    """What one prescription is measured in: a prescription of packages of stated content is measured by content."""

    unit: str
    per_prescribed: Decimal

    def shown(self, amount: Decimal) -> Decimal:
        """An amount in the prescription's own unit, to four places."""
        return amount if self.per_prescribed == 1 else (amount / self.per_prescribed).quantize(Decimal("0.0001"))


@dataclass(frozen=True, slots=True)
class Use:
    """What the hand-outs so far add up to: periods used up whole, and the amount in the period begun."""

    periods: int = 0
    begun: Decimal = Decimal(0)
    handed_out: Decimal = Decimal(0)


def measure(issued: PrescriptionIssued) -> Measure:
    """The unit to compare in, and how much of it one prescribed unit is."""
    product = issued.medication.product
    if issued.quantity.unit == "package" and isinstance(product, Package) and product.content is not None:
        return Measure(product.content.unit, product.content.value)
    return Measure(issued.quantity.unit, Decimal(1))


def period_of(issued: PrescriptionIssued) -> Decimal:
    """What one period holds, in the unit of comparison."""
    return issued.quantity.value * measure(issued).per_prescribed


def in_unit(amount: Quantity, unit: str, content: Quantity | None) -> Decimal | None:
    """An amount in another unit, through what a package holds; None if they cannot be compared."""
    if amount.unit == unit:
        return amount.value
    if amount.unit == "package" and content is not None and content.unit == unit:
        return amount.value * content.value
    if unit == "package" and content is not None and content.unit == amount.unit:
        return amount.value / content.value
    return None


def line_amount(issued: PrescriptionIssued, line: DispensedLine) -> Decimal | None:
    """One line in the prescription's unit of comparison; None when it is not comparable."""
    prescribed = issued.medication.strength
    if line.strength is not None and prescribed is not None and _spelled(line.strength) != _spelled(prescribed):
        return None
    measured = measure(issued)
    if measured.unit == "package" and line.quantity.unit != "package":
        return None
    return in_unit(line.quantity, measured.unit, line.content or _content_if_the_same(issued, line))


def _content_if_the_same(issued: PrescriptionIssued, line: DispensedLine) -> Quantity | None:
    """What the prescribed package says that it holds, of a line that does not name another one."""
    product = issued.medication.product
    is_same = isinstance(product, Package) and line.item_number in (None, product.item_number)
    return content_prescribed(issued) if is_same else None


def content_prescribed(issued: PrescriptionIssued) -> Quantity | None:
    """What the prescribed package says that it holds; None of anything else."""
    product = issued.medication.product
    return product.content if isinstance(product, Package) else None


def _spelled(strength: str) -> str:
    """Without what is only spelling: 500 mg is 500mg, and 0,5 g is 0.5 G."""
    return "".join(strength.casefold().split()).replace(",", ".")


def amount_of(issued: PrescriptionIssued, handed: MedicationDispensed) -> tuple[Decimal, bool]:
    """What one hand-out adds, as far as comparable, and whether all of it is."""
    amounts = [line_amount(issued, line) for line in handed.lines]
    known = [amount for amount in amounts if amount is not None]
    return sum(known, Decimal(0)), len(known) == len(amounts)


def uses(issued: PrescriptionIssued, hand_outs: Iterable[MedicationDispensed]) -> Iterator[Use]:
    """The running use after each hand-out, in log order."""
    period, use = period_of(issued), Use()
    for handed in hand_outs:
        amount, comparable = amount_of(issued, handed)
        whole, begun = divmod(use.begun + amount, period)
        periods = use.periods + int(whole)
        if (handed.period_completed and not comparable and whole == 0) or (
            handed.period_completed and begun >= period * MAY_BE_SHORT
        ):
            periods, begun = periods + 1, Decimal(0)
        use = Use(periods, begun, use.handed_out + amount)
        yield use


def use_after(issued: PrescriptionIssued, hand_outs: Iterable[MedicationDispensed]) -> Use:
    """The use after all of them."""
    use = Use()
    for use in uses(issued, hand_outs):  # noqa: B007  # the last one is what is asked for
        pass
    return use


def periods_left(issued: PrescriptionIssued, use: Use) -> int:
    """How many periods are still there to dispense."""
    return max(0, issued.refills + 1 - use.periods)


def is_over(issued: PrescriptionIssued, handed_out: Decimal) -> bool:
    """More than ten per cent over the whole of the prescription."""
    return handed_out > period_of(issued) * (issued.refills + 1) * MAY_BE_OVER


def least_content(lines: Iterable[DispensedLine]) -> Quantity | None:
    """What any package holds at least; None where no line says so, or they say it in several units."""
    contents = [line.content for line in lines if line.content is not None]
    if len({content.unit for content in contents}) != 1:
        return None
    return min(contents, key=lambda content: content.value)


def handed_in(lines: Iterable[DispensedLine], unit: str) -> Decimal | None:
    """What was handed out in a unit, packages also by what they hold; None when nothing was."""
    amounts = [line.quantity.value for line in lines if line.quantity.unit == unit]
    amounts += [
        line.quantity.value * line.content.value
        for line in lines
        if unit != "package"
        and line.quantity.unit == "package"
        and line.content is not None
        and line.content.unit == unit
    ]
    return sum(amounts, Decimal(0)) if amounts else None


def in_content(returned: Quantity, unit: str, content: Quantity | None) -> Decimal:
    """What came back in a unit, packages by what one holds at least; nothing where it cannot be compared."""
    if returned.unit == unit:
        return returned.value
    if returned.unit == "package" and content is not None and content.unit == unit:
        return returned.value * content.value
    return Decimal(0)
