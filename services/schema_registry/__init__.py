"""The schema registry, where one is configured: registers what we released, and knows what a record's number stands for."""

from services.schema_registry.client import RegistryClient, RegistryRefusedError
from services.schema_registry.registering import framing_at_start, registered

__all__ = ["RegistryClient", "RegistryRefusedError", "framing_at_start", "registered"]
