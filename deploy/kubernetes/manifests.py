"""Makes the base of the Kubernetes manifests; a test holds the files in `base/` to it.

Processes come from `deploy.services`, topics from schemas/topics.yaml: a variable or a topic that is added there is added
here, or the test fails. Kafka is Strimzi's, scaling KEDA's: both must be on the cluster.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import yaml

from deploy.services import KEYS, SERVICES, Service
from services.publishing.kafka_access import CA, CERTIFICATE, FILES, KEY
from services.topics.registry import EVENTS_TOPIC, Parties, Topic, load

Manifest = dict[str, Any]

FOLDER: Final = Path(__file__).parent
CLUSTER: Final = "medchain-kafka"
_KAFKA_PORT: Final = 9093
KAFKA: Final = f"{CLUSTER}-kafka-bootstrap:{_KAFKA_PORT}"
OPERATOR: Final = "operator"
"""A person with `medchain`, in a pod of that name."""
FILES_FOLDER: Final = "/etc/medchain/kafka"
PROMETHEUS: Final = "http://prometheus.monitoring.svc:9090"
"""The cluster's own, which nothing here makes: an overlay says where it is. With its namespace, since KEDA asks from another one."""
SECRET: Final = "medchain-keys"  # noqa: S105 - the name of a secret, which the manifests do not hold
OPTIONAL_MAP: Final = "medchain-optional"
"""Config map of what an installation may tell its processes besides; `overlays/example` has one."""
_MADE: Final = "# Made by `python -m deploy.kubernetes`; change deploy/kubernetes/manifests.py.\n"
_COPIES: Final = 2
_PORT: Final = "http"
_USER: Final = 10001


_OURS: Final = tuple(each.name for each in SERVICES if "MEDCHAIN_KAFKA" in each.variables)
_PROCESSORS: Final = "medication-list."
"""What the groups of processors begin with (`services.medication_list.groups`)."""


def files() -> dict[str, str]:
    """Each file that is made, by its path in this folder: the base, and the parties of the example."""
    made: dict[str, list[Manifest]] = {
        "processes.yaml": [each for service in SERVICES for each in _of_process(service)],
        "redis.yaml": list(_redis()),
        "network.yaml": list(_network()),
        "kafka.yaml": [_kafka(), _node_pool(), *(our_user(each) for each in (*_OURS, OPERATOR))],
        "topics.yaml": [kafka_topic(each) for each in load().wanted()],
        "scaling.yaml": [_scaled()],
    }
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": sorted(made),
        "labels": [{"pairs": {"app.kubernetes.io/part-of": "medchain"}}],
    }
    texts = {name: _MADE + yaml.safe_dump_all(each, sort_keys=False) for name, each in made.items()}
    texts["kustomization.yaml"] = _MADE + yaml.safe_dump(kustomization, sort_keys=False)
    based = {f"base/{name}": text for name, text in texts.items()}
    return based | {"overlays/example/parties.yaml": _MADE + yaml.safe_dump_all(_example_parties(), sort_keys=False)}


def _example_parties() -> Iterable[Manifest]:
    """One party of each kind: its user, and its topics where the declaration does not name them already."""
    ours = {each.name for each in load().wanted()}
    parties = Parties(systems=("example",), pharmacies=("999000001",), organisations=("999000001",))
    yield from (kafka_topic(each) for each in load().wanted(parties) if each.name not in ours)
    yield kafka_user("system", "example")
    yield kafka_user("pharmacy", "999000001")
    yield kafka_user("organisation", "999000001")


# --- Processes ----------------------------------------------------------------------------------------------------


def _of_process(service: Service) -> Iterable[Manifest]:
    yield _deployment(service)
    yield _service(service)
    # Scaled processors come and go anyhow; of the others one stays while nodes are drained.
    yield {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": service.name},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": _labels(service.name)}},
    }


def _deployment(service: Service) -> Manifest:
    spec: Manifest = {
        "selector": {"matchLabels": _labels(service.name)},
        "template": {
            "metadata": {"labels": _labels(service.name), "annotations": _scraped(service)},
            "spec": {
                "automountServiceAccountToken": False,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": _USER,
                    "fsGroup": _USER,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [_container(service)],
                "volumes": [
                    {"name": "kafka", "projected": {"defaultMode": 0o440, "sources": _certificates(service.name)}}
                ],
            },
        },
    }
    # KEDA says how many processors there are; a number here would undo that with each roll-out.
    how_many = {} if service.many else {"replicas": _COPIES}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": service.name}, "spec": how_many | spec}


def _container(service: Service) -> Manifest:
    return {
        "name": service.name,
        "image": "medchain",
        "command": ["python", "-m", service.module],
        "env": [_variable(each, service) for each in ("MEDCHAIN_HOST", *service.variables, *FILES)],
        # Optional: a schema registry, a generation of one's own, the list's address outside the cluster.
        "envFrom": [{"configMapRef": {"name": OPTIONAL_MAP, "optional": True}}],
        "ports": [{"name": _PORT, "containerPort": service.port}],
        "volumeMounts": [{"name": "kafka", "mountPath": FILES_FOLDER, "readOnly": True}],
        "startupProbe": _probe("live", every_s=2, failures=60),
        # It says itself when it hangs, after a minute; a broker or a Redis that is away is no reason to kill it.
        "livenessProbe": _probe("live", every_s=10, failures=3),
        "readinessProbe": _probe("ready", every_s=5, failures=2),
        "resources": {"requests": {"cpu": "250m", "memory": "256Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def _variable(name: str, service: Service) -> Manifest:
    if name in KEYS:
        return {"name": name, "valueFrom": {"secretKeyRef": {"name": SECRET, "key": name}}}
    known = {
        "MEDCHAIN_HOST": "0.0.0.0",  # noqa: S104 - within the pod; who may come is in network.yaml
        "MEDCHAIN_PORT": str(service.port),
        "MEDCHAIN_KAFKA": KAFKA,
        CA: f"{FILES_FOLDER}/ca.crt",
        CERTIFICATE: f"{FILES_FOLDER}/user.crt",
        KEY: f"{FILES_FOLDER}/user.key",
        "MEDCHAIN_REDIS": "redis://redis:6379/0",
        "MEDCHAIN_LIST_URL": "http://medication-list:8803",
        # Whose topics there are is decided where they are declared.
        "MEDCHAIN_CREATE_PARTY_TOPICS": "false",
    }
    return {"name": name, "value": known[name]}


def _certificates(name: str) -> list[Manifest]:
    """The brokers' authority, and what Strimzi made for this user. It replaces the files in place when it renews them."""
    ca = {"name": f"{CLUSTER}-cluster-ca-cert", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    user = {"name": user_of(name), "items": [{"key": each, "path": each} for each in ("user.crt", "user.key")]}
    return [{"secret": ca}, {"secret": user}]


def _probe(what: str, *, every_s: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": f"/health/{what}", "port": _PORT},
        "periodSeconds": every_s,
        "timeoutSeconds": 4,
        "failureThreshold": failures,
    }


def _service(service: Service) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": service.name},
        "spec": {
            "selector": _labels(service.name),
            "ports": [{"name": _PORT, "port": service.port, "targetPort": _PORT}],
        },
    }


def _labels(name: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": name}


def _scraped(service: Service) -> dict[str, str]:
    return {"prometheus.io/scrape": "true", "prometheus.io/port": str(service.port), "prometheus.io/path": "/metrics"}


def _scaled() -> Manifest:
    partitions = load().partitions(EVENTS_TOPIC)
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": "processor"},
        "spec": {
            "scaleTargetRef": {"name": "processor"},
            "minReplicaCount": _COPIES,
            # More than one a partition would have nothing to do.
            "maxReplicaCount": partitions,
            "cooldownPeriod": 300,
            "triggers": [
                {
                    # By the relay's word on the view: the group's committed offsets are for display only.
                    "type": "prometheus",
                    "metadata": {
                        "serverAddress": PROMETHEUS,
                        "query": "sum(max by (partition) (medchain_view_lag_events))",
                        "threshold": "5000",
                    },
                }
            ],
        },
    }


# --- Redis --------------------------------------------------------------------------------------------------------


def _redis() -> Iterable[Manifest]:
    yield {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "redis"},
        "spec": {"clusterIP": "None", "selector": _labels("redis"), "ports": [{"name": "redis", "port": 6379}]},
    }
    options = {
        "--appendonly": "yes",
        "--appendfsync": "everysec",
        # It must refuse, never forget.
        "--maxmemory-policy": "noeviction",
        "--maxmemory": "6gb",
        "--save": "",
    }
    ping = {"exec": {"command": ["redis-cli", "ping"]}, "periodSeconds": 5, "timeoutSeconds": 3}
    container = {
        "name": "redis",
        "image": "redis:7",
        "args": [word for option in options.items() for word in option],
        "ports": [{"name": "redis", "containerPort": 6379}],
        # No liveness: it may be silent because it reads its file, and a restart makes that longer.
        "readinessProbe": ping,
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "resources": {"requests": {"cpu": "500m", "memory": "8Gi"}, "limits": {"memory": "8Gi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    pod = {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 999,
            "fsGroup": 999,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
    }
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "20Gi"}}},
    }
    yield {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "redis"},
        "spec": {
            "serviceName": "redis",
            "replicas": 1,
            "selector": {"matchLabels": _labels("redis")},
            "template": {"metadata": {"labels": _labels("redis")}, "spec": pod},
            "volumeClaimTemplates": [claim],
        },
    }


# --- Network ------------------------------------------------------------------------------------------------------


def _network() -> Iterable[Manifest]:
    yield _policy("nobody-unless-named", {}, [])
    of_redis = [*(each.name for each in SERVICES if "MEDCHAIN_REDIS" in each.variables), OPERATOR]
    yield _policy("redis", _labels("redis"), [_from(of_redis, 6379)])
    of_list = [each.name for each in SERVICES if "MEDCHAIN_LIST_URL" in each.variables]
    for service in SERVICES:
        # The operator's pod asks every process how it is: `medchain status` and `doctor`.
        callers = [*(of_list if service.name == "medication-list" else []), OPERATOR]
        # Who calls from outside the namespace (a gateway, Prometheus) bears this label.
        admitted: list[Manifest] = [{"namespaceSelector": {"matchLabels": {"medchain.no/admitted": "true"}}}]
        peers = admitted + [{"podSelector": {"matchLabels": _labels(name)}} for name in callers]
        rule = {"from": peers, "ports": [{"protocol": "TCP", "port": service.port}]}
        yield _policy(service.name, _labels(service.name), [rule])


def _from(names: Iterable[str], port: int) -> Manifest:
    peers = [{"podSelector": {"matchLabels": _labels(name)}} for name in names]
    return {"from": peers, "ports": [{"protocol": "TCP", "port": port}]}


def _policy(name: str, labels: dict[str, str], ingress: list[Manifest]) -> Manifest:
    # Strimzi makes policies of its own for its pods.
    selector: Manifest = {"matchLabels": labels} if labels else _not_strimzis()
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": {"podSelector": selector, "policyTypes": ["Ingress"], "ingress": ingress},
    }


def _not_strimzis() -> Manifest:
    return {"matchExpressions": [{"key": "strimzi.io/cluster", "operator": "DoesNotExist"}]}


# --- Kafka --------------------------------------------------------------------------------------------------------


def _kafka() -> Manifest:
    ours = [{"podSelector": {"matchLabels": _labels(each)}} for each in (*_OURS, OPERATOR)]
    return {
        "apiVersion": "kafka.strimzi.io/v1",
        "kind": "Kafka",
        "metadata": {"name": CLUSTER},
        "spec": {
            "kafka": {
                "version": "4.2.0",
                "listeners": [
                    # The platform's own processes, and nobody else, by Strimzi's network policy too.
                    {
                        "name": "inside",
                        "port": _KAFKA_PORT,
                        "type": "internal",
                        **_secured(),
                        "networkPolicyPeers": ours,
                    },
                    {"name": "parties", "port": 9094, "type": "loadbalancer", **_secured()},
                ],
                "authorization": {"type": "simple"},
                "config": {
                    "auto.create.topics.enable": False,
                    "default.replication.factor": load().replication,
                    "min.insync.replicas": int(load().settings["min.insync.replicas"]),
                    "offsets.topic.replication.factor": load().replication,
                    "transaction.state.log.replication.factor": load().replication,
                    "transaction.state.log.min.isr": int(load().settings["min.insync.replicas"]),
                },
            },
            "entityOperator": {"topicOperator": {}, "userOperator": {}},
        },
    }


def _secured() -> Manifest:
    """Each by its certificate, with the rights of its KafkaUser; nobody has any without."""
    return {"tls": True, "authentication": {"type": "tls"}}


def _node_pool() -> Manifest:
    return {
        "apiVersion": "kafka.strimzi.io/v1",
        "kind": "KafkaNodePool",
        "metadata": {"name": "brokers", "labels": {"strimzi.io/cluster": CLUSTER}},
        "spec": {
            "replicas": load().replication,
            "roles": ["controller", "broker"],
            "storage": {
                "type": "jbod",
                "volumes": [{"id": 0, "type": "persistent-claim", "size": "100Gi", "deleteClaim": False}],
            },
        },
    }


def kafka_topic(topic: Topic) -> Manifest:
    """One topic as Strimzi makes it."""
    return {
        "apiVersion": "kafka.strimzi.io/v1",
        "kind": "KafkaTopic",
        "metadata": {"name": topic.name, "labels": {"strimzi.io/cluster": CLUSTER}},
        "spec": {"partitions": topic.partitions, "replicas": topic.replication, "config": dict(topic.settings)},
    }


def kafka_user(kind: str, party: str) -> Manifest:
    """What an outside party may do: write and read its own topics, as schemas/topics.yaml says, and nothing else.

    `kind`: system, pharmacy or organisation.
    """
    who, rights = f"that {kind}", list[Manifest]()
    for pattern, declared in load().topics.items():
        name = pattern.replace(f"<{kind}>", party)
        if who in declared.producers:
            rights.append(_right("topic", name, "Write", "Describe"))
        if who in declared.consumers:
            rights.append(_right("topic", name, "Read", "Describe"))
    # Groups under its own name: it must not take another's partitions.
    rights.append(_right("group", f"{party}.", "Read"))
    return _user(f"{kind}-{party}", rights)


def our_user(name: str) -> Manifest:
    """What one of our processes, or the operator, may do: what schemas/topics.yaml says of it, and to see how it goes."""
    rights = list[Manifest]()
    for pattern, declared in load().topics.items():
        may = {
            "Write": name in declared.producers,
            "Read": name in declared.consumers,
            "DescribeConfigs": name == OPERATOR,
        }
        operations = [operation for operation, is_allowed in may.items() if is_allowed]
        if operations:
            rights.append(_right("topic", pattern.partition("<")[0], *operations, "Describe"))
    groups = {
        "processor": (_PROCESSORS, "Read"),
        "relay": (_PROCESSORS, "Describe"),
        OPERATOR: (_PROCESSORS, "Describe"),
    }
    groups |= {each: (each, "Read") for each in _OURS if each.endswith("-inbox")}
    if name in groups:
        group, operation = groups[name]
        rights.append(_right("group", group, operation))
    # How much room the brokers' disks have.
    rights.append({"resource": {"type": "cluster"}, "operations": ["Describe"]})
    return _user(user_of(name), rights)


def user_of(name: str) -> str:
    """The user of one of our processes, and the secret that holds its certificate; no party can have such a name."""
    return f"medchain-{name}"


def _user(name: str, rights: list[Manifest]) -> Manifest:
    return {
        "apiVersion": "kafka.strimzi.io/v1",
        "kind": "KafkaUser",
        "metadata": {"name": name, "labels": {"strimzi.io/cluster": CLUSTER}},
        "spec": {"authentication": {"type": "tls"}, "authorization": {"type": "simple", "acls": rights}},
    }


def _right(kind: str, name: str, *operations: str) -> Manifest:
    """To everything whose name begins so where it ends with a dot, else to what has this name."""
    pattern = "prefix" if name.endswith(".") else "literal"
    return {"resource": {"type": kind, "name": name, "patternType": pattern}, "operations": list(operations)}
