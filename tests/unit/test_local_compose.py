"""The compose file serves the same processes as the local platform, each told the same."""

from typing import Any

import pytest
import yaml

from deploy.local.layout import CHECKOUT
from deploy.local.platform import KAFKA_PORT, REDIS_PORT
from deploy.services import KEYS, OPTIONAL, SERVICES, Service
from services.command_line.app import PARTS

COMPOSE: dict[str, Any] = yaml.safe_load((CHECKOUT / "deploy" / "compose" / "compose.yaml").read_text())
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
    assert set(composed["environment"]) - COMPOSED_ONLY == {*service.variables, *OPTIONAL}
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


def test_the_composed_topics_are_made_by_the_command_that_people_use() -> None:
    command = COMPOSE["services"]["topics"]["command"]
    assert command[0] == "medchain"
    assert command[1] in PARTS
