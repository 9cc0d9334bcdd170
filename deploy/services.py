"""Every process of the chain: how it is started and what it must be told. Local platform and compose file both follow it."""

from dataclasses import dataclass
from typing import Final

KEYS: Final = ("MEDCHAIN_PSEUDONYM_KEY", "MEDCHAIN_SEALING_KEY", "MEDCHAIN_READ_TOKEN_KEY")
OPTIONAL: Final = ("MEDCHAIN_SCHEMA_REGISTRY", "MEDCHAIN_TRACES", "MEDCHAIN_TRACES_RATIO")
"""What every process is told where there is such a thing: whoever reads or writes a topic must know its framing, and a
message is followed through all of them or not at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One process: `python -m <module>`, told `variables` by its environment, and those of `optional` that are set.

    `port`: the one it listens on if it is free, at least to tell how it is; None if it listens on none. `many`: whether
    several may run; each has a port of its own, from `port` on.
    """

    name: str
    module: str
    variables: tuple[str, ...]
    port: int | None = None
    many: bool = False
    optional: tuple[str, ...] = OPTIONAL


# Of the processes, only the medication list's are told where Redis is: access control and the access log have one place.
# Operators' commands, which are told it too, keep an access record of their own.
SERVICES: Final = (
    Service(
        name="medication-list",
        module="services.medication_list.read_api.app",
        variables=("MEDCHAIN_KAFKA", "MEDCHAIN_REDIS", "MEDCHAIN_PORT", *KEYS),
        port=8803,
    ),
    Service(
        name="processor",
        module="services.medication_list.processor.app",
        variables=("MEDCHAIN_KAFKA", "MEDCHAIN_REDIS", "MEDCHAIN_PORT"),
        port=8810,
        many=True,
    ),
    Service(
        name="relay",
        module="services.medication_list.relay.app",
        # It may make the topics of parties that nobody declared.
        variables=("MEDCHAIN_KAFKA", "MEDCHAIN_REDIS", "MEDCHAIN_PORT", "MEDCHAIN_CREATE_PARTY_TOPICS", *KEYS),
        port=8804,
    ),
    Service(
        name="prescriber",
        module="services.prescriber.app",
        variables=("MEDCHAIN_KAFKA", "MEDCHAIN_PORT", "MEDCHAIN_LIST_URL", *KEYS),
        # Their callers are led on to the list, which they may reach by another address.
        optional=(*OPTIONAL, "MEDCHAIN_LIST_PUBLIC_URL"),
        port=8801,
    ),
    Service(
        name="pharmacy",
        module="services.pharmacy.app",
        variables=("MEDCHAIN_KAFKA", "MEDCHAIN_PORT", "MEDCHAIN_LIST_URL", *KEYS),
        # Their callers are led on to the list, which they may reach by another address.
        optional=(*OPTIONAL, "MEDCHAIN_LIST_PUBLIC_URL"),
        port=8802,
    ),
    # A process of its own each: a flood of submissions holds up nobody who waits for an answer over HTTP.
    Service(
        name="prescriber-inbox",
        module="services.prescriber.inbox",
        variables=("MEDCHAIN_KAFKA", "MEDCHAIN_PORT", "MEDCHAIN_LIST_URL", *KEYS),
        port=8805,
    ),
    Service(
        name="pharmacy-inbox",
        module="services.pharmacy.inbox",
        variables=("MEDCHAIN_KAFKA", "MEDCHAIN_PORT", "MEDCHAIN_LIST_URL", *KEYS),
        port=8806,
    ),
)
