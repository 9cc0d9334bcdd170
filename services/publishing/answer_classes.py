"""Builds kafka-python's response classes in a single thread: two threads building one at once can break every client of the process.

The library builds a class for each version of a response when it first reads one, and keeps a weak reference to the class
built last, by whichever thread. If another thread's class is in use, the referenced one is collected, and from then on no client
of the process can read such a response (`ReferenceError`, seen in a relay started under load) until the process is restarted.
"""

import kafka  # noqa: F401  imports every response that the library knows
from kafka.protocol.api_header import ResponseClassRegistry


def make_answer_classes() -> None:
    """Build each version of each response, some 260 in a hundredth of a second. To be called on import, before any thread."""
    for known in list(ResponseClassRegistry._response_class_registry.values()):  # noqa: SLF001  it is nowhere else
        for version in range(known.valid_versions[1] + 1):
            known[version]
