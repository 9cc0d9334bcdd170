"""The door: judges from the message alone what comes in, all errors at once, and makes it the contract's types."""
