"""What the store holds of a patient: fields and effects as bytes, the index of events, changed answers."""
