"""The Kubernetes manifests: valid by the published schemas, and in step with what processes and topics are declared to be."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import pytest
import yaml

from deploy.kubernetes.manifests import FOLDER, SECRET, files, kafka_user
from deploy.services import KEYS, SERVICES, Service
from services.topics.registry import EVENTS_TOPIC, load

KUBERNETES: Final = "1.34"
OF_OTHERS: Final = ("kafka.strimzi.io/", "keda.sh/", "kustomize.config.k8s.io/")
"""Resources of operators: no package for Python brings their schemas, so their fields are checked below."""


def documents(folder: Path) -> Iterator[dict[str, Any]]:
    """Every resource that a kustomization brings, those of the folders that it builds on included."""
    for name in yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]:
        path = folder / name
        if path.is_dir():
            yield from documents(path.resolve())
        else:
            yield from (each for each in yaml.safe_load_all(path.read_text()) if each is not None)


ALL: Final = list(documents(FOLDER / "overlays" / "example"))


def named(kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in ALL if each["kind"] == kind}


@pytest.mark.parametrize(("name", "text"), files().items(), ids=list(files()))
def test_the_files_are_what_the_declarations_make_of_them(name: str, text: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == text, "run `python -m deploy.kubernetes`"


@pytest.mark.parametrize("manifest", ALL, ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_every_manifest_is_valid_by_the_published_schema(manifest: dict[str, Any]) -> None:
    if not manifest["apiVersion"].startswith(OF_OTHERS):
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    assert manifest["metadata"]["name"]


def test_the_published_schema_finds_what_is_wrong() -> None:
    wrong = {**ALL[0], "apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_every_process_is_started_and_told_as_it_is_declared(service: Service) -> None:
    deployment = named("Deployment")[service.name]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    told = {each["name"]: each for each in container["env"]}
    assert told.keys() == {*service.variables, "MEDCHAIN_HOST"}
    assert container["command"] == ["python", "-m", service.module]
    for key in set(KEYS) & told.keys():
        assert told[key]["valueFrom"]["secretKeyRef"] == {"name": SECRET, "key": key}
        assert "value" not in told[key]
    assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys()
    assert container["ports"][0]["containerPort"] == service.port
    assert named("Service")[service.name]["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]
    assert service.name in named("PodDisruptionBudget")
    assert service.name in named("NetworkPolicy")


def test_no_secret_stands_in_the_manifests() -> None:
    assert named("Secret") == {}


def test_redis_never_evicts_keeps_its_file_and_leaves_room_below_its_limit() -> None:
    (container,) = named("StatefulSet")["redis"]["spec"]["template"]["spec"]["containers"]
    options = dict(zip(container["args"][::2], container["args"][1::2], strict=True))
    assert options["--maxmemory-policy"] == "noeviction"
    assert options["--appendonly"] == "yes"
    assert options["--maxmemory"] == "6gb"
    assert container["resources"]["limits"]["memory"] == "8Gi"


def test_only_who_is_told_where_redis_is_may_reach_it() -> None:
    (rule,) = named("NetworkPolicy")["redis"]["spec"]["ingress"]
    admitted = {each["podSelector"]["matchLabels"]["app.kubernetes.io/name"] for each in rule["from"]}
    assert admitted == {each.name for each in SERVICES if "MEDCHAIN_REDIS" in each.variables}


def test_processors_are_scaled_on_lag_up_to_one_a_partition() -> None:
    spec = named("ScaledObject")["processor"]["spec"]
    assert spec["scaleTargetRef"]["name"] in named("Deployment")
    assert spec["maxReplicaCount"] == load().partitions(EVENTS_TOPIC)
    assert "medchain_view_lag_events" in spec["triggers"][0]["metadata"]["query"]
    assert "replicas" not in named("Deployment")["processor"]["spec"]


def test_every_declared_topic_is_there_as_declared() -> None:
    topics = named("KafkaTopic")
    for wanted in load().wanted():
        spec = topics[wanted.name]["spec"]
        assert spec == {"partitions": wanted.partitions, "replicas": wanted.replication, "config": wanted.settings}
        assert topics[wanted.name]["metadata"]["labels"]["strimzi.io/cluster"] in named("Kafka")


@pytest.mark.parametrize(("kind", "party"), [("system", "example"), ("pharmacy", "999000001")])
def test_a_party_may_touch_its_own_topics_and_nothing_else(kind: str, party: str) -> None:
    acls = kafka_user(kind, party)["spec"]["authorization"]["acls"]
    rights = {
        (each["resource"]["name"], op)
        for each in acls
        for op in each["operations"]
        if each["resource"]["type"] == "topic"
    }
    assert rights
    for topic, _ in rights:
        assert topic.endswith(f".{party}"), topic
    for topic, operation in rights - {(topic, "Describe") for topic, _ in rights}:
        declared = load().declaration(topic)
        allowed = declared.producers if operation == "Write" else declared.consumers
        assert f"that {kind}" in allowed, (topic, operation)
    assert all("*" not in each["resource"]["name"] for each in acls)
