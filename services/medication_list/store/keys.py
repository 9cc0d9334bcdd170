"""The names of all keys in Redis; the hash tag is the partition, so that what changes together is on one node."""

LIVE = "live"
"""The commit point of switches, the identity of the log, and one record per generation."""


def disputed_name(name: str) -> str:
    """Where the index of prescriptions keeps, concatenated, the patients under whom another's number came."""
    return f"!{name}"


def workers_key(generation: str) -> str:
    """Where it is noted who works on a generation."""
    return f"{generation}:workers"


class PartitionKeys:
    """The keys of one partition that no generation owns."""

    __slots__ = ("announcements", "lease", "outbox", "partition", "released", "role")

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.role = f"{{{partition}}}:role"
        self.outbox = f"{{{partition}}}:outbox"
        self.released = f"{{{partition}}}:released"
        """What was parked and is not any more, and whose effects wait in the outbox: offset -> last entry, space, note."""
        self.lease = f"{{{partition}}}:relay"
        self.announcements = f"{{{partition}}}:offsets"
        """The channel on which each new offset of the live generation is published."""


class GenerationKeys:
    """The keys of one generation in one partition. A patient's hash is `list_of + patient`, its index `events_of + patient`."""

    __slots__ = ("events_of", "list_of", "offset", "parked", "rx", "withheld")

    def __init__(self, generation: str, partition: int) -> None:
        prefix = f"{generation}:{{{partition}}}:"
        self.offset = f"{prefix}offset"
        self.list_of = f"{prefix}p:"
        self.events_of = f"{prefix}e:"
        self.rx = f"{prefix}rx"
        self.parked = f"{prefix}parked"
        self.withheld = f"{prefix}withheld"

    def list_key(self, patient: str) -> str:
        """The hash of a patient's list."""
        return self.list_of + patient

    def events_key(self, patient: str) -> str:
        """The hash of a patient's event index."""
        return self.events_of + patient
