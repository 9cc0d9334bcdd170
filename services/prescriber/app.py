"""Starts the prescriber service: `python -m services.prescriber.app`."""

from services.prescriber.api import prescriber_app
from services.prescriber.settings import PrescriberSettings
from services.recording.app import opened, serve


def main() -> None:
    """Serve until told to stop."""
    settings = PrescriberSettings()  # type: ignore[call-arg]  # the environment gives them
    serve(prescriber_app(opened(settings, "prescriber")), service="prescriber", host=settings.host, port=settings.port)


if __name__ == "__main__":
    main()
