"""The service that prescribing systems use."""
