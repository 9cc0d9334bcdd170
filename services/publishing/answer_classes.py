"""Makes kafka-python's classes of answers while one thread alone runs: two that make one at once can break every client.

The library makes a class for each version of an answer when it first reads one, and knows it by a weak reference: the one that
was made last, of whichever thread. Where another thread's was kept instead, the known one is collected, and from then on no client
of the process reads such an answer (`ReferenceError`, seen in a relay that was started amid load) until it is started again.
"""

import kafka  # noqa: F401  brings every answer that the library knows
from kafka.protocol.api_header import ResponseClassRegistry


def make_answer_classes() -> None:
    """Each version of each answer, some 260 in a hundredth of a second. To be called where modules are imported."""
    for known in list(ResponseClassRegistry._response_class_registry.values()):  # noqa: SLF001  it is nowhere else
        for version in range(known.valid_versions[1] + 1):
            known[version]
