"""Watches a replay: how far it is, what share its workers may take, whether there is room, and when it is whole."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from services.medication_list.generations import (
    GenerationRefusedError,
    GenerationState,
    begin_again,
    mark,
    record_of,
)
from services.medication_list.log.source_log import SourceLogUnavailableError
from services.medication_list.store.port import StoreUnavailableError
from services.medication_list.store.roles import Pointer, RoleState
from services.replay.crew import Crew
from services.replay.pace import Throttle
from services.replay.place import Place

_LOOK_EVERY_S: Final = 0.25
_MEMORY_EVERY_S: Final = 1.0
_RATE_OVER_S: Final = 5.0
_NEAR: Final = 1_000
_LAG_TOLERATED: Final = 2
"""By partition: a marker at the end of a log is never judged, and a look is not at one moment."""


class Phase(StrEnum):
    """How far a replay is."""

    FILLING = "filling"
    WHOLE = "whole"
    """It has come to where the live view was."""
    AS_FAR_AS_ASKED = "as_far_as_asked"
    """It has come to where `--until` says."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at a replay saw. Rates are events a second; `left_s` is None if it cannot be estimated."""

    generation: str
    phase: Phase
    done: int
    of: int
    rate: float
    left_s: float | None
    live_lag: int
    share: float
    is_paused: bool
    cpu_s: float
    restarts: int
    seconds: float


class Tail(Protocol):
    """Where the log ends."""

    def ends(self) -> Mapping[int, int]:
        """The offset after the last record of each partition."""
        ...


class Watch:
    """Looks repeatedly. It holds no lasting state: another one can continue where this one was killed."""

    def __init__(
        self,
        place: Place,
        tail: Tail,
        crew: Crew,
        generation: str,
        max_share: float,
        reserve: int,
        until: Mapping[int, int],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`reserve`: bytes of the store that stay free. `until`: offsets to stop at; none: go on behind the live view."""
        self._place = place
        self._tail = tail
        self._crew = crew
        self._generation = generation
        self._max_share = max_share
        self._throttle = Throttle(max_share, _LAG_TOLERATED * place.partitions)
        self._reserve = reserve
        self._until = until
        self._clock = place.clock
        self._sleep = sleep
        self._began_s = self._now_s()
        self._live: Mapping[int, int | None] = {}
        self._memory_at_s = 0.0
        self._is_paused = False
        self._seen: list[tuple[float, int]] = []
        self._phase = Phase.FILLING

    @property
    def phase(self) -> Phase:
        """How far it was at the last look."""
        return self._phase

    def looks(self, *, follow: bool) -> Iterator[Look]:
        """One look after the other, until there is nothing left to do. A store or a log that is away is waited for.

        `follow`: go on once the generation is whole, and feed it, until ended.
        """
        while not self._crew.is_done:
            self._crew.look_after()
            with suppress(StoreUnavailableError, SourceLogUnavailableError):
                yield self._look()
                if self._phase is Phase.AS_FAR_AS_ASKED or (self._phase is Phase.WHOLE and not follow):
                    return
            self._sleep(_LOOK_EVERY_S)

    def _look(self) -> Look:
        pointer = self._place.pointer()
        live, ends = self._place.offsets(pointer.generation), self._tail.ends()
        ours = self._place.offsets(self._generation)
        state, is_live = record_of(pointer, self._generation).state, pointer.generation == self._generation
        self._begin_lost(pointer, ours, ends)
        self._find_phase(ours, is_live=is_live)
        self._phase_kept(state)
        share = self._throttle.look(ends, live)
        if self._phase is Phase.WHOLE and sum(max(0, (live[p] or 0) - (ours[p] or 0)) for p in ends) < _NEAR:
            # It chases, which is no more work than the live view's own: held back, it would hold up a switch.
            share = self._max_share
        self._look_at_memory()
        self._crew.tell(share, is_paused=self._is_paused)
        self._live = live
        target = {each: self._until.get(each, end) for each, end in ends.items()}
        done = sum(min(ours[each] or 0, target[each]) for each in target)
        return self._seen_so(done, sum(target.values()), sum(max(0, ends[p] - (live[p] or 0)) for p in ends), share)

    def _begin_lost(self, pointer: Pointer, ours: Mapping[int, int | None], partitions: Collection[int]) -> None:
        """Begin what the crew feeds anew where it was lost. Nobody else would: its workers wait for what is not there.

        That is what is made here; once that is live, whatever stands whole beside it.
        """
        fed = {self._generation: ours}
        if pointer.generation == self._generation:
            beside = [name for name in pointer.records if name != self._generation]
            whole = [name for name in beside if record_of(pointer, name).state == GenerationState.WHOLE]
            fed = {name: self._place.offsets(name) for name in whole}
        for name, offsets in fed.items():
            if lost := [each for each in partitions if offsets[each] is None]:
                begin_again(self._place.roles, name, lost)

    def _find_phase(self, ours: Mapping[int, int | None], *, is_live: bool) -> None:
        if self._phase is not Phase.FILLING:
            return
        if self._until:
            if all((ours[each] or 0) >= offset for each, offset in self._until.items()):
                self._phase = Phase.AS_FAR_AS_ASKED
        elif is_live:
            roles = self._place.roles.roles(range(self._place.partitions)).values()
            if all(role is not None and role.state == RoleState.LIVE for role in roles):
                self._phase = Phase.WHOLE
        elif self._live and all((ours[each] or 0) >= (offset or 0) for each, offset in self._live.items()):
            self._phase = Phase.WHOLE

    def _phase_kept(self, state: GenerationState) -> None:
        if self._phase is Phase.WHOLE and state == GenerationState.FILLING:
            # Not while a switch is under way: the next look tries again.
            with suppress(GenerationRefusedError):
                mark(self._place.roles, self._generation, GenerationState.WHOLE)

    def _look_at_memory(self) -> None:
        now_s = self._now_s()
        if now_s >= self._memory_at_s:
            self._memory_at_s = now_s + _MEMORY_EVERY_S
            memory = self._place.inventory.memory()
            self._is_paused = self._phase is Phase.FILLING and memory.used > memory.limit - self._reserve

    def _seen_so(self, done: int, of: int, live_lag: int, share: float) -> Look:
        now_s = self._now_s()
        self._seen = [each for each in self._seen if now_s - each[0] < _RATE_OVER_S] or self._seen[-1:]
        self._seen.append((now_s, done))
        (since_s, before), seconds = self._seen[0], now_s - self._began_s
        rate = (done - before) / (now_s - since_s) if now_s > since_s else 0.0
        left_s = (of - done) / rate if rate > 0 else None
        return Look(
            self._generation,
            self._phase,
            done,
            of,
            rate,
            left_s,
            live_lag,
            share,
            self._is_paused,
            self._crew.cpu_s,
            self._crew.restarts,
            seconds,
        )

    def _now_s(self) -> float:
        return self._clock.monotonic_ms() / 1000
