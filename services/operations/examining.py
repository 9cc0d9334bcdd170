"""What can be examined locally: Python, the packages, the keys."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from enum import StrEnum
from importlib import metadata
from typing import Final

import msgspec
from packaging.requirements import Requirement

DISTRIBUTION: Final = "medchain"
_OLDEST_PYTHON: Final = (3, 11)
_KEY: Final = re.compile(r"[0-9a-fA-F]{64}")


class Seriousness(StrEnum):
    """How bad a finding is."""

    WELL = "well"
    WARNING = "warning"
    ERROR = "error"


class Finding(msgspec.Struct, frozen=True):
    """What one check found, and what to do about it ("" if nothing need be done)."""

    check: str
    is_: Seriousness = msgspec.field(name="is")
    found: str
    do: str = ""


def well(check: str, found: str) -> Finding:
    """All is as it must be."""
    return Finding(check, Seriousness.WELL, found)


def warning(check: str, found: str, do: str) -> Finding:
    """It works, and should be looked at."""
    return Finding(check, Seriousness.WARNING, found, do)


def error(check: str, found: str, do: str) -> Finding:
    """Something must be done."""
    return Finding(check, Seriousness.ERROR, found, do)


def on_this_machine(keys: Mapping[str, str | None]) -> Iterator[Finding]:
    """Python, packages and keys."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info >= _OLDEST_PYTHON:
        yield well("Python", version)
    else:
        yield error("Python", version, "Install Python 3.11 or newer, and run `make setup`.")
    yield from packages(metadata.requires(DISTRIBUTION) or ())
    yield from keys_found(keys)


def packages(required: list[str] | tuple[str, ...]) -> Iterator[Finding]:
    """Whether each package that the project requires is there, in a version that will do."""
    wrong = 0
    wanted = [each for each in map(Requirement, required) if each.marker is None or each.marker.evaluate({"extra": ""})]
    for each in wanted:
        try:
            found = metadata.version(each.name)
        except metadata.PackageNotFoundError:
            found = ""
        if not found or not each.specifier.contains(found, prereleases=True):
            wrong += 1
            yield error("packages", f"{each.name} is {found or 'missing'}, wanted {each}", "Run `make setup`.")
    if not wrong:
        yield well("packages", f"{len(wanted)} as required")


def keys_found(keys: Mapping[str, str | None]) -> Iterator[Finding]:
    """Whether each of the platform's keys is there, has its form, and is another than the others. Never their values."""
    wrong = [name for name, value in keys.items() if not value or not _KEY.fullmatch(value)]
    for name in wrong:
        what = "is not 64 hexadecimal characters" if keys[name] else "is not set here"
        do = f"Give this shell the {name} of the services: 64 hexadecimal characters, the same for all of them."
        # An operator's own shell need not hold every key of the services.
        yield error("keys", f"{name} {what}", do) if keys[name] else warning("keys", f"{name} {what}", do)
    values = [value for value in keys.values() if value]
    if len(set(values)) < len(values):
        yield error("keys", "two of the keys are the same", "Make each one by itself: `openssl rand -hex 32`.")
    elif not wrong:
        yield well("keys", f"{len(keys)} of 64 hexadecimal characters, all different")
