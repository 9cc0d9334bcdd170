"""What organisations are told: the notices that are always due, and sentences about notices and orders."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from schemas import events as ev
from tests.acceptance.plain_checks import Judged
from tests.acceptance.translate import AS_AN_ID, ORGANISATIONS, AnyEvent, Play, organisation_of
from tests.acceptance.values import NotUnderstoodError
from tests.acceptance.witness import Witness

WHOM: Final = {number: name for name, number in ORGANISATIONS.items()}
ALWAYS_DUE: Final = ("dispensed", "reversed")
"""Kinds that the header has no scenario repeat."""
KINDS: Final[Mapping[str, str]] = {
    "dispensed": r"dispens(?!er|able)|hand(?:ed)?[- ]?out",
    "reversed": r"revers|return|goods|\bV\d|points at D",
    "recalled_by_other": r"recall|renew|replac|discontinu|withdr|death|died",
    "recalled_while_held": r"recall|renew|replac|discontinu|withdr|death|died",
    "recalled_while_dispatched": r"recall|renew|replac|discontinu|withdr|death|died",
    "claim_ended": r"claim.* (?:ended|over|gone)|end.* claim",
    "claim_released": r"releas|freed",
    "order_void": r"void|order|dispatch|no longer tied|lost",
    "prescribed_after_discontinuation": r"stopped it|active again|prescribed|stop",
    "multidose_taken_over": r"multi-?dose|took over|taken over|former|takes over",
    "multidose_part_ended": r"multi-?dose|ended its part|pharmacy ended",
    "renewal_requested": r"renewal|request|asked",
    "renewal_declined": r"declin|no to the request",
    "death_retracted": r"death|retract|alive",
    "outcome_changed": r"outcome",
    "prescription_number_conflict": r"number|two patients",
}
"""By which words a sentence speaks of a kind, besides its name."""
ABOUT_NOTICES: Final = re.compile(r"\b(?:notices?|notified|informed|told|tells|learns)\b")
NUMBERS: Final = {"one": 1, "two": 2, "three": 3, "four": 4}


def name_of(play: Play, natural: str | None) -> str:
    """What the scenario calls an id; the id itself where it has no name for it."""
    names = [*play.sent, *play.patients, *(f"T{number}" for number in range(1, 31))]
    known = {play.id_of(name): name for name in names if re.fullmatch(r"[RTDVX]\d+", name)}
    return known.get(natural or "", str(natural))


def due_to_issuers(play: Play, judged: Iterable[tuple[AnyEvent, Judged]]) -> list[str]:
    """A notice about each hand-out and each reversal, to the organisation that prescribed, once that is known."""
    signed = [event for event in play.sent.values() if isinstance(event.body, ev.PrescriptionIssued)]
    issuers = {getattr(event.body, "prescription", ""): event.source.organisation for event in signed}
    came = [(event, became) for event, became in judged if became.outcome == "applied"]
    handed = {event.body.dispense: event for event, _ in came if isinstance(event.body, ev.MedicationDispensed)}
    whose = {
        dispense: WHOM[issuers[getattr(event.body, "prescription", "")]]
        for dispense, event in handed.items()
        if getattr(event.body, "prescription", "") in issuers
    }
    due = [f"dispensed to {whom} about {name_of(play, dispense)}" for dispense, whom in whose.items()]
    for event, became in came:
        if isinstance(event.body, ev.DispenseReversed) and "already_reversed" not in became.flags:
            dispense = event.body.dispense
            if dispense in whose and handed[dispense].source.organisation == event.source.organisation:
                due.append(f"reversed to {whose[dispense]} about {name_of(play, dispense)}")
    return due


def check_told(scenario: Mapping[str, Any], told: Sequence[str], due: Sequence[str]) -> None:
    """What is always due was told, once each; and nothing else that the scenario has no word for."""
    always = [each for each in told if each.split(" ")[0] in ALWAYS_DUE]
    assert sorted(always) == sorted(due)
    steps = [text for step in scenario["steps"] for text in step["expect"]]
    spoken = [text for text in [*scenario["then"], *steps] if ABOUT_NOTICES.search(text) or _kinds_in(text, named=True)]
    for each in told:
        if each not in always:
            assert any(_speaks_of(text, each) for text in spoken if not _denies(text)), f"nobody expects {each!r}"


# --- Sentences --------------------------------------------------------------------------------------------------------


def check_notice_sentence(seen: Witness, said: re.Match[str]) -> None:
    """Somebody was told, as often as said; or nobody was."""
    told, text = seen.told(), said[0]
    if told is None:
        seen.defer(text)
        return
    if not (_recipients(text) or _kinds_in(text) or _denies(text)):
        raise NotUnderstoodError(f"nobody understands who is told of what by {text!r}")
    if re.search(r"\bno (?:other|further|second|more)\b", text):
        assert len(set(told)) == len(told), "told twice"
        return
    fitting = [each for each in told if _speaks_of(text, each)]
    if _denies(text):
        bare = not (_recipients(text) or _kinds_in(text))
        assert not [each for each in fitting if not bare or each.split(" ")[0] not in ALWAYS_DUE]
        return
    number = re.search(r"\b(one|two|three|four|\d) (?:further )?notices?\b", text)
    assert fitting, f"{text!r}: told were {told}"
    if number is not None:
        assert len(fitting) == NUMBERS.get(number[1], 0) or len(fitting) == int(
            number[1] if number[1].isdigit() else -1
        )


def check_order_sentence(seen: Witness, said: re.Match[str]) -> None:
    """So many orders, at that pharmacy."""
    orders, text = seen.orders(), said[0]
    if orders is None:
        seen.defer(text)
        return
    whom, names = re.findall(r"\b([PQ])\b", text), re.findall(r"\bR\d+\b", text)
    if not whom and seen.step.action == "receives":
        whom = re.findall(r"\b([PQ])\b", seen.step.actor)
    fitting = [
        each
        for each in orders
        if (not whom or each.split(" ")[0] in whom) and (not names or each.split(" ")[-1] in names)
    ]
    number = re.match(r"(?:exactly |only )?(no(?! new| further)|one|two|\d)\b", text)
    if re.match(r"no (?:new|further)", text):
        assert len(orders) == len(set(orders)), "an order went out twice"
        return
    counts = {"no": 0, "one": 1, "two": 2}
    if number is None:
        assert fitting, f"{text!r}: orders were {orders}"
    else:
        assert len(fitting) == (counts[number[1]] if number[1] in counts else int(number[1])), f"orders were {orders}"


def _denies(text: str) -> bool:
    return (
        re.search(
            r"\bno (?:such |further |other |second |more )?notices?\b|\bnobody\b|\bnot (?:told|informed|notified)\b",
            text,
        )
        is not None
    )


def _kinds_in(text: str, *, named: bool = False) -> set[str]:
    """The kinds that a sentence may speak of, by their names or, unless `named`, by what it is about."""
    exact = {kind for kind in KINDS if "_" in kind and kind in text}
    if exact or named:
        return exact
    spoken = {kind for kind, words in KINDS.items() if re.search(words, text)}
    return (
        {"reversed"} if "reversal of" in text else spoken or (set(ALWAYS_DUE) if re.search(r"\bD\d", text) else set())
    )


def _recipients(text: str) -> set[str]:
    """Whom a sentence says to be told."""
    who = r"(?:the )?(?:organisation (?:of )?)?(?:prescriber |doctor |pharmacy )?(O?[ABC]|[PQ])\b"
    found = re.findall(rf"\bto {who}", text) + re.findall(rf"\b{who} (?:is|are|gets|was|were|receives|learns)", text)
    return {organisation_of(name) for name in found + re.findall(rf"\b(?:tells|informs|notifies) {who}", text)}


def _speaks_of(text: str, notice: str) -> bool:
    kind, _, rest = notice.partition(" to ")
    whom, _, about = rest.partition(" about ")
    recipients, kinds = _recipients(text), _kinds_in(text)
    names = set(re.findall(r"\b[RD]\d+\b", text))
    fits_name = (
        not names
        or about in names
        or not AS_AN_ID.fullmatch(about)
        or about[0] in "TQAV"
        or (about[0] == "D" and any(name[0] == "R" for name in names))
    )
    return (not recipients or ORGANISATIONS.get(whom) in recipients) and (not kinds or kind in kinds) and fits_name
