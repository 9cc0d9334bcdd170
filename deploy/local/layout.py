"""Where everything that is made on this machine lies: all of it below build/."""

from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).resolve().parents[2]
BUILD: Final = CHECKOUT / "build"

KAFKA: Final = BUILD / "kafka"
KAFKA_JARS: Final = KAFKA / "libs"
REDIS: Final = BUILD / "redis"
MAVEN_REPOSITORY: Final = BUILD / "cache" / "maven"
SCRATCH: Final = BUILD / "scratch"
RUN: Final = BUILD / "run"
PLATFORM: Final = BUILD / "platform"

BYTE_CODE: Final = {"PYTHONPYCACHEPREFIX": str(BUILD / "pycache"), "PYTHONDONTWRITEBYTECODE": ""}
"""What a Python process is told so that it keeps its byte code, below build/ too. Many images forbid to write any, and then
every start compiles all that it imports: 2.5 s of processor time instead of 1.0 for a service."""
