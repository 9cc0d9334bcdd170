"""The commands of the runbooks run: what only looks, on a platform, as it is written, but for this platform's addresses."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import redis
from kafka import KafkaAdminClient, KafkaProducer

from deploy.local.layout import CHECKOUT
from deploy.local.platform import KAFKA_PORT, REDIS_PORT, Platform
from deploy.local.waiting import wait_until
from deploy.services import SERVICES
from services.publishing.partitioning import partition_of
from services.topics.registry import EVENTS_TOPIC, load
from tests.runbooks import INDEX, blocks, every_command, is_definition, looks

pytestmark = pytest.mark.integration

WITHIN_S: Final = 60.0
AT_ONCE: Final = 4
"""Most of a command's time is its start."""
# The platform that `make up` started is found by a folder of the checkout; this one has another.
ITS_OWN: Final = (
    "import sys; from pathlib import Path; from deploy.local import layout; layout.RUN = Path(sys.argv.pop(1))\n"
)
MEDCHAIN: Final = ITS_OWN + "from services.command_line.app import main; main()"
STATUS: Final = (
    ITS_OWN + "import runpy; sys.argv = ['make', 'status']; runpy.run_module('deploy.local', run_name='__main__')"
)
WARNED: Final = {"build/venv/bin/medchain status --once", "build/venv/bin/medchain doctor"}
"""They end with 1: a record is parked, and the disk of this machine may be nearly full."""
LINES: Final = (
    "import sys; from services.canonical_log import configure, get_logger; configure('relay')\n"
    "for name in sys.argv[1:]: get_logger().error(name)"
)
"""Lines as a process writes them."""
ALARMS: Final = re.compile(r"[a-z]+(?:_[a-z]+)+")


@pytest.fixture(scope="module")
def parked(watched: Platform) -> str:
    """The place of a record that nobody can read."""
    keys = (f"{number:032x}".encode() for number in range(1000))
    key = next(each for each in keys if partition_of(each, load().partitions(EVENTS_TOPIC)) == 0)
    with closing(KafkaProducer(bootstrap_servers=watched.kafka_address)) as producer:
        offset = producer.send(EVENTS_TOPIC, key=key, value=b"junk", partition=0).get(timeout=WITHIN_S).offset
    with redis.Redis.from_url(watched.redis_url) as client:
        name = f"{live(watched)}:{{0}}:parked"
        wait_until(lambda: client.hexists(name, str(offset)), within_s=WITHIN_S, what="it is parked")
    return f"0-{offset}"


@pytest.fixture(scope="module")
def submitted(watched: Platform) -> None:
    """Something that the inboxes have taken, so that their groups have come somewhere."""
    topics = {each.name.partition(".")[0]: each.name for each in load().wanted() if "-submissions." in each.name}
    with closing(KafkaProducer(bootstrap_servers=watched.kafka_address)) as producer:
        for topic in topics.values():
            producer.send(topic, value=b"junk", partition=0).get(timeout=WITHIN_S)
    with closing(KafkaAdminClient(bootstrap_servers=watched.kafka_address)) as admin:
        for group in ("prescriber-inbox", "pharmacy-inbox"):
            wait_until(partial(_has_come_somewhere, admin, group), within_s=WITHIN_S, what="it is taken")


def _has_come_somewhere(admin: KafkaAdminClient, group: str) -> bool:
    return bool(admin.list_group_offsets(group)[group])


def live(platform: Platform) -> str:
    with redis.Redis.from_url(platform.redis_url) as client:
        return str(client.hget("live", "generation").decode())


class Shell:
    """Somebody in the checkout, with this platform for the one of `make up`; `folder`: what stands for build/platform."""

    def __init__(self, platform: Platform, folder: Path, place: str) -> None:
        port = {each.port: platform.url(f"{each.name}-1" if each.many else each.name) for each in SERVICES}
        self._ports = {str(usual): url.rpartition(":")[2] for usual, url in port.items()}
        self._ports |= {str(REDIS_PORT): platform.redis_url.rpartition(":")[2].partition("/")[0]}
        self._ports |= {str(KAFKA_PORT): platform.kafka_address.rpartition(":")[2]}
        self._folder = folder
        self._place = place
        self._live = live(platform)
        run = shlex.quote(str(platform.directory.parent / "run"))
        python = shlex.quote(sys.executable)
        self._begins = "\n".join(
            (
                "set -u -o pipefail",
                "curl() { command curl --noproxy '*' \"$@\"; }",
                f'medchain() {{ {python} -c {shlex.quote(MEDCHAIN)} {run} "$@"; }}',
                f"make() {{ {python} -c {shlex.quote(STATUS)} {run}; }}",
                *(self.here(each) for block in blocks(INDEX) for each in block if is_definition(each)),
                "",
            )
        )

    def here(self, command: str) -> str:
        """The command with this platform's addresses and names in the place of those of the pages."""
        words = command.replace("build/venv/bin/medchain", "medchain").replace("build/venv/bin/python", sys.executable)
        words = words.replace("build/platform", str(self._folder))
        words = re.sub(r"\b\d{4,5}\b", lambda found: self._ports.get(found[0], found[0]), words)
        words = re.sub(r"(?<=parked show )\d+-\d+", self._place, words)
        return re.sub(r"\bg1-[0-9a-f]{6}\b", self._live, words)

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run it as an operator would, and wait for its end."""
        told = {each: os.environ[each] for each in os.environ if not each.startswith("MEDCHAIN_")}
        told |= {"MEDCHAIN_ACCESS_RECORD": str(self._folder / "looks.jsonl")}
        return subprocess.run(  # noqa: S603  our own documents
            ["/bin/bash", "-c", self._begins + self.here(command)],
            cwd=CHECKOUT,
            env=told,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def shell(watched: Platform, parked: str, submitted: None, tmp_path_factory: pytest.TempPathFactory) -> Shell:  # noqa: ARG001  it has happened
    """With logs in which everything stands that the pages look for: what happened, and one line of each name besides."""
    folder = tmp_path_factory.mktemp("platform")
    for name in ("kafka", "redis"):
        (folder / name).symlink_to(watched.directory / name)
    shutil.copytree(watched.directory / "logs", folder / "logs")
    names = {name for command in every_command() if command.startswith("grep ") for name in ALARMS.findall(command)}
    lines = [sys.executable, "-c", LINES, *names]
    made = subprocess.run(lines, cwd=CHECKOUT, capture_output=True, text=True, check=True)  # noqa: S603  ours
    for file in (folder / "logs").iterdir():
        with file.open("a", encoding="utf-8") as log:
            log.write(made.stderr)
    return Shell(watched, folder, parked)


def test_every_command_that_only_looks_runs_and_shows_something(shell: Shell) -> None:
    asked = list({shell.here(each): each for each in every_command() if looks(each)}.values())
    assert len(asked) > 30
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = dict(zip(asked, pool.map(shell.run, asked), strict=True))
    wrong = [
        (command, done.returncode, done.stdout[-500:], done.stderr[-500:])
        for command, done in answers.items()
        if done.returncode not in ({0, 1} if command in WARNED else {0}) or done.stderr or not done.stdout.strip()
    ]
    assert wrong == []


def test_orphans_go_by_the_command_for_them_and_nothing_else_does(shell: Shell, watched: Platform) -> None:
    (command,) = [each for each in every_command() if each.startswith("build/venv/bin/python - redis:")]
    (name,) = re.findall(r"\bg9-[0-9a-f]{6}\b", command)
    with redis.Redis.from_url(watched.redis_url) as client:
        before = client.dbsize()
        client.hset(f"{name}:{{3}}:offset", "offset", 1)
        assert shell.run(command).returncode == 0
        assert client.dbsize() == before
    refused = shell.run(command.replace(name, live(watched)))
    assert refused.returncode == 1
    assert "medchain replay retire deletes this one" in refused.stderr


def test_what_redis_is_told_to_change_is_a_command_that_it_has(watched: Platform) -> None:
    told = [shlex.split(each)[1:] for each in every_command() if each.startswith("redis_do ") and not looks(each)]
    assert told
    with redis.Redis.from_url(watched.redis_url) as client:
        for words in told:
            (known,) = client.execute_command("COMMAND", "INFO", words[0]).values()
            arity = known["arity"]
            assert len(words) == arity if arity > 0 else len(words) >= -arity, words
