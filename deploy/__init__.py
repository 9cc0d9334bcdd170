"""How the platform is started: locally without a container engine, or with one."""
