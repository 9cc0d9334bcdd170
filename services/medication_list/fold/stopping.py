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
    """Whether a pause has ended: it was resumed, or its last day, which is paused, has passed."""
    return pause.resumed_at_ms is not None or (pause.until is not None and at_ms >= ended_ms(pause.until))


def covers(pause: Pause, at_ms: int) -> bool:
    """Whether a pause that nobody has ended is in force at that time."""
    return pause.resumed_at_ms is None and _is_within(pause, at_ms)


def is_paused(treatment: TreatmentState, at_ms: int) -> bool:
    """Whether the treatment is paused at that time, as far as is known now."""
    # Most have none, and then nothing is made to walk them.
    return bool(treatment.pauses) and any(covers(pause, at_ms) for pause in treatment.pauses)


def was_paused(treatment: TreatmentState, at_ms: int) -> bool:
    """Whether it was paused when something happened, also by a pause that was ended later."""
    return bool(treatment.pauses) and any(
        _is_within(pause, at_ms) and (pause.resumed_at_ms is None or at_ms < pause.resumed_at_ms)
        for pause in treatment.pauses
    )


def _is_within(pause: Pause, at_ms: int) -> bool:
    """Whether it is one of the pause's days, as they were told."""
    return starts_ms(pause.start) <= at_ms and (pause.until is None or at_ms < ended_ms(pause.until))


def standing_pause(treatment: TreatmentState, at_ms: int) -> Pause | None:
    """The pause in force, of several the first one reported; otherwise the next one. None if there is none."""
    standing = [pause for pause in treatment.pauses if not is_over(pause, at_ms)]
    in_force = (pause for pause in standing if covers(pause, at_ms))
    return next(in_force, None) or min(standing, key=lambda pause: pause.start, default=None)
