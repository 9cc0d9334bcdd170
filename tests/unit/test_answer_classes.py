"""kafka-python's classes of answers: all there before any thread reads an answer."""

import subprocess
import sys
from typing import Final

import pytest

_TWO_THREADS: Final = """
import gc
import threading
from unittest import mock
{imported}
from kafka.protocol.api_header import ResponseClassRegistry
from kafka.protocol.metadata import MetadataResponse

first_made, second_kept = threading.Event(), threading.Event()
names = []

class Versions(dict):
    \"\"\"Keeps what the first thread made only once the second one has made and kept its own.\"\"\"
    def __setitem__(self, version, made):
        if threading.current_thread().name == "first":
            first_made.set()
            second_kept.wait(10)
        super().__setitem__(version, made)

MetadataResponse._VERSIONS = Versions(MetadataResponse._VERSIONS)
first = threading.Thread(target=lambda: MetadataResponse[9], name="first")
second = threading.Thread(target=lambda: MetadataResponse[9], name="second")
first.start()
first_made.wait(1)
second.start()
second.join()
second_kept.set()
first.join()
gc.collect()
ResponseClassRegistry._response_class_registry[MetadataResponse.API_KEY][9]
"""


def _reads_after_two_threads_made_one_class(imported: str) -> bool:
    """Whether a process still reads an answer of which two threads made the class at once."""
    ran = subprocess.run(  # noqa: S603  our own program
        [sys.executable, "-c", _TWO_THREADS.format(imported=imported)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0 or "ReferenceError" in ran.stderr, ran.stderr
    return ran.returncode == 0


@pytest.mark.parametrize(
    ("imported", "reads"), [("import services.publishing.kafka_clients", True), ("import kafka", False)]
)
def test_answers_are_read_though_two_threads_first_read_one_at_once(imported: str, reads: bool) -> None:  # noqa: FBT001 - a case
    """Once the library alone reads them too, `services/publishing/answer_classes.py` can go."""
    assert _reads_after_two_threads_made_one_class(imported) is reads
