"""The platform's processes, and the capabilities that they share."""
