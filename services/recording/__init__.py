"""Takes a write over HTTP: through the door, into the log, and back to the caller with its outcome."""
