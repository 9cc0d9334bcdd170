"""An outside program that knows nothing but the `schemas/` folder reads and writes what we do."""

import json
import subprocess
import sys
from pathlib import Path

from schemas import codec
from schemas.golden import newest_of

SCHEMAS = Path(codec.__file__).parent

OUTSIDER = """
import io, json, pathlib, sys
import fastavro
from fastavro.schema import fingerprint, parse_schema, to_parsing_canonical_form

folder = pathlib.Path(sys.argv[1])
schemas = {}
for path in folder.glob("avro/*/*.avsc"):
    schema = json.loads(path.read_text(encoding="utf-8"))
    mark = bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))
    schemas[mark] = (path.parent.name, parse_schema(schema))

def read(value):
    assert value[:2] == b"\\xc3\\x01"
    name, schema = schemas[value[2:10]]
    source = io.BytesIO(value[10:])
    record = fastavro.schemaless_reader(source, schema, None)
    assert not source.read()
    return name, schema, record

read_names = []
for path in sorted(folder.glob("golden/*/*/*.bin")):
    value = path.read_bytes()
    name, schema, record = read(value)
    assert name == path.parts[-3], path
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, record)
    assert value[:10] + out.getvalue() == value, path
    read_names.append(name)

value = (folder / "golden/SubmissionPrescriptionIssued/1/package.bin").read_bytes()
name, schema, record = read(value)
record["bodies"][0]["refills"] = 1
record["bodies"][0]["medication"]["product"] = {"kind": "substance", "name": "Metformin"}
out = io.BytesIO()
fastavro.schemaless_writer(out, schema, record)
ours = sorted({module.split(".")[0] for module in sys.modules} & {"schemas", "services", "deploy", "tests"})
print(json.dumps({"read": read_names, "ours": ours, "written": (value[:10] + out.getvalue()).hex()}))
"""


def run_outsider() -> dict[str, object]:
    done = subprocess.run(  # noqa: S603  the program stands above
        [sys.executable, "-I", "-W", "error", "-c", OUTSIDER, str(SCHEMAS)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def test_an_outside_program_reads_and_writes_with_the_schemas_folder_alone() -> None:
    answer = run_outsider()
    assert answer["ours"] == []
    read = answer["read"]
    assert isinstance(read, list)
    assert set(read) == set(codec.TYPES)
    submission = codec.decode(bytes.fromhex(str(answer["written"])))
    original = newest_of("SubmissionPrescriptionIssued")["package"]
    assert submission.bodies[0].refills == 1
    assert submission.bodies[0].medication.product.name == "Metformin"
    assert submission.bodies[0].dosing == original.bodies[0].dosing
