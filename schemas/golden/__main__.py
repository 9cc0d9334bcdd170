"""`python -m schemas.golden`: writes the golden bytes of examples that have none yet, and never touches the others."""

from schemas.golden import FOLDER, add_missing

for path in add_missing():
    print(path.relative_to(FOLDER))  # noqa: T201  a command that answers on the terminal
