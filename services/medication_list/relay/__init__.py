"""The relay: sends the effects in the outbox to the topics of the parties."""
