"""Made data for a platform that nobody has written to yet: a small town, played through it once."""

import subprocess
from typing import Final

from deploy.local.layout import CHECKOUT
from deploy.local.state import State
from services.command_line.app import COMMAND
from services.medication_list.log.source_log import KafkaSourceLog
from services.publishing.kafka_access import KafkaAccess
from services.simulator.population import Town
from services.simulator.town import patients_for

EVENTS: Final = 2_000
"""What `make up` plays too: some ten seconds on two cores that have nothing else to do."""


class TownNotPlayedError(RuntimeError):
    """The simulator failed; the platform runs all the same."""


def play_into_empty(state: State, events: int) -> bool:
    """Play a town of so many events if the log is empty, and say whether it was.

    Raises:
        TownNotPlayedError: the simulator failed; it has said why.
    """
    if events == 0 or any(KafkaSourceLog(KafkaAccess(state.kafka)).ends().values()):
        return False
    argv = [*COMMAND, "simulate", f"--events={events}"]
    if subprocess.run(argv, cwd=CHECKOUT, check=False).returncode:  # noqa: S603  our own command line, no shell
        raise TownNotPlayedError("the town could not be played")
    return True


def somebody(events: int) -> str:
    """The national id (synthetic) of a citizen of that town, to look at."""
    return Town(patients_for(max(events, 1))).patients[0].national_id.digits
