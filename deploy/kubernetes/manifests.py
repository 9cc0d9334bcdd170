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
from services.topics.registry import EVENTS_TOPIC, Parties, Topic, load

Manifest = dict[str, Any]

FOLDER: Final = Path(__file__).parent
CLUSTER: Final = "medchain-kafka"
KAFKA: Final = f"{CLUSTER}-kafka-bootstrap:9092"
SECRET: Final = "medchain-keys"  # noqa: S105 - the name of a secret, which the manifests do not hold
_MADE: Final = "# Made by `python -m deploy.kubernetes`; change deploy/kubernetes/manifests.py.\n"
_COPIES: Final = 2
_PORT: Final = "http"


def files() -> dict[str, str]:
    """Each file that is made, by its path in this folder: the base, and the parties of the example."""
    made: dict[str, list[Manifest]] = {
        "processes.yaml": [each for service in SERVICES for each in _of_process(service)],
        "redis.yaml": list(_redis()),
        "network.yaml": list(_network()),
        "kafka.yaml": [_kafka(), _node_pool()],
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
                    "runAsUser": 10001,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [_container(service)],
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
        "env": [_variable(each, service) for each in ("MEDCHAIN_HOST", *service.variables)],
        # Optional: a schema registry, a generation of one's own. Unset is what most have.
        "envFrom": [{"configMapRef": {"name": "medchain-optional", "optional": True}}],
        "ports": [{"name": _PORT, "containerPort": service.port}],
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
        "MEDCHAIN_REDIS": "redis://redis:6379/0",
        "MEDCHAIN_LIST_URL": "http://medication-list:8803",
        # Whose topics there are is decided where they are declared.
        "MEDCHAIN_CREATE_PARTY_TOPICS": "false",
    }
    return {"name": name, "value": known[name]}


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
                        "serverAddress": "http://prometheus:9090",
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
    of_redis = [each.name for each in SERVICES if "MEDCHAIN_REDIS" in each.variables]
    yield _policy("redis", _labels("redis"), [_from(of_redis, 6379)])
    of_list = [each.name for each in SERVICES if "MEDCHAIN_LIST_URL" in each.variables]
    for service in SERVICES:
        callers = of_list if service.name == "medication-list" else []
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
    ours = [
        {"podSelector": {"matchLabels": _labels(each.name)}} for each in SERVICES if "MEDCHAIN_KAFKA" in each.variables
    ]
    return {
        "apiVersion": "kafka.strimzi.io/v1",
        "kind": "Kafka",
        "metadata": {"name": CLUSTER},
        "spec": {
            "kafka": {
                "version": "4.2.0",
                "listeners": [
                    # The platform's own processes, and nobody else, by Strimzi's network policy: they bear no credentials.
                    {"name": "inside", "port": 9092, "type": "internal", "tls": False, "networkPolicyPeers": ours},
                    # Outside parties: each by its certificate, with the rights of its KafkaUser.
                    {
                        "name": "parties",
                        "port": 9094,
                        "type": "loadbalancer",
                        "tls": True,
                        "authentication": {"type": "tls"},
                    },
                ],
                "authorization": {"type": "simple", "superUsers": ["ANONYMOUS"]},
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
            rights.append(_right(name, ["Write", "Describe"]))
        if who in declared.consumers:
            rights.append(_right(name, ["Read", "Describe"]))
    # Groups under its own name: it must not take another's partitions.
    rights.append({"resource": {"type": "group", "name": f"{party}.", "patternType": "prefix"}, "operations": ["Read"]})
    return {
        "apiVersion": "kafka.strimzi.io/v1",
        "kind": "KafkaUser",
        "metadata": {"name": f"{kind}-{party}", "labels": {"strimzi.io/cluster": CLUSTER}},
        "spec": {"authentication": {"type": "tls"}, "authorization": {"type": "simple", "acls": rights}},
    }


def _right(topic: str, operations: list[str]) -> Manifest:
    return {"resource": {"type": "topic", "name": topic, "patternType": "literal"}, "operations": operations}
