"""What the prescriber service must be told by its environment."""

from services.recording.settings import RecordingSettings


class PrescriberSettings(RecordingSettings):
    """See `RecordingSettings`; `port` is where it listens."""

    port: int = 8801
