"""An operator's cases: one patient, one event, one parked record; each look recorded, each change shown before it is made."""
