"""The same platform where there is a container engine."""
