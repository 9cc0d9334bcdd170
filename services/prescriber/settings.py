"""What the prescriber service reads from its environment."""

from services.recording.settings import RecordingSettings


class PrescriberSettings(RecordingSettings):
    """See `RecordingSettings`; `port` is where it listens."""

    port: int = 8801
