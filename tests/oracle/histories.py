"""Histories by chance: every type of event over a few ids, late, early, repeated and contradicting each other.

For whatever must hold of any history, and to let two folds tell the same story: a seed gives the same one again.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Final

import msgspec

from schemas import events as ev
from schemas.reasons import ParkReason
from tests.oracle.history import Chart, LogRecord, Unreadable
from tests.oracle.naive import fold
from tests.oracle.story import (
    FIRST_DAY,
    METFORMIN,
    WHO,
    at,
    daily,
    hand_out,
    named,
    organisation,
    prescription,
    tablets,
)

DAY_MS: Final = 86_400_000
OTHER_SUBSTANCE: Final = ev.Medication(product=ev.Substance(name="Glimepiride"), form="tablet", atc="A10BB12")
PACKED: Final = ev.Medication(
    product=ev.Package(item_number="123456", name="Metformin", content=tablets(30)), form="tablet", atc="A10BA02"
)
UNSTATED: Final = ev.Medication(
    product=ev.Package(item_number="654321", name="Metformin"), form="tablet", atc="A10BA02", strength="500 mg"
)
"""A package that does not say what it holds."""
REASON: Final = "by chance"
NO_WHOLE_LIST: Final = -2
"""Confirmed by who read a list with something parked; here also by who read one of long ago."""
VALID_DAYS: Final = {False: (-3, 0, 10, 30, 90, 365), True: (10, 90, 90, 365)}
SELDOM_WHERE_CALM: Final = 0.3
"""Of what ends a treatment or a patient's life, and so most of what could follow."""


class Dice:
    """What the makers below draw from: a few ids of each kind, days around today."""

    def __init__(self, dice: random.Random, *, is_calm: bool = False) -> None:
        self.dice = dice
        self.is_calm = is_calm
        """Whether most of what is named is there and in order, so that what lies beyond the first irregularity is reached."""
        self.today = 0
        self.now_ms = 0
        self.version = -1
        self.claims: list[str] = []
        self.used: Counter[str] = Counter()
        """How many ids of a kind were given out: were there only a few, most of a history would be conflicts."""

    def one(self, *choices: Any) -> Any:
        """One of them."""
        return self.dice.choice(choices)

    def often(self, share: float) -> bool:
        """True in that share of cases."""
        return self.dice.random() < share

    def name(self, letter: str, many: int) -> str:
        """An id of one kind."""
        return named(f"{letter}{self.dice.randrange(many)}")

    def new(self, letter: str) -> int:
        """The number of a thing that is made: seldom one that was there before."""
        if self.used[letter] and self.often(0.12):
            return self.dice.randrange(self.used[letter])
        self.used[letter] += 1
        return self.used[letter] - 1

    def late(self, letter: str) -> int:
        """The number of one of the last things that were made, or of the one that comes next."""
        behind = (1, 1, 1, 1, 1, 2, 2, 3) if self.is_calm else (0, 1, 1, 1, 1, 2, 2, 4)
        return max(0, self.used[letter] - self.dice.choice(behind))

    def rx(self) -> str:
        """A prescription's id."""
        return named(f"R{self.late('R')}")

    def new_claim(self) -> str:
        """A claim's id, seldom one that was there before."""
        self.claims.append(named(f"C{len(self.claims)}"))
        return self.claims[-1] if self.often(0.97) else self.claims[0]

    def late_claim(self) -> str:
        """One of the last claims."""
        return self.dice.choice(self.claims[-1 if self.is_calm else -4 :]) if self.claims else named("C0")

    def treatment(self) -> str:
        """A treatment's id."""
        return self.name("T", 3)

    def day(self, spread: int = 20) -> date:
        """A day around today."""
        return FIRST_DAY + timedelta(days=self.today + self.dice.randint(-spread, spread))

    def moment(self) -> int:
        """An instant of the last days."""
        ago = self.dice.randint(0, 3 if self.is_calm else 12)
        return at(max(0, self.today - ago), self.one("09:00", "09:00", "00:10", "23:50"))


def _issued(dice: Dice) -> ev.PrescriptionIssued:
    index = dice.new("R")
    packs = dice.often(0.2)
    quantity = ev.Quantity(value=Decimal(1), unit="package") if packs else tablets(dice.one(30, 100, 98))
    course = dice.often(0.2)
    return prescription(
        f"R{index}",
        f"T{index % 3}",
        issued_at_ms=dice.moment(),
        valid_until=FIRST_DAY + timedelta(days=dice.today + dice.one(*VALID_DAYS[dice.is_calm])),
        quantity=quantity,
        refills=dice.one(0, 1, 3),
        medication=dice.one(PACKED, PACKED, UNSTATED)
        if packs
        else dice.one(METFORMIN, METFORMIN, METFORMIN, OTHER_SUBSTANCE, PACKED),
        dosing=daily(dice.one("1", "2"), FIRST_DAY, dice.day()) if course else daily(),
        use="course" if course else dice.one("regular", "regular", "regular", "vaccine"),
        item_group=dice.one("medicine", "medicine", "medicine", "nutrition"),
        earliest_dispense=dice.day() if dice.often(0.3) else None,
        renews=dice.rx() if dice.often(0.2) else None,
        series_id=dice.one(None, None, None, None, named("S1"), named("S2")),
        substitution_reserved=dice.often(0.2),
        multidose=dice.often(0.2),
    )


def _handed_out(dice: Dice) -> ev.MedicationDispensed:
    lines = tuple(_line(dice) for _ in range(dice.one(1, 1, 1, 2)))
    completed = dice.often(0.1 if dice.is_calm else 0.2)
    changed: dict[str, Any] = {"lines": lines, "period_completed": dice.often(0.5), "completed": completed}
    return hand_out(f"D{dice.new('D')}", f"R{dice.late('R')}", **changed)


def _line(dice: Dice) -> ev.DispensedLine:
    packages = ev.Quantity(value=Decimal(dice.one(1, 1, 2)), unit="package")
    content = dice.one(tablets(30), tablets(30), tablets(50), ev.Quantity(value=Decimal(100), unit="ml"))
    return ev.DispensedLine(
        quantity=dice.one(tablets(dice.one(10, 27, 30, 60, 98, 100)), packages),
        content=content if dice.often(0.6) else None,
        item_number=dice.one(None, None, "123456", "654321"),
        substituted=dice.often(0.2),
        strength=dice.one("1000 mg", "500mg") if dice.often(0.15) else None,
    )


def _came_back(dice: Dice) -> ev.Quantity:
    packages = ev.Quantity(value=Decimal(1), unit="package")
    millilitres = ev.Quantity(value=Decimal(60), unit="ml")
    came_back: ev.Quantity = dice.one(tablets(5), tablets(20), tablets(40), packages, packages, millilitres)
    return came_back


def _reversed(dice: Dice) -> ev.DispenseReversed:
    came_back = _came_back(dice)
    returned = came_back if dice.often(0.4) else None
    return ev.DispenseReversed(
        reversal=named(f"V{dice.new('V')}"), dispense=named(f"D{dice.late('D')}"), reason=REASON, quantity=returned
    )


def _changed(dice: Dice) -> ev.TreatmentChanged:
    return ev.TreatmentChanged(
        treatment=dice.treatment(),
        reason=REASON,
        dosing=daily(dice.one("1", "3"), end=dice.one(None, dice.day())) if dice.often(0.6) else None,
        indication_text="sugar" if dice.often(0.3) else None,
        substitution_reserved=dice.one(None, dice.often(0.5)),
        administration=dice.one(None, "self", "multidose"),
    )


def _paused(dice: Dice) -> ev.TreatmentPaused:
    start = dice.day(5)
    until = start + timedelta(days=dice.one(0, 7)) if dice.often(0.5) else None
    return ev.TreatmentPaused(treatment=dice.treatment(), start=start, until=until, reason=REASON)


def _stopped(dice: Dice) -> ev.TreatmentDiscontinued:
    return ev.TreatmentDiscontinued(treatment=dice.treatment(), at_ms=dice.moment(), reason="other")


def _reconciled(dice: Dice) -> ev.ListReconciled:
    read_at_ms = dice.now_ms - dice.one(0, 1, 3, 4, 5) * 3_600_000
    version = dice.version if dice.often(0.6) else dice.version - dice.one(1, 2, 5, 15, 60)
    return ev.ListReconciled(read_token=REASON, version=max(NO_WHOLE_LIST, version), read_at_ms=read_at_ms)


def _allergy(dice: Dice) -> ev.AllergyRecorded:
    none = dice.often(0.4)
    return ev.AllergyRecorded(
        allergy=named(f"A{dice.new('A')}"), none_known=none, substance=None if none else dice.one("penicillin", "nuts")
    )


def _multidose(dice: Dice) -> ev.MultidoseAssigned:
    return ev.MultidoseAssigned(
        doctor=dice.one("9144889", "9144900"),
        pharmacy=organisation(dice.one("P", "P", "Q")),
        start=FIRST_DAY,
        packing_days=dice.one(7, 14),
    )


def _dispatched(dice: Dice) -> ev.DispatchRequested:
    to = organisation(dice.one("P", "Q"))
    return ev.DispatchRequested(
        dispatch=named(f"W{dice.new('W')}"), prescription=dice.rx(), pharmacy=to, every=dice.often(0.3)
    )


def _withdrawn(dice: Dice) -> ev.TreatmentWithdrawn:
    return ev.TreatmentWithdrawn(treatment=dice.treatment(), reason=REASON)


def _died(dice: Dice) -> ev.PatientDied:
    return ev.PatientDied(on=dice.day(3))


def _recalled(dice: Dice) -> ev.PrescriptionRecalled:
    return ev.PrescriptionRecalled(prescription=dice.rx(), reason=dice.one("other", "renew"))


Maker = Callable[[Dice], ev.Body]
MAKERS: Final[Mapping[Maker, tuple[int, str]]] = {
    # How often, and who sends it.
    _issued: (12, "A A B B locum"),
    _recalled: (
        5,
        "A B nurse locum",
    ),
    lambda dice: ev.TreatmentRecorded(
        treatment=dice.treatment(),
        kind=dice.one("otc", "paper"),
        medication=dice.one(METFORMIN, OTHER_SUBSTANCE),
        dosing=daily(end=dice.one(None, dice.day())),
        use=dice.one("regular", "course", "vaccine"),
    ): (2, "A"),
    _changed: (4, "A B"),
    _paused: (4, "A B"),
    lambda dice: ev.TreatmentResumed(treatment=dice.treatment(), reason=REASON): (3, "A"),
    _stopped: (4, "A B nurse locum"),
    lambda dice: ev.TreatmentReinstated(treatment=dice.treatment(), reason=REASON): (3, "A"),
    _withdrawn: (2, "A nurse"),
    lambda dice: ev.UseReported(treatment=dice.treatment(), use=dice.one("otherwise", "not_taking"), by="patient"): (
        2,
        "citizen",
    ),
    _reconciled: (3, "A B nurse"),
    _allergy: (3, "A B"),
    lambda dice: ev.AllergyRefuted(allergy=named(f"A{dice.late('A')}"), reason=REASON): (2, "A"),
    _multidose: (3, "A B nurse"),
    lambda _: ev.MultidoseEnded(reason=REASON): (2, "A B P Q"),
    _died: (2, "A"),
    lambda _: ev.DeathRetracted(reason=REASON): (9, "A"),
    lambda dice: ev.ClaimRequested(claim=dice.new_claim(), prescription=dice.rx()): (14, "P Q"),
    lambda dice: ev.ClaimAborted(claim=dice.late_claim(), reason=REASON): (12, "P Q"),
    lambda dice: ev.ClaimReleased(claim=dice.late_claim(), reason=REASON): (4, "operator operator operator P"),
    _handed_out: (14, "P Q"),
    _reversed: (7, "P Q"),
    _dispatched: (7, "citizen"),
    lambda dice: ev.DispatchWithdrawn(prescription=dice.rx(), reason=REASON): (5, "citizen citizen P operator"),
    lambda dice: ev.RenewalRequested(
        request=named(f"Q{dice.new('Q')}"), prescription=dice.rx(), to=organisation(dice.one("A", "B"))
    ): (2, "P citizen"),
    lambda dice: ev.RenewalDeclined(request=named(f"Q{dice.late('Q')}"), reason=REASON): (2, "A B"),
}


SHARE_OF_CALM: Final = 0.5
ENDS: Final = frozenset({_withdrawn, _died, _recalled, _stopped})


def history(seed: int, length: int, patient: str = "0123456789abcdef0123456789abcdef") -> list[LogRecord]:
    """So many records of one patient, over some months; the same for the same seed."""
    source = random.Random(seed)
    dice, records, now_ms = Dice(source, is_calm=source.random() < SHARE_OF_CALM), list[LogRecord](), at(0)
    makers = list(MAKERS)
    weights = [
        often * (SELDOM_WHERE_CALM if dice.is_calm and maker in ENDS else 1) for maker, (often, _) in MAKERS.items()
    ]
    spoiled = source.random() < 0.3
    for offset in range(length):
        now_ms += source.choice((60_000, 3_600_000, DAY_MS, 3 * DAY_MS))
        dice.today = (now_ms - at(0)) // DAY_MS
        maker = source.choices(makers, weights)[0]
        who = source.choice(MAKERS[maker][1].split())
        dice.now_ms = now_ms
        occurred_ms = now_ms if source.random() < 0.7 else max(at(0), now_ms - source.randrange(10 * DAY_MS))
        dice.version = _as_read(fold(records).chart) if maker is _reconciled else -1
        made: ev.Event[ev.Body] = ev.Event(
            event_id=named(f"event {seed} {offset}"),
            patient=patient,
            occurred_at_ms=occurred_ms,
            received_at_ms=now_ms,
            source=WHO[who],
            body=maker(dice),
        )
        event: ev.Event[ev.Body] | Unreadable = made
        if records and source.random() < 0.06:
            event = _repeated(source, source.choice(records).event, made)
        if spoiled and source.random() < 0.03:
            event = Unreadable(ParkReason.UNREADABLE)
        records.append(LogRecord(0, offset, now_ms, event))
    return records


def returns(seed: int, patient: str = "0123456789abcdef0123456789abcdef") -> list[LogRecord]:
    """A prescription, some hand-outs of it and what comes back of them, by chance and in any order of arrival."""
    source = random.Random(seed)
    dice = Dice(source)
    prescribed = source.choice((PACKED, PACKED, UNSTATED, METFORMIN))
    packs = ev.Quantity(value=Decimal(2), unit="package")
    bodies: list[ev.Body] = [
        prescription("R0", medication=prescribed, quantity=source.choice((packs, tablets(60))), refills=1),
        *(
            hand_out(f"D{number}", "R0", lines=tuple(_line(dice) for _ in range(source.choice((1, 1, 2)))))
            for number in range(2)
        ),
        *(
            ev.DispenseReversed(
                reversal=named(f"V{number}"),
                dispense=named(f"D{source.randrange(2)}"),
                reason=REASON,
                quantity=_came_back(dice) if dice.often(0.85) else None,
            )
            for number in range(5)
        ),
    ]
    source.shuffle(bodies)
    return [
        LogRecord(
            0,
            offset,
            at(0) + offset * 60_000,
            ev.Event(
                event_id=named(f"return {seed} {offset}"),
                patient=patient,
                occurred_at_ms=at(0) + offset * 60_000,
                received_at_ms=at(0) + offset * 60_000,
                source=WHO["A" if isinstance(body, ev.PrescriptionIssued) else "P"],
                body=body,
            ),
        )
        for offset, body in enumerate(bodies)
    ]


def _as_read(chart: Chart) -> int:
    """The version that the token of a reading now confirms."""
    return NO_WHOLE_LIST if chart.parked else chart.version


def _repeated(
    source: random.Random, earlier: ev.Event[ev.Body] | Unreadable, new: ev.Event[ev.Body]
) -> ev.Event[ev.Body] | Unreadable:
    """An earlier event once more, its content under a new id, or its id with other content."""
    if isinstance(earlier, Unreadable):
        return earlier
    again: ev.Event[ev.Body] = source.choice(
        (
            earlier,
            msgspec.structs.replace(earlier, event_id=new.event_id),
            msgspec.structs.replace(new, event_id=earlier.event_id),
        )
    )
    return again
