"""The log of medication events as the medication list reads it beside the driver: single records, its ends, its progress."""
