"""What the words of a scenario are worth: times, amounts, doses and codes, in the form of the contract."""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import cache
from typing import Any, Final
from zoneinfo import ZoneInfo

from schemas import events as ev
from schemas.codes import CODES

OSLO: Final = ZoneInfo("Europe/Oslo")
D0: Final = date(2026, 3, 2)
OPENS: Final = time(9)
MINUTE_MS: Final = 60_000
When = str | int | date | datetime
"""As YAML reads it: a date or a timestamp without quotes is one, a time of day such as 10:30 its minutes."""


class NotUnderstoodError(Exception):
    """A scenario says something that the runner has no translation for: that is the runner's lack, not the platform's."""


NO_VALUE: Final = (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, StopIteration, RuntimeError)
"""What comes of a word in a place where it has no meaning."""


# --- Times ------------------------------------------------------------------------------------------------------------

_MOMENT: Final = re.compile(
    r"(?P<day>d0|\d{4}-\d\d-\d\d)?(?P<moves>(?: ?[+-] ?\d+ ?(?:min|[ywdhms]))*)"
    r"(?:,? ?(?:at )?(?P<clock>\d{1,2}:\d\d(?::\d\d)?))?(?P<later>(?: ?[+-] ?\d+ ?(?:min|[hms]))*)"
)
_MOVE: Final = re.compile(r"([+-]) ?(\d+) ?(min|[ywdhms])")
_SECONDS: Final = {"h": 3600, "m": 60, "min": 60, "s": 1}
_DAYS: Final = {"d": 1, "w": 7}


def instant(said: When, now_ms: int | None = None) -> int:
    """Milliseconds of "d0+10d", "d0 08:00", "d0+4h", "2026-06-30T23:50+02:00" or a date; without a time: within working hours.

    "+15m" counts from `now_ms`, where that is known.
    """
    if isinstance(said, str) and now_ms is not None and re.fullmatch(r"(\+ ?\d+ ?(min|[dhms]) ?)+", said.strip()):
        return now_ms + 1000 * sum(_seconds(*move) for move in _MOVE.findall(said))
    return int(_moment(said).astimezone(UTC).timestamp() * 1000)


def calendar_day(said: When) -> date:
    """The date of "d0", "d0+90d" or "2026-06-30", in Oslo."""
    return _moment(said).astimezone(OSLO).date()


def year_later(day: date, years: int = 1) -> date:
    """The same day a year later; a year from 29 February ends on 28 February."""
    try:
        return day.replace(year=day.year + years)
    except ValueError:
        return date(day.year + years, 2, 28)


def _moment(said: When) -> datetime:
    if isinstance(said, datetime):
        return said if said.tzinfo else said.replace(tzinfo=OSLO)
    if isinstance(said, date):
        return datetime.combine(said, OPENS, OSLO)
    if isinstance(said, int):
        return datetime.combine(D0, time(said // 60, said % 60), OSLO)
    found = _MOMENT.fullmatch(said.strip())
    return _iso(said) if found is None or not said.strip() else _of_parts(found)


def _iso(said: str) -> datetime:
    try:
        return _moment(datetime.fromisoformat(said.strip()))
    except ValueError:
        raise NotUnderstoodError(f"{said!r} is no time") from None


def _of_parts(found: re.Match[str]) -> datetime:
    day = D0 if found["day"] in (None, "d0") else date.fromisoformat(found["day"])
    seconds = 0
    for sign, number, unit in _MOVE.findall(found["moves"] + found["later"]):
        if unit == "y":
            day = year_later(day, int(sign + number))
        elif unit in _DAYS:
            day += timedelta(days=int(sign + number) * _DAYS[unit])
        else:
            seconds += _seconds(sign, number, unit)
    return _clock(day, found["clock"]) + timedelta(seconds=seconds)


def _clock(day: date, said: str | None) -> datetime:
    if said == "24:00":
        return datetime.combine(day + timedelta(days=1), time(0), OSLO)
    return datetime.combine(day, time.fromisoformat(said.zfill(5)) if said else OPENS, OSLO)


def _seconds(sign: str, number: str, unit: str) -> int:
    return int(sign + number) * (_SECONDS.get(unit) or 86_400 * _DAYS[unit])


# --- Amounts ----------------------------------------------------------------------------------------------------------

UNITS: Final[Mapping[str, str]] = {
    **{code: code for code in CODES["unit"]},
    **{f"{code}s": code for code in CODES["unit"]},
    "patches": "patch",
    "suppositories": "suppository",
    "vagitories": "vagitory",
    "box": "package",
    "boxes": "package",
    "pack": "package",
    "packs": "package",
    "millilitre": "ml",
    "millilitres": "ml",
    "gram": "g",
    "grams": "g",
    "µg": "microgram",
    "pcs": "piece",
}
NUMBERS: Final[Mapping[str, str]] = {"half a": "0.5", "half": "0.5", "a": "1", "an": "1", "one": "1", "two": "2"} | {
    "three": "3",
    "four": "4",
    "one and a half": "1.5",
    "a quarter of a": "0.25",
}
_NUMBER: Final = rf"-?\d+(?:[.,]\d+)?|{'|'.join(sorted(NUMBERS, key=len, reverse=True))}"
_AMOUNT: Final = re.compile(rf"(?P<value>{_NUMBER})(?: (?P<unit>[^\W\d]+))?(?: (?:of|x|à) (?P<content>.+)| \(.*\))?")
FORMS: Final[Mapping[str, str]] = {
    "capsule": "capsule",
    "ml": "oral_solution",
    "drop": "oral_drops",
    "g": "cream",
    "puff": "inhalation_spray",
    "patch": "patch",
    "suppository": "suppository",
    "vagitory": "vagitory",
    "ampoule": "injection",
    "vial": "injection",
    "syringe": "injection",
    "sachet": "oral_powder",
}
"""In which form a medicine comes that is counted so; everything else is in tablets."""


def quantity(said: object) -> ev.Quantity:
    """An amount, as "100 tablets", "250 ml", "1 package" or, of tablets, 100."""
    return amount(said)[0]


def amount(said: object) -> tuple[ev.Quantity, ev.Quantity | None]:
    """An amount, and what one package of it holds where that is said: "2 packages of 50 tablets"."""
    if isinstance(said, Mapping):
        return ev.Quantity(value=Decimal(str(said["value"])), unit=unit_of(str(said.get("unit", "tablet")))), None
    found = _AMOUNT.fullmatch(str(said).strip())
    if found is None:
        raise NotUnderstoodError(f"{said!r} is no amount")
    content = found["content"]
    unit = unit_of(found["unit"] or ("package" if content else "tablet"))
    return ev.Quantity(value=number(found["value"]), unit=unit), quantity(content) if content else None


def number(said: str) -> Decimal:
    """Of digits or words."""
    return Decimal(NUMBERS.get(said, said).replace(",", "."))


def unit_of(said: str) -> str:
    """Of the contract; one that it does not have stays, for the door to turn away."""
    return UNITS.get(said.lower(), said)


# --- Dosing -----------------------------------------------------------------------------------------------------------

_TIMES: Final = {name: name for name in CODES["time_of_day"]} | {"bedtime": "night", "midday": "noon"}
_TIMES_A_DAY: Final = {1: ("morning",), 2: ("morning", "evening"), 3: ("morning", "noon", "evening")} | {
    4: ("morning", "noon", "afternoon", "evening")
}
_OFTEN: Final = {"once": 1, "twice": 2, "three times": 3, "four times": 4}
_DOSE: Final = re.compile(
    rf"(?P<low>{_NUMBER})(?:(?:-| to | or )(?P<high>\d+(?:[.,]\d+)?))? ?(?P<unit>[^\W\d]+)?(?P<rest>.*)"
)
_SHORT_DOSE: Final = re.compile(r"(\d+)\+(\d+)\+(\d+)(?:\+(\d+))?(?: .*)?")


def dosing_period(
    said: object, start: date | None, end: date | None, unit: str = "tablet"
) -> tuple[ev.DosingPeriod, ...]:
    """One period of a dosing in words; none by scheme."""
    if said is None:
        said = f"1 {unit} morning"
    text = str(said).strip().lower()
    if "scheme" in text:
        return ()
    if "as needed" in text or "when needed" in text:
        return (ev.DosingPeriod(start=start, end=end, as_needed=_as_needed(text, unit)),)
    return (ev.DosingPeriod(start=start, end=end, fixed=_fixed(text, unit)),)


def _fixed(text: str, unit: str) -> tuple[ev.FixedDose, ...]:
    short = _SHORT_DOSE.fullmatch(text)
    if short is not None:
        times = _TIMES_A_DAY[3] if short[4] is None else ("morning", "noon", "evening", "night")
        doses = zip((Decimal(each) for each in short.groups() if each is not None), times, strict=True)
        return tuple(ev.FixedDose(dose=ev.Dose(low=low, unit=unit), times_of_day=(at,)) for low, at in doses if low > 0)
    dose, rest = _dose(text, unit)
    interval = re.search(r"every (\d+) hours?", rest)
    days = tuple(day for day in CODES["weekday"] if day in rest) or (("monday",) if "week" in rest else ())
    times = () if interval else _times_in(rest)
    hours = int(interval[1]) if interval else None
    return (ev.FixedDose(dose=dose, times_of_day=times, interval_hours=hours, weekdays=days),)


def _times_in(rest: str) -> tuple[str, ...]:
    named = tuple(dict.fromkeys(code for word, code in _TIMES.items() if word in rest))
    often = re.search(r"(\d) (?:times|x)", rest)
    count = int(often[1]) if often else next((n for word, n in _OFTEN.items() if word in rest), 1)
    return named or _TIMES_A_DAY[count]


def _as_needed(text: str, unit: str) -> ev.AsNeeded:
    dose, rest = _dose(text, unit)
    reason, most = re.search(r"for (\w[\w ]*)", rest), re.search(r"max(?:imum)? (\d+)", rest)
    return ev.AsNeeded(
        dose=dose, indication=reason[1] if reason else "pain", max_per_day=Decimal(most[1]) if most else None
    )


def _dose(text: str, unit: str) -> tuple[ev.Dose, str]:
    found = _DOSE.fullmatch(text)
    if found is None:
        raise NotUnderstoodError(f"{text!r} is no dose")
    named = found["unit"] if found["unit"] in UNITS else None
    rest = text if named is None else found["rest"]
    high = number(found["high"]) if found["high"] else None
    return ev.Dose(low=number(found["low"]), high=high, unit=unit_of(named or unit)), rest


# --- Codes ------------------------------------------------------------------------------------------------------------

SYNONYMS: Final[Mapping[str, Mapping[str, str]]] = {
    "recall_reason": {
        "replaced": "renew",
        "renewed": "renew",
        "renewal": "renew",
        "stopped": "discontinued",
        "discontinue": "discontinued",
    },
    "discontinuation_reason": {
        "finished": "treatment_finished",
        "ended": "treatment_finished",
        "side effects": "side_effect",
        "adverse reaction": "side_effect",
        "no longer needed": "treatment_finished",
        "replaced": "replaced",
    },
    "recorded_kind": {
        "over-the-counter": "otc",
        "stated": "patient_stated",
        "patient": "patient_stated",
        "supplements": "supplement",
    },
    "reported_use": {
        "as prescribed": "as_stated",
        "taking": "as_stated",
        "stated": "as_stated",
        "other": "otherwise",
        "differently": "otherwise",
        "stopped": "not_taking",
        "not taken": "not_taking",
    },
    "reported_by": {"citizen": "patient", "proxy": "relative", "guardian": "relative", "doctor": "clinician"}
    | {"nurse": "clinician", "prescriber": "clinician"},
    "item_group": {"consumables": "consumable", "device": "consumable", "devices": "consumable"},
    "use": {"if needed": "as_needed", "when needed": "as_needed", "vaccination": "vaccine"},
    "severity": {"severe": "high", "serious": "high", "mild": "low", "medium": "moderate"},
    "delivery": {"pickup": "pick_up", "at home": "home", "delivered home": "home"},
    "reserved_by": {"citizen": "patient", "prescriber": "doctor", "pharmacist": "pharmacy"},
    "reimbursement_basis": {"yes": "200", "true": "200", "blue": "200", "§5-14 §2": "200", "h-resept": "905"},
}


def code_of(kind: str, said: object) -> str:
    """The contract's code for what a scenario says: the code, the national one ("7494 A ..."), its text, or a word for it.

    What none of these is: "other" where the list has that, else as it was said, for the door to turn away.
    """
    text = re.sub(r"^\d{4}[ :]+(?=\S)", "", str(said).strip())
    known = _known_codes(kind)
    first = text.split(" ")[0]
    found = known.get(text) or known.get(_plain(text)) or (known.get(first) if first in _national(kind) else None)
    if found is None and _plain(text) != "":
        found = next((code for word, code in known.items() if len(word) > 1 and _plain(text).startswith(word)), None)
    return found or ("other" if "other" in CODES[kind] else str(said))


@cache
def _known_codes(kind: str) -> dict[str, str]:
    texts = {_plain(text.partition("(")[0]): code for code, text in CODES[kind].items()}
    codes = {_plain(code): code for code in CODES[kind]} | {code: code for code in CODES[kind]}
    words = {_plain(word): code for word, code in SYNONYMS.get(kind, {}).items()}
    return {word: code for word, code in (texts | words | _national(kind) | codes).items() if word}


@cache
def _national(kind: str) -> dict[str, str]:
    found = ((re.search(r"\(\d{4}: (\w+)\)", text), code) for code, text in CODES[kind].items())
    return {said[1]: code for said, code in found if said is not None}


def _plain(text: str) -> str:
    return text.strip().lower().replace("_", " ").replace("-", " ").replace("'", "")


# --- Medicines --------------------------------------------------------------------------------------------------------

KINDS: Final[Mapping[str, tuple[str, str]]] = {
    "antibiotic": ("Phenoxymethylpenicillin", "J01CE02"),
    "contraceptive": ("Levonorgestrel and ethinylestradiol", "G03AA07"),
    "opioid": ("Morphine", "N02AA01"),
    "warfarin": ("Warfarin", "B01AA03"),
}
"""What stands for a kind of medicine that a scenario names without a code."""


def years_and_days_of_policy(atc: str | None) -> tuple[int, int]:
    """How long a prescription holds when nobody said: antibiotics 10 days, hormonal contraceptives 3 years, else a year."""
    if atc is not None and atc.startswith("J01"):
        return 0, 10
    return (3, 0) if atc is not None and atc.startswith(("G03A", "G02BA03", "G02BB01")) else (1, 0)


def medication(fields: Mapping[str, Any], unit: str = "tablet", content: ev.Quantity | None = None) -> ev.Medication:
    """Metformin tablets unless said; `package`: what one package of the prescribed product holds."""
    kind_name, kind_atc = KINDS.get(str(fields.get("kind", "")), (None, None))
    name = str(fields.get("medication") or kind_name or "Metformin")
    counted = (content.unit if content else "tablet") if unit == "package" else unit
    return ev.Medication(
        product=_product(fields, name, content),
        form=code_of("form", fields["form"]) if "form" in fields else FORMS.get(counted, "tablet"),
        atc=None if "mixture" in fields else fields.get("atc", kind_atc or "A10BA02"),
        strength=fields.get("strength", "500 mg"),
    )


def _product(
    fields: Mapping[str, Any], name: str, content: ev.Quantity | None
) -> ev.Package | ev.Brand | ev.Substance | ev.Mixture:
    if "package" in fields or "item_number" in fields or content is not None:
        held = quantity(fields["package"]) if "package" in fields else content
        return ev.Package(item_number=str(fields.get("item_number", "123456")), name=name, content=held)
    if "brand" in fields:
        return ev.Brand(name=str(fields["brand"]))
    if "mixture" in fields:
        parts = str(fields["mixture"]).split(", ")
        ingredients = tuple(ev.Ingredient(name=each, amount="1 g") for each in parts)
        return ev.Mixture(name="Mixture", ingredients=ingredients, directions="mix")
    return ev.Substance(name=str(fields.get("substance", name)))
