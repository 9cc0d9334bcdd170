"""A folder that a command empties before it works in it: its own, and nobody else's."""

import shutil
from pathlib import Path
from typing import Final

from deploy.local.state import held

MARK: Final = ".medchain-empties-this"


class FolderRefusedError(RuntimeError):
    """The folder must not be emptied, or cannot be; the text says why, and what to do."""


def emptied(folder: Path, usual: Path) -> Path:
    """The folder, empty and with a mark by which it is known as ours the next time.

    `usual` is ours without a mark too. Whoever names any other folder may have meant another one: what is in it is deleted
    for good, and `.` would be the checkout. Raises FolderRefusedError.
    """
    if folder.exists() and not _is_ours(folder, usual):
        raise FolderRefusedError(
            f"{folder} is there, and was not made by this command: name a folder that is not there yet."
        )
    if held(folder / "run"):
        raise FolderRefusedError(f"A platform runs from {folder}: end it first.")
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        (folder / MARK).touch()
    except OSError as error:
        raise FolderRefusedError(f"{folder} cannot be emptied ({type(error).__name__}).") from error
    return folder


def _is_ours(folder: Path, usual: Path) -> bool:
    if not folder.is_dir() or folder.is_symlink():
        return False
    return folder.resolve() == usual.resolve() or (folder / MARK).is_file() or not any(folder.iterdir())
