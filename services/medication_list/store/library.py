"""The functions that run inside Redis, named after the hash of their text, so that two releases can run side by side."""

import hashlib
from pathlib import Path
from typing import Final

_TEXT: Final = (Path(__file__).parent / "store.lua").read_text(encoding="utf-8")
RELEASE: Final = hashlib.sha256(_TEXT.encode()).hexdigest()[:12]
LIBRARY: Final = f"medchain_{RELEASE}"
CODE: Final = _TEXT.replace("@RELEASE@", RELEASE)


def function(name: str) -> str:
    """The name under which this release's function is called: `write`, `look`, `begin`, ..."""
    return f"{name}_{RELEASE}"
