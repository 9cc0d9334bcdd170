"""`python -m deploy.compose.keys`: prints the secrets of the composed platform as an env file; made once, kept under build/."""

import sys

from deploy.local.keys import keys_of
from deploy.local.layout import BUILD


def main() -> None:
    """Print one NAME=value line for each secret."""
    for name, value in keys_of(BUILD / "compose").items():
        sys.stdout.write(f"{name}={value}\n")


if __name__ == "__main__":
    main()
