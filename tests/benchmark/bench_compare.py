"""Comparing two generations of a million patients: how long it takes, and how much memory the comparer needs for it.

``pytest -m benchmark tests/benchmark/bench_compare.py -s`` prints it; it needs some four gigabytes for Redis.
"""

# ruff: noqa: T201 — printing is what it does

import json
import os
import resource
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from services.medication_list.fold.state import META, Meta, Remembered
from services.medication_list.generations import GenerationRecord, begin_beside, enter
from services.medication_list.log.source_log import MemorySourceLog
from services.medication_list.store.link import Link
from services.medication_list.store.port import PartitionWrite, PatientChange
from services.medication_list.store.redis_inventory import RedisInventory
from services.medication_list.store.redis_roles import RedisRoles
from services.medication_list.store.redis_store import RedisStore
from services.medication_list.stored.packing import pack_field, pack_memory
from services.replay.compare import compare
from services.replay.place import Place
from tests.servers import a_redis

PARTITIONS = 8
AT_ONCE = 250
COUNTS = (100_000, 1_000_000)
FIELDS, EVENTS = 8, 10


def place_in(link: Link) -> Place:
    roles, log = RedisRoles(link), MemorySourceLog(log_ends=dict.fromkeys(range(PARTITIONS), 0))
    return Place(roles, log, RedisInventory(link), lambda generation: RedisStore(link, generation), PARTITIONS)


def fill(place: Place, patients: int) -> tuple[str, str]:
    """The same patients in two generations, but for one in a hundred thousand."""
    record = GenerationRecord(1, "0.1.0", 0)
    one = enter(place.roles, place.log, record)
    other = begin_beside(place.roles, place.log, record)
    fields = {f"t:{number:036d}": os.urandom(70) for number in range(FIELDS)}
    index = {b"e" + os.urandom(8): pack_memory(Remembered(number, os.urandom(8), 0)) for number in range(EVENTS)}
    put = {META: pack_field(Meta(1, 2)), **fields}
    for generation in (one, other):
        store = place.store_of(generation)
        for start in range(0, patients, AT_ONCE * PARTITIONS):
            offset = start // (AT_ONCE * PARTITIONS)
            writes = []
            for partition in range(PARTITIONS):
                names = range(start + partition * AT_ONCE, min(patients, start + (partition + 1) * AT_ONCE))
                changes = [
                    PatientChange(f"{name:032x}", _planted(put, name, generation == other), (), index) for name in names
                ]
                writes.append(PartitionWrite(partition, offset, 0, offset + 1, changes))
            store.write(writes)
    return one, other


def _planted(put: dict[str, bytes], name: int, is_other: bool) -> dict[str, bytes]:  # noqa: FBT001  two kinds of patients
    return {**put, "claim:x": b"\xa1x"} if is_other and name % 100_000 == 77 else put


def compared(url: str, one: str, other: str) -> dict[str, float]:
    """In a process of its own: its memory is what is asked for."""
    ran = subprocess.run(  # noqa: S603  ourselves
        [sys.executable, "-m", __name__, url, one, other], check=True, capture_output=True, text=True
    )
    found: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return found


@pytest.mark.benchmark
@pytest.mark.parametrize("patients", COUNTS)
def test_comparing_generations(scratch: Path, patients: int) -> None:
    with a_redis(scratch / f"redis-{patients}") as url, closing(Link(url, timeout_s=30)) as link:
        place = place_in(link)
        began = time.perf_counter()
        one, other = fill(place, patients)
        print(f"\n{patients:,} patients, filled in {time.perf_counter() - began:.0f} s")
        print(f"Redis: {place.inventory.memory().used >> 20:,} MiB")
        found = compared(url, one, other)
    print(
        f"compared {found['compared']:,.0f} in {found['wall_s']:.1f} s ({found['cpu_s']:.1f} s of its own CPU), "
        f"{found['mib']:.0f} MiB, of which {found['mib_before']:.0f} before it began; {found['differing']:.0f} differ"
    )
    assert found["compared"] == patients
    assert found["differing"] == len(range(77, patients, 100_000))


if __name__ == "__main__":
    url, one, other = sys.argv[1:]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with closing(Link(url, timeout_s=30)) as link:
        cpu = time.process_time()
        result = compare(place_in(link), one, other)
    told = {
        "compared": result.compared,
        "differing": result.differing,
        "wall_s": result.seconds,
        "cpu_s": time.process_time() - cpu,
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "mib_before": before,
    }
    print(json.dumps(told))
