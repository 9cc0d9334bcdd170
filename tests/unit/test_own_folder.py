"""A command that empties a folder before it works in it empties none but its own."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.local.own_folder import FolderRefusedError, emptied
from deploy.local.state import Claim
from services.command_line.drill import app as drill


def usual(tmp_path: Path) -> Path:
    """The folder that is the command's own."""
    return tmp_path / "build" / "drill"


def test_a_folder_that_is_not_there_or_empty_is_taken_and_its_own_the_next_time(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        folder = emptied(tmp_path / name, usual(tmp_path))
        (folder / "filled.jsonl").touch()
        emptied(folder, usual(tmp_path))
        assert not (folder / "filled.jsonl").exists()


def test_the_usual_folder_is_emptied_though_an_earlier_release_has_left_no_mark(tmp_path: Path) -> None:
    usual(tmp_path).mkdir(parents=True)
    (usual(tmp_path) / "filled.jsonl").touch()
    emptied(usual(tmp_path), usual(tmp_path))
    assert not (usual(tmp_path) / "filled.jsonl").exists()


def test_somebodys_folder_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = tmp_path / "checkout"
    (checkout / "run").mkdir(parents=True)
    (checkout / "thesis.txt").touch()
    (tmp_path / "link").symlink_to(checkout)
    monkeypatch.chdir(checkout)
    for named in (checkout, Path(), tmp_path, checkout / "thesis.txt", tmp_path / "link"):
        with pytest.raises(FolderRefusedError, match="not made by this command"):
            emptied(named, usual(tmp_path))
    said = CliRunner().invoke(drill, ["--folder", "."])
    assert said.exit_code == 2
    assert "not made by this command" in said.stderr
    assert (checkout / "thesis.txt").exists()


def test_a_folder_from_which_a_platform_runs_is_left_as_it_is(tmp_path: Path) -> None:
    folder = emptied(tmp_path / "drill", usual(tmp_path))
    with Claim(folder / "run"), pytest.raises(FolderRefusedError, match="A platform runs from"):
        emptied(folder, usual(tmp_path))
