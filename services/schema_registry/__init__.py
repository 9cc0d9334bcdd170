"""The schema registry, if one is configured: registers our released schemas, and resolves the ids in records."""

from services.schema_registry.client import RegistryClient, RegistryRefusedError
from services.schema_registry.registering import framing_at_start, framing_now, registered

__all__ = ["RegistryClient", "RegistryRefusedError", "framing_at_start", "framing_now", "registered"]
