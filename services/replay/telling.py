"""How an operator is answered: JSON or a page, one sentence where something is refused, exit codes for scripts."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Annotated, Final

import typer
from rich.console import Console

from schemas.framing import RegistryUnavailableError
from services.medication_list.generations import GenerationRefusedError
from services.medication_list.source_log import SourceLogUnavailableError
from services.medication_list.store.port import StoreUnavailableError

out: Final = Console(soft_wrap=True, highlight=False)
err: Final = Console(stderr=True, soft_wrap=True, highlight=False)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it; without it the command says what it would do.")]


class Exit(IntEnum):
    """What a command ends with."""

    DONE = 0
    DIFFERENT = 1
    """Two generations differ, or something is not well."""
    REFUSED = 2
    """It was refused, or could not be done: the text says why and what to do."""


@contextmanager
def answered(*, as_json: bool) -> Iterator[None]:
    """Turn what was refused, and what is away, into one sentence and the exit code for it."""
    try:
        yield
    except GenerationRefusedError as refusal:
        raise _refused(str(refusal), as_json=as_json) from None
    except (StoreUnavailableError, SourceLogUnavailableError, RegistryUnavailableError) as error:
        raise _refused(f"Log, store or registry do not answer: {error}.", as_json=as_json) from None


def _refused(sentence: str, *, as_json: bool) -> typer.Exit:
    if as_json:
        out.print_json(data={"refused": sentence})
    else:
        err.print(sentence, markup=False)
    return typer.Exit(Exit.REFUSED)
