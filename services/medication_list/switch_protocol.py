"""How another generation becomes the live one: all is frozen, then flipped in one step or given up, and anyone may follow."""

import secrets
from dataclasses import replace

import msgspec

from services.medication_list.generations import (
    GenerationRefusedError,
    GenerationState,
    is_announced,
    record_of,
)
from services.medication_list.store.roles import Pointer, Role, Roles, RoleState


def freeze(roles: Roles, partitions: int) -> Pointer:
    """Announce a switch and freeze every partition with its token; return the pointer that `flip` wants back.

    Raises GenerationRefusedError when another switch is under way, or a partition is not live.
    """
    pointer = roles.pointer()
    if pointer is None:
        raise GenerationRefusedError("There is no live generation to switch from.")
    if is_announced(pointer.token):
        raise GenerationRefusedError("Another switch is under way: let it finish, or give it up.")
    announced = replace(pointer, token=f"switch-{secrets.token_hex(6)}", records={})
    if not roles.point(pointer, announced):
        raise GenerationRefusedError("Another switch was faster.")
    for partition, role in roles.roles(range(partitions)).items():
        live = role is not None and role.state == RoleState.LIVE and role.live == pointer.generation
        if role is None or not live or not roles.turn(partition, role, _frozen(role, announced.token)):
            give_up(roles, partitions, announced)
            raise GenerationRefusedError(f"Partition {partition} is not live: there is nothing to switch from.")
    return announced


def has_reached(roles: Roles, partitions: int, announced: Pointer, generation: str) -> bool:
    """Whether a generation stands where the live one was frozen, in every partition."""
    frozen = roles.offsets(announced.generation, range(partitions))
    return frozen == roles.offsets(generation, range(partitions)) and None not in frozen.values()


def flip(roles: Roles, partitions: int, announced: Pointer, generation: str) -> bool:
    """Make a generation live; False when somebody gave the switch up, or it has not reached the frozen offsets."""
    # Once a switch is announced no record changes: what is whole now is whole when it becomes live.
    known = roles.pointer() or announced
    if record_of(known, generation).state != GenerationState.WHOLE:
        raise GenerationRefusedError(f"Generation {generation} is not whole: it cannot become the live one.")
    if not has_reached(roles, partitions, announced, generation):
        return False
    shall = replace(
        announced,
        epoch=announced.epoch + 1,
        generation=generation,
        token=_done(announced.token),
        records=_left(known, announced, generation),
    )
    flipped = roles.point(announced, shall)
    follow(roles, partitions)
    return flipped


def _left(known: Pointer, announced: Pointer, generation: str) -> dict[str, bytes]:
    """The records of both generations after a switch: where the way back leads is known from them."""
    left = msgspec.structs.replace(record_of(known, announced.generation), left_at_epoch=announced.epoch)
    live = msgspec.structs.replace(record_of(known, generation), left_at_epoch=0)
    return {name: msgspec.msgpack.encode(each) for name, each in ((announced.generation, left), (generation, live))}


def left_last(pointer: Pointer) -> str | None:
    """The generation that was live before the one that is, if it is still whole: where a rollback leads."""
    records = {name: record_of(pointer, name) for name in pointer.records if name != pointer.generation}
    left = {
        name: record.left_at_epoch
        for name, record in records.items()
        if record.left_at_epoch and record.state == GenerationState.WHOLE
    }
    return max(left, key=lambda name: left[name], default=None)


def give_up(roles: Roles, partitions: int, announced: Pointer) -> bool:
    """Take a switch back, by anyone; False when it was flipped, or given up by another, before. Then all unfreezes."""
    given_up = roles.point(announced, replace(announced, epoch=announced.epoch + 1, token="", records={}))
    follow(roles, partitions)
    return given_up


def follow(roles: Roles, partitions: int) -> None:
    """Give each frozen partition the role that the pointer has decided; while a switch is open, nothing moves.

    Workers and readers call it when they find a partition frozen, so a switch ends even if its operator is gone. A
    partition that a switch froze of which the pointer knows nothing thaws too: an older copy of the store took the
    announcement back while whoever switched went on. Where that one went on to thaw, by a pointer that the older copy had
    taken back, a generation is live that nobody feeds: the partition freezes once the pointer's one has come as far there,
    and takes the role the next time.
    """
    pointer = roles.pointer()
    if pointer is None or is_announced(pointer.token):
        return
    offsets = roles.offsets(pointer.generation, range(partitions))
    stand = roles.roles(range(partitions))
    undecided = {each: role for each, role in stand.items() if role is not None and _is_undecided(role, pointer)}
    if undecided:
        # Announced before it freezes: what froze after the first look at the pointer is known to the second. And a store
        # that went back between the two looks has a pointer of its own, to which these roles belong.
        again = roles.pointer()
        if again is None or (again.epoch, again.token) != (pointer.epoch, pointer.token):
            return
    for partition, role in undecided.items():
        came_to = offsets[partition] if role.live != pointer.generation else None
        if came_to is not None and _is_behind(roles, partition, role, came_to):
            continue  # its workers are about to bring it there; what was shown is not taken back
        if role.state == RoleState.FROZEN:
            effects_from = role.effects_from if came_to is None else came_to
            shall = Role(pointer.epoch, pointer.generation, RoleState.LIVE, "", role.until, effects_from)
            roles.turn(partition, role, shall)
        elif came_to is not None:
            # Somebody told to feed the other one may write it until this moment: only what is frozen stays where it is.
            roles.turn(partition, role, _frozen(role, pointer.token))


def _is_behind(roles: Roles, partition: int, role: Role, came_to: int) -> bool:
    return came_to < (roles.offsets(role.live, [partition])[partition] or 0)


def _is_undecided(role: Role, pointer: Pointer) -> bool:
    """Whether a partition is frozen, or another known generation than the pointer's is live there, by no later switch.

    Where a generation is live that nobody knows, who enters begins anew: see `generations._begin_missing`.
    """
    is_astray = role.state == RoleState.LIVE and role.live != pointer.generation and role.live in pointer.records
    return role.epoch <= pointer.epoch and (role.state == RoleState.FROZEN or is_astray)


def _frozen(role: Role, token: str) -> Role:
    return role._replace(state=RoleState.FROZEN, token=token)


def _done(token: str) -> str:
    return token.replace("switch-", "switched-", 1)
