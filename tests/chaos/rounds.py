"""One round: a platform, its clients, faults by the schedule, rest, and the verdict."""

import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
from kafka.errors import KafkaError

from deploy.local.program import Child, Program
from deploy.local.waiting import NeverCameTrueError, wait_until
from schemas import codec
from services.publishing.kafka_access import KafkaAccess
from services.simulator.population import Town
from tests.chaos import records
from tests.chaos.checker import Kind, Violation, violations
from tests.chaos.evidence import Evidence, collect
from tests.chaos.faults import Fault, NotPossibleHereError
from tests.chaos.faults.registry import let_pass
from tests.chaos.generations import differing
from tests.chaos.schedule import schedule
from tests.chaos.stand import Stand
from tests.oracle.comparing import compare
from tests.oracle.held import open_redis

RECOVERED_WITHIN_S: Final = 90.0
AT_REST_WITHIN_S: Final = 180.0
_BEGIN_AT: Final = 200
"""So many events are answered first: what is broken must have something to break."""
_LOOK_EVERY_S: Final = 0.03
FAR_MS: Final = 120 * 24 * 3_600_000

Tell = Callable[[str, int], None]
"""Told what is being done, and how many events were answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a round is to be. `rate`: events a second; `only`: these faults in this order, by name. `small`: fewer processes."""

    seed: int
    events: int
    rate: float
    faults: int
    only: Sequence[str] = ()
    mutants: Mapping[str, str] = field(default_factory=dict)
    small: bool = False


@dataclass(frozen=True, slots=True)
class Injected:
    """One fault that was injected. `recovered_ms` None: it stood together with another, or nothing moved again.

    `impossible`: why this machine does not allow it.
    """

    fault: str
    recovered_ms: int | None
    impossible: str | None = None
    alone: bool = True


@dataclass(slots=True)
class Outcome:
    """What a round came to."""

    seed: int
    folder: Path
    events: int = 0
    seconds: float = 0.0
    injected: list[Injected] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    reads: int = 0
    reads_refused: int = 0
    records: int = 0
    effects: int = 0
    partitions_twice: int = 0
    """Partitions in which two generations stood side by side at the end, and were compared."""
    phases_s: dict[str, float] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)
    """How often a write over HTTP was answered with which status at last; "none" where it never was."""


def play(plan: Plan, folder: Path, tell: Tell) -> Outcome:
    """Play one round in `folder`, which is left as it is at the end.

    Raises what the platform raises that does not start, and RuntimeError where the clients broke.
    """
    outcome = Outcome(plan.seed, folder)
    dice = random.Random(f"round/{plan.seed}")
    town = Town(max(80, plan.events // 40))
    began_s = time.monotonic()

    def reached(phase: str) -> None:
        outcome.phases_s[phase] = round(time.monotonic() - began_s - sum(outcome.phases_s.values()), 1)

    tell("starting the platform", 0)
    places = schedule(plan.seed, plan.faults, plan.only)
    small_disks = any("disk_full" in fault.name for together in places for fault in together)
    with Stand(folder, town.parties, plan.mutants, small=plan.small, small_disks=small_disks) as stand:
        reached("started")
        client = _client(plan, stand, len(town.patients))
        client.start()
        try:
            _under_faults(places, stand, client, dice, outcome, tell)
            _wait_for(client, tell, folder)
        finally:
            client.stop()
        reached("played")
        tell("waiting for rest", _answered(folder))
        _rest(stand, dice, outcome)
        reached("at rest")
        tell("checking", _answered(folder))
        evidence = _evidence(stand, town)
        outcome.partitions_twice, found = differing(stand.view, stand.partitions)
        outcome.violations += found
        reached("collected")
    reached("stopped")
    outcome.violations += violations(evidence)
    reached("judged")
    _count(outcome, evidence)
    _write_down(outcome)
    return outcome


# --- The clients ------------------------------------------------------------------------------------------------------


def _client(plan: Plan, stand: Stand, patients: int) -> Child:
    orders = stand.write_down(
        "client.json",
        stand.told()
        | {
            "folder": str(stand.folder),
            "patients": patients,
            "seed": plan.seed,
            "events": plan.events,
            "rate": plan.rate,
            "log_only": plan.small,
        },
    )
    return Child(
        Program(
            name="client",
            argv=(sys.executable, "-m", "tests.chaos.client", str(orders)),
            log=stand.folder / "logs" / "client.log",
            ready=lambda: True,
        )
    )


def _answered(folder: Path) -> int:
    path = folder / "progress.json"
    return int(json.loads(path.read_bytes())["answered"]) if path.exists() else 0


def _wait_for(client: Child, tell: Tell, folder: Path) -> None:
    while client.alive:
        tell("playing", _answered(folder))
        time.sleep(0.2)
    if client.returncode != 0:
        raise RuntimeError(f"the clients broke; see {client.program.log}")


# --- Faults -----------------------------------------------------------------------------------------------------------


def _under_faults(
    places: Sequence[tuple[Fault, ...]], stand: Stand, client: Child, dice: random.Random, outcome: Outcome, tell: Tell
) -> None:
    wait_until(
        lambda: not client.alive or _answered(stand.folder) >= _BEGIN_AT,
        within_s=120,
        what="the clients write",
    )
    for together in places:
        tell(" + ".join(fault.name for fault in together), _answered(stand.folder))
        began_ms = time.time_ns() // 1_000_000
        injected = inject(stand, together, dice, outcome)
        outcome.injected += injected
        _note(stand.folder, began_ms, injected)
        time.sleep(dice.uniform(0.2, 1.5))


def _note(folder: Path, began_ms: int, injected: Sequence[Injected]) -> None:
    """Write down when what was injected, for whoever reads the logs of a round afterwards."""
    ended_ms = time.time_ns() // 1_000_000
    line = {"began_ms": began_ms, "ended_ms": ended_ms, "faults": injected}
    with (folder / "faults.jsonl").open("ab") as file:
        file.write(msgspec.json.encode(line) + b"\n")


def inject(stand: Stand, together: Sequence[Fault], dice: random.Random, outcome: Outcome) -> list[Injected]:
    """Have these faults stand, the later ones within the earlier, and measure how long it takes until all moves again."""
    alone, recovered = len(together) == 1, None
    with ExitStack() as standing:
        try:
            for fault in together:
                began_s = time.monotonic()
                standing.enter_context(fault.inject(stand, dice))
            until_s = time.monotonic() + max(dice.uniform(*fault.holds_s) for fault in together)
            if alone and together[0].measured_inside:
                recovered = _recovered(stand, dice, began_s, outcome, together)
            let_pass(until_s - time.monotonic())
        except NotPossibleHereError as error:
            return [Injected(fault.name, None, str(error)) for fault in together]
        except NeverCameTrueError as error:
            names = " + ".join(fault.name for fault in together)
            outcome.violations.append(Violation(Kind.UNRECOVERED, names, str(error)))
            return [Injected(fault.name, None, alone=alone) for fault in together]
    if recovered is None:
        recovered = _recovered(stand, dice, time.monotonic(), outcome, together)
    return [Injected(fault.name, recovered if alone else None, alone=alone) for fault in together]


def _recovered(
    stand: Stand, dice: random.Random, since_s: float, outcome: Outcome, together: Sequence[Fault]
) -> int | None:
    """Milliseconds until every partition took an event that came after, and its list can be read."""
    try:
        await_pulse(stand, dice)
    except NeverCameTrueError as error:
        names = " + ".join(fault.name for fault in together)
        outcome.violations.append(Violation(Kind.UNRECOVERED, names, str(error)))
        return None
    return round((time.monotonic() - since_s) * 1000)


def await_pulse(stand: Stand, dice: random.Random, within_s: float = RECOVERED_WITHIN_S) -> None:
    """Append an event to every partition; return when all are in the view, and can be read. Raises NeverCameTrueError."""
    places: dict[int, int] = {}

    def appended() -> bool:
        try:
            sent = [
                stand.append(patient, codec.encode(records.allergy(patient, dice)), partition)
                for partition, patient in enumerate(stand.pulse_patients)
            ]
            places.update({at.partition: at.offset for at in (each.get(timeout=10) for each in sent)})
        except KafkaError:
            stand.forget_producer()
            return False
        return True

    wait_until(appended, within_s=within_s, what="the log takes a record in every partition")
    wait_until(partial(_judged, stand, places), within_s=within_s, what="every partition moves")
    wait_until(partial(_readable, stand, places), within_s=within_s, what="every partition can be read")


def _judged(stand: Stand, places: Mapping[int, int]) -> bool:
    offsets = stand.offsets()
    return all(offsets.get(partition, 0) > offset for partition, offset in places.items())


def _readable(stand: Stand, places: Mapping[int, int]) -> bool:
    caller = {"Medchain-Caller": "system=journal; organisation=313000044; role=doctor; person=9144900"}
    for partition, offset in places.items():
        asked = {
            "patient": {"national_id": stand.pulse_numbers[partition].digits},
            "after_position": f"{partition}-{offset}",
        }
        try:
            answer = stand.http.post(f"{stand.url('medication-list')}/v1/list/read", json=asked, headers=caller)
        except httpx.TransportError:
            return False
        if not answer.is_success:
            return False
    return True


# --- Rest, and the verdict --------------------------------------------------------------------------------------------


def _rest(stand: Stand, dice: random.Random, outcome: Outcome) -> None:
    """Wait until everything that was sent is judged, and everything that is due was told."""
    try:
        wait_until(lambda: not stand.inboxes_are_behind(), within_s=AT_REST_WITHIN_S, what="the inboxes have answered")
        await_pulse(stand, dice, AT_REST_WITHIN_S)
        wait_until(lambda: stand.waiting_effects() == 0, within_s=AT_REST_WITHIN_S, what="every effect is relayed")
    except NeverCameTrueError as error:
        outcome.violations.append(Violation(Kind.UNRECOVERED, "at the end", str(error)))


def _evidence(stand: Stand, town: Town) -> Evidence:
    pseudonymiser = stand.pseudonymiser()
    patients = {each.index: pseudonymiser.patient_key(each.national_id) for each in town.patients}
    evidence = collect(stand.broker.address, stand.partitions, stand.parties, stand.folder, patients)
    now_ms = time.time_ns() // 1_000_000
    with open_redis(stand.redis.address, stand.partitions, KafkaAccess(stand.broker.address)) as held:
        evidence.report = compare(evidence.log, held, [now_ms, now_ms + FAR_MS])
    return evidence


def _count(outcome: Outcome, evidence: Evidence) -> None:
    lines = evidence.lines
    outcome.events = len(lines)
    if lines:
        first, last = min(line.sent_at_ms for line in lines), max(line.sent_at_ms for line in lines)
        outcome.seconds = (last - first) / 1000
    outcome.records = len(evidence.log)
    outcome.effects = len(evidence.delivered)
    outcome.answers = dict(Counter(str(each.status or "none") for each in lines if each.channel == "http"))
    outcome.reads = len(evidence.reads)
    outcome.reads_refused = sum(read.status != 200 for read in evidence.reads)


def _write_down(outcome: Outcome) -> None:
    plain: dict[str, Any] = msgspec.to_builtins(outcome, enc_hook=str)
    (outcome.folder / "outcome.json").write_text(json.dumps(plain, indent=2), encoding="utf-8")
