"""Starts the pharmacy service: `python -m services.pharmacy.app`."""

from services.pharmacy.api import pharmacy_app
from services.pharmacy.settings import PharmacySettings
from services.recording.app import opened, serve


def main() -> None:
    """Serve until told to stop."""
    settings = PharmacySettings()  # type: ignore[call-arg]  # the environment gives them
    serve(pharmacy_app(opened(settings, "pharmacy")), service="pharmacy", host=settings.host, port=settings.port)


if __name__ == "__main__":
    main()
