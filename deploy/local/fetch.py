"""`python -m deploy.local.fetch`: bring broker and Redis onto this machine; does nothing, quickly, where they are."""

import shutil
import sys

from deploy.local import artifacts
from deploy.local.layout import SCRATCH


def main() -> int:
    """Fetch, and make the archive of loaded classes; the exit code is 1 if something only a person can give is missing."""
    try:
        artifacts.fetch()
        if not artifacts.class_archive()[0].exists():
            _make_archive()
    except artifacts.CannotSetUpError as error:
        sys.stderr.write(f"setup: {error}\n")
        return 1
    return 0


def _make_archive() -> None:
    from deploy.local.broker import make_class_archive  # noqa: PLC0415  a set-up that finds all in place must not wait for it

    artifacts.tell("starting a broker once, so that later starts are faster")
    folder = SCRATCH / "first-broker"
    shutil.rmtree(folder, ignore_errors=True)
    make_class_archive(folder)
    shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
