"""The secrets of a local platform: made once for its data folder, readable by its owner alone."""

import json
import os
import secrets
from pathlib import Path
from typing import Final

from deploy.services import KEYS

KEY_BYTES: Final = 32


def keys_of(directory: Path) -> dict[str, str]:
    """Each secret (64 hex characters) by the name of its environment variable. They live and die with the data."""
    path = directory / "keys.json"
    if path.exists():
        kept: dict[str, str] = json.loads(path.read_text())
        return kept
    made = {name: secrets.token_hex(KEY_BYTES) for name in KEYS}
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(made, file)
    return made
