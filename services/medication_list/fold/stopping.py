"""Whether a treatment is stopped, paused or withdrawn: computed from its stops and its newest-signed prescription."""

from services.medication_list.fold.calendar import ended_ms, starts_ms
from services.medication_list.fold.state import Pause, Stop, TreatmentState


def is_stopped(treatment: TreatmentState) -> bool:
    """A treatment is stopped while its latest stop is later than its newest-signed prescription."""
    return stop_in_force(treatment) is not None


def stop_in_force(treatment: TreatmentState) -> Stop | None:
    """The stop that is shown: the first that still holds, else the latest. None while the treatment goes on."""
    latest = treatment.latest_stop
    if latest is None or latest.place < treatment.reinstated_place or not _is_after_newest(latest, treatment):
        return None
    first = treatment.stop
    if first is None or first.place < treatment.reinstated_place or not _is_after_newest(first, treatment):
        return latest
    return first


def _is_after_newest(stop: Stop, treatment: TreatmentState) -> bool:
    return treatment.newest is None or stop.at_ms > treatment.newest_at_ms


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
