"""Whether a treatment is stopped, paused or withdrawn: computed from its stops and its newest-signed prescription."""

from collections.abc import Iterator

from services.medication_list.fold.calendar import ended_ms, starts_ms
from services.medication_list.fold.state import Pause, Stop, TreatmentState


def stops_in_force(treatment: TreatmentState) -> Iterator[Stop]:
    """Those that were not taken back and are later than the newest-signed prescription, in log order."""
    for stop in treatment.stops:
        if stop.place > treatment.reinstated_place and (
            treatment.newest is None or stop.at_ms > treatment.newest_at_ms
        ):
            yield stop


def is_stopped(treatment: TreatmentState) -> bool:
    """A treatment is stopped while its latest stop is later than its newest-signed prescription."""
    return stop_in_force(treatment) is not None


def stop_in_force(treatment: TreatmentState) -> Stop | None:
    """The stop that is shown: a withdrawal if there is one, else the first that holds. None while it goes on."""
    if not treatment.stops:
        return None
    shown: Stop | None = None
    for stop in stops_in_force(treatment):
        if stop.withdrawn:
            return stop
        shown = shown or stop
    return shown


def is_withdrawn(treatment: TreatmentState) -> bool:
    """Whether the stop in force says that the treatment was registered by mistake."""
    stop = stop_in_force(treatment)
    return stop is not None and stop.withdrawn


def is_over(pause: Pause, at_ms: int) -> bool:
    """Whether a pause with an end has ended; its last day is paused."""
    return pause.until is not None and at_ms >= ended_ms(pause.until)


def is_paused(treatment: TreatmentState, at_ms: int) -> bool:
    """Whether the treatment is paused at that time."""
    pause = treatment.pause
    return pause is not None and at_ms >= starts_ms(pause.start) and not is_over(pause, at_ms)
