"""A drill as `make drill` plays it, small (a minute or more, mostly of waiting for processes): it goes through to its end, and its report says what came of it."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from deploy.local.layout import CHECKOUT
from services.command_line.app import COMMAND

pytestmark = [pytest.mark.integration, pytest.mark.long]


def test_a_small_drill_loses_doubles_and_reorders_nothing_and_says_so_in_json(scratch: Path) -> None:
    folder, report = scratch / "drill", scratch / "drill.json"
    words = ("--events", "500", "--rate", "10", "--seconds", "1", "--max-share", "1", "--folder", str(folder))
    call = [*COMMAND, "drill", *words]
    told = {name: each for name, each in os.environ.items() if not name.startswith("MEDCHAIN_")}
    said = subprocess.run(  # noqa: S603  our own command line
        [*call, "--report", str(report), "--json"], cwd=CHECKOUT, env=told, capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stdout + said.stderr
    found = json.loads(said.stdout)
    assert found == json.loads(report.read_text(encoding="utf-8"))
    nothing = ("differences", "lost", "doubled", "went_back", "mismatches")
    assert {name: found[name] for name in nothing} == dict.fromkeys(nothing, 0)
    assert min(found[name] for name in ("events", "compared", "writes", "switch_ms", "rollback_ms")) > 0
    assert found["reads"] >= 100, "every client has read its list at the end"
