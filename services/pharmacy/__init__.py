"""What pharmacies talk to."""
