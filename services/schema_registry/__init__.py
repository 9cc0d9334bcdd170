"""The schema registry, if one is configured: registers our released schemas, and resolves the ids in records."""

from services.schema_registry.client import RegistryClient, RegistryRefusedError
from services.schema_registry.registering import framing_at_start, registered

__all__ = ["RegistryClient", "RegistryRefusedError", "framing_at_start", "registered"]
