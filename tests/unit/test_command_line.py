"""`medchain`: every part that it lists can be loaded, and none is loaded before it is called."""

import importlib
import json
import subprocess
import sys
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from deploy.local.layout import CHECKOUT
from services.command_line.app import COMMAND, PARTS, app
from services.identity.national_id import synthetic
from services.publishing.kafka_access import CA, CERTIFICATE, KEY
from tests.unit.every_command import FAILING, every_command

NUMBER = synthetic(4711).digits


@pytest.mark.parametrize("part", PARTS)
def test_a_listed_part_is_there_and_has_help_of_its_own(part: str) -> None:
    module, _ = PARTS[part]
    assert isinstance(importlib.import_module(module).app, typer.Typer)
    said = CliRunner().invoke(app, [part, "--help"])
    assert said.exit_code == 0
    assert f"medchain {part}" in said.stdout


@pytest.mark.parametrize("part", ["doctor", "status"])
def test_a_part_that_ends_with_several_codes_says_which(part: str) -> None:
    assert "Exit codes: 0" in CliRunner().invoke(app, [part, "--help"]).stdout


def test_doctor_says_what_it_looks_at() -> None:
    said = " ".join(CliRunner().invoke(app, ["doctor", "--help"]).stdout.split())
    for each in ("its disk", "newest record of each partition", "every process", "changes nothing"):
        assert each in said


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("re", "replay"), ("replay sw", "switch"), ("replay start --max", "--max-share"), ("topics che", "check")],
)
def test_the_shell_completes_parts_their_commands_and_options(typed: str, offered: str) -> None:
    asked = {
        "_MEDCHAIN_COMPLETE": "complete_bash",
        "COMP_WORDS": f"medchain {typed}",
        "COMP_CWORD": str(len(typed.split())),
    }
    said = CliRunner().invoke(app, [], prog_name="medchain", env=asked)
    assert offered in said.stdout.split()


def test_listing_the_parts_loads_none_of_them() -> None:
    code = "import sys; import services.command_line.app as a; print([m for m, _ in a.PARTS.values() if m in sys.modules], 'kafka' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)  # noqa: S603  ours
    assert said.stdout == "[] False\n"


def numbers_with_a_point() -> list[tuple[str, str]]:
    """Every option that takes one, with its command."""
    return [
        (name, each.opts[0])
        for name, command in every_command().items()
        for each in command.params
        if each.type_descriptor.annotation is float
    ]


def test_the_options_with_a_point_are_found() -> None:
    assert {("replay start", "--max-share"), ("replay start", "--reserve"), ("status", "--every")} <= {
        *numbers_with_a_point()
    }


@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize(("name", "option"), numbers_with_a_point())
def test_what_is_no_number_to_count_with_is_turned_away_by_whatever_option(name: str, option: str, value: str) -> None:
    """A least alone does not do it."""
    with pytest.raises(typer.BadParameter):
        every_command()[name].make_context(name, [option, value])


def test_the_command_runs_in_a_process_of_its_own_by_any_interpreter_of_ours() -> None:
    said = subprocess.run([*COMMAND, "generations", "--help"], cwd=CHECKOUT, capture_output=True, text=True, check=True)  # noqa: S603  ours
    assert "services.command_line generations" in said.stdout


# --- JSON, and nothing else ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What every command said with --json, each where it cannot do what it is asked for."""
    call = [sys.executable, "-m", "tests.unit.every_command", str(tmp_path_factory.mktemp("commands"))]
    said = subprocess.run(call, cwd=CHECKOUT, capture_output=True, text=True, check=False)  # noqa: S603  ours
    assert said.returncode == 0, said.stderr
    found: dict[str, Any] = json.loads(said.stdout)
    return found


def test_no_command_is_left_out_of_what_holds_for_all() -> None:
    assert FAILING.keys() == every_command().keys()


@pytest.mark.parametrize("name", FAILING)
def test_json_is_a_switch_of_every_command(name: str) -> None:
    command = every_command()[name]
    (option,) = [each for each in command.params if "--json" in each.opts]
    assert option.is_flag, f"{name} --json wants a value"


@pytest.mark.parametrize("name", FAILING)
def test_with_json_a_failure_too_is_a_document_and_nothing_else(failures: dict[str, Any], name: str) -> None:
    said = failures[name]
    assert said["fault"] is None
    document = json.loads(said["stdout"])
    assert document["exit"] == said["exit"] == 2
    assert document["error"]


@pytest.mark.parametrize("words", [("topics", "create", "--nonsense"), ("patient", "timeline"), ("nonsense",)])
def test_wrong_words_are_told_in_json_too(words: tuple[str, ...]) -> None:
    said = CliRunner().invoke(app, [*words, "--json"])
    assert (said.exit_code, json.loads(said.stdout)["exit"]) == (2, 2)
    assert CliRunner().invoke(app, list(words)).stdout == ""


@pytest.mark.parametrize(
    "words",
    [
        ("patient", "list", NUMBER, "--reason", "the pharmacy called"),
        ("patient", "list", f"{NUMBER[:6]} {NUMBER[6:]}", "--reason", "the pharmacy called"),
        ("patient", NUMBER),
        (NUMBER,),
        (f"--{NUMBER}",),
    ],
)
def test_no_error_repeats_a_national_id_that_stands_where_none_must_stand(words: tuple[str, ...]) -> None:
    for as_json in ([], ["--json"]):
        said = CliRunner().invoke(app, [*words, *as_json])
        assert said.exit_code == 2
        assert said.output
        assert NUMBER[6:] not in said.output


def test_files_that_cannot_be_used_are_told_in_json_too() -> None:
    told = {"MEDCHAIN_KAFKA": "127.0.0.1:1", CA: "nowhere", CERTIFICATE: "", KEY: ""}
    said = CliRunner().invoke(app, ["topics", "check", "--json"], env=told)
    assert (said.exit_code, json.loads(said.stdout)["exit"]) == (2, 2)
    assert f"{CERTIFICATE} is not set" in json.loads(said.stdout)["error"]


def test_a_town_that_lacks_the_keys_for_the_log_is_refused_before_anything_is_made() -> None:
    said = CliRunner().invoke(app, ["simulate", "--via", "log"], env={"MEDCHAIN_KAFKA": "127.0.0.1:1"})
    assert said.exit_code == 2
    assert "set MEDCHAIN_PSEUDONYM_KEY" in said.stderr


def test_what_chaos_can_do_is_listed_in_json() -> None:
    listed = json.loads(CliRunner().invoke(app, ["chaos", "--list", "--json"]).stdout)
    assert "redis_flushed" in listed["faults"]
    assert "deletes_before_the_ack" in listed["mutants"]
