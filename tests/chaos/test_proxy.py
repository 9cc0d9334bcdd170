"""The proxy of a link: sound, cut, silent, deaf to answers, broken in the middle."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from deploy.local.ports import LOOPBACK, choose_port
from deploy.local.waiting import wait_until
from tests.chaos.proxy import SOUND, Condition, Proxies, free_port

WITHIN_S = 5.0


class Echo:
    """Answers everything with the same, and keeps what it was sent."""

    def __init__(self) -> None:
        self.port = choose_port()
        self.heard = bytearray()
        self.hears = threading.Condition()
        self._listening = socket.create_server((LOOPBACK, self.port))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with closing(connection):
            try:
                while piece := connection.recv(65_536):
                    with self.hears:
                        self.heard += piece
                        self.hears.notify_all()
                    connection.sendall(piece)
            except OSError:
                return

    def has_heard(self, count: int) -> bool:
        """Whether so many bytes come in time."""
        with self.hears:
            return self.hears.wait_for(lambda: len(self.heard) >= count, WITHIN_S)

    def close(self) -> None:
        """Accept nobody any more."""
        self._listening.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    with closing(Echo()) as running:
        yield running


@pytest.fixture
def link(echo: Echo) -> Iterator[tuple[Proxies, int]]:
    with closing(Proxies()) as proxies:
        port = free_port()
        proxies.add("link", port, echo.port)
        yield proxies, port


def connected(port: int) -> socket.socket:
    return socket.create_connection((LOOPBACK, port), timeout=WITHIN_S)


def is_reset(connection: socket.socket) -> bool:
    try:
        return connection.recv(65_536) == b""
    except ConnectionError:
        return True


def test_a_sound_link_passes_both_ways(link: tuple[Proxies, int]) -> None:
    with closing(connected(link[1])) as connection:
        connection.sendall(b"hello")
        assert connection.recv(5) == b"hello"


def test_a_cut_link_resets_what_stands_and_refuses_what_is_new(link: tuple[Proxies, int]) -> None:
    proxies, port = link
    with closing(connected(port)) as standing:
        standing.sendall(b"a")
        assert standing.recv(1) == b"a"
        proxies.set("link", Condition(refuses=True))
        assert is_reset(standing)
    with closing(connected(port)) as new:
        assert is_reset(new)
    proxies.set("link", SOUND)
    with closing(connected(port)) as again:
        again.sendall(b"b")
        assert again.recv(1) == b"b"


def test_a_silent_link_keeps_what_was_sent_until_it_is_sound_again(link: tuple[Proxies, int], echo: Echo) -> None:
    proxies, port = link
    with closing(connected(port)) as connection:
        proxies.set("link", Condition(silent=True))
        connection.sendall(b"later")
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(5)
        assert not echo.heard
        proxies.set("link", SOUND)
        connection.settimeout(WITHIN_S)
        assert connection.recv(5) == b"later"


def test_a_link_that_loses_answers_delivers_what_was_asked(link: tuple[Proxies, int], echo: Echo) -> None:
    proxies, port = link
    proxies.set("link", Condition(loses_answers=True))
    with closing(connected(port)) as connection:
        connection.sendall(b"write")
        assert echo.has_heard(5)
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(5)
        proxies.set("link", SOUND)
        connection.settimeout(WITHIN_S)
        assert is_reset(connection)


def test_a_link_that_breaks_passes_half_a_message(link: tuple[Proxies, int], echo: Echo) -> None:
    proxies, port = link
    proxies.set("link", Condition(breaks_after_bytes=5))
    with closing(connected(port)) as connection:
        connection.sendall(b"0123456789")
        assert is_reset(connection)
    wait_until(lambda: bytes(echo.heard) == b"01234", within_s=10, what="the first half has arrived")
