"""The clients as one process: a town that writes by every way in, and readers that poll lists; all of it is written down.

`python -m tests.chaos.client <orders.json>`. What was sent and answered goes to history.jsonl (`simulator.history`), what
was read to reads.jsonl, how far it is to progress.json, each in the round's folder.
"""

import asyncio
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
from msgspec import Struct

from services.identity.pseudonym import Pseudonymiser
from services.identity.sealing import Sealer
from services.publishing.kafka_access import KafkaAccess
from services.simulator.diary import Planned
from services.simulator.history import History, Line
from services.simulator.http_channel import HttpChannel, stated
from services.simulator.log_channel import LogChannel
from services.simulator.playing import Channel, play
from services.simulator.population import Town
from services.simulator.submission_channel import SubmissionChannel
from services.simulator.town import events

SHARES: Final = {"log": 37, "submissions": 2, "http": 1}
"""Of every forty patients. Submissions and HTTP wait for each answer, so the load comes by the log."""
READERS: Final = 4
READ_PATIENTS: Final = 10
"""Each reader polls so many, and so sees each of them often."""
_READ_EVERY_S: Final = 0.12
_READ_TIMEOUT_S: Final = 8.0
_AFTER_POSITION: Final = 0.2
_PATIENCE_S: Final = 240.0
"""Longer than the longest that a fault keeps the broker away, and than a producer tries."""
_TOLD_EVERY_S: Final = 0.25


class Orders(Struct, frozen=True):
    """What the client is to do, and where. `log_only`: there is nobody to take what comes by another way."""

    kafka: str
    urls: dict[str, str]
    pseudonym_key: str
    sealing_key: str
    folder: str
    patients: int
    seed: int
    events: int
    rate: float
    log_only: bool = False

    def shares(self) -> dict[str, int]:
        """Of how many patients each way in has how many."""
        return {"log": 1} if self.log_only else SHARES


class Read(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One reading of a list, and what it showed. `status` None: no answer. `after`: the position that was asked for.

    `position` is the offset of the last record of the patient's partition that the list takes account of, -1 before any.
    """

    reader: int
    patient: int
    asked_at_ms: int
    answered_at_ms: int
    status: int | None
    after: str | None = None
    position: int | None = None
    generation: str | None = None
    version: int | None = None
    as_of_ms: int | None = None
    empty: bool = False
    complete: bool = True


class _Noting(History):
    """A history that remembers the last position of each patient, for readers who want no less."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.last: dict[int, str] = {}
        self.lines = 0

    def write(self, line: Line) -> None:
        """As `History.write`."""
        if line.position is not None:
            self.last[line.patient] = line.position
        self.lines += 1
        super().write(line)


def main() -> None:
    """Write and read until everything that was to be written is answered."""
    orders = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Orders)
    folder, town = Path(orders.folder), Town(orders.patients)
    done = threading.Event()
    with _Noting(folder / "history.jsonl") as history, ThreadPoolExecutor(len(SHARES) + 2) as threads:
        reading = threads.submit(asyncio.run, _read(orders, town, history, done))
        telling = threads.submit(_tell, folder / "progress.json", history, done)
        writing = [threads.submit(asyncio.run, _write(name, orders, town, history)) for name in orders.shares()]
        try:
            for each in writing:
                each.result()
        finally:
            done.set()
        reading.result()
        telling.result()


# --- Writing ----------------------------------------------------------------------------------------------------------


async def _write(name: str, orders: Orders, town: Town, history: History) -> None:
    share = orders.shares()[name] / sum(orders.shares().values())
    channel = _CHANNELS[name](orders, town, history)
    await play(_of(name, orders, town), {channel: 1}, rate=orders.rate * share)


def _of(name: str, orders: Orders, town: Town) -> Iterator[Planned]:
    """What the patients of this way in do: each patient always comes by the same."""
    owner = [each for each, share in orders.shares().items() for _ in range(share)]
    return (each for each in events(orders.seed, orders.events, town=town) if owner[each.patient % len(owner)] == name)


def _log(orders: Orders, town: Town, history: History) -> Channel:
    pseudonymiser = Pseudonymiser(bytes.fromhex(orders.pseudonym_key))
    sealer = Sealer(bytes.fromhex(orders.sealing_key))
    return LogChannel(KafkaAccess(orders.kafka), town, pseudonymiser, sealer, history, closes_within_s=_PATIENCE_S)


def _submissions(orders: Orders, town: Town, history: History) -> Channel:
    return SubmissionChannel(KafkaAccess(orders.kafka), town, history)


def _http(orders: Orders, town: Town, history: History) -> Channel:
    return HttpChannel(orders.urls, town, history)


_CHANNELS: Final[dict[str, Callable[[Orders, Town, History], Channel]]] = {
    "log": _log,
    "submissions": _submissions,
    "http": _http,
}


# --- Reading ----------------------------------------------------------------------------------------------------------


async def _read(orders: Orders, town: Town, history: _Noting, done: threading.Event) -> None:
    with (Path(orders.folder) / "reads.jsonl").open("wb") as file:
        async with httpx.AsyncClient(
            base_url=orders.urls["medication-list"], timeout=_READ_TIMEOUT_S, trust_env=False
        ) as http:
            readers = (_reader(number, orders, town, history, http, file, done) for number in range(READERS))
            await asyncio.gather(*readers)


async def _reader(
    number: int, orders: Orders, town: Town, history: _Noting, http: httpx.AsyncClient, file: Any, done: threading.Event
) -> None:
    dice = random.Random(orders.seed * 1000 + number)
    patients = dice.sample(range(len(town.patients)), min(READ_PATIENTS, len(town.patients)))
    caller = {"Medchain-Caller": stated(town.doctors[number % len(town.doctors)])}
    while not done.is_set():
        patient = dice.choice(patients)
        after = history.last.get(patient) if dice.random() < _AFTER_POSITION else None
        asked: dict[str, Any] = {"patient": {"national_id": town.patients[patient].national_id.digits}}
        if after is not None:
            asked["after_position"] = after
        asked_at_ms = _now_ms()
        try:
            answer = await http.post("/v1/list/read", json=asked, headers=caller)
        except httpx.TransportError:
            answer = None
        file.write(msgspec.json.encode(_told(number, patient, asked_at_ms, after, answer)) + b"\n")
        file.flush()
        await asyncio.sleep(_READ_EVERY_S)


def _told(number: int, patient: int, asked_at_ms: int, after: str | None, answer: httpx.Response | None) -> Read:
    status = None if answer is None else answer.status_code
    plain = Read(
        reader=number,
        patient=patient,
        asked_at_ms=asked_at_ms,
        answered_at_ms=_now_ms(),
        status=status,
        after=after,
    )
    if answer is None or not answer.is_success:
        return plain
    told = answer.json()
    shown = ("treatments", "other_prescriptions", "unseen_hand_outs", "allergies")
    return msgspec.structs.replace(
        plain,
        position=-1 if told["position"] is None else int(told["position"].split("-")[1]),
        generation=told["generation"],
        version=told["version"],
        as_of_ms=_ms_of(told["as_of"]),
        empty=not any(told[name] for name in shown),
        complete=told["complete"],
    )


def _ms_of(instant: str) -> int:
    from datetime import datetime  # noqa: PLC0415

    return round(datetime.fromisoformat(instant).timestamp() * 1000)


# --- Telling ----------------------------------------------------------------------------------------------------------


def _tell(path: Path, history: _Noting, done: threading.Event) -> None:
    """Say now and then how many were answered."""
    began = time.monotonic()
    while True:
        ended = done.wait(_TOLD_EVERY_S)
        fresh = path.with_suffix(".fresh")
        fresh.write_bytes(msgspec.json.encode({"answered": history.lines, "seconds": time.monotonic() - began}))
        fresh.replace(path)
        if ended:
            return


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


if __name__ == "__main__":
    main()
