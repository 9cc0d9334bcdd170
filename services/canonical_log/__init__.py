"""One line for each noteworthy event, from an allow-list of keys: no patient, no medicine, no name reaches a log."""

from services.canonical_log.configuration import configure, get_logger

__all__ = ["configure", "get_logger"]
