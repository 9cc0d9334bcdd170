"""`python -m deploy.kubernetes.definitions`: fetch Strimzi's and KEDA's definitions anew, which a test holds our resources against.

Strimzi publishes no files of them but its types, and the program that makes the files of these: run with a Java of 21 or
newer (JAVA_HOME). KEDA's are files of its Go module. Kept is what a check needs, without texts, one kind a line.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

STRIMZI: Final = "1.2.0"
KEDA: Final = "2.21.0"
KEPT: Final = Path(__file__).parent / "definitions.json"
_STRIMZIS_TYPES: Final = {
    "Kafka": "kafka.Kafka",
    "KafkaNodePool": "nodepool.KafkaNodePool",
    "KafkaTopic": "topic.KafkaTopic",
    "KafkaUser": "user.KafkaUser",
}
_OPTIONS: Final = ("--yaml", "--target-kube", "1.27+", "--crd-api-version", "v1")
_VERSIONS: Final = ("--api-versions", "v1", "--describe-api-versions", "v1", "--storage-version", "v1")


def main() -> None:
    """Write the file."""
    with tempfile.TemporaryDirectory() as folder:
        kinds = dict(_bare(each) for each in (*_of_strimzi(Path(folder)), _scaled_object()))
    lines = (f"{json.dumps(kind)}: {json.dumps(schema, separators=(',', ':'))}" for kind, schema in kinds.items())
    KEPT.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def _of_strimzi(folder: Path) -> Iterator[Any]:
    for artifact in ("api", "crd-generator"):
        named = f"io.strimzi:{artifact}:{STRIMZI}"
        _run("mvn", "-q", "-B", "dependency:copy", f"-Dartifact={named}", f"-DoutputDirectory={folder}")
    java = Path(os.environ["JAVA_HOME"]) / "bin" / "java"
    program = (str(java), "-cp", f"{folder}/*", "io.strimzi.crdgenerator.CrdGenerator", *_OPTIONS, *_VERSIONS)
    for kind, name in _STRIMZIS_TYPES.items():
        _run(*program, f"io.strimzi.api.kafka.model.{name}={folder / kind}")
        yield yaml.safe_load((folder / kind).read_text(encoding="utf-8"))


def _scaled_object() -> Any:
    module = json.loads(_run("go", "mod", "download", "-json", f"github.com/kedacore/keda/v2@v{KEDA}"))
    made = Path(module["Dir"]) / "config/crd/bases/keda.sh_scaledobjects.yaml"
    return yaml.safe_load(made.read_text(encoding="utf-8"))


def _bare(definition: Any) -> tuple[str, Any]:
    """A definition's kind, and what a resource of it must be."""
    kind: str = definition["spec"]["names"]["kind"]
    (version,) = definition["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    schema["properties"] |= {
        "apiVersion": {"const": f"{definition['spec']['group']}/{version['name']}"},
        "kind": {"const": kind},
    }
    # What Kubernetes itself defines.
    schema["properties"]["metadata"] = {}
    return kind, _closed(schema)


def _closed(schema: Any) -> Any:
    """Without texts, and closed: Kubernetes would drop a field that nobody defined, and say nothing."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {name: _closed(each) for name, each in schema.items() if name != "description" or isinstance(each, dict)}
    is_open = "additionalProperties" in kept or "x-kubernetes-preserve-unknown-fields" in kept
    if kept.get("type") == "object" and "properties" in kept and not is_open:
        kept["additionalProperties"] = False
    return kept


def _run(*command: str) -> str:
    """What a command of ours says."""
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603  our own, no shell
    return done.stdout


if __name__ == "__main__":
    main()
