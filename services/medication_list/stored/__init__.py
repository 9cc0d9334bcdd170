"""What the store holds of a patient: fields, effects and notes of parked records as bytes, the index of events, changed answers, and what an effect is known by."""
