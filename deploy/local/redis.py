"""A real Redis server in a folder of this checkout, with the settings that the view relies on."""

import contextlib
from pathlib import Path
from typing import Self

import redis

from deploy.local.artifacts import redis_server
from deploy.local.ports import LOOPBACK, choose_port
from deploy.local.program import Child, Program


class RedisServer:
    """One server, whose append-only file stays in `directory`. `port` None takes a free one.

    `settings` are laid over the ones below, by the names of redis.conf.
    """

    def __init__(self, directory: Path, *, port: int | None = None, settings: dict[str, str] | None = None) -> None:
        self.directory = directory.resolve()
        self.port = port or choose_port()
        self.settings = {
            "bind": LOOPBACK,
            "port": str(self.port),
            "dir": str(self.directory),
            # A view that forgets is worse than one that refuses: nothing is ever evicted, every write reaches the file.
            "maxmemory-policy": "noeviction",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "daemonize": "no",
            **(settings or {}),
        }
        self._child = Child(self.program())

    @property
    def address(self) -> str:
        """The URL of database 0: `redis://127.0.0.1:<port>/0`."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._child.pid

    def program(self) -> Program:
        """The server as a program for a supervisor; call `prepare` before it is started."""
        options = (word for name, value in self.settings.items() for word in (f"--{name}", value))
        return Program(
            name="redis",
            argv=(redis_server(), *options),
            log=self.directory / "redis.log",
            ready=self.answers,
        )

    def prepare(self) -> None:
        """Make the folder."""
        self.directory.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Start the server and return once it has read its file and answers."""
        self.prepare()
        self._child.start_until_ready()

    def stop(self) -> None:
        """End it cleanly."""
        self._child.stop()

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        self._child.kill()

    def answers(self) -> bool:
        """Whether it answers PING (it does not while it still reads its file)."""
        with contextlib.suppress(redis.RedisError), redis.Redis.from_url(self.address, socket_timeout=1) as client:
            return bool(client.ping())
        return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
