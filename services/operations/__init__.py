"""Whether the platform is well, and correctly installed: what an operator looks at first."""
