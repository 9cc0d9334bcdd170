"""What an inbox reads from its environment."""

from services.recording.settings import RecordingSettings


class InboxSettings(RecordingSettings):
    """See `RecordingSettings`; it reports its health on `port`, if one is given."""

    port: int | None = None
