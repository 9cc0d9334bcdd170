"""`medchain`: every part that it lists can be loaded, and none is loaded before it is called."""

import importlib
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from deploy.local.layout import CHECKOUT
from services.command_line.app import PARTS, app


@pytest.mark.parametrize("part", PARTS)
def test_a_listed_part_is_there_and_has_help_of_its_own(part: str) -> None:
    module, _ = PARTS[part]
    assert isinstance(importlib.import_module(module).app, typer.Typer)
    said = CliRunner().invoke(app, [part, "--help"])
    assert said.exit_code == 0
    assert f"medchain {part}" in said.stdout


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("re", "replay"), ("replay sw", "switch"), ("replay start --max", "--max-share"), ("topics che", "check")],
)
def test_the_shell_completes_parts_their_commands_and_options(typed: str, offered: str) -> None:
    asked = {
        "_MEDCHAIN_COMPLETE": "complete_bash",
        "COMP_WORDS": f"medchain {typed}",
        "COMP_CWORD": str(len(typed.split())),
    }
    said = CliRunner().invoke(app, [], prog_name="medchain", env=asked)
    assert offered in said.stdout.split()


def test_listing_the_parts_loads_none_of_them() -> None:
    code = "import sys; import services.command_line.app as a; print([m for m, _ in a.PARTS.values() if m in sys.modules], 'kafka' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)  # noqa: S603  ours
    assert said.stdout == "[] False\n"
