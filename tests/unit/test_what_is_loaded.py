"""What a process loads when it starts: Faust only where the log is followed, for it brings a second Kafka library along."""

import subprocess
import sys
from typing import Final

from deploy.local.layout import CHECKOUT
from deploy.services import SERVICES
from services.command_line.app import PARTS

_LOADING: Final = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    if "faust" in sys.modules:
        sys.exit(f"{name} loads Faust")
"""


def test_no_process_but_the_processor_and_no_command_of_an_operator_loads_faust() -> None:
    processes = [each.module for each in SERVICES if each.name != "processor"]
    commands = [module for module, _ in PARTS.values() if module.startswith("services.")]
    said = subprocess.run(  # noqa: S603  our own interpreter
        [sys.executable, "-c", _LOADING, *processes, *commands],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
