"""The only function that makes text from structured dosing. Structure is never made from text."""

from collections.abc import Iterable
from decimal import Decimal

from schemas.events import AsNeeded, Dose, Dosing, DosingPeriod, FixedDose

TIMES = {
    "morning": "in the morning",
    "noon": "at noon",
    "afternoon": "in the afternoon",
    "evening": "in the evening",
    "night": "at night",
}


def dosing_text(dosing: Dosing, strength: str | None) -> str:
    """Dosing as a sentence a period, each dose with its strength; empty where there is no structure."""
    if dosing.per_scheme:
        return "according to the scheme" + _of(strength)
    return "; ".join(_period(period, strength) for period in dosing.periods)


def texts_differ(dosing: Dosing, made: str) -> bool:
    """Whether the sender's own text says something else than the text made from the structure."""
    return bool(dosing.text) and bool(made) and _plain(dosing.text or "") != _plain(made)


def _plain(text: str) -> str:
    return " ".join(text.casefold().replace(",", " ").replace(".", " ").split())


def _of(strength: str | None) -> str:
    return f" of {strength}" if strength else ""


def _period(period: DosingPeriod, strength: str | None) -> str:
    parts = [_fixed(each, strength) for each in period.fixed]
    if period.as_needed is not None:
        parts.append(_as_needed(period.as_needed, strength))
    when = []
    if period.start is not None:
        when.append(f"from {period.start.isoformat()}")
    if period.end is not None:
        when.append(f"up to and including {period.end.isoformat()}")
    said = ", and ".join(parts) or "no dose stated"
    return " ".join([said, *when])


def number(value: Decimal) -> str:
    """A number without needless places: 1, 0.5, 12.25."""
    plain = f"{value:f}"
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def _dose(dose: Dose, strength: str | None) -> str:
    amount = number(dose.low)
    if dose.high is not None:
        amount += f" to {number(dose.high)}"
    plural = "s" if (dose.high or dose.low) > 1 and dose.unit not in ("ml", "g", "mg", "mmol", "iu") else ""
    return f"{amount} {dose.unit}{plural}{_of(strength)}"


def _fixed(fixed: FixedDose, strength: str | None) -> str:
    words = [_dose(fixed.dose, strength)]
    if fixed.times_of_day:
        words.append(_joined(TIMES.get(time, time) for time in fixed.times_of_day))
    if fixed.interval_hours:
        words.append(f"every {fixed.interval_hours} hours")
    if fixed.weekdays:
        words.append("on " + _joined(day.capitalize() for day in fixed.weekdays))
    if fixed.days_on:
        words.append(f"{fixed.days_on} days on, {fixed.days_off or 0} days off")
    if fixed.rate_per_hour is not None:
        words.append(f"at {number(fixed.rate_per_hour.value)} {fixed.rate_per_hour.unit} an hour")
    if fixed.duration_minutes:
        words.append(f"over {fixed.duration_minutes} minutes")
    return " ".join(words)


def _as_needed(part: AsNeeded, strength: str | None) -> str:
    words = [f"{_dose(part.dose, strength)} when needed for {part.indication}"]
    if part.max_per_day is not None:
        words.append(f"at most {number(part.max_per_day)} a day")
    if part.max_per_period is not None and part.period_days:
        words.append(f"at most {number(part.max_per_period)} in {part.period_days} days")
    if part.min_interval_hours:
        words.append(f"at least {part.min_interval_hours} hours apart")
    return ", ".join(words)


def _joined(words: Iterable[str]) -> str:
    several = list(words)
    return several[0] if len(several) == 1 else f"{', '.join(several[:-1])} and {several[-1]}"
