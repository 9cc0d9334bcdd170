"""What an inbox must be told by its environment."""

from services.recording.settings import RecordingSettings


class InboxSettings(RecordingSettings):
    """See `RecordingSettings`; on `port` it tells how it is, if it is given one."""

    port: int | None = None
