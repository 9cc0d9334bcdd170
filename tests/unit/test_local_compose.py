"""The compose file serves the same processes as the local platform, each told the same."""

import ast
import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from deploy.local.layout import CHECKOUT
from deploy.local.platform import KAFKA_PORT, REDIS_PORT
from deploy.services import KEYS, OPTIONAL, SERVICES, Service
from services.command_line.app import PARTS

COMPOSE: dict[str, Any] = yaml.safe_load((CHECKOUT / "deploy" / "compose" / "compose.yaml").read_text())
DOCKERFILE: Final = CHECKOUT / "deploy" / "compose" / "Dockerfile"
# It kills the processes of a platform that it starts itself, with a broker that no image holds.
NOT_IN_THE_IMAGE: Final = {"chaos"}
# Within a container a service listens on every address of it; the local platform has the loopback address only.
COMPOSED_ONLY = {"MEDCHAIN_HOST"}
MONITORING = ("prometheus", "grafana")


def test_the_compose_file_has_exactly_the_platforms_processes() -> None:
    assert set(COMPOSE["services"]) == {"kafka", "redis", "registry", "jaeger", "topics", *MONITORING} | {
        service.name for service in SERVICES
    }


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_a_composed_service_is_started_and_told_as_the_local_one(service: Service) -> None:
    composed = COMPOSE["services"][service.name]
    assert composed["command"] == ["python", "-m", service.module]
    assert set(composed["environment"]) - COMPOSED_ONLY == {*service.variables, *service.optional}
    assert composed["environment"]["MEDCHAIN_HOST"] == "0.0.0.0"  # noqa: S104 - within the container
    assert service.port is not None
    # Several processes of one service need a port of this machine each.
    published = f"{service.port}-{service.port + 9}" if service.many else str(service.port)
    assert composed["ports"] == [f"127.0.0.1:{published}:{service.port}"]
    assert composed["environment"]["MEDCHAIN_PORT"] == str(service.port)


def test_everything_is_published_on_the_loopback_address_only() -> None:
    published = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert {f"127.0.0.1:{KAFKA_PORT}:{KAFKA_PORT}", f"127.0.0.1:{REDIS_PORT}:6379"} <= set(published)


def test_the_composed_redis_never_evicts_and_writes_what_it_answers() -> None:
    command = COMPOSE["services"]["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--maxmemory-policy"] == "noeviction"
    assert options["--appendonly"] == "yes"


def test_no_secret_stands_in_the_compose_file() -> None:
    for service in COMPOSE["services"].values():
        for name in set(KEYS) & set(service.get("environment", {})):
            assert service["environment"][name] == f"${{{name}:?see the top of this file}}"


def test_the_composed_registry_runs_only_when_asked_for_and_loses_no_number() -> None:
    registry = COMPOSE["services"]["registry"]
    optional = {name: service["profiles"] for name, service in COMPOSE["services"].items() if "profiles" in service}
    assert optional == {"registry": ["registry"], "jaeger": ["traces"], **{name: ["monitoring"] for name in MONITORING}}
    assert registry["profiles"] == ["registry"]
    # In memory, as it comes, a restart would give old numbers to other schemas.
    assert registry["environment"]["APICURIO_STORAGE_KIND"] == "kafkasql"
    assert registry["environment"]["APICURIO_KAFKASQL_BOOTSTRAP_SERVERS"] == "kafka:9092"


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_a_composed_service_uses_a_registry_or_a_collector_only_where_the_environment_names_one(
    service: Service,
) -> None:
    environment = COMPOSE["services"][service.name]["environment"]
    assert {name: environment[name] for name in OPTIONAL} == {name: f"${{{name}:-}}" for name in OPTIONAL}


def test_a_composed_service_that_takes_writes_leads_its_callers_to_where_the_list_is_published() -> None:
    (published,) = COMPOSE["services"]["medication-list"]["ports"]
    address = published.rpartition(":")[0]
    for service in SERVICES:
        if "MEDCHAIN_LIST_PUBLIC_URL" in service.optional:
            told = COMPOSE["services"][service.name]["environment"]["MEDCHAIN_LIST_PUBLIC_URL"]
            assert told == f"${{MEDCHAIN_LIST_PUBLIC_URL:-http://{address}}}"


def test_the_composed_topics_are_made_by_the_command_that_people_use() -> None:
    command = COMPOSE["services"]["topics"]["command"]
    assert command[0] == "medchain"
    assert command[1] in PARTS


def imported(*modules: str) -> set[str]:
    """Every file of ours that these modules bring, also within their functions; paths from the checkout on."""
    found, ahead = set[str](), list(modules)
    while ahead:
        path = CHECKOUT / ahead.pop().replace(".", "/")
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        name = str(file.relative_to(CHECKOUT))
        if name in found or not file.exists():  # what is imported from a module need be no module itself
            continue
        found.add(name)
        for node in ast.walk(ast.parse(file.read_bytes())):
            names = [each.name for each in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{each}" for each in names]
            ours = [
                each.split(".") for each in names if each.startswith(("services.", "schemas.", "deploy.", "tests."))
            ]
            ahead += [".".join(parts[:length]) for parts in ours for length in range(1, len(parts) + 1)]
    return found


def test_the_image_holds_all_that_the_commands_and_the_processes_import() -> None:
    copied = re.findall(r"^COPY (\S+) ", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)
    shown = re.findall(r"^!(.+)$", DOCKERFILE.with_suffix(".dockerignore").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(copied) <= set(shown), "Docker would not see it"
    modules = [module for name, (module, _) in PARTS.items() if name not in NOT_IN_THE_IMAGE]
    files = imported("services.command_line.app", *modules, *(service.module for service in SERVICES))
    assert len(files) > 200
    assert [each for each in sorted(files) if not any(Path(each).is_relative_to(source) for source in copied)] == []
