"""`medchain`: one command whose parts are loaded only when they are called."""

import importlib
from collections.abc import Callable
from typing import Final

import typer

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
    "event": ("services.casework.event", "Where one event is in the chain, with positions and times."),
    "generations": (
        "services.replay.listing",
        "The generations of the view: which is live, how far each is, who feeds it.",
    ),
    "parked": ("services.casework.parked", "What could not be judged: list, show, and refold it once it is mended."),
    "patient": ("services.casework.patient", "One patient: each event, the list as it was, and folded anew."),
    "replay": ("services.replay.cli", "Make the view again beside the live one, compare, switch, go back, retire."),
    "simulate": ("services.simulator.cli", "Play a town: prescribers, pharmacies and citizens, from a seed."),
    "topics": ("services.topics.cli", "Make the declared topics, and compare a cluster with them."),
}

app = typer.Typer(name="medchain", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def chain() -> None:
    """The medication chain: one citizen, one medication list."""


def _part(name: str, module: str) -> Callable[[typer.Context], None]:
    """A command that hands all its arguments, --help among them, to the app of that module, imported only then."""

    def run(context: typer.Context) -> None:
        importlib.import_module(module).app(args=context.args, prog_name=f"medchain {name}")

    return run


for _name, (_module, _about) in PARTS.items():
    app.command(
        _name,
        help=_about,
        add_help_option=False,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )(_part(_name, _module))


def main() -> None:
    """The entry point of the `medchain` command."""
    app()
