"""What the processes of the medication list read from their environment."""

from pydantic import SecretStr

from services.identity.sealing import Sealer
from services.publishing.kafka_access import KafkaSetting
from services.telemetry.traces import TracedSettings


class MedicationListSettings(TracedSettings):
    """Where log and view are, which generation to work on, and the keys that a process has use for.

    One object for the API, the processor and the relay; what is not set stays None.
    """

    kafka: KafkaSetting
    """The brokers, and the certificate to speak with them by."""
    redis: str
    """URL of the Redis database that holds the view."""
    schema_registry: str | None = None
    """URL of a Confluent-compatible schema registry, where topics carry its framing."""
    generation: str | None = None
    """The generation that a processor works on; the live one if not said."""
    host: str = "127.0.0.1"
    """The address to listen on: nobody outside this machine, until access control exists."""
    port: int | None = None
    """Where the API answers, and where processor and relay tell how they are, if they are given one."""
    sealing_key: SecretStr | None = None
    """64 hexadecimal characters: what opens identities for a pharmacy's own topic and claim answer."""
    read_token_key: SecretStr | None = None
    pseudonym_key: SecretStr | None = None
    create_party_topics: bool = False
    """Whether the relay makes a missing topic of an outside party, with one replica: for a machine of one's own."""

    def sealer(self) -> Sealer:
        """What opens sealed identities. Raises ValueError when this process was not given the key."""
        if self.sealing_key is None:
            raise ValueError("MEDCHAIN_SEALING_KEY is not set")
        return Sealer(bytes.fromhex(self.sealing_key.get_secret_value()))
