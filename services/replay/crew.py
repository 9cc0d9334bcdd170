"""The bulk readers of a replay: started, told their share, restarted if they die, and ended with this process."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, Self

from services.clock import Clock
from services.medication_list.generations import GenerationRefusedError
from services.replay.order import DONE, REFUSED, Order, Pacing, Told

_AGAIN_MS: Final = 1_000
_AGAIN_BESIDE_OTHERS_MS: Final = 10_000
"""One that found nothing to feed while others go on saw what is no more: a view that was retired, in a store that went back."""
_LEAVES_WITHIN_MS: Final = 5_000
_LEAST_MS: Final = 100


class Reader(Protocol):
    """One bulk reader that was started. It works until it is ended, or ends by itself."""

    @property
    def told(self) -> Told:
        """What it told last."""
        ...

    def code(self) -> int | None:
        """What it ended with; None while it works."""
        ...

    def tell(self, pacing: Pacing) -> None:
        """What holds from now on; one that is gone does not hear it."""
        ...

    def leave(self) -> None:
        """Ask it to end in order."""
        ...

    def end(self, within_ms: int) -> None:
        """Return when it has ended; one that has not by then is killed."""
        ...

    def last_words(self) -> str:
        """Why it would not work, in one sentence, once it ended with REFUSED."""
        ...


@dataclass
class _Member:
    number: int
    partitions: Sequence[int]
    reader: Reader | None = None
    is_done: bool = False
    ended_at_ms: int = 0
    restarts: int = 0
    cpu_before_s: float = 0.0

    @property
    def cpu_s(self) -> float:
        return self.cpu_before_s + (0.0 if self.reader is None else self.reader.told.cpu_s)


class Crew:
    """The bulk readers of one generation, each with its share of the partitions."""

    def __init__(
        self,
        generation: str,
        partitions: int,
        workers: int,
        until: Mapping[int, int],
        clock: Clock,
        started: Callable[[int, Order], Reader],
    ) -> None:
        """`started` starts a reader by its number. `until`: the offsets before which to stop."""
        self._generation = generation
        self._until = until
        self._clock = clock
        self._started = started
        self._share = 1.0
        self._members = [
            _Member(number, range(number, partitions, workers)) for number in range(min(workers, partitions))
        ]

    @property
    def is_done(self) -> bool:
        """Whether all have ended because there is nothing left for them to feed."""
        return all(member.is_done for member in self._members)

    @property
    def cpu_s(self) -> float:
        """Processor time that they took so far, those that died included, as far as they told."""
        return sum(member.cpu_s for member in self._members)

    @property
    def restarts(self) -> int:
        """How often one was started again."""
        return sum(member.restarts for member in self._members)

    def start(self, share: float) -> None:
        """Start all of them, each with this share of a core."""
        self._share = share
        for member in self._members:
            self._start(member)

    def tell(self, share: float, *, is_paused: bool) -> None:
        """Tell all of them what share of a core they may take from now on."""
        self._share = share
        for member in self._members:
            if member.reader is not None:
                member.reader.tell(Pacing(share, is_paused))

    def look_after(self) -> None:
        """Start those again that died. Raises GenerationRefusedError where one says why it must not work."""
        for member in self._members:
            if member.reader is None:
                after_ms = _AGAIN_BESIDE_OTHERS_MS if member.is_done else _AGAIN_MS
                if not self.is_done and self._clock.monotonic_ms() - member.ended_at_ms > after_ms:
                    member.restarts += 1
                    self._start(member)
                continue
            code = member.reader.code()
            if code is not None:
                self._ended(member, member.reader, code)

    def stop(self) -> None:
        """Have all of them leave, and end those that do not. Twice does no harm."""
        running = [member.reader for member in self._members if member.reader is not None]
        for reader in running:
            reader.leave()
        deadline_ms = self._clock.monotonic_ms() + _LEAVES_WITHIN_MS
        for reader in running:
            reader.end(max(_LEAST_MS, deadline_ms - self._clock.monotonic_ms()))
        for member in self._members:
            member.reader = None
            member.is_done = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self, member: _Member) -> None:
        member.is_done = False
        order = Order(self._generation, list(member.partitions), self._share, self._until)
        member.reader = self._started(member.number, order)

    def _ended(self, member: _Member, reader: Reader, code: int) -> None:
        member.cpu_before_s, member.reader = member.cpu_s, None
        member.ended_at_ms = self._clock.monotonic_ms()
        if code == REFUSED:
            raise GenerationRefusedError(reader.last_words())
        member.is_done = code == DONE
