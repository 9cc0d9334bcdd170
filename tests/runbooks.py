"""The commands of the runbooks and of the operator's how-to, one by one, and which of them only look."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from deploy.local.layout import CHECKOUT

RUNBOOKS: Final = CHECKOUT / "docs" / "runbooks"
INDEX: Final = RUNBOOKS / "README.md"
PAGES: Final = (*sorted(RUNBOOKS.glob("*.md")), CHECKOUT / "docs" / "how-to" / "operator.md")
FENCED: Final = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND: Final = re.compile(r"(?:[^\n]*<<'(\w+)'\n.*?^\1$|(?:[^\n]*\\\n)*[^\n]+)", re.MULTILINE | re.DOTALL)

_DEFINES: Final = re.compile(r"\w+\(\) \{ .+ \}")
_NEEDS: Final = re.compile(
    r"build/venv/bin/medchain (?:status$|patient |event |replay compare |topics check --kafka kafka-1:)"
)
_LOOKS: Final = re.compile(
    r"grep |tail |df |du |make status$"
    r"|(?:for port in [\d ]+; do )?curl -sS (?!.* -d )"
    r"|redis_do (?:PING|INFO|CONFIG GET|HGET|HGETALL|XLEN)\b"
    r"|build/venv/bin/python - <<"
    r"|build/venv/bin/medchain (?:status|doctor|check|generations|topics check|parked (?:list|show))\b",
    re.DOTALL,
)
_CHANGES: Final = re.compile(
    r"make (?:up|down)$|curl -sS .* -d |redis_do (?:CONFIG SET|BGSAVE|FLUSHALL)\b"
    r"|build/venv/bin/python (?:- redis:|-m deploy\.local up)"
    r"|build/venv/bin/medchain (?:simulate|topics create|parked (?:refold|close)|replay (?:start|switch|rollback|retire))\b",
    re.DOTALL,
)


def blocks(page: Path) -> list[list[str]]:
    """The commands of each block: a line, with those that continue it, or with the text that is given to it."""
    return [commands_of(block) for block in FENCED.findall(page.read_text(encoding="utf-8"))]


def commands_of(block: str) -> list[str]:
    """The commands of one block."""
    return [found[0] for found in _COMMAND.finditer(block)]


def every_command() -> Iterator[str]:
    """Those of all pages, the first of them first."""
    for page in PAGES:
        for block in blocks(page):
            yield from block


def is_definition(command: str) -> bool:
    """Whether it defines a shell function for the other pages."""
    return bool(_DEFINES.fullmatch(command))


def needs_more(command: str) -> bool:
    """Whether it looks at what no platform has as it comes: a citizen's number, two generations, another cluster, a terminal."""
    return bool(_NEEDS.match(command))


def looks(command: str) -> bool:
    """Whether it only looks, at whatever platform there is."""
    return bool(_LOOKS.match(command)) and not needs_more(command)


def changes(command: str) -> bool:
    """Whether it changes something."""
    return bool(_CHANGES.match(command))
