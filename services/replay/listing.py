"""`medchain generations`: the generations in the store, which one is live, how far each is, and who works on it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from services.command_line.telling import AsJson, tell
from services.medication_list.generations import GenerationState, is_announced, record_of
from services.medication_list.store.roles import Pointer, RoleState
from services.replay.place import Place, open_place
from services.replay.starting import SAMPLED_KEYS, mib
from services.replay.switching import lag
from services.replay.telling import answered

app = typer.Typer(
    name="generations", help="The generations of the view.", add_completion=False, pretty_exceptions_enable=False
)


class Listed(msgspec.Struct, frozen=True):
    """One generation. `position`: events that it has judged; `bytes` is an estimate; `workers` by kind and process."""

    name: str
    state: str
    fold_version: int
    release: str
    made_at: str
    position: int
    behind_live: int | None
    behind_log: int | None
    bytes: int
    workers: Sequence[str]


@app.command()
def generations(*, as_json: AsJson = False) -> None:
    """List the generations: the live one first, retired ones last. Changes nothing."""
    with answered(as_json=as_json), open_place() as place:
        found = listed(place)
        switching = is_announced(place.pointer().token)
    tell(
        {"switching": switching, "generations": found},
        lambda out: _page(out, found, switching=switching),
        as_json=as_json,
    )


def listed(place: Place) -> list[Listed]:
    """All generations that the store knows. Raises GenerationRefusedError in an empty store."""
    pointer = place.pointer()
    ends, sizes = place.log.ends(), place.inventory.sizes(SAMPLED_KEYS)
    found = [_listed(place, pointer, name, sum(ends.values()), sizes.get(name, 0)) for name in pointer.records]
    order = {"live": 0, "building": 0, "beside": 1, "filling": 2, "retired": 3}
    return sorted(found, key=lambda each: (order[each.state], -int(each.name[1:].partition("-")[0])))


def _listed(place: Place, pointer: Pointer, name: str, end: int, size: int) -> Listed:
    record = record_of(pointer, name)
    is_retired = record.state == GenerationState.RETIRED
    position = sum(offset or 0 for offset in place.offsets(name).values())
    return Listed(
        name=name,
        state=_state(place, pointer, name, record.state),
        fold_version=record.fold_version,
        release=record.release,
        made_at=datetime.fromtimestamp(record.made_at_ms / 1000, UTC).isoformat(timespec="seconds"),
        position=position,
        behind_live=None if is_retired else lag(place, pointer, name),
        behind_log=None if is_retired else max(0, end - position),
        bytes=size,
        workers=sorted("/".join(each) for each in place.roles.attending(name)),
    )


def _state(place: Place, pointer: Pointer, name: str, state: GenerationState) -> str:
    if name == pointer.generation:
        roles = place.roles.roles(range(place.partitions)).values()
        building = any(role is None or role.state == RoleState.BUILDING for role in roles)
        return "building" if building else "live"
    return "beside" if state == GenerationState.WHOLE else str(state)


def _page(out: Console, found: Sequence[Listed], *, switching: bool) -> None:
    out.print(table(found))
    if switching:
        out.print("A switch is under way.")


def table(found: Sequence[Listed]) -> Table:
    """The list for people."""
    shown = Table("generation", "state", "fold", "events", "behind live", "behind log", "size", "fed by")
    for each in found:
        numbers: tuple[Any, ...] = (each.position, each.behind_live, each.behind_log)
        shown.add_row(
            each.name,
            each.state,
            str(each.fold_version),
            *("" if number is None else f"{number:,}" for number in numbers),
            mib(each.bytes),
            ", ".join(sorted({worker.partition("/")[0] for worker in each.workers})) or "nobody",
            style="dim" if each.state == "retired" else None,
        )
    return shown
