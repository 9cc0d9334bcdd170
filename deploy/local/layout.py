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
