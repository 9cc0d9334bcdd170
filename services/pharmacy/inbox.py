"""Starts the inbox of pharmacy systems: `python -m services.pharmacy.inbox`."""

from services.submissions.process import serve_inbox

if __name__ == "__main__":
    serve_inbox("dispense-submissions", "pharmacy")
