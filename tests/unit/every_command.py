"""Every command of `medchain` called with --json where it must fail, in a process of its own: they set up its logging.

`python -m tests.unit.every_command <scratch folder>` prints what each said, by its name.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from typer.testing import CliRunner

from deploy.local import state
from deploy.local.layout import RUN
from deploy.local.state import Claim, State
from services.command_line import demo
from services.command_line.app import PARTS, app, command_of

_LOOK: Final = ("--reason", "is it there?")
FAILING: Final[Mapping[str, tuple[str, ...]]] = {
    "chaos": ("--only", "no such fault"),
    "check": (),
    "demo": (),
    "doctor": (),
    "drill": ("--folder", "{folder}/somebody's"),
    "event trace": ("5b0f6a52-3d6e-4c34-9c0a-6f3e8d1f2a11", "--position", "0-1", *_LOOK),
    "generations": (),
    "parked close": ("0-1", *_LOOK),
    "parked list": (),
    "parked refold": _LOOK,
    "parked show": ("0-1", *_LOOK),
    "patient list": _LOOK,
    "patient refold": _LOOK,
    "patient timeline": _LOOK,
    "replay compare": ("g1-000000",),
    "replay follow": (),
    "replay retire": ("g1-000000",),
    "replay rollback": (),
    "replay start": (),
    "replay switch": ("g1-000000",),
    "simulate": (),
    "status": (),
    "topics check": (),
    "topics create": (),
}
"""By what each of them fails at once, where no platform is named and none runs."""


def every_command() -> dict[str, Any]:
    """Each command by its name."""
    found: dict[str, Any] = {}
    for part in PARTS:
        command = command_of(part)
        below = getattr(command, "commands", {})
        found |= {f"{part} {name}": each for name, each in below.items()} if below else {part: command}
    return found


def _nothing(run: Path = RUN) -> State | None:  # noqa: ARG001  called as `running` is
    return None


def main(folder: Path) -> None:
    """Call them all."""
    for name in [name for name in os.environ if name.startswith("MEDCHAIN_")]:
        del os.environ[name]
    state.running = _nothing  # also where `make up` was said
    (folder / "somebody's").mkdir()
    (folder / "somebody's" / "thesis.txt").touch()
    demo.FOLDER = folder / "demo"  # type: ignore[misc]
    said = {}
    with Claim(demo.FOLDER / "run"):
        for name, words in FAILING.items():
            words_there = [each.format(folder=folder) for each in words]
            found = CliRunner().invoke(app, [*name.split(), *words_there, "--json"], prog_name="medchain")
            fault = None if isinstance(found.exception, SystemExit | None) else repr(found.exception)
            said[name] = {"exit": found.exit_code, "stdout": found.stdout, "fault": fault}
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
