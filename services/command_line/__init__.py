"""The `medchain` command: every part of the chain that a person drives from a terminal."""
