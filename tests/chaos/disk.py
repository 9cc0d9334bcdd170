"""A small file system for one folder, so that a full disk harms nobody else."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def small_disk(directory: Path, megabytes: int) -> Iterator[bool]:
    """Mount one in memory; gives False, and leaves the folder as it is, where this machine does not allow it."""
    directory.mkdir(parents=True, exist_ok=True)
    mounted = _call("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(directory))
    try:
        yield mounted
    finally:
        if mounted:
            _call("umount", "--lazy", str(directory))


def _call(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603  our own command line
    except FileNotFoundError:
        return False
