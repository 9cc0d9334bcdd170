"""Examples of everything that travels, each with the bytes that the release of its time wrote: readable for ever.

`<Name>/<version>/<example>.json` is the example (msgspec's JSON form: decimals as strings, dates ISO, bytes base64) and
`<example>.bin` are its bytes. Bytes are written once and never again: `python -m schemas.golden` adds what is missing.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec

from schemas import codec

FOLDER: Final = Path(__file__).parent


class Example(msgspec.Struct, frozen=True):
    """One example of one released version: its message, and where its bytes lie (or are to lie)."""

    name: str
    version: int
    title: str
    message: Any
    path: Path

    @property
    def written(self) -> bytes:
        """The golden bytes. Raises FileNotFoundError when they were never written."""
        return self.path.with_suffix(".bin").read_bytes()


def examples() -> Iterator[Example]:
    """Every example of every version ever released, by name, version and title. Raises msgspec.ValidationError."""
    for path in sorted(FOLDER.glob("*/*/*.json"), key=lambda path: (path.parts[-3], int(path.parts[-2]), path.stem)):
        name = path.parts[-3]
        message = msgspec.json.decode(path.read_bytes(), type=codec.TYPES[name])
        yield Example(name, int(path.parts[-2]), path.stem, message, path)


@cache
def newest_of(name: str) -> dict[str, Any]:
    """Title -> message, of the examples of the newest version of a contract type."""
    found = [example for example in examples() if example.name == name]
    last = max((example.version for example in found), default=0)
    return {example.title: example.message for example in found if example.version == last}


def add_missing() -> list[Path]:
    """Write the bytes of examples of newest versions that have none yet; returns what was written.

    Raises ValueError for an example of an older version without bytes: only the release of its time could write them.
    """
    added: list[Path] = []
    for example in examples():
        target = example.path.with_suffix(".bin")
        if target.exists():
            continue
        if example.version != codec.newest(example.name).version:
            raise ValueError(f"{example.path}: its version is no longer written, so its bytes cannot be made")
        target.write_bytes(codec.encode(example.message))
        added.append(target)
    return added
