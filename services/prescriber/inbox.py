"""Starts the inbox of prescribing systems: `python -m services.prescriber.inbox`."""

from services.submissions.process import serve_inbox

if __name__ == "__main__":
    serve_inbox("prescription-submissions", "prescriber")
