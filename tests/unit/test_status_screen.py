"""What `medchain status` shows: each number of a partition under its own heading, who does not answer, and what is judged."""

from io import StringIO

from msgspec.structs import replace
from rich.console import Console

from services.medication_list.overview.overview import GenerationOverview, Overview, PartitionOverview, RedisOverview
from services.operations.reaching import ServiceStatus
from services.operations.status import Status, screen

BEHIND = PartitionOverview(
    partition=3,
    owner="medication-list-worker-a",
    offset=10,
    end=1017,
    lag=1007,
    lag_seconds=41.0,
    state="live",
    parked=2,
    outbox=5,
    outbox_seconds=9.0,
)
UNKNOWN = PartitionOverview(partition=4)
SEEN = Status(
    at_ms=0,
    well=False,
    services=(
        ServiceStatus("relay", "http://relay", "not_ready", ("redis_loading: Redis still reads its file.",)),
        ServiceStatus("pharmacy", "http://pharmacy", "ready"),
    ),
    without_owner=(4,),
    outcomes={"applied": 1200.0, "parked": 2.0},
    per_second={"applied": 30.0},
    overview=Overview(
        at_ms=0,
        partitions=(BEHIND, UNKNOWN),
        generations=(
            GenerationOverview(
                generation="g1-abcdef",
                fold_version=6,
                release="0.1.0",
                made_at_ms=0,
                is_live=True,
                is_complete=False,
                is_fed=True,
                lag=1007,
            ),
        ),
        redis=RedisOverview(
            version="7.4.1", used_bytes=5_000_000, max_bytes=10_000_000, policy="noeviction", appends_file=True
        ),
        away=("The broker does not answer (KafkaTimeoutError).",),
    ),
)


def shown(seen: Status) -> str:
    console = Console(file=StringIO(), width=200)
    console.print(screen(seen))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def rows(text: str, title: str) -> list[dict[str, str]]:
    """The rows of the table of this title, by its headings."""
    lines = iter(text[text.index(title) :].splitlines())
    headings = next([cell.strip() for cell in line.split("┃")[1:-1]] for line in lines if line.startswith("┃"))
    found = []
    for line in lines:
        if line.startswith("└"):
            break
        if line.startswith("│"):
            found.append(dict(zip(headings, (cell.strip() for cell in line.split("│")[1:-1]), strict=True)))
    return found


def test_each_partition_is_shown_with_its_lag_what_is_parked_and_what_waits_to_be_sent() -> None:
    behind, unknown = rows(shown(SEEN), "Partitions")
    assert behind == {
        "partition": "3",
        "owner": "ist-worker-a",
        "state": "live",
        "offset": "10",
        "end": "1,017",
        "lag": "1,007",
        "lag s": "41",
        "parked": "2",
        "outbox": "5",
        "since s": "9",
    }
    assert unknown == dict.fromkeys(behind, "-") | {"partition": "4", "owner": "nobody"}


def test_who_does_not_answer_what_is_judged_and_the_generations_are_shown() -> None:
    text = shown(SEEN)
    assert "something is not well" in text
    assert "all is well" in shown(Status(0, True, (), (), {}, None, SEEN.overview))  # noqa: FBT003  as it is
    assert "The broker does not answer (KafkaTimeoutError)." in text
    assert rows(text, "Processes")[0] == {
        "process": "relay",
        "where": "http://relay",
        "how it is": "not_ready",
        "why": "redis_loading: Redis still reads its file.",
    }
    assert "1,200 applied (30.0/s), 2 parked" in text
    assert "Redis 7.4.1: 5.0 MB of 10 MB, noeviction" in text
    (generation,) = rows(text, "Generations")
    assert (generation["generation"], generation["is"], generation["lag"]) == ("g1-abcdef", "live, being made", "1,007")


def test_a_generation_that_a_replay_left_is_told_from_one_that_is_being_made() -> None:
    (live,) = SEEN.overview.generations
    half = tuple(replace(live, is_live=False, is_fed=is_fed) for is_fed in (True, False))
    told = rows(shown(replace(SEEN, overview=replace(SEEN.overview, generations=half))), "Generations")
    assert [each["is"] for each in told] == ["beside it, being made", "beside it, half made, and nobody works on it"]
