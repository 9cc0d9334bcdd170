"""The log port for everyone who writes: append a record, and know when it is safe and where it lies."""
