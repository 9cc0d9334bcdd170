"""The log port for all writers: append a record, and know when it is safe and at which position."""
