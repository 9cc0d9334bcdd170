"""How an operator's command ends: with an exit code for scripts, and one sentence for each expected error."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from schemas.framing import RegistryUnavailableError
from services.admission.plain import rfc3339
from services.casework.access_record import AccessNotRecordedError, ReasonRefusedError
from services.casework.desk import CaseRefusedError, NotCurrentError, NotNowError, NotThereError
from services.command_line.named_platform import NoPlatformError
from services.command_line.telling import Exit, tell_error
from services.medication_list.log.record_log import AnotherLogError, LogLookupError
from services.medication_list.log.source_log import SourceLogUnavailableError
from services.medication_list.refolding.refolder import RefoldNotNowError, RefoldRefusedError
from services.medication_list.store.port import StoreUnavailableError
from services.medication_list.store.reading import NotReadyError
from services.publishing.log import LogUnavailable
from services.schema_registry import RegistryRefusedError

NOT_WELL: Final = (
    NotCurrentError,
    NotNowError,
    NotReadyError,
    NotThereError,
    RefoldNotNowError,
    LogLookupError,
    SourceLogUnavailableError,
    StoreUnavailableError,
    LogUnavailable,
    RegistryUnavailableError,
)
EXPECTED: Final = (
    *NOT_WELL,
    NoPlatformError,
    CaseRefusedError,
    RefoldRefusedError,
    RegistryRefusedError,
    AccessNotRecordedError,
    ReasonRefusedError,
)
"""Whatever a command ends with in a sentence."""


@contextmanager
def answered(*, as_json: bool) -> Iterator[None]:
    """End with a sentence and an exit code instead of a stack trace, for whatever is expected to go wrong."""
    try:
        yield
    except EXPECTED as error:
        tell_error(sentence_of(error), exit_of(error), as_json=as_json)


def exit_of(*errors: Exception) -> Exit:
    """What a command ends with that came upon these: 1 if any of them may be gone at the next try."""
    passing = (each for each in errors if not isinstance(each, AnotherLogError))
    return Exit.NOT_WELL if any(isinstance(each, NOT_WELL) for each in passing) else Exit.CANNOT


def sentence_of(error: Exception) -> str:
    """What an operator is told."""
    return str(error) or type(error).__name__


def instant(at_ms: int | None) -> str:
    """An instant for people: UTC, to the millisecond, so that --as-of takes it back and shows what was known from then on."""
    return "-" if at_ms is None else rfc3339(at_ms).replace("T", " ")


def second(at_ms: int) -> str:
    """An instant for people who have little room: UTC, to the second."""
    return f"{instant(at_ms).partition('.')[0]}Z"
