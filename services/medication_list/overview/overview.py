"""The state of log and view, seen from outside: owner and lag of each partition, what waits or is parked, Redis, generations.

For metrics, `medchain status` and `medchain doctor`. It changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import msgspec
from kafka.errors import KafkaError, TopicAuthorizationFailedError

from services.medication_list.fold import VERSION
from services.medication_list.generations import GenerationState, record_of
from services.medication_list.groups import group_of_generation, group_of_release
from services.medication_list.overview.log_side import LogAsker, LogSide
from services.medication_list.store.keys import GenerationKeys, PartitionKeys, workers_key
from services.medication_list.store.link import Link, command
from services.medication_list.store.port import StoreUnavailableError
from services.medication_list.store.redis_roles import RedisRoles
from services.medication_list.store.roles import Pointer, Role, RoleState
from services.medication_list.stored.parked_note import unpack_note
from services.publishing.kafka_access import no_right_to, refusal
from services.topics.registry import EVENTS_TOPIC, Topics


class PartitionOverview(msgspec.Struct, frozen=True, kw_only=True):
    """One partition; None where it could not be determined, or where there is nothing.

    `owner`: the consumer that works on it. `offset`: of the live view, `end`: of the log; `lag_seconds`: how long ago the
    broker took the first record that waits. `outbox`: effects that wait, `outbox_seconds`: since when the first one does.
    """

    partition: int
    owner: str | None = None
    offset: int | None = None
    end: int | None = None
    lag: int | None = None
    lag_seconds: float | None = None
    state: str | None = None
    parked: int | None = None
    outbox: int | None = None
    outbox_seconds: float | None = None


class GenerationOverview(msgspec.Struct, frozen=True, kw_only=True):
    """One generation. `lag`: records that it has still to take, None where the log or its offsets are not known."""

    generation: str
    fold_version: int
    release: str
    made_at_ms: int
    is_live: bool
    is_complete: bool
    """Whether no partition of it is being built: by a replay, or, if it is live, after a loss."""
    is_fed: bool
    """Whether anybody works on it."""
    lag: int | None


class RedisOverview(msgspec.Struct, frozen=True, kw_only=True):
    """Memory in bytes; `max_bytes` 0: as much as the machine has."""

    version: str
    used_bytes: int
    max_bytes: int
    policy: str
    appends_file: bool


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """Everything at about one time. `away`: who did not answer, in words."""

    at_ms: int
    partitions: tuple[PartitionOverview, ...]
    generations: tuple[GenerationOverview, ...] = ()
    redis: RedisOverview | None = None
    away: tuple[str, ...] = ()

    @property
    def without_owner(self) -> tuple[int, ...] | None:
        """Partitions that no processor works on; None where the broker did not tell."""
        if any(each.end is None for each in self.partitions):
            return None
        return tuple(each.partition for each in self.partitions if each.owner is None)


class _ViewSide(msgspec.Struct):
    pointer: Pointer | None = None
    roles: Mapping[int, Role | None] = {}
    offsets: Mapping[str, Mapping[int, int | None]] = {}
    fed: Mapping[str, bool] = {}
    parked: Mapping[int, int] = {}
    outboxes: Mapping[int, tuple[int, int | None]] = {}
    redis: RedisOverview | None = None


def overview(asker: LogAsker, link: Link, topics: Topics, *, now_ms: int | None = None) -> Overview:
    """Ask brokers and Redis. Blocking, some seconds where one of them is away; never raises for that."""
    partitions = range(topics.partitions(EVENTS_TOPIC))
    at_ms = int(time.time() * 1000) if now_ms is None else now_ms
    away: list[str] = []
    log, view, first_ms = LogSide(), _ViewSide(), dict[int, int]()
    try:
        view = _view_side(link, partitions)
    except StoreUnavailableError as error:
        away.append(f"Redis does not answer ({type(error).__name__}).")
    try:
        log = asker.side(_groups(view.pointer))
        first_ms = asker.first_waiting(_behind(log, view))
    except TopicAuthorizationFailedError:
        away.append(no_right_to(EVENTS_TOPIC))
    except (KafkaError, OSError) as error:
        away.append(refusal(asker.kafka) or f"The broker does not answer ({type(error).__name__}).")
    return Overview(
        at_ms=at_ms,
        partitions=tuple(_partition(each, log, view, first_ms, at_ms) for each in partitions),
        generations=_generations(log, view),
        redis=view.redis,
        away=tuple(away),
    )


# --- The log ------------------------------------------------------------------------------------------------------


def _groups(pointer: Pointer | None) -> tuple[str, ...]:
    """Whose members may feed the live generation; where it is not known, those of this release."""
    if pointer is None:
        return (group_of_release(VERSION),)
    live = pointer.generation
    return group_of_release(record_of(pointer, live).fold_version), group_of_generation(live)


def _behind(log: LogSide, view: _ViewSide) -> dict[int, int]:
    """The offset of the first record that waits, for each partition of which one does."""
    live = {} if view.pointer is None else view.offsets[view.pointer.generation]
    return {p: offset for p, end in log.ends.items() if (offset := live.get(p)) is not None and offset < end}


# --- The view -----------------------------------------------------------------------------------------------------


def _view_side(link: Link, partitions: range) -> _ViewSide:
    roles = RedisRoles(link)
    pointer = roles.pointer()
    generations = () if pointer is None else tuple(pointer.records)
    return _ViewSide(
        pointer,
        roles.roles(partitions),
        {each: roles.offsets(each, partitions) for each in generations},
        _fed(link, generations),
        {} if pointer is None else _parked(link, pointer.generation, partitions),
        _outboxes(link, partitions),
        redis_overview(link),
    )


def _fed(link: Link, generations: Sequence[str]) -> dict[str, bool]:
    """Only looked at, unlike `Roles.attending`, which removes whose time is over: the key goes with the last of them."""
    there = link.ask(command("EXISTS", workers_key(each)) for each in generations)
    return {name: bool(each) for name, each in zip(generations, there, strict=True)}


def _parked(link: Link, generation: str, partitions: range) -> dict[int, int]:
    """How many records stand parked: those that an operator closed do not count."""
    replies = link.ask(command("HVALS", GenerationKeys(generation, each).parked) for each in partitions)
    return {
        p: sum(unpack_note(note).closed is None for note in notes) for p, notes in zip(partitions, replies, strict=True)
    }


def _outboxes(link: Link, partitions: range) -> dict[int, tuple[int, int | None]]:
    """How many effects wait in each partition, and since when the first one does (milliseconds since the epoch)."""
    keys = [PartitionKeys(each).outbox for each in partitions]
    lengths = link.ask(command("XLEN", each) for each in keys)
    firsts = link.ask(command("XRANGE", each, "-", "+", "COUNT", 1) for each in keys)
    since = [int(entries[0][0].partition(b"-")[0]) if entries else None for entries in firsts]
    return dict(zip(partitions, zip(lengths, since, strict=True), strict=True))


def redis_overview(link: Link) -> RedisOverview:
    """What Redis says of itself. Raises StoreUnavailableError."""
    said: dict[str, str] = {}
    for text in link.ask(command("INFO", section) for section in ("server", "memory", "persistence")):
        lines = (line.partition(":") for line in text.decode().splitlines())
        said |= {name: value.strip() for name, _, value in lines}
    return RedisOverview(
        version=said["redis_version"],
        used_bytes=int(said["used_memory"]),
        max_bytes=int(said["maxmemory"]),
        policy=said["maxmemory_policy"],
        appends_file=said["aof_enabled"] == "1",
    )


# --- Both ---------------------------------------------------------------------------------------------------------


def _partition(
    partition: int, log: LogSide, view: _ViewSide, first_ms: Mapping[int, int], at_ms: int
) -> PartitionOverview:
    offset = None if view.pointer is None else view.offsets[view.pointer.generation].get(partition)
    end, role = log.ends.get(partition), view.roles.get(partition)
    lag = None if end is None or offset is None else max(0, end - offset)
    waiting, since_ms = view.outboxes.get(partition, (None, None))
    taken_ms = first_ms.get(partition)
    return PartitionOverview(
        partition=partition,
        owner=log.owners.get(partition),
        offset=offset,
        end=end,
        lag=lag,
        lag_seconds=0.0 if lag == 0 else _seconds(taken_ms, at_ms),
        state=None if role is None else role.state.value,
        parked=view.parked.get(partition),
        outbox=waiting,
        outbox_seconds=0.0 if waiting == 0 else _seconds(since_ms, at_ms),
    )


def _seconds(since_ms: int | None, at_ms: int) -> float | None:
    return None if since_ms is None else max(0.0, (at_ms - since_ms) / 1000)


def _generations(log: LogSide, view: _ViewSide) -> tuple[GenerationOverview, ...]:
    pointer = view.pointer
    if pointer is None:
        return ()
    found = []
    for name, offsets in view.offsets.items():
        record, is_live = record_of(pointer, name), name == pointer.generation
        if record.state is GenerationState.RETIRED:
            continue
        lags = [log.ends[p] - offset for p, offset in offsets.items() if offset is not None and p in log.ends]
        found.append(
            GenerationOverview(
                generation=name,
                fold_version=record.fold_version,
                release=record.release,
                made_at_ms=record.made_at_ms,
                is_live=is_live,
                is_complete=_is_shown(tuple(view.roles.values())) if is_live else record.state is GenerationState.WHOLE,
                is_fed=view.fed[name],
                lag=sum(lags) if lags else None,
            )
        )
    return tuple(found)


def _is_shown(roles: Sequence[Role | None]) -> bool:
    return all(role is not None and role.state is not RoleState.BUILDING for role in roles)
