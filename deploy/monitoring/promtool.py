"""Finds Prometheus' own promtool, with which the alert rules are tested: on PATH, else out of Debian's package."""

import functools
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from deploy.local.artifacts import CannotSetUpError
from deploy.local.layout import BUILD

UNPACKED: Final = BUILD / "prometheus"


@functools.cache
def promtool() -> str:
    """The path of promtool; fetched the first time that it is asked for. Nothing is installed outside build/.

    Raises:
        CannotSetUpError: it is not on PATH, and there is no apt-get to fetch the package with.
    """
    ours = UNPACKED / "usr" / "bin" / "promtool"
    found = shutil.which("promtool")
    if found is not None:
        return found
    if not ours.exists():
        _unpack()
    return str(ours)


def _unpack() -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise CannotSetUpError("promtool is missing: put Prometheus' promtool on PATH.")
    fetched = UNPACKED.with_name(f"prometheus-{os.getpid()}")
    fetched.mkdir(parents=True, exist_ok=True)
    _run(fetched, "apt-get", "-qq", "download", "prometheus", again_after=("apt-get", "-qq", "update"))
    (package,) = fetched.glob("prometheus_*.deb")
    _run(fetched, "dpkg", "-x", package.name, ".")
    package.unlink()
    # Whoever comes first wins: others may be fetching too.
    if UNPACKED.exists():
        shutil.rmtree(fetched)
    else:
        fetched.rename(UNPACKED)


def _run(folder: Path, *argv: str, again_after: tuple[str, ...] = ()) -> None:
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603  our own command lines
    if done.returncode and again_after:
        _run(folder, *again_after)
        _run(folder, *argv)
    elif done.returncode:
        said = (done.stderr + done.stdout).strip()[-800:]
        raise CannotSetUpError(f"`{argv[0]}` failed (is the network there?):\n{said}")
