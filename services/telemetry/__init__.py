"""What a process counts, in the form that Prometheus reads, and the traces that it makes; never anything of a patient."""

from services.telemetry.exposition import Registry, metrics_routes, new_registry
from services.telemetry.requests import RequestMetrics
from services.telemetry.troubles import TroubleMetrics

__all__ = ["Registry", "RequestMetrics", "TroubleMetrics", "metrics_routes", "new_registry"]
