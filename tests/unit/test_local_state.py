"""The state of a platform counts while its process holds it, and its secrets are its owner's alone."""

import stat
from pathlib import Path

import pytest

from deploy.local.keys import keys_of
from deploy.local.state import AlreadyRunsError, Claim, Running, State, held, running
from deploy.services import KEYS

STATE = State(
    supervisor=1,
    ready=True,
    directory="d",
    kafka="127.0.0.1:1",
    redis="redis://127.0.0.1:2/0",
    programs={"prescriber": Running(pid=3, log="l", url="http://127.0.0.1:4"), "relay": Running(pid=5, log="l")},
)


def test_a_state_is_found_while_it_is_held_and_not_after(tmp_path: Path) -> None:
    assert running(tmp_path) is None
    with Claim(tmp_path) as claim:
        assert running(tmp_path) is None
        claim.write(STATE)
        assert running(tmp_path) == STATE
    assert running(tmp_path) is None
    assert not held(tmp_path)


def test_a_state_that_a_killed_platform_left_behind_does_not_count(tmp_path: Path) -> None:
    with Claim(tmp_path) as claim:
        claim.write(STATE)
        left_behind = (tmp_path / "platform.json").read_bytes()
    (tmp_path / "platform.json").write_bytes(left_behind)
    assert running(tmp_path) is None


def test_a_second_platform_from_the_same_folder_is_refused(tmp_path: Path) -> None:
    with Claim(tmp_path), pytest.raises(AlreadyRunsError, match="make down"):
        Claim(tmp_path).__enter__()


def test_asking_for_a_service_that_listens_nowhere_is_an_error() -> None:
    assert STATE.url("prescriber") == "http://127.0.0.1:4"
    for unknown in ("relay", "nobody"):
        with pytest.raises(LookupError):
            STATE.url(unknown)


def test_secrets_are_made_once_and_readable_by_their_owner_alone(tmp_path: Path) -> None:
    made = keys_of(tmp_path)
    assert set(made) == set(KEYS)
    assert all(len(bytes.fromhex(secret)) == 32 for secret in made.values())
    assert len(set(made.values())) == len(made)
    assert keys_of(tmp_path) == made
    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600
    assert keys_of(tmp_path / "another") != made
