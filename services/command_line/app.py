"""`medchain`: one command whose parts are loaded only when they are called."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

COMMAND: Final = (sys.executable, "-m", "services.command_line")
"""`medchain` in a process of its own, by this interpreter; its words come after it."""
# Each part by its name: the module that holds its Typer `app`, and one line of help.
PARTS: Final[dict[str, tuple[str, str]]] = {
    "chaos": (
        "tests.chaos.cli",
        "Break the platform in every way that is listed, under load, and check what came of it.",
    ),
    "check": ("tests.oracle.cli", "Fold the log a second time, independently, and compare every patient's list."),
    "demo": (
        "services.command_line.demo",
        "Start everything, play the town, follow one patient, check, write build/demo.json.",
    ),
    "doctor": ("services.operations.doctor", "Whether this installation is as it must be, and what to do if not."),
    "drill": (
        "services.command_line.drill",
        "Replay, switch and roll back under load, all of it checked; writes build/drill.json.",
    ),
    "event": ("services.casework.event", "Where one event is in the chain, with positions and times."),
    "generations": (
        "services.replay.listing",
        "The generations of the view: which is live, how far each is, who feeds it.",
    ),
    "parked": ("services.casework.parked", "What could not be judged: list, show, and refold it once it is mended."),
    "patient": ("services.casework.patient", "One patient: each event, the list as it was, and folded anew."),
    "replay": ("services.replay.cli", "Make the view again beside the live one, compare, switch, go back, retire."),
    "simulate": ("services.simulator.cli", "Play a town: prescribers, pharmacies and citizens, from a seed."),
    "status": ("services.operations.status", "The platform on one screen, live: processes, partitions, what waits."),
    "topics": ("services.topics.cli", "Make the declared topics, and compare a cluster with them."),
}


def command_of(part: str) -> Any:
    """A part's own command, with its sub-commands and options."""
    return typer.main.get_command(importlib.import_module(PARTS[part][0]).app)


class Parts(TyperGroup):
    """Passes a call, or its completion, to the part that it names; the others are not loaded."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """See click: the part's own command, so that its sub-commands and options are known too."""
        if args and args[0] in PARTS:
            return args[0], command_of(args[0]), args[1:]
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See click."""
        with _numbers_masked():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """See click: also what is wrong with the words themselves, or with the environment, is JSON where that was asked for."""
        as_json = "--json" in ctx.args  # before the part takes them
        try:
            with _numbers_masked():
                return super().invoke(ctx)
        except TyperException as error:
            if not as_json:
                raise
            _tell(error.format_message(), error.exit_code, as_json=True)
        except SystemExit as end:
            sentence = end.code if isinstance(end.code, str) else getattr(end, "sentence", None)
            if sentence is None or (not as_json and sentence is not end.code):
                raise  # nothing to say, or said already
            _tell(sentence, None, as_json=as_json)


@contextmanager
def _numbers_masked() -> Iterator[None]:
    """An error repeats the wrong words, and so a national id that somebody put where none must stand."""
    try:
        yield
    except TyperException as error:
        from services.casework.numbers import mask  # noqa: PLC0415  costs time that completion need not spend

        error.message = mask(error.message)
        raise


def _tell(sentence: str, code: int | None, *, as_json: bool) -> NoReturn:
    from services.command_line.telling import Exit, tell_error  # noqa: PLC0415  costs time that completion need not spend

    tell_error(sentence, Exit.CANNOT if code is None else code, as_json=as_json)


app = typer.Typer(name="medchain", cls=Parts, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def chain() -> None:
    """The medication chain: one citizen, one medication list."""


def _part() -> None:
    """What the list of parts shows; `Parts` calls the part itself."""


for _name, (_module, _about) in PARTS.items():
    app.command(_name, help=_about)(_part)


def main() -> None:
    """The entry point of the `medchain` command."""
    app()
