"""Makes the pydantic models of the door from the contract's types, so that no field is ever described twice."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import msgspec
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, create_model

from schemas import events
from schemas.reasons import DoorReason
from services.admission.errors import refusal
from services.admission.fields import field_type

MOST_ELEMENTS: Final = 100
"""*Policy*: as many elements as one list of a message may have; the longest real ones have some dozens."""

MADE_BY_THE_SERVICE: Final[dict[type, frozenset[str]]] = {
    events.PrescriptionIssued: frozenset({"prescription", "treatment", "issued_at_ms", "valid_until"}),
    events.TreatmentRecorded: frozenset({"treatment"}),
    events.TreatmentDiscontinued: frozenset({"at_ms"}),
    events.ListReconciled: frozenset({"version", "read_at_ms"}),
    events.AllergyRecorded: frozenset({"allergy"}),
    events.ClaimRequested: frozenset({"claim"}),
    events.MedicationDispensed: frozenset({"dispense"}),
    events.DispenseReversed: frozenset({"reversal"}),
    events.DispatchRequested: frozenset({"dispatch"}),
    events.RenewalRequested: frozenset({"request"}),
}
"""What an event must have and a sender may leave out: `services.admission.completion` fills it in."""

NEVER_FROM_OUTSIDE: Final[dict[type, frozenset[str]]] = {events.PrescriptionIssued: frozenset({"identity"})}
"""What only the platform writes. A sender who sends it is told that the field is not part of the message."""

AT_LEAST_ONE: Final[dict[type, frozenset[str]]] = {
    events.Mixture: frozenset({"ingredients"}),
    events.MedicationDispensed: frozenset({"lines"}),
}
"""Lists that mean nothing when they are empty."""

_STRICT: Final = ConfigDict(extra="forbid", frozen=True)
_BLIND: Final = ConfigDict(extra="ignore", frozen=True)


@cache
def model_of(
    struct: type[msgspec.Struct], without: frozenset[str] = frozenset(), *, blind: bool = False
) -> type[BaseModel]:
    """The model of a contract type: its fields but `without` (known from elsewhere, such as the URL).

    `*_at_ms` fields go by the name without `_ms` and hold RFC 3339; nested types come out as the contract's own.
    A `blind` model overlooks what it does not know instead of turning it away.
    """
    hints = typing.get_type_hints(struct, include_extras=True)
    hidden = without | NEVER_FROM_OUTSIDE.get(struct, frozenset())
    fields: dict[str, Any] = {}
    tag = struct.__struct_config__.tag
    if tag and "kind" not in without:
        fields["kind"] = (Literal[tag], ...)
    for field in msgspec.structs.fields(struct):
        if field.name not in hidden:
            fields[field.name] = _field(struct, field, hints[field.name])
    doc = (struct.__doc__ or "").strip()
    return create_model(struct.__name__, __config__=_BLIND if blind else _STRICT, __doc__=doc, **fields)


def outside_name(name: str) -> str:
    """What a field is called outside: instants lose the `_ms` of our own unit."""
    return name.removesuffix("_ms")


def struct_of(model: BaseModel, struct: type[msgspec.Struct]) -> Any:
    """The contract type with what the model holds. Raises TypeError if a required field is not there."""
    return struct(**fields_of(model))


def fields_of(model: BaseModel) -> dict[str, Any]:
    """What a model holds, by the contract's names."""
    return {name: getattr(model, name) for name in type(model).model_fields if name != "kind" or not _is_tag(model)}


def _is_tag(model: BaseModel) -> bool:
    return get_origin(type(model).model_fields["kind"].annotation) is Literal


def _field(struct: type[msgspec.Struct], field: msgspec.structs.FieldInfo, hint: Any) -> tuple[Any, Any]:
    described = _type(hint)
    if field.name in AT_LEAST_ONE.get(struct, frozenset()):
        described = Annotated[described, BeforeValidator(_not_empty), _described(minItems=1)]
    name = outside_name(field.name)
    if field.name in MADE_BY_THE_SERVICE.get(struct, frozenset()):
        return _or_null(described), Field(default=None, alias=name)
    if field.required:
        return described, Field(alias=name)
    default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return described, Field(default=default, alias=name)


def _or_null(described: Any) -> Any:
    return described | None if isinstance(described, type) else typing.Optional[described]  # noqa: UP045 - no `|` on it


def _type(hint: Any) -> Any:
    if get_origin(hint) is Annotated:
        plain, rule = get_args(hint)
        return field_type(plain, rule)
    if get_origin(hint) in (types.UnionType, typing.Union):
        return _union(get_args(hint))
    if get_origin(hint) is tuple:
        several: Any = types.GenericAlias(tuple, (_type(get_args(hint)[0]), ...))
        return Annotated[several, BeforeValidator(_not_too_many), _described(maxItems=MOST_ELEMENTS)]
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return nested(hint)
    return field_type(hint, None)


def _union(members: tuple[Any, ...]) -> Any:
    """A value or null; or one of several tagged types, told apart by `kind`."""
    real = tuple(member for member in members if member is not type(None))
    if len(real) < len(members):
        return _or_null(_type(real[0]))
    choices = tuple(Annotated[nested(member), Tag(f"<{member.__struct_config__.tag}>")] for member in real)
    return Annotated[typing.Union[choices], Discriminator(_tag_of)]  # noqa: UP007 - made from a tuple


def _tag_of(value: Any) -> str | None:
    """Which of the tagged types a value says that it is; None is no such thing at all."""
    return f"<{value.get('kind')}>" if isinstance(value, dict) else None


def nested(struct: type[msgspec.Struct]) -> Any:
    """A contract type within another: checked as its model, given on as itself."""
    made: Callable[[BaseModel], Any] = lambda model: struct_of(model, struct)  # noqa: E731 - one line says it
    return Annotated[model_of(struct), AfterValidator(made)]


# Pydantic's own bounds count only the elements that are in order, and so would tell a second error of each that is not.


def _described(**bound: int) -> Any:
    """A bound for the schema alone."""
    return Field(json_schema_extra=dict(bound))


def _not_empty(given: Any) -> Any:
    if isinstance(given, list | tuple) and not given:
        raise refusal(DoorReason.TOO_FEW)
    return given


def _not_too_many(given: Any) -> Any:
    if isinstance(given, list | tuple) and len(given) > MOST_ELEMENTS:
        raise refusal(DoorReason.TOO_MANY)
    return given
