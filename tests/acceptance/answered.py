"""A journey through the running services after one of its steps, as the checks look at it: what was answered, and is shown."""

from typing import Any

from tests.acceptance.journey import CLINICIAN, Journey, View, judged_by
from tests.acceptance.plain_checks import Judged
from tests.acceptance.translate import Play, Step


class Answered:
    """What the services answered and show. told, orders: set once the scenario is over."""

    def __init__(self, journey: Journey) -> None:
        self.journey = journey
        self.version_before = -1
        self.deferred: list[str] = []
        self.notices_told: list[str] | None = None
        self.orders_sent: list[str] | None = None

    @property
    def play(self) -> Play:
        """Of the journey."""
        return self.journey.play

    @property
    def step(self) -> Step:
        """The present one."""
        assert self.journey.step is not None
        return self.journey.step

    def judged(self) -> list[Judged]:
        """As the services answered; a record that nobody could read, as the history shows it."""
        journey = self.journey
        if self.step.unreadable:
            last = journey.chain.history(journey.patient(self.step.patient).digits, CLINICIAN)[-1]
            return [Judged(last["outcome"], last["reason"], frozenset(), None)]
        return [judged_by(told) for told in journey.told]

    def whole(self) -> dict[str, Any]:
        """As the read API answers."""
        return self.journey.now.whole

    def prescription(self, name: str) -> dict[str, Any]:
        """As the pharmacy's search finds it, or the list shows it."""
        return self.journey.prescription(name)

    def found(self) -> list[dict[str, Any]]:
        """What the pharmacy's search found."""
        return self.journey.found

    def told(self) -> list[str] | None:
        """From the topics of the organisations, which are read at the end."""
        return self.notices_told

    def orders(self) -> list[str] | None:
        """From the topics of the pharmacies, which are read at the end."""
        return self.orders_sent

    def defer(self, sentence: str) -> None:
        """Until the topics have been read."""
        self.deferred.append(sentence)

    def documents(self) -> list[tuple[int, dict[str, Any]]]:
        """Of this step's answers."""
        return [(told.status, told.document) for told in self.journey.told]

    def has_in_history(self, natural: str) -> bool:
        """As the read API tells it."""
        history = self.journey.chain.history(self.journey.patient(self.step.patient).digits, CLINICIAN)
        return any(natural in map(str, each.get("content", {}).values()) for each in history)

    def has_raised_an_alarm(self) -> bool:
        """Whether the log of a service has a line of level error about an event that contradicts another."""
        answers = [told for answers in self.journey.answers.values() for told in answers] + self.journey.told
        refused = [told.document["event_id"] for told in answers if told.reason_or_none == "conflicting_duplicate"]
        logs = [
            log.read_text(errors="replace") for log in (self.journey.chain.platform.directory / "logs").glob("*.log")
        ]
        lines = [
            line for log in logs for line in log.splitlines() if "conflicting_duplicate" in line and "error" in line
        ]
        return bool(refused) and all(any(event in line for line in lines) for event in refused)

    def is_unchanged(self) -> bool:
        """Whether everything but the time of reading is what it was after the step before."""
        journey = self.journey
        before = [
            view for n, view in journey.views.items() if n != self.step.n and journey.of_whom[n] == self.step.patient
        ]
        return kept(before[-1]) == kept(journey.now) if before else not journey.now.entries


def kept(view: View) -> Any:
    """What no reader's clock moves: the version, and what was done with each prescription."""
    names = ("holder", "claim", "dispatched_to", "recalls", "hand_outs")
    done = {rx: {name: shown.get(name) for name in names} for rx, shown in view.prescriptions.items()}
    return view.whole["version"], done


def seen(view: View) -> Any:
    """What a view shows, but for when it was read and how far the log had come."""
    unsteady = ("as_of", "position", "position_recorded_at", "read_token")
    return {name: value for name, value in view.whole.items() if name not in unsteady}, view.prescriptions
