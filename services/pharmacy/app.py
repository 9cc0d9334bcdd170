"""Starts the pharmacy service: `python -m services.pharmacy.app`."""

from services.canonical_log import configure
from services.pharmacy.api import pharmacy_app
from services.pharmacy.settings import PharmacySettings
from services.recording.app import opened, serve
from services.schema_registry import framing_at_start
from services.telemetry.traces import traces_of


def main() -> None:
    """Serve until told to stop. Exits with 1 and one sentence where the schema registry refuses a schema."""
    settings = PharmacySettings()  # type: ignore[call-arg]  # the environment gives them
    configure("pharmacy")
    framing, traces = framing_at_start(settings.schema_registry), traces_of(settings, "pharmacy")
    app = pharmacy_app(opened(settings, "pharmacy", framing, traces), traces)
    serve(app, service="pharmacy", host=settings.host, port=settings.port)


if __name__ == "__main__":
    main()
