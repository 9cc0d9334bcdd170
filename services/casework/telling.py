"""How an operator is answered: JSON or a page for people, and an exit code that a script can use."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any, Final, NoReturn

import msgspec
import typer
from rich.console import Console

from schemas.framing import RegistryUnavailableError
from services.casework.access_record import AccessNotRecordedError, ReasonRefusedError
from services.casework.desk import CaseRefusedError, NotCurrentError, NotNowError, NotThereError
from services.medication_list.record_log import LogLookupError
from services.medication_list.refolding import RefoldNotNowError, RefoldRefusedError
from services.medication_list.source_log import SourceLogUnavailableError
from services.medication_list.store.port import StoreUnavailableError
from services.publishing.log import LogUnavailable

_encode = msgspec.json.Encoder(decimal_format="number").encode


class Exit(IntEnum):
    """What a command ends with."""

    DONE = 0
    NOT_WELL = 1
    """Something did not answer, is behind, busy or not there: the text says what, and trying again may help."""
    REFUSED = 2
    """It was not done, and the same again will not be either."""


NOT_WELL: Final = (
    NotCurrentError,
    NotNowError,
    NotThereError,
    RefoldNotNowError,
    LogLookupError,
    SourceLogUnavailableError,
    StoreUnavailableError,
    LogUnavailable,
    RegistryUnavailableError,
)
EXPECTED: Final = (*NOT_WELL, CaseRefusedError, RefoldRefusedError, AccessNotRecordedError, ReasonRefusedError)
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
    return Exit.NOT_WELL if any(isinstance(each, NOT_WELL) for each in errors) else Exit.REFUSED


def sentence_of(error: Exception) -> str:
    """What an operator is told of it."""
    return str(error) or type(error).__name__


def tell_error(
    sentence: str, code: Exit, *, as_json: bool, page: Callable[[Console], None] | None = None, **done: Any
) -> NoReturn:
    """Print why not, and end. With --json it stands on standard output.

    `done` is what had been done by then: beside the error in JSON, and as the `page` for people before it.
    """
    if not as_json and page is not None:
        page(Console(soft_wrap=True, highlight=False))
    if as_json:
        typer.echo(_encode({"error": sentence, "exit": int(code), **done}).decode())
    else:
        Console(stderr=True, soft_wrap=True).print(sentence, markup=False, highlight=False)
    raise typer.Exit(int(code))


def tell(document: Any, page: Callable[[Console], None], *, as_json: bool) -> None:
    """Print a document as JSON, or as the page that people read."""
    if as_json:
        typer.echo(_encode(document).decode())
    else:
        page(Console(soft_wrap=True, highlight=False))


def instant(at_ms: int | None) -> str:
    """An instant for people: UTC, to the second."""
    return "-" if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
