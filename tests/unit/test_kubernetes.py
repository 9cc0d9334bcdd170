"""The Kubernetes manifests: valid by the published schemas, and in step with what processes and topics are declared to be."""

import copy
import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import jsonschema
import kubernetes_validate
import pytest
import yaml

from deploy.kubernetes.definitions import KEPT as DEFINITIONS_OF_OTHERS
from deploy.kubernetes.manifests import (
    CLUSTER,
    FOLDER,
    KAFKA,
    OPERATOR,
    OPTIONAL_MAP,
    SECRET,
    files,
    kafka_user,
    our_user,
    user_of,
)
from deploy.local.layout import CHECKOUT
from deploy.services import KEYS, SERVICES, Service
from services.publishing.kafka_access import CA, CERTIFICATE, FILES, KEY
from services.topics.registry import EVENTS_TOPIC, load

KUBERNETES: Final = "1.34"


def documents(folder: Path) -> Iterator[dict[str, Any]]:
    """Every resource that a kustomization brings, those of the folders that it builds on included."""
    for name in yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]:
        path = folder / name
        if path.is_dir():
            yield from documents(path.resolve())
        else:
            yield from (each for each in yaml.safe_load_all(path.read_text()) if each is not None)


ALL: Final = list(documents(FOLDER / "overlays" / "example"))


@functools.cache
def definitions_of_others() -> dict[str, Any]:
    """What Strimzi and KEDA demand of each of their kinds."""
    definitions: dict[str, Any] = json.loads(DEFINITIONS_OF_OTHERS.read_text(encoding="utf-8"))
    return definitions


def patched(folder: Path) -> Iterator[tuple[dict[str, Any], str, Any]]:
    """Each value that a kustomization puts in the place of another: the resource, where in it, and the value.

    Raises KeyError, IndexError where nothing stands in that place.
    """
    for patch in yaml.safe_load((folder / "kustomization.yaml").read_text())["patches"]:
        manifest = copy.deepcopy(named(patch["target"]["kind"])[patch["target"]["name"]])
        for each in yaml.safe_load(patch["patch"]):
            *steps, last = (int(step) if step.isdecimal() else step for step in each["path"].split("/")[1:])
            place: Any = manifest
            for step in steps:
                place = place[step]
            if each["op"] == "test":
                assert place[last] == each["value"], each["path"]
                continue
            assert each["op"] == "replace"
            assert place[last] != each["value"], each["path"]
            place[last] = each["value"]
            yield manifest, each["path"], each["value"]


def named(kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in ALL if each["kind"] == kind}


@pytest.mark.parametrize(("name", "text"), files().items(), ids=list(files()))
def test_the_files_are_what_the_declarations_make_of_them(name: str, text: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == text, "run `python -m deploy.kubernetes`"


@pytest.mark.parametrize("manifest", ALL, ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_every_manifest_is_valid_by_the_published_schema(manifest: dict[str, Any]) -> None:
    if manifest["kind"] in definitions_of_others():
        jsonschema.validate(manifest, definitions_of_others()[manifest["kind"]])
    else:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    assert manifest["metadata"]["name"]


def test_the_published_schema_finds_what_is_wrong() -> None:
    wrong = {**ALL[0], "apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


@pytest.mark.parametrize(
    ("kind", "path", "wrong"),
    [
        ("Kafka", ("kafka", "listeners", 0), {"authentification": {"type": "tls"}}),
        ("Kafka", ("kafka", "authorization"), {"type": "acl"}),
        ("KafkaNodePool", ("storage", "volumes", 0), {"type": "disk"}),
        ("KafkaTopic", (), {"partitions": "8"}),
        ("KafkaUser", ("authorization", "acls", 0), {"operation": "Read"}),
        ("KafkaUser", ("authorization", "acls", 0, "resource"), {"patternType": "regex"}),
        ("ScaledObject", (), {"maxReplicas": 8}),
        ("ScaledObject", ("triggers", 0, "metadata"), {"threshold": 5000}),
    ],
    ids=["listener", "authorization", "volume", "partitions", "right", "pattern", "most", "threshold"],
)
def test_the_definitions_of_others_find_what_is_wrong(
    kind: str, path: tuple[str | int, ...], wrong: dict[str, Any]
) -> None:
    manifest = copy.deepcopy(next(iter(named(kind).values())))
    changed: Any = manifest["spec"]
    for step in path:
        changed = changed[step]
    changed |= wrong
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(manifest, definitions_of_others()[kind])


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_every_process_is_started_and_told_as_it_is_declared(service: Service) -> None:
    deployment = named("Deployment")[service.name]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    told = {each["name"]: each for each in container["env"]}
    assert told.keys() == {*service.variables, "MEDCHAIN_HOST", *FILES}
    assert container["command"] == ["python", "-m", service.module]
    for key in set(KEYS) & told.keys():
        assert told[key]["valueFrom"]["secretKeyRef"] == {"name": SECRET, "key": key}
        assert "value" not in told[key]
    assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys()
    assert container["ports"][0]["containerPort"] == service.port
    assert named("Service")[service.name]["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]
    assert service.name in named("PodDisruptionBudget")
    assert service.name in named("NetworkPolicy")


def test_an_installation_tells_its_processes_what_some_of_them_may_be_told() -> None:
    known = {name for service in SERVICES for name in service.optional}
    told = named("ConfigMap")[OPTIONAL_MAP]["data"]
    assert told.keys() <= known
    assert "MEDCHAIN_LIST_PUBLIC_URL" in told
    for deployment in named("Deployment").values():
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        assert container["envFrom"] == [{"configMapRef": {"name": OPTIONAL_MAP, "optional": True}}]


def test_no_secret_stands_in_the_manifests() -> None:
    assert named("Secret") == {}


def test_redis_never_evicts_keeps_its_file_and_leaves_room_below_its_limit() -> None:
    (container,) = named("StatefulSet")["redis"]["spec"]["template"]["spec"]["containers"]
    options = dict(zip(container["args"][::2], container["args"][1::2], strict=True))
    assert options["--maxmemory-policy"] == "noeviction"
    assert options["--appendonly"] == "yes"
    assert options["--maxmemory"] == "6gb"
    assert container["resources"]["limits"]["memory"] == "8Gi"


def test_only_who_is_told_where_redis_is_and_the_operator_may_reach_it() -> None:
    (rule,) = named("NetworkPolicy")["redis"]["spec"]["ingress"]
    admitted = {each["podSelector"]["matchLabels"]["app.kubernetes.io/name"] for each in rule["from"]}
    assert admitted == {OPERATOR, *(each.name for each in SERVICES if "MEDCHAIN_REDIS" in each.variables)}


@pytest.mark.parametrize("service", SERVICES, ids=lambda each: each.name)
def test_the_operator_may_ask_every_process_how_it_is(service: Service) -> None:
    (rule,) = named("NetworkPolicy")[service.name]["spec"]["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": service.port}]
    admitted = [each["podSelector"]["matchLabels"] for each in rule["from"] if "podSelector" in each]
    assert {"app.kubernetes.io/name": OPERATOR} in admitted


def test_nobody_reaches_kafka_without_a_certificate_and_no_certificate_is_above_the_rights() -> None:
    kafka = named("Kafka")[CLUSTER]["spec"]["kafka"]
    assert kafka["authorization"] == {"type": "simple"}
    for listener in kafka["listeners"]:
        assert listener["tls"]
        assert listener["authentication"] == {"type": "tls"}
    (inside,) = (each for each in kafka["listeners"] if each["type"] == "internal")
    admitted = {each["podSelector"]["matchLabels"]["app.kubernetes.io/name"] for each in inside["networkPolicyPeers"]}
    assert admitted == {OPERATOR, *(each.name for each in SERVICES)}
    assert f"{CLUSTER}-kafka-bootstrap:{inside['port']}" == KAFKA, "as Strimzi names it"


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_every_process_is_given_the_certificate_of_its_own_user_and_the_brokers_authority(service: Service) -> None:
    pod = named("Deployment")[service.name]["spec"]["template"]["spec"]
    (container,), (volume,) = pod["containers"], pod["volumes"]
    (mounted,) = container["volumeMounts"]
    assert mounted["name"] == volume["name"]
    files = {
        f"{mounted['mountPath']}/{item['path']}": (source["secret"]["name"], item["key"])
        for source in volume["projected"]["sources"]
        for item in source["secret"]["items"]
    }
    told = {each["name"]: files[each["value"]] for each in container["env"] if each["name"] in FILES}
    user = user_of(service.name)
    # The names of secrets and of their keys are Strimzi's.
    assert told == {
        CA: (f"{CLUSTER}-cluster-ca-cert", "ca.crt"),
        CERTIFICATE: (user, "user.crt"),
        KEY: (user, "user.key"),
    }
    assert named("KafkaUser")[user]["spec"]["authentication"] == {"type": "tls"}
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsUser"], "else it could not read its key"


def test_the_number_under_which_pods_run_has_a_name_in_the_image() -> None:
    dockerfile = (CHECKOUT / "deploy" / "compose" / "Dockerfile").read_text(encoding="utf-8")
    (number,) = re.findall(r"^RUN useradd --uid (\d+) ", dockerfile, re.MULTILINE)
    for service in SERVICES:
        pod = named("Deployment")[service.name]["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsUser"] == int(number)


def test_every_user_is_a_process_the_operator_or_a_party_and_whoever_the_topics_name_is_one() -> None:
    ours = {user_of(name) for name in (OPERATOR, *(each.name for each in SERVICES))}
    parties = {"system-example", "pharmacy-999000001", "organisation-999000001"}
    assert named("KafkaUser").keys() == ours | parties
    touching = {name for each in load().topics.values() for name in (*each.producers, *each.consumers)}
    outside = {"that system", "that pharmacy", "that organisation", "registries"}
    assert {user_of(name) for name in touching - outside} == ours


def test_only_who_takes_writes_or_closes_parked_records_may_write_what_happened() -> None:
    writing = {
        name
        for name, user in named("KafkaUser").items()
        for each in user["spec"]["authorization"]["acls"]
        if "Write" in each["operations"] and each["resource"]["name"] == EVENTS_TOPIC
    }
    names = (OPERATOR, "prescriber", "prescriber-inbox", "pharmacy", "pharmacy-inbox")
    assert writing == {user_of(each) for each in names}


def test_no_right_covers_a_topic_that_is_not_declared_nor_changes_any() -> None:
    stems = {pattern.partition("<")[0] for pattern in load().topics}
    for name in (OPERATOR, *(each.name for each in SERVICES)):
        for acl in our_user(name)["spec"]["authorization"]["acls"]:
            assert {*acl["operations"]} <= {"Read", "Write", "Describe", "DescribeConfigs"}
            if acl["resource"]["type"] == "topic":
                assert acl["resource"]["name"] in stems
                assert (acl["resource"]["patternType"] == "prefix") == acl["resource"]["name"].endswith(".")


def test_processors_are_scaled_on_lag_up_to_one_a_partition() -> None:
    spec = named("ScaledObject")["processor"]["spec"]
    assert spec["scaleTargetRef"]["name"] in named("Deployment")
    assert spec["maxReplicaCount"] == load().partitions(EVENTS_TOPIC)
    assert "medchain_view_lag_events" in spec["triggers"][0]["metadata"]["query"]
    assert "replicas" not in named("Deployment")["processor"]["spec"]


def test_the_example_changes_what_stands_in_the_base_and_stays_valid() -> None:
    changed = list(patched(FOLDER / "overlays" / "example"))
    assert {manifest["kind"] for manifest, *_ in changed} == {"StatefulSet", "ScaledObject"}
    for manifest, *_ in changed:
        if manifest["kind"] in definitions_of_others():
            jsonschema.validate(manifest, definitions_of_others()[manifest["kind"]])
        else:
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_the_example_lets_redis_use_the_memory_that_it_gives_it_and_leaves_the_same_room() -> None:
    *_, (redis, *_) = (each for each in patched(FOLDER / "overlays" / "example") if each[0]["kind"] == "StatefulSet")
    (base,) = named("StatefulSet")["redis"]["spec"]["template"]["spec"]["containers"]
    (container,) = redis["spec"]["template"]["spec"]["containers"]

    def share(of: dict[str, Any]) -> float:
        used = dict(zip(of["args"][::2], of["args"][1::2], strict=True))["--maxmemory"]
        return float(used.removesuffix("gb")) / float(of["resources"]["limits"]["memory"].removesuffix("Gi"))

    assert share(container) == share(base)


def test_keda_is_told_a_prometheus_that_it_finds_from_its_own_namespace_and_the_example_names_its_own() -> None:
    base = named("ScaledObject")["processor"]["spec"]["triggers"][0]["metadata"]["serverAddress"]
    own = [value for _, path, value in patched(FOLDER / "overlays" / "example") if path.endswith("/serverAddress")]
    assert own
    for address in (base, *own):
        assert re.fullmatch(r"http://[a-z-]+\.[a-z-]+\.svc:\d+", address), "a service, and its namespace"


def test_the_operator_is_told_of_prometheus_and_of_the_label_that_lets_it_in() -> None:
    told = (CHECKOUT / "docs" / "how-to" / "operator.md").read_text(encoding="utf-8")
    peers = named("NetworkPolicy")["relay"]["spec"]["ingress"][0]["from"]
    (peer,) = [each for each in peers if "namespaceSelector" in each]
    ((label, value),) = peer["namespaceSelector"]["matchLabels"].items()
    assert f"`{label}={value}`" in told
    assert "`serverAddress`" in told


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
