"""What a process reports on its port: whether it runs, whether it can do its work, and in words what is wrong."""

from services.health.pulse import Pulse
from services.health.readiness import Check, Readiness
from services.health.routes import health_routes
from services.health.server import HealthServer
from services.health.trouble import Trouble, TroubleReason

__all__ = ["Check", "HealthServer", "Pulse", "Readiness", "Trouble", "TroubleReason", "health_routes"]
