"""The service that pharmacies use."""
