"""Starts the prescriber service: `python -m services.prescriber.app`."""

from services.canonical_log import configure
from services.prescriber.api import prescriber_app
from services.prescriber.settings import PrescriberSettings
from services.recording.app import opened, serve
from services.schema_registry import framing_at_start
from services.telemetry.traces import traces_of


def main() -> None:
    """Serve until told to stop. Exits with 1 and one sentence where the schema registry refuses a schema."""
    settings = PrescriberSettings()  # type: ignore[call-arg]  # the environment gives them
    configure("prescriber")
    framing, traces = framing_at_start(settings.schema_registry), traces_of(settings, "prescriber")
    app = prescriber_app(opened(settings, "prescriber", framing, traces), traces)
    serve(app, service="prescriber", host=settings.host, port=settings.port)


if __name__ == "__main__":
    main()
