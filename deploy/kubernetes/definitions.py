"""`python -m deploy.kubernetes.definitions`: fetch Strimzi's definitions anew, which a test holds our resources against.

Strimzi publishes no files of them but its types, and the program that makes the files of these: run with a Java of 21 or
newer (JAVA_HOME). Kept is what a check needs, without texts, one kind a line.
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

VERSION: Final = "1.2.0"
KEPT: Final = Path(__file__).parent / "strimzi.json"
_TYPES: Final = {
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
        kinds = dict(_made(Path(folder)))
    lines = (f"{json.dumps(kind)}: {json.dumps(schema, separators=(',', ':'))}" for kind, schema in kinds.items())
    KEPT.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def _made(folder: Path) -> Iterator[tuple[str, Any]]:
    for artifact in ("api", "crd-generator"):
        named = f"io.strimzi:{artifact}:{VERSION}"
        _run("mvn", "-q", "-B", "dependency:copy", f"-Dartifact={named}", f"-DoutputDirectory={folder}")
    java = Path(os.environ["JAVA_HOME"]) / "bin" / "java"
    program = (str(java), "-cp", f"{folder}/*", "io.strimzi.crdgenerator.CrdGenerator", *_OPTIONS, *_VERSIONS)
    for kind, name in _TYPES.items():
        _run(*program, f"io.strimzi.api.kafka.model.{name}={folder / kind}")
        (version,) = yaml.safe_load((folder / kind).read_text(encoding="utf-8"))["spec"]["versions"]
        schema = version["schema"]["openAPIV3Schema"]
        schema["properties"] |= {
            "apiVersion": {"const": f"kafka.strimzi.io/{version['name']}"},
            "kind": {"const": kind},
        }
        # What Kubernetes itself defines.
        schema["properties"]["metadata"] = {}
        yield kind, _bare(schema)


def _bare(schema: Any) -> Any:
    """Without texts, and closed: Kubernetes would drop a field that nobody defined, and say nothing."""
    if isinstance(schema, list):
        return [_bare(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {name: _bare(each) for name, each in schema.items() if name != "description" or isinstance(each, dict)}
    is_open = "additionalProperties" in kept or "x-kubernetes-preserve-unknown-fields" in kept
    if kept.get("type") == "object" and "properties" in kept and not is_open:
        kept["additionalProperties"] = False
    return kept


def _run(*command: str) -> None:
    subprocess.run(command, check=True)  # noqa: S603  our own command lines, no shell


if __name__ == "__main__":
    main()
