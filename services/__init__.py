"""The processes of the chain, and the capabilities that they share."""
