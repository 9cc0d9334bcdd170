"""The documents say what is there: paths, commands, functions, quotes, vocabularies and the README's own requests."""

import importlib.util
import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import typer
import typer.main
from fastapi import FastAPI

from deploy.local.layout import CHECKOUT
from deploy.services import SERVICES
from schemas.events import EFFECTS, EVERY_BODY
from schemas.reasons import DoorReason, Flag, NoticeKind, ParkReason, Reason
from services.command_line.app import PARTS, app, command_of
from services.health import TroubleReason
from services.medication_list.driver.cursors import StopReason
from services.medication_list.fold.judgement import OUTCOMES
from services.medication_list.read_api import app as medication_list
from services.pharmacy.api import pharmacy_app
from services.prescriber.api import prescriber_app
from services.publishing.kafka_access import FILES
from services.topics.registry import load
from tests.chain import Chain
from tests.runbooks import blocks, changes, every_command, is_definition, looks, needs_more

DOCS: Final = CHECKOUT / "docs"
RUNBOOKS: Final = sorted(path for path in (DOCS / "runbooks").glob("*.md") if path.name != "README.md")
DECISIONS: Final = sorted(path for path in (DOCS / "decisions").glob("*.md") if path.name != "README.md")
FENCED: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE: Final = re.compile(r"`([^`\n]+)`")
LINK: Final = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
MADE: Final = ("build/", "build", ".pytest_cache")
"""What is there only once something was run."""


def documents() -> list[Path]:
    """Every document of the project, by its path."""
    places = (CHECKOUT.glob("*.md"), *(CHECKOUT.glob(f"{each}/**/*.md") for each in ("docs", "tests", "schemas")))
    return sorted(path for place in places for path in place)


def name_of(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


def words(text: str) -> Iterator[str]:
    """What stands in code: inline, or in fenced blocks word by word."""
    for _, block in FENCED.findall(text):
        yield from block.split()
    for code in CODE.findall(FENCED.sub("", text)):
        yield from code.split()


def commands(text: str) -> Iterator[str]:
    """The lines of code, inline or fenced, as somebody would type them."""
    for _, block in FENCED.findall(text):
        yield from block.replace("\\\n", " ").splitlines()
    yield from CODE.findall(FENCED.sub("", text))


every_document = pytest.mark.parametrize("path", documents(), ids=name_of)


# --- Paths -------------------------------------------------------------------------------------------------------


@cache
def top_level() -> frozenset[str]:
    return frozenset(path.name for path in CHECKOUT.iterdir() if path.name not in MADE)


def named_paths(text: str) -> Iterator[str]:
    """Words in code that begin with something of the checkout's top level; `<...>` stands for any name."""
    for word in words(text):
        found = word.strip("'\",;:()").split("::")[0]
        if found.split("/")[0] in top_level() and ("/" in found or "." in found) and not found.startswith("."):
            yield re.sub(r"<[^>]*>", "*", found)


@every_document
def test_every_path_that_a_document_names_is_there(path: Path) -> None:
    named = list(named_paths(path.read_text(encoding="utf-8")))
    assert [each for each in named if not any(CHECKOUT.glob(each.rstrip("/")))] == []


@every_document
def test_every_link_leads_to_something_in_the_checkout(path: Path) -> None:
    for target in LINK.findall(path.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        found = (path.parent / target.partition("#")[0]).resolve()
        assert found.exists(), target
        assert found.is_relative_to(CHECKOUT), target


@every_document
def test_no_document_leads_out_of_the_checkout(path: Path) -> None:
    ours = (
        "/v1/",
        "/internal/",
        "/health/",
        "/metrics",
        "/problems/",
        "/openapi.json",
        "/docs",
        "/proc/sys/kernel/random/uuid",
    )
    outside = re.findall(r"(?<![\w.>}/:*{])/[a-z][\w./-]*", path.read_text(encoding="utf-8"))
    assert [word for word in outside if not word.startswith(ours)] == []


@pytest.mark.parametrize("path", [path.name for path in (CHECKOUT / "services").iterdir() if path.is_dir()])
def test_the_readme_says_what_each_package_is_for(path: str) -> None:
    if path != "__pycache__":
        assert f"`services/{path}/`" in (CHECKOUT / "README.md").read_text(encoding="utf-8")


def test_every_document_is_found_from_the_readme() -> None:
    found, ahead = set[Path](), [CHECKOUT / "README.md"]
    while ahead:
        here = ahead.pop()
        found.add(here)
        links = LINK.findall(here.read_text(encoding="utf-8")) if here.suffix == ".md" else []
        ahead += {(here.parent / each.partition("#")[0]).resolve() for each in links} - found
    assert {name_of(path) for path in DOCS.glob("**/*.md")} <= {name_of(path) for path in found}


# --- Commands ----------------------------------------------------------------------------------------------------


def targets() -> set[str]:
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))


@every_document
def test_every_make_target_that_a_document_names_is_there(path: Path) -> None:
    said = [re.match(r"(?:time )?make ([a-z]+)", line) for line in commands(path.read_text(encoding="utf-8"))]
    assert {found[1] for found in said if found} <= targets()


def test_every_make_target_for_people_is_in_the_readme_or_in_contributing() -> None:
    told = "".join((CHECKOUT / name).read_text(encoding="utf-8") for name in ("README.md", "CONTRIBUTING.md"))
    assert {each for each in targets() if f"make {each}" not in told} <= {"help", "lock"}


def accepted_words(part: str) -> set[str]:
    """Sub-commands and options of a part of `medchain`."""
    command: Any = command_of(part)
    found = set(getattr(command, "commands", {}))
    for each in (command, *getattr(command, "commands", {}).values()):
        found |= {option for parameter in each.params for option in parameter.opts}
    return found


@every_document
def test_every_medchain_command_that_a_document_names_is_there_with_its_options(path: Path) -> None:
    for line in commands(path.read_text(encoding="utf-8")):
        for said in re.findall(r"(?:^|[\s/])medchain ((?:[a-z]+)(?: [^`|]*)?)", line):
            part, *rest = said.split()
            assert part in PARTS, line
            wanted = {each.partition("=")[0] for each in rest if each.startswith("--")}
            if part == "topics" and rest:
                wanted.add(rest[0])
            assert wanted <= accepted_words(part), line


@every_document
def test_the_command_line_takes_every_medchain_command_of_a_block_as_it_is_written(path: Path) -> None:
    for _, block in FENCED.findall(path.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("build/venv/bin/medchain "):
                parse(shlex.split(line, comments=True)[1:])


def parse(words: list[str]) -> None:
    """As `medchain` does before it begins. Raises a usage error for what it would turn away."""
    command: Any = typer.main.get_command(app)
    context = typer.Context(command, info_name="medchain")
    while words and hasattr(command, "resolve_command"):
        _, words, _ = command.make_parser(context).parse_args(args=list(words))
        if words:
            name, command, words = command.resolve_command(context, words)
            context = typer.Context(command, info_name=name, parent=context)
    assert getattr(command, "invoke_without_command", True), "more words are wanted"
    command.make_context(context.info_name, list(words), parent=context.parent)


@pytest.mark.parametrize(
    "wrong", ["replay retire --yes", "status --onse", "parked lists", "replay start --workers many", "nothing"]
)
def test_a_command_that_the_command_line_would_turn_away_is_found(wrong: str) -> None:
    with pytest.raises(typer.TyperException):
        parse(wrong.split())


@every_document
def test_every_module_that_a_document_starts_is_there(path: Path) -> None:
    for module in re.findall(r"python -m ([\w.]+)", path.read_text(encoding="utf-8")):
        assert importlib.util.find_spec(module) is not None, module


@every_document
def test_every_variable_that_a_document_names_is_read_somewhere(path: Path) -> None:
    read = {name for service in SERVICES for name in (*service.variables, *service.optional)}
    read |= {*FILES, "MEDCHAIN_HOST", "MEDCHAIN_GENERATION", "MEDCHAIN_TEST_SEED", "MEDCHAIN_CLOCK_FILE"}
    read |= {"MEDCHAIN_ACCESS_RECORD", "MEDCHAIN_SERVICES"}  # by the operators' commands alone
    assert set(re.findall(r"MEDCHAIN_[A-Z_]+", path.read_text(encoding="utf-8"))) <= read


def test_the_operator_is_told_every_variable_of_a_process() -> None:
    told = (DOCS / "how-to" / "operator.md").read_text(encoding="utf-8")
    names = {*FILES, *(name for service in SERVICES for name in (*service.variables, *service.optional))}
    assert {name for name in names if f"`{name}`" not in told} == set()


# --- The HTTP interfaces -----------------------------------------------------------------------------------------


@cache
def resources() -> frozenset[tuple[str, str]]:
    """Method and path template of everything that a service answers, ids written as `{}`."""

    def never() -> Any:
        raise AssertionError("a document needs no running service")

    apps: Iterable[FastAPI] = (prescriber_app(never), pharmacy_app(never), medication_list.create_app(never))
    return frozenset(
        (method.upper(), re.sub(r"\{\w+\}", "{}", path))
        for app in apps
        for path, operations in app.openapi()["paths"].items()
        for method in operations
    )


@every_document
def test_every_resource_that_a_document_names_is_in_an_openapi_document(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    named = re.findall(r"\b(GET|POST) (/(?:v1|health|internal)/[\w/{}-]*)", text)
    assert {(method, re.sub(r"\{\w+\}", "{}", where)) for method, where in named} <= resources()


@every_document
def test_every_curl_in_a_document_asks_for_a_resource_that_is_there(path: Path) -> None:
    for _, block in FENCED.findall(path.read_text(encoding="utf-8")):
        for asked in re.findall(r"curl [^\n]*?(?:\$[A-Z]+|:(?:\d+|\$port))(/[\w/-]+)[^#]*?(?=\ncurl|\Z)", block):
            template = re.sub(r"/[0-9a-f]{8}-[0-9a-f-]{27}", "/{}", asked)
            assert template == "/metrics" or {method for method, known in resources() if known == template}, asked


def test_the_how_tos_name_every_resource_for_outsiders() -> None:
    told = "".join(path.read_text(encoding="utf-8") for path in (DOCS / "how-to").glob("*.md"))
    told = re.sub(r"\{\w+\}", "{}", told)
    for method, where in resources():
        if where.startswith("/v1/"):
            assert f"{method} {where}" in told


class Step(NamedTuple):
    """One command of the README and the status that the sentence before it promises; None for one that sets names."""

    status: int | None
    script: str


def readme_steps() -> list[Step]:
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    walk = text.partition("## From prescription to list, with curl")[2].partition("\n## ")[0]
    blocks = re.findall(r"^(?:\*\*[^\n]*?\*\* (\d{3}):.*?)?^```bash\n(.*?)^```$", walk, re.MULTILINE | re.DOTALL)
    return [Step(int(status) if status else None, script) for status, script in blocks]


def test_each_request_in_the_readme_says_what_it_will_be_answered() -> None:
    assert [step.status for step in readme_steps()] == [None, 201, 201, 409, 201, 200, 200]


@pytest.mark.integration
def test_the_readme_walks_from_prescription_to_list_on_the_running_platform(chain: Chain) -> None:
    chain.set_clock(time.time_ns() // 1_000_000)
    urls = {"PRESCRIBER": "prescriber", "PHARMACY": "pharmacy", "LIST": "medication-list"}
    told = {**os.environ, **{name: chain.platform.url(service) for name, service in urls.items()}}
    # The last --write-out counts.
    script = "set -eu\ncurl() { command curl --noproxy '*' \"$@\" -w '\\n%{http_code}\\n' | tail -n 1; }\n"
    steps = readme_steps()
    said = subprocess.run(  # noqa: S603  our own document
        ["/bin/bash", "-c", script + "".join(step.script for step in steps)],
        env=told,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.stderr == ""
    assert said.stdout.split() == [str(step.status) for step in steps if step.status]


# --- The trace, and every function that a document names --------------------------------------------------------


def quotes() -> list[tuple[str, list[str]]]:
    """Each quoted block of the trace: the file that it names, and its lines."""
    text = (DOCS / "trace.md").read_text(encoding="utf-8")
    found = []
    for language, block in FENCED.findall(text):
        head, *lines = block.splitlines()
        assert language in ("python", "lua"), head
        found.append((head.lstrip("#- "), [line for line in lines if line.strip()]))
    return found


@pytest.mark.parametrize("quote", quotes(), ids=lambda quote: f"{quote[0]}: {quote[1][0].strip()}")
def test_what_the_trace_quotes_stands_in_the_file_in_that_order(quote: tuple[str, list[str]]) -> None:
    file, lines = quote
    code = iter([line.strip() for line in (CHECKOUT / file).read_text(encoding="utf-8").splitlines()])
    assert [line for line in lines if line.strip() not in code] == []


def test_the_trace_goes_through_six_files_in_order() -> None:
    text = (DOCS / "trace.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) \| `([^`]+)` \| `(\w+)` \|", text, re.MULTILINE)
    headings = re.findall(r"^## (\d)\. [^`]*`([^`]+)`$", text, re.MULTILINE)
    assert [(number, file) for number, file, _ in rows] == headings
    assert [number for number, _ in headings] == list("123456")
    assert [row for row in rows if not defines(row[1], row[2])] == []


def defines(file: str, name: str) -> bool:
    """Whether the file defines a function, class, constant or field of this name."""
    code = (CHECKOUT / file).read_text(encoding="utf-8")
    return (
        re.search(rf"^\s*((async )?def|class|local function) {name}\b|^\s*{name}\b[^\n(]*[:=]", code, re.MULTILINE)
        is not None
    )


@every_document
def test_a_name_that_a_document_places_in_a_file_is_defined_there(path: Path) -> None:
    text = FENCED.sub("", path.read_text(encoding="utf-8"))
    name, file = r"`(\w+)`", r"`([\w/]+\.(?:py|lua))`"
    placed = re.findall(rf"{name}\s+(?:of|in)\s+{file}", text) + re.findall(rf"{name}\s+\({file}[,)]", text)
    for where, names in re.findall(rf"{file}\s+\(((?:`\w+`(?:,\s+)?)+)\)", text):
        placed += [(each, where) for each in CODE.findall(names)]
    assert [each for each in placed if not defines(each[1], each[0])] == []


# --- The glossary ------------------------------------------------------------------------------------------------


def rows_of(section: str) -> set[str]:
    """The first column of a section's table in the glossary."""
    text = (DOCS / "glossary.md").read_text(encoding="utf-8")
    part = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return {row for row in re.findall(r"^\| ([^|]+?) \|", part, re.MULTILINE) if not row.startswith("---")}


@pytest.mark.parametrize(
    ("section", "names"),
    [
        ("Events", {each.__name__ for each in (*EVERY_BODY, *EFFECTS)}),
        ("Outcomes", set(OUTCOMES)),
        ("Reasons of a refusal", set(Reason)),
        ("Flags", set(Flag)),
        ("Notices", set(NoticeKind)),
        ("Reasons to park", set(ParkReason)),
        ("Reasons at the door", set(DoorReason)),
        ("Status of a prescription", set("EURTF")),
        ("Status of a treatment", {"active", "paused", "completed", "discontinued"}),
    ],
)
def test_the_glossary_has_every_name_of(section: str, names: set[str]) -> None:
    more = {"Event", "Record", "Outcome", "Name", "Code", "Status", "pending", "rejected"}
    assert names <= rows_of(section) <= names | more


def test_the_glossary_has_no_event_that_no_topic_carries() -> None:
    carried = {name for topic in load().topics.values() for name in topic.schemas}
    assert {name for name in rows_of("Events") if name not in carried} <= {"Event", "Record"}


# --- Decisions and runbooks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DECISIONS, ids=name_of)
def test_a_decision_says_what_was_rejected_and_where_it_stands(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.search(r"Rejected|^## Why not", text, re.MULTILINE), "no rejected options"
    assert any(each.startswith(("services/", "schemas/")) for each in named_paths(text)), "no place in the code"
    assert f"]({path.name})" in (DOCS / "decisions" / "README.md").read_text(encoding="utf-8"), "not in the index"


@pytest.mark.parametrize("path", RUNBOOKS, ids=name_of)
def test_a_runbook_has_symptoms_meaning_steps_and_commands(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Symptoms", "What it means", "What to do", "Commands"]
    sections = re.split(r"^## .+$", text, flags=re.MULTILINE)[1:]
    assert all(section.strip() for section in sections)
    assert "```bash" in sections[-1]
    assert f"]({path.name})" in (DOCS / "runbooks" / "README.md").read_text(encoding="utf-8"), "not in the index"


@cache
def source() -> str:
    """All code of the services, as one text."""
    return "\n".join(path.read_text(encoding="utf-8") for path in (CHECKOUT / "services").glob("**/*.py"))


@pytest.mark.parametrize("path", RUNBOOKS, ids=name_of)
def test_a_runbook_quotes_what_the_platform_says(path: Path) -> None:
    text = FENCED.sub("", path.read_text(encoding="utf-8"))
    said = {each for each in CODE.findall(text) if re.fullmatch(r"[a-z]+(_[a-z]+)+", each)} - {"redis_do"}
    settings = "".join(
        (CHECKOUT / name).read_text(encoding="utf-8") for name in ("schemas/reasons.py", "schemas/topics.yaml")
    )
    assert [each for each in said if each not in source() + settings] == []
    sentences = re.findall(r'(?<!`)"([A-Z a-z][^"`]+)"', " ".join(text.split()))
    parts = [part.strip() for each in sentences for part in each.split("...")]
    assert [each for each in parts if each not in source()] == []


def test_whatever_stops_parks_or_holds_has_a_runbook() -> None:
    told = "".join(path.read_text(encoding="utf-8") for path in RUNBOOKS)
    assert [reason for reason in StopReason if f"`{reason}`" not in told] == []
    parked = (DOCS / "runbooks" / "parked-records.md").read_text(encoding="utf-8")
    assert [reason for reason in ParkReason if reason not in parked] == []
    held = set(re.findall(r'(?:UnsendableError\(|_hold\([^)]*, )"(\w+)"', source()))
    assert held
    assert [reason for reason in held if f"| {reason} |" not in told] == []


def test_every_reason_why_a_process_is_not_ready_leads_to_a_runbook_that_names_it() -> None:
    index = (DOCS / "runbooks" / "README.md").read_text(encoding="utf-8")
    for reason in TroubleReason:
        (row,) = [line for line in index.splitlines() if line.startswith("| `") and f"`{reason}`" in line.split("|")[1]]
        (page,) = re.findall(r"\]\(([\w-]+\.md)\)", row)
        assert f"`{reason}`" in (DOCS / "runbooks" / page).read_text(encoding="utf-8"), reason


def test_every_alarm_is_in_a_runbook() -> None:
    """Also those that are said by a name (`say`, `_alarm`), and those of libraries; reasons to stop have a test above."""
    told = "".join(path.read_text(encoding="utf-8") for path in RUNBOOKS)
    alarms = set(re.findall(r'(?:\.(?:error|exception|critical)|\bsay)\(\s*"(\w+)"', source()))
    alarms |= set(re.findall(r'\._alarm\(.*?, "(\w+)"', source()))
    assert {"uncaught_error", "check_failed", "overview_failed", "inbox_behind", "relay_failed"} <= alarms
    assert {"effect_held", "unsent_not_noted"} <= alarms
    assert [each for each in sorted(alarms | {"library_message"}) if f"`{each}`" not in told] == []
    # What is neither of these would be an alarm that this test does not see.
    named = r"\.(?:error|exception|critical)\((?!\)|\s*\")\s*([\w.]+)"
    assert set(re.findall(named, source())) == {"event", "StopReason.PARTITION_COUNT.value", "reason.value"}


def test_every_command_of_a_runbook_is_known_to_look_or_to_change_something() -> None:
    """What only looks is run by `tests/integration/test_runbooks.py`, so none must be left that is neither."""
    kinds = (is_definition, looks, needs_more, changes)
    assert [each for each in every_command() if [kind(each) for kind in kinds].count(True) != 1] == []


@pytest.mark.parametrize("path", RUNBOOKS, ids=name_of)
def test_no_command_of_a_runbook_that_changes_something_stands_among_those_that_look(path: Path) -> None:
    mixed = [block for block in blocks(path) if any(map(changes, block)) and any(map(looks, block))]
    assert mixed == []


@pytest.mark.parametrize("path", RUNBOOKS, ids=name_of)
def test_a_runbook_that_uses_the_shell_functions_of_the_index_says_where_they_stand(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    defined = [
        each.partition("(")[0] for block in blocks(path.with_name("README.md")) for each in block if is_definition(each)
    ]
    assert defined
    for name in defined:
        if f"\n{name} " in text:
            assert f"`{name}` is a shell function of [README.md](README.md)" in text
