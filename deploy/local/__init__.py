"""The whole platform on one machine without a container engine: broker, Redis, topics and services under build/."""
