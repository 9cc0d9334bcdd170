"""The door: judges each message by itself alone, reports all errors at once, and converts it to the contract's types."""
