"""`medchain drill`: rehearses a replay under load, a switch and the way back, all checked and measured."""

import asyncio
import json
import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from kafka import KafkaConsumer, TopicPartition
from redis import Redis

from deploy.local.keys import keys_of
from deploy.local.layout import BUILD
from deploy.local.platform import Platform
from deploy.local.waiting import NeverCameTrueError, wait_until
from schemas import codec
from services.command_line.app import COMMAND
from services.command_line.clients import Found, NeverReadError, write_until
from services.command_line.demo import (
    CheckNotMadeError,
    asked_to_check,
    out,
    show_differences,
    started,
    step,
    summary,
)
from services.command_line.telling import AsJson, Exit, ending, finite, tell
from services.publishing.kafka_access import KafkaAccess
from services.publishing.kafka_clients import connect
from services.replay.place import LogTail
from services.simulator.cli import progress
from services.simulator.connecting import SERVICES, Via, Where, channels
from services.simulator.diary import Planned
from services.simulator.history import History
from services.simulator.playing import play
from services.simulator.population import Town
from services.simulator.submission_channel import SubmissionChannel
from services.simulator.town import events, patients_for
from services.topics.reading import is_behind
from services.topics.registry import EVENTS_TOPIC, load

FOLDER: Final = BUILD / "drill"
REPORT: Final = BUILD / "drill.json"
_CLIENTS: Final = 100
_VISITORS: Final = 2_000
_SWITCHED_WITHIN_S: Final = 300.0
_JUDGED_WITHIN_S: Final = 3_600.0
_POLL_MS: Final = 500

app = typer.Typer(
    name="drill", help="Replay, switch and roll back under load.", add_completion=False, pretty_exceptions_enable=False
)


@app.command()
def drill(
    events_wanted: Annotated[int, typer.Option("--events", min=500, help="How long the log is.")] = 20_000,
    rate: Annotated[
        float, typer.Option(min=2, callback=finite, help="Events a second that come in meanwhile, over the services.")
    ] = 50,
    seconds: Annotated[
        float, typer.Option(min=1, callback=finite, help="How long to measure before the replay and after each switch.")
    ] = 20,
    workers: Annotated[int, typer.Option(min=1, help="Bulk readers.")] = 1,
    max_share: Annotated[float, typer.Option(min=0.005, max=1, help="The most of a core for each of them.")] = 0.5,
    folder: Annotated[
        Path, typer.Option(help="Where the platform lives meanwhile; emptied first, if a drill made it.")
    ] = FOLDER,
    report: Annotated[Path, typer.Option(help="Where to write what it came to.")] = REPORT,
    *,
    as_json: AsJson = False,
) -> None:
    """Fill a log, let clients in, replay beside them, compare, switch, roll back.

    Exit codes: 0 all of it is well; 1 anything was lost or differs, or nobody can tell; 2 it could not be played. It is a
    platform of its own that is played on: nothing else changes.
    """
    out.quiet = as_json
    town = Town(patients_for(events_wanted))
    with (
        ending(Exit.NOT_WELL, DrillFailedError, CheckNotMadeError, NeverCameTrueError, NeverReadError, as_json=as_json),
        started(folder, FOLDER, town, as_json=as_json) as platform,
    ):
        found = Drill(platform, town, folder, rate, seconds).play(events_wanted, workers, max_share)
    report.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    tell(found, lambda _: out.print(summary(found)), as_json=as_json)
    if any(found[name] for name in ("differences", "lost", "doubled", "went_back", "mismatches")):
        raise typer.Exit(Exit.NOT_WELL)


class DrillFailedError(RuntimeError):
    """The drill ran, but gave no result to report; the text says why."""


class Drill:
    """One drill on one running platform."""

    def __init__(self, platform: Platform, town: Town, folder: Path, rate: float, seconds: float) -> None:
        self._platform = platform
        self._town = town
        self._folder = folder
        self._rate = rate
        self._seconds = seconds
        self._tries = 0
        self._kafka = KafkaAccess(platform.kafka_address)
        keys = keys_of(platform.directory)
        urls = {name: platform.url(name) for name in SERVICES}
        self._where = Where(self._kafka, urls, keys["MEDCHAIN_PSEUDONYM_KEY"], keys["MEDCHAIN_SEALING_KEY"])
        self._environment = {**os.environ, **self._kafka.as_environment(), "MEDCHAIN_REDIS": platform.redis_url}

    def play(self, n: int, workers: int, max_share: float) -> dict[str, Any]:
        """All of it; what the report says."""
        with step(f"Filling the log with {n:,} events"):
            self._fill(n)
        with step("Waiting until the live view has judged them"):
            self._await_judged()
        with self._traffic() as clients:
            began_s = self._measured("Measuring live writes alone")
            replay_began_s = time.monotonic()
            with step("Replaying beside them"), self._replaying(workers, max_share) as whole:
                replay_ended_s = time.monotonic()
                generation = str(whole["generation"])
                compared = self._asked("compare", generation, "--json")
                switched = self._switched("switch", generation)
                rolled_back = self._switched("rollback")
        with step("Waiting until everything is judged and relayed"):
            self._await_judged()
            self._await_relayed()
        checked = self._checked()
        lost, doubled = self._receipts()
        return {
            "events": whole["done"],
            "replay_seconds": round(whole["seconds"], 2),
            "events_per_second_per_core": round(whole["done"] / whole["cpu_s"]) if whole["cpu_s"] else 0,
            "live_p99_before_ms": round(clients.p99_ms(began_s, replay_began_s), 1),
            "live_p99_during_ms": round(clients.p99_ms(replay_began_s, replay_ended_s), 1),
            "differences": compared["differing"] + compared["behind"] + sum(compared["notes"].values()),
            "compared": compared["compared"],
            "compare_seconds": compared["seconds"],
            "compare_mib": compared["memory_mib"],
            "lost": clients.lost + lost + checked["lost"],
            "doubled": clients.doubled + doubled,
            "went_back": clients.went_back,
            "switch_ms": switched,
            "rollback_ms": rolled_back,
            "tries": self._tries,
            "rate": self._rate,
            "writes": len(clients.answered),
            "reads": clients.reads,
            "pending": clients.pending,
            "mismatches": checked["mismatches"],
        }

    # --- Load -----------------------------------------------------------------------------------------------------

    def _fill(self, n: int) -> None:
        async def run(lines: History, told: Callable[[int], None]) -> None:
            await play(events(1, n, town=self._town), channels(Via.LOG, self._where, self._town, lines), told=told)

        with History(self._folder / "filled.jsonl") as lines, progress("filling the log", n) as told:
            asyncio.run(run(lines, told))

    @contextmanager
    def _traffic(self) -> Iterator[Found]:
        """Half of the rate by clients over HTTP, half as submissions, until the block is left and all is answered."""
        found, ready = Found(), threading.Event()
        stopping: list[Callable[[], object]] = []
        failed: list[BaseException] = []

        async def run() -> None:
            loop, stopped = asyncio.get_running_loop(), asyncio.Event()
            stopping.append(partial(loop.call_soon_threadsafe, stopped.set))
            ready.set()
            urls, doctor = self._where.urls, self._town.doctors[0]
            await asyncio.gather(
                write_until(stopped, self._rate / 2, _CLIENTS, urls, doctor, found), self._submit(stopped)
            )

        def in_thread() -> None:
            try:
                asyncio.run(run())
            except BaseException as error:  # noqa: BLE001  raised again where it is waited for
                failed.append(error)
                ready.set()

        thread = threading.Thread(target=in_thread, name="traffic")
        thread.start()
        ready.wait()
        try:
            yield found
        finally:
            for stop in stopping:
                stop()
            thread.join()
        if failed:
            raise failed[0]

    async def _submit(self, stopped: asyncio.Event) -> None:
        """Another town's life, submitted over Kafka: every submission has one receipt."""
        visitors = Town(_VISITORS)

        def until_stopped() -> Iterator[Planned]:
            for planned in events(2, None, town=visitors):
                if stopped.is_set():
                    return
                yield planned

        with History(self._folder / "submitted.jsonl") as lines:
            channel = SubmissionChannel(self._where.kafka, visitors, lines)
            await play(until_stopped(), {channel: 1}, rate=self._rate / 2)

    def _measured(self, what: str) -> float:
        """Let traffic go on for a while; when that began."""
        # The first seconds of a new connection are not what is measured.
        time.sleep(min(5.0, self._seconds / 4))
        began_s = time.monotonic()
        with step(what):
            time.sleep(self._seconds)
        return began_s

    # --- The operator ---------------------------------------------------------------------------------------------

    @contextmanager
    def _replaying(self, workers: int, max_share: float) -> Iterator[dict[str, Any]]:
        """A replay in its own process; yields its look when it is whole, and lets it feed what nobody else feeds."""
        words = ("replay", "start", "--yes", "--json", "--workers", str(workers), "--max-share", str(max_share))
        process = self._started(*words)
        try:
            yield _whole(process)
        finally:
            process.terminate()
            process.wait()

    def _switched(self, *words: str) -> float:
        """Switch, and let traffic go on for a while."""
        name = words[0]
        with step(f"{name}: at once, while writes wait"):
            # The readers of the replay must have gone over to the other one.
            wait_until(lambda: self._is_ready(*words), within_s=_SWITCHED_WITHIN_S, what=f"{name} is possible")
            made: dict[str, Any] = {}
            wait_until(lambda: self._is_made(made, *words), within_s=_SWITCHED_WITHIN_S, what=f"{name} is made")
        time.sleep(self._seconds / 2)
        return float(made["switched"]["ms"])

    def _is_ready(self, *words: str) -> bool:
        return self._command("replay", *words).returncode == 0

    def _is_made(self, made: dict[str, Any], *words: str) -> bool:
        """One that did not come about in time left everything as it was: an operator tries again."""
        made.update(json.loads(self._command("replay", *words, "--yes", "--json").stdout))
        self._tries += 1
        return "switched" in made

    def _asked(self, *words: str) -> dict[str, Any]:
        said = self._command("replay", *words)
        found: dict[str, Any] = json.loads(said.stdout)
        if "error" in found:
            raise DrillFailedError(found["error"])
        return found

    def _command(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603  our own command line
            [*COMMAND, *words], env=self._environment, capture_output=True, text=True, check=False
        )

    def _started(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(  # noqa: S603  our own command line
            [*COMMAND, *words], env=self._environment, stdout=subprocess.PIPE, text=True
        )

    # --- What came of it ------------------------------------------------------------------------------------------

    def _await_judged(self) -> None:
        with closing(LogTail(self._kafka, load().partitions(EVENTS_TOPIC))) as tail:
            ends = sum(tail.ends().values())

        def judged() -> bool:
            found = json.loads(self._command("generations", "--json").stdout)["generations"]
            return bool(found and found[0]["state"] == "live" and found[0]["position"] >= ends)

        wait_until(judged, within_s=_JUDGED_WITHIN_S, what="the live view has judged the log")

    def _await_relayed(self) -> None:
        with Redis.from_url(self._platform.redis_url) as client:
            keys = [f"{{{each}}}:outbox" for each in range(load().partitions(EVENTS_TOPIC))]
            wait_until(lambda: not any(client.xlen(key) for key in keys), within_s=600, what="the outboxes are empty")

    def _checked(self) -> dict[str, Any]:
        """What the independent fold says. Raises CheckNotMadeError."""
        with step("Checking every patient against the oracle"):
            found = asked_to_check(self._platform, self._folder)
        show_differences(found)
        return found

    def _receipts(self) -> tuple[int, int]:
        """Submissions without a receipt, and receipts of one event that came more than once."""
        lines = [json.loads(line) for line in (self._folder / "submitted.jsonl").read_text().splitlines()]
        lost = sum(line["outcome"] == "failed" for line in lines)
        seen: Counter[object] = Counter()
        for receipt in self._read_receipts():
            seen[receipt.effect_id] += 1
            # A submission that came twice has a second receipt, which says duplicate, or that it was turned away again.
            if receipt.outcome not in ("duplicate", "rejected"):
                seen[receipt.message_id, receipt.event_id] += 1
        return lost, sum(count - 1 for count in seen.values())

    def _read_receipts(self) -> Iterator[Any]:
        topics = [
            topic.name for topic in load().wanted(self._town.parties) if topic.name.startswith("submission-receipts.")
        ]
        with closing(connect(KafkaConsumer, self._kafka, group_id=None)) as consumer:
            places = [TopicPartition(topic, each) for topic in topics for each in range(load().partitions(topic))]
            consumer.assign(places)
            consumer.seek_to_beginning(*places)
            ends = consumer.end_offsets(places)
            while is_behind(consumer, ends, _POLL_MS):
                for records in consumer.poll(_POLL_MS).values():
                    for record in records:
                        yield codec.decode(record.value)


def _whole(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The look at a replay that found it whole; its later looks are read and forgotten."""
    assert process.stdout is not None
    for line in process.stdout:
        look: dict[str, Any] = json.loads(line)
        if look.get("phase") == "whole":
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return look
        if "error" in look:
            raise DrillFailedError(look["error"])
    raise DrillFailedError("The replay ended before it was whole.")
