"""How a command answers: with one JSON document or a page for people, and with one sentence if it failed.

And the options that several commands have, or what holds for those of one kind.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Annotated, Any, Final, NoReturn

import msgspec
import typer
from rich.console import Console

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it; without it the command says what it would do.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Tell what would be done, and do nothing.")]

out: Final = Console(soft_wrap=True, highlight=False)
err: Final = Console(stderr=True, soft_wrap=True, highlight=False)
_encode: Final = msgspec.json.Encoder(decimal_format="number").encode


class Exit(IntEnum):
    """What a command ends with; the help of each says what that means of it."""

    DONE = 0
    """It was done, or all is well."""
    NOT_WELL = 1
    """Something differs, is lost, or should be looked at; or it did not answer, is behind or busy, and may be there at the next try."""
    CANNOT = 2
    """It was refused, could not be done or looked at: the text says why. Of `doctor`: something must be done."""


Page = Callable[[Console], object]
"""Prints for people what the document says."""


def tell(document: Any, page: Page | str, *, as_json: bool) -> None:
    """Print a document as JSON, or as the page or the sentence that people read."""
    if as_json:
        typer.echo(_encode(document).decode())
    elif isinstance(page, str):
        out.print(page, markup=False)
    else:
        page(out)


def finite(value: float | None) -> float | None:
    """The callback of an option that is a number with a point and has no most: infinity is one for Typer."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no number to count with.")
    return value


@contextmanager
def ending(code: Exit, *expected: type[Exception], as_json: bool) -> Iterator[None]:
    """End with one sentence and this exit code, instead of a stack trace, where something of this goes wrong."""
    try:
        yield
    except expected as error:
        tell_error(str(error) or type(error).__name__, code, as_json=as_json)


def tell_error(sentence: str, code: int, *, as_json: bool, page: Page | None = None, **done: Any) -> NoReturn:
    """Print why not, and end with this exit code. With --json it stands on standard output, as {"error", "exit"}.

    `done` is what had been done by then: beside the error in JSON, and as the `page` for people before it.
    """
    if as_json:
        typer.echo(_encode({"error": sentence, "exit": code, **done}).decode())
    else:
        if page is not None:
            page(out)
        err.print(sentence, markup=False)
    raise typer.Exit(code)
