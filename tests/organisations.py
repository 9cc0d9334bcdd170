"""Organisation numbers for made data."""

from typing import Final

_WEIGHTS: Final = (3, 2, 7, 6, 5, 4, 3, 2)
_NO_DIGIT: Final = 10


def organisation_number(index: int) -> str:
    """A valid organisation number: another one for each index from 0 to 999,999."""
    if not 0 <= index < 1_000_000:
        raise ValueError("the index of an organisation number lies in 0..999999")
    # Two neighbours never both lack a control digit: their weighted sums differ by 2 modulo 11.
    for last in (0, 1):
        eight = f"9{index:06}{last}"
        control = -sum(int(digit) * weight for digit, weight in zip(eight, _WEIGHTS, strict=True)) % 11
        if control != _NO_DIGIT:
            return f"{eight}{control}"
    raise AssertionError("one of two neighbours has a control digit")
