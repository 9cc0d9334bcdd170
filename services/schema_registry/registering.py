"""What a process does before it reads or writes a topic: registers every released schema, and learns their ids."""

import time
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final

import httpx

from schemas import codec
from schemas.framing import Framing, RegistryUnavailableError
from services.canonical_log import get_logger
from services.clock import SystemClock
from services.schema_registry.client import RegistryClient, RegistryRefusedError
from services.topics.registry import Topics, load

_AGAIN_S: Final = 0.5


def framing_at_start(url: str | None) -> Framing:
    """The framing of a process with this registry, or with none. Waits for one that is away.

    Raises SystemExit with one sentence when the registry refuses a schema.
    """
    if not url:
        return Framing()
    client = RegistryClient(url, SystemClock())
    while True:
        try:
            return registered(client)
        except RegistryUnavailableError:
            get_logger().warning("waiting_for_schema_registry", retry_in_ms=int(_AGAIN_S * 1000))
            time.sleep(_AGAIN_S)
        except RegistryRefusedError as refusal:
            client.close()
            raise SystemExit(str(refusal)) from None


def framing_now(url: str | None) -> Framing:
    """The framing of a command with this registry, or with none. Asks once: whoever waits at a terminal is told.

    Raises RegistryUnavailableError, RegistryRefusedError.
    """
    if not url:
        return Framing()
    if not _is_url(url):
        # Not repeated, for it may hold a password.
        raise RegistryRefusedError("The address of the schema registry is no URL (http://host:port).")
    client = RegistryClient(url, SystemClock())
    try:
        return registered(client)
    except (RegistryUnavailableError, RegistryRefusedError):
        client.close()
        raise


def registered(
    client: RegistryClient, released: Iterable[codec.Release] | None = None, topics: Topics | None = None
) -> Framing:
    """Register the releases under each subject that they belong to, oldest first, each subject FULL_TRANSITIVE.

    Raises RegistryUnavailableError, RegistryRefusedError.
    """
    in_order = sorted(
        codec.releases() if released is None else released, key=lambda release: (release.name, release.version)
    )
    topics = topics or load()
    ids: dict[bytes, int] = {}
    for name, group in groupby(in_order, key=lambda release: release.name):
        versions = list(group)
        for subject in subjects_of(name, topics):
            ids |= _registered(client, subject, versions)
    return Framing(client, ids)


def subjects_of(name: str, topics: Topics) -> Iterator[str]:
    """Topic and record name, for each topic that may hold the type (TopicRecordNameStrategy).

    The topics of outside parties are one here: a schema has the same number under every subject.
    """
    full_name = f"{codec.newest(name).schema['namespace']}.{name}"
    for pattern, declared in topics.topics.items():
        if name in declared.schemas:
            yield f"{pattern.partition('.')[0]}-{full_name}"


def _is_url(told: str) -> bool:
    try:
        url = httpx.URL(told)
    except httpx.InvalidURL:
        return False
    return url.scheme in {"http", "https"} and bool(url.host)


def _registered(client: RegistryClient, subject: str, versions: Iterable[codec.Release]) -> dict[bytes, int]:
    ids = {}
    # Some registries take a subject's setting before its first schema, others only after it: no matter, there is nothing
    # yet that the first could break.
    is_required = client.require_compatibility(subject)
    for release in versions:
        what = f"{release.name} version {release.version}"
        ids[release.header[len(codec.SINGLE_OBJECT) :]] = client.register(subject, release.schema, what)
        if not is_required and not client.require_compatibility(subject):
            raise RegistryRefusedError(f"The schema registry at {client.address} knows no setting for {subject}")
        is_required = True
    return ids
