"""`python -m services.command_line` is `medchain`, also where no script of that name was installed."""

from services.command_line.app import main

if __name__ == "__main__":
    main()
