"""What prescribing systems talk to."""
