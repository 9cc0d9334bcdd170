"""How much was handed out of a prescription: amounts in one unit, and the periods that they use up."""

from collections.abc import Iterable, Iterator, Sequence
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
    if _is_another_strength(issued, line):
        return None
    measured = measure(issued)
    if measured.unit == "package" and line.quantity.unit != "package":
        return None
    return in_unit(line.quantity, measured.unit, line.content or _content_if_the_same(issued, line))


def _is_another_strength(issued: PrescriptionIssued, line: DispensedLine) -> bool:
    prescribed = issued.medication.strength
    return line.strength is not None and prescribed is not None and _spelled(line.strength) != _spelled(prescribed)


def _content_if_the_same(issued: PrescriptionIssued, line: DispensedLine) -> Quantity | None:
    """What the prescribed package says that it holds, of a line that does not name another one."""
    product = issued.medication.product
    if not isinstance(product, Package) or line.item_number not in (None, product.item_number):
        return None
    return product.content


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


def told_content(line: DispensedLine, issued: PrescriptionIssued | None) -> Quantity | None:
    """What a package of a line holds: it says so, or it is the prescribed one, which does; None where nobody tells."""
    if line.content is not None or issued is None or _is_another_strength(issued, line):
        return line.content
    prescribed = _content_if_the_same(issued, line)
    return prescribed if prescribed is not None and prescribed.unit == measure(issued).unit else None


def is_content_unknown(lines: Iterable[DispensedLine], issued: PrescriptionIssued | None) -> bool:
    """Whether packages were handed out of which nobody tells what they hold."""
    return any(line.quantity.unit == "package" and told_content(line, issued) is None for line in lines)


def least_content(lines: Sequence[DispensedLine], issued: PrescriptionIssued | None) -> Quantity | None:
    """What any package holds at least; None where that is not told of every package, of none, or in several units."""
    told = [content for line in lines if (content := told_content(line, issued)) is not None]
    if is_content_unknown(lines, issued) or len({content.unit for content in told}) != 1:
        return None
    return min(told, key=lambda content: content.value)


def handed_in(lines: Sequence[DispensedLine], unit: str, issued: PrescriptionIssued | None) -> Decimal | None:
    """What was handed out in a unit, packages also by what they hold; None when nothing was, or nobody knows."""
    if unit != "package" and is_content_unknown(lines, issued):
        return None
    amounts: list[Decimal] = []
    for line in lines:
        content = told_content(line, issued)
        if line.quantity.unit == unit:
            amounts.append(line.quantity.value)
        elif line.quantity.unit == "package" and content is not None and content.unit == unit:
            amounts.append(line.quantity.value * content.value)
    return sum(amounts, Decimal(0)) if amounts else None


def in_content(returned: Quantity, unit: str, content: Quantity | None) -> Decimal:
    """What came back in a unit, packages by what one holds at least; nothing where it cannot be compared."""
    if returned.unit == unit:
        return returned.value
    if returned.unit == "package" and content is not None and content.unit == unit:
        return returned.value * content.value
    return Decimal(0)
