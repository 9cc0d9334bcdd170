"""An operator's command under chaos: the command as it is, and bulk readers over which the same mutant is laid.

`python -m tests.chaos.operating replay` starts a replay, or feeds what one has made; `... switch <generation>` switches.
"""

import os
import sys
from collections.abc import Sequence

from services.command_line.app import app
from services.medication_list.generations import GenerationRefusedError
from services.replay import child
from services.replay.place import open_place
from services.replay.starting import plan
from tests.chaos import mutants
from tests.chaos.under_test import MUTANT


def main() -> None:
    """Run the command once; a supervisor starts it again when it ends."""
    mutants.apply("", os.environ.get(MUTANT, ""))
    child.COMMAND = ("-m", "tests.chaos.under_test", "services.replay.bulk")
    doing, *more = sys.argv[1:]
    app(["replay", *(_replay() if doing == "replay" else [doing, *more, "--yes"])])


def _replay() -> Sequence[str]:
    """What an operator would type who wants a second view."""
    with open_place() as place:
        try:
            plan(place, reserve=0.1)
        except GenerationRefusedError:
            return "follow", "--max-share", "1"
    return "start", "--yes", "--max-share", "1"


if __name__ == "__main__":
    main()
