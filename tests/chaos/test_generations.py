"""Two generations that have come as far are compared byte for byte; one that lags is left alone."""

import contextlib
from typing import Any

import pytest
import redis

from tests.chaos.generations import differing


@pytest.fixture
def view(redis_url: str) -> Any:
    with contextlib.closing(redis.Redis.from_url(redis_url)) as client:
        client.flushdb()
        client.hset("live", mapping={"generation": "g1-00000a", "g:g1-00000a": b"", "g:g2-00000b": b""})
        for name in ("g1-00000a", "g2-00000b"):
            client.hset(f"{name}:{{0}}:offset", mapping={"offset": 7, "epoch": 0 if name[1] == "1" else 4})
            client.hset(f"{name}:{{0}}:p:somebody", mapping={"meta": b"\x91\x00", "t:1": b"\x93"})
        yield client


@pytest.mark.integration
def test_generations_that_are_equal_but_for_their_epochs_are_equal(view: Any) -> None:
    assert differing(view, 1) == (1, [])


@pytest.mark.integration
def test_what_one_withheld_while_it_was_made_after_a_loss_is_no_difference(view: Any) -> None:
    view.hset("g1-00000a:{0}:withheld", "5", b"unreadable")
    assert differing(view, 1) == (1, [])


@pytest.mark.integration
def test_a_field_that_differs_is_named(view: Any) -> None:
    view.hset("g2-00000b:{0}:p:somebody", "t:1", b"\x94")
    _, (found,) = differing(view, 1)
    assert "p:somebody" in found.where
    assert "t:1" in found.what


@pytest.mark.integration
def test_a_patient_whom_only_one_has_is_named(view: Any) -> None:
    view.hset("g1-00000a:{0}:p:another", "meta", b"\x90")
    assert [each.where for each in differing(view, 1)[1]] == ["partition 0, p:another"]


@pytest.mark.integration
def test_a_generation_that_lags_is_not_compared(view: Any) -> None:
    view.hset("g2-00000b:{0}:offset", "offset", 6)
    view.hset("g2-00000b:{0}:p:somebody", "t:1", b"\x94")
    assert differing(view, 1) == (0, [])
