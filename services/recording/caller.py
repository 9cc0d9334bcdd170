"""The caller, as one dependency: the one place that access control will replace."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, Final

from fastapi import Header
from msgspec import Struct
from structlog.contextvars import bind_contextvars

from schemas.codes import CODES
from schemas.events import Source
from schemas.reasons import DoorReason
from services.identity.registers import InvalidIdentifier, parse_hpr, parse_organisation_number
from services.problems import Problem
from services.topics.registry import PARTY

_FORM: Final = re.compile(r"\s*([a-z]+)\s*=\s*([^;\s]+)\s*")
_FIELDS: Final = frozenset({"system", "organisation", "person", "role"})
HEADER_FORM: Final = (
    "`system=<name>; organisation=<organisation number>; role=<role>; person=<HPR number>`: the calling system "
    "(small letters, digits, hyphens), for whom it calls, in which role "
    f"({', '.join(CODES['role'])}), and the person, where one acts."
)


class Caller(Struct, frozen=True):
    """The caller: system, organisation, role, and the person's HPR number where a person acts."""

    system: str
    organisation: str
    role: str
    person: str | None = None

    @property
    def source(self) -> Source:
        """The caller as events state it."""
        return Source(system=self.system, organisation=self.organisation, role=self.role, person=self.person)


async def caller(medchain_caller: Annotated[str | None, Header(description=HEADER_FORM)] = None) -> Caller:
    """The caller of a request, noted for its log line. Raises a 401 problem when not stated, or not in that form."""
    found = parse_caller(medchain_caller or "")
    if found is None:
        raise Problem(401, DoorReason.NO_CALLER, detail=f"The header Medchain-Caller has the form {HEADER_FORM}")
    bind_contextvars(system=found.system, organisation=found.organisation, role=found.role)
    return found


@lru_cache(maxsize=1_024)
def parse_caller(header: str) -> Caller | None:
    """The caller that a `Medchain-Caller` header states, None if it does not have the form."""
    parts = [_FORM.fullmatch(part) for part in header.split(";") if part.strip()]
    stated = {part[1]: part[2] for part in parts if part is not None}
    if len(stated) != len(parts) or not stated.keys() <= _FIELDS or not stated.keys() >= _FIELDS - {"person"}:
        return None
    if not PARTY.fullmatch(stated["system"]) or stated["role"] not in CODES["role"]:
        return None
    try:
        parse_organisation_number(stated["organisation"])
        if "person" in stated:
            parse_hpr(stated["person"])
    except InvalidIdentifier:
        return None
    return Caller(**stated)
