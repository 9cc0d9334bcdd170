"""What the pharmacy service reads from its environment."""

from services.recording.settings import RecordingSettings


class PharmacySettings(RecordingSettings):
    """See `RecordingSettings`; `port` is where it listens."""

    port: int = 8802
