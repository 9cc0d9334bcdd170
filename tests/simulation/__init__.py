"""The platform in one process under a seeded scheduler with virtual time: thousands of schedules a minute, each replayable."""
