"""What a service that takes writes reads from its environment."""

from __future__ import annotations

from pydantic import SecretStr

from services.admission.door import Door
from services.admission.read_token import ReadTokens
from services.identity.pseudonym import Pseudonymiser
from services.identity.sealing import Sealer
from services.publishing.kafka_access import KafkaSetting
from services.telemetry.traces import TracedSettings


class RecordingSettings(TracedSettings):
    """Where the log and the medication list are, and the platform's keys (each 64 hexadecimal characters)."""

    kafka: KafkaSetting
    """The brokers, and the certificate to speak with them by."""
    list_url: str
    """The base URL of the medication list's API."""
    list_public_url: str | None = None
    """The same as callers reach it, for the `Location` of a 202, if different."""
    schema_registry: str | None = None
    """URL of a Confluent-compatible schema registry, where topics carry its framing."""
    pseudonym_key: SecretStr
    sealing_key: SecretStr
    read_token_key: SecretStr
    host: str = "127.0.0.1"
    """The address to listen on: nobody outside this machine, until access control exists."""

    def door(self) -> Door:
        """The door, with this platform's keys."""
        tokens = ReadTokens(bytes.fromhex(self.read_token_key.get_secret_value()))
        return Door(Pseudonymiser(bytes.fromhex(self.pseudonym_key.get_secret_value())), tokens)

    def sealer(self) -> Sealer:
        """What seals identities, and opens them for the pharmacy that holds a claim."""
        return Sealer(bytes.fromhex(self.sealing_key.get_secret_value()))
