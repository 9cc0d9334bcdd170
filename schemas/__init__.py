"""The contract: every event, topic and reason that the outside can see, and the code that reads it."""
