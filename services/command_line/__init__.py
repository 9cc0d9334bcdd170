"""The `medchain` command: every part of the platform that a person operates from a terminal."""
