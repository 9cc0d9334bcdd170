"""What goes wrong with one submission is nobody else's matter, and ends no inbox."""

from structlog.testing import capture_logs

from services.submissions.inbox import take
from services.submissions.reception import Received


def submission(offset: int, key: bytes) -> Received:
    return Received("prescription-submissions.journal", 0, offset, key, b"")


async def test_a_submission_that_meets_a_fault_is_held_with_an_alarm_and_those_of_other_keys_go_on() -> None:
    received: list[int] = []

    async def receive(each: Received) -> None:
        if each.offset == 1:
            raise KeyError("a fault of ours")
        received.append(each.offset)

    batch = [submission(0, b"a"), submission(1, b"a"), submission(2, b"a"), submission(3, b"b")]
    with capture_logs() as lines:
        taken = await take(batch, receive)
    assert received == [0, 3]
    assert taken == ({("prescription-submissions.journal", 0): 1}, False)
    (line,) = (line for line in lines if line["log_level"] == "error")
    assert (line["event"], line["partition"], line["offset"]) == ("submission_not_taken", 0, 1)
    assert "a fault of ours" not in str(line)
