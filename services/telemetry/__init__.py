"""A process' metrics, in the format that Prometheus reads, and its traces; never anything about a patient."""

from services.telemetry.exposition import Registry, metrics_routes, new_registry
from services.telemetry.requests import RequestMetrics
from services.telemetry.troubles import TroubleMetrics

__all__ = ["Registry", "RequestMetrics", "TroubleMetrics", "metrics_routes", "new_registry"]
