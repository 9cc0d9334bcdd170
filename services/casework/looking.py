"""The options that every look shares: who asks, why, and whose data; a national id is read from the terminal or a file."""

import getpass
import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Final

import typer

from services.casework.access_record import AccessRecord, ReasonRefusedError, record_path
from services.casework.desk import CaseRefusedError, Desk
from services.clock import SystemClock
from services.command_line.named_platform import PlatformSettings
from services.identity.national_id import InvalidNationalId, NationalId

Reason = Annotated[str, typer.Option("--reason", help="Why you look: it stands in the access record.")]
ReasonToShow = Annotated[
    str | None, typer.Option("--reason", help="With --show: why you look; it stands in the access record.")
]
Show = Annotated[bool, typer.Option("--show", help="Show what patients' values are: clinical data. Say --reason.")]
Operator = Annotated[str | None, typer.Option("--operator", help="Who looks, if it is not the account that runs this.")]
PatientFile = Annotated[
    Path | None,
    typer.Option("--patient-file", help="A file that holds the national id; else the terminal asks for it, unseen."),
]
Pseudonym = Annotated[
    str | None, typer.Option("--pseudonym", help="The patient's pseudonym, where a log or a parked record names it.")
]


_PSEUDONYM: Final = re.compile(r"[0-9a-f]{32}")


def patient_of(desk: Desk, patient_file: Path | None, pseudonym: str | None) -> str:
    """The pseudonym of the patient asked for. Raises CaseRefusedError; its text never holds a number."""
    if pseudonym is not None:
        if not _PSEUDONYM.fullmatch(pseudonym):
            raise CaseRefusedError("--pseudonym: 32 lower-case hexadecimal characters, and never a national id.")
        return pseudonym
    if desk.pseudonymiser is None:
        raise CaseRefusedError("Set MEDCHAIN_PSEUDONYM_KEY, or say --pseudonym.")
    try:
        return desk.pseudonymiser().patient_key(NationalId.parse(_national_id(patient_file)))
    except InvalidNationalId as error:
        raise CaseRefusedError(f"The patient: {error}.") from None


def _national_id(patient_file: Path | None) -> str:
    if patient_file is not None:
        try:
            return patient_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise CaseRefusedError(f"--patient-file cannot be read ({type(error).__name__}).") from None
    if not sys.stdin.isatty():
        raise CaseRefusedError("There is no terminal to ask for the national id: say --patient-file or --pseudonym.")
    return getpass.getpass("National id (not shown): ").strip()


def note_look(
    accesses: AccessRecord, action: str, reason: str, operator: str | None, **about: str | bool | None
) -> None:
    """Record a look before it is made. Raises ReasonRefusedError, AccessNotRecordedError: then it must not be made."""
    account = _account()
    accesses.note(
        action=action, operator=account if operator is None else operator, account=account, reason=reason, **about
    )


def _account() -> str:
    """The account's name, or its number where it has none, as in a container that runs under a number of its own."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # the one until Python 3.12, the other since
        return f"uid-{os.getuid()}"


def values_looked_at(
    action: str, reason: str | None, operator: str | None, local: Path | None
) -> Callable[[Iterable[str]], None]:
    """Record the intent to look at values of any patients. Returns a function that records whose they turn out to be.

    That is called with their pseudonyms before anything of theirs is shown, and raises as this does: AccessNotRecordedError,
    ReasonRefusedError. `local` is the folder of the platform that runs here, if that is the one.
    """
    if reason is None:
        raise ReasonRefusedError("--show: say with --reason why you look; it stands in the access record.")
    accesses = AccessRecord(record_path(PlatformSettings().access_record, local), SystemClock())
    note_look(accesses, action, reason, operator)

    def looked_at(patients: Iterable[str]) -> None:
        for patient in patients:
            note_look(accesses, action, reason, operator, patient=patient)

    return looked_at
