"""A worker that runs notices by itself that a partition has no role with which anybody could go on."""

import pytest

from services.medication_list.driver.batches import Fetch, PartitionBatch, Rewind
from services.medication_list.log.source_log import MemorySourceLog
from services.medication_list.processor.worker import LOOK_AROUND_EVERY_S, Patience, Worker
from services.medication_list.store.keys import PartitionKeys
from services.medication_list.store.memory_roles import MemoryRoles
from services.medication_list.store.memory_server import MemoryServer
from services.medication_list.store.memory_store import MemoryStore
from services.medication_list.store.roles import Role, RoleState


class Running:
    """A worker of two partitions that has entered; the log has records in the first one."""

    def __init__(self) -> None:
        self.server = MemoryServer()
        self.roles = MemoryRoles(self.server)
        self.now_s = 0.0
        log = MemorySourceLog(log_ends={0: 30, 1: 0})
        patience = Patience(monotonic=lambda: self.now_s)
        self.worker = Worker(
            self.roles, log, lambda name: MemoryStore(self.server, name), 2, made_at_ms=0, patience=patience
        )
        self.worker.enter()

    def role(self) -> Role:
        """Of the first partition."""
        role = self.roles.roles([0])[0]
        assert role is not None
        return role

    def give_role(self, live: str, state: RoleState) -> None:
        """As another worker does that begins a view which is gone, and ends."""
        assert self.roles.turn(0, self.role(), Role(1, live, state, "", 30, 0))

    def look(self) -> None:
        """A second later the driver asks how far the partition has come."""
        self.now_s += LOOK_AROUND_EVERY_S
        self.worker.standing([0])
        self.worker.process(Fetch((PartitionBatch(0, 0, 1, [], turn=1),)))


@pytest.mark.parametrize("state", [RoleState.BUILDING, RoleState.LIVE])
def test_a_role_of_a_view_that_nobody_knows_is_replaced_while_workers_run(state: RoleState) -> None:
    running = Running()
    running.give_role("g1-0ddba1", state)
    batch = Fetch((PartitionBatch(0, 0, 1, [], turn=1),))
    assert running.worker.process(batch) == {0: Rewind(0)}, "it is not the live one there, which stands nowhere"
    running.look()
    assert running.role().live == running.worker.generation


def test_a_role_that_is_lost_alone_is_begun_again_while_workers_run() -> None:
    running = Running()
    with running.server.call() as content:
        del content.hashes[PartitionKeys(0).role]
    running.look()
    assert running.role().live == running.worker.generation


def test_a_worker_that_could_not_enter_enters_the_next_time() -> None:
    running = Running()
    running.give_role("g1-0ddba1", RoleState.BUILDING)
    running.now_s += LOOK_AROUND_EVERY_S
    running.worker.standing([1])
    running.server.lose_replies = 1
    with pytest.raises(Exception, match="the reply was lost"):
        running.worker.standing([1])
    running.worker.standing([1])
    assert running.role().live == running.worker.generation
