"""Which units fit which form of medicine, and each other, as far as it can be decided: in doubt, a unit passes."""

from __future__ import annotations

from typing import Final

_TABLETS: Final = frozenset(
    {
        "tablet",
        "film_coated_tablet",
        "enteric_tablet",
        "prolonged_release_tablet",
        "effervescent_tablet",
        "orodispersible_tablet",
        "chewable_tablet",
    }
)
_CAPSULES: Final = frozenset({"capsule", "prolonged_release_capsule"})
_INJECTED: Final = frozenset({"injection", "infusion", "vaccine"})
_OPEN: Final = frozenset({"nutrition", "consumable", "other"})
"""Forms that say too little to be held against a unit."""

FORMS_OF_UNIT: Final[dict[str, frozenset[str]]] = {
    "tablet": _TABLETS | {"vagitory"} | _OPEN,
    "capsule": _CAPSULES | {"inhalation_powder", "vagitory"} | _OPEN,
    "puff": frozenset({"inhalation_powder", "inhalation_spray", "nasal_spray", "gel"}) | _OPEN,
    "drop": frozenset(
        {
            "oral_drops",
            "oral_solution",
            "oral_suspension",
            "eye_drops",
            "ear_drops",
            "nasal_spray",
            "nebuliser_solution",
            "liniment",
        }
    )
    | _OPEN,
    "patch": frozenset({"patch"}) | _OPEN,
    "suppository": frozenset({"suppository"}) | _OPEN,
    "vagitory": frozenset({"vagitory"}) | _OPEN,
    "ampoule": _INJECTED | {"nebuliser_solution", "oral_solution", "eye_drops"} | _OPEN,
    "vial": _INJECTED | {"nebuliser_solution", "inhalation_powder", "oral_solution"} | _OPEN,
    "syringe": _INJECTED | {"gel", "implant"} | _OPEN,
    "sachet": frozenset({"oral_powder", "oral_suspension", "oral_solution", "gel", "cream"}) | _OPEN,
}
"""Units that belong to some forms alone. Grams, millimoles, doses, pieces, packages and the like fit them all."""

FORMS_WITHOUT_VOLUME: Final = (
    _TABLETS | _CAPSULES | {"patch", "suppository", "vagitory", "implant", "intrauterine_device"}
)
"""Forms of which nobody takes millilitres."""

_EACH_ITS_OWN: Final = frozenset({"tablet", "capsule", "puff", "drop", "patch", "suppository", "vagitory", "ml"})
"""Units of which one can never hold or be another."""


def fits_form(unit: str, form: str) -> bool:
    """Whether an amount in this unit can be one of a medicine of this form."""
    if unit == "ml":
        return form not in FORMS_WITHOUT_VOLUME
    return form in FORMS_OF_UNIT.get(unit, frozenset({form}))


def fits_content(unit: str, content: str) -> bool:
    """Whether an amount in `unit` can come from packages whose content is stated in `content`."""
    if content == "package":
        return False
    return unit == content or not {unit, content} <= _EACH_ITS_OWN
