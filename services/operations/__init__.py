"""Whether the platform is well, and whether it is installed as it must be: what an operator looks at first."""
