"""Takes one protection out after the other, and runs the test that must catch it: `python -m tests.protections [mutant ...]`.

The tests are collected once; each mutant has a process of its own, forked from there, since it changes the code for good.
The first is without any. Each says in a line how it ended, after the failure that it brought about.
"""

import os
import sys
from collections.abc import Sequence
from typing import Final

import hypothesis
import pytest

from tests.protections import MUTANTS

SOUND: Final = "nothing"
"""In the place of a mutant's name: all protections stand."""
HOW: Final = {0: "passed", 1: "caught"}
"""How it ended, by the exit code of its process; anything else is `broken`: a test that could not even begin, say."""


class OneByOne:
    """A plugin of pytest that runs what was collected once for each of these mutants."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._reports: list[pytest.TestReport] = []

    def pytest_configure(self) -> None:
        """The same examples each time, and the first that fails is enough."""
        hypothesis.settings.register_profile(
            "protections",
            parent=hypothesis.settings.get_profile("chain"),
            phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
            derandomize=True,
            database=None,
        )
        hypothesis.settings.load_profile("protections")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """In the place of pytest's own."""
        if session.testsfailed:
            raise session.Interrupted("not all could be collected")
        for name in (SOUND, *self._names):
            sys.stdout.flush()
            child = os.fork()
            if child == 0:
                self._run(session, name)
            ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            sys.stdout.write(f"\n{name}: {HOW.get(ended, 'broken')}\n")
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what became of it."""
        self._reports.append(report)

    def _run(self, session: pytest.Session, name: str) -> None:
        """Ends this process."""
        code = -1
        try:
            wanted = tests_of(self._names if name == SOUND else [name])
            if name != SOUND:
                MUTANTS[name].change()
            for item in session.items:
                if item.nodeid.partition("[")[0] in wanted and not self._failed():
                    item.ihook.pytest_runtest_protocol(item=item, nextitem=None)
            failed = self._failed()
            sys.stdout.write("\n".join(["", *(each.longreprtext for each in failed)]))
            if self._reports and all(each.when == "call" for each in failed):
                code = 1 if failed else 0
        finally:
            sys.stdout.flush()
            os._exit(code)

    def _failed(self) -> list[pytest.TestReport]:
        return [each for each in self._reports if each.failed]


def tests_of(names: Sequence[str]) -> set[str]:
    """The tests that catch these."""
    return {MUTANTS[name].caught_by for name in names}


def main() -> None:
    """Try those that are named, or all."""
    names = sys.argv[1:] or list(MUTANTS)
    # What the code under test imports of pytest's plugins is here before pytest is, and need not explain its assertions.
    how = ["--capture=no", "--no-header", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    sys.exit(pytest.main([*how, *sorted(tests_of(names))], plugins=[OneByOne(names)]))


if __name__ == "__main__":
    main()
