"""Remembers what was recently sent under each idempotency key, so that a repetition becomes the same event again."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, NamedTuple

from schemas.codec import HEADER_BYTES, Written
from schemas.reasons import DoorReason
from services.problems import Problem

KEYS_REMEMBERED: Final = 50_000
"""*Policy*: some minutes of the busiest hour; a repetition comes within seconds. The fold remembers for ever."""


class _Remembered(NamedTuple):
    occurred_at_ms: int
    content: bytes


class KeyMemory:
    """The last keys of this process. What it has forgotten, or never saw, the fold judges by event id and content.

    It also keeps the time that was filled in for a sender who gave none: in a prescription without `issued_at` and a
    discontinuation without `at` that time is content. If it is not known here, it is taken from the log (`Recorder`).
    """

    def __init__(self, remembered: int = KEYS_REMEMBERED) -> None:
        self._limit = remembered
        self._keys: OrderedDict[str, _Remembered] = OrderedDict()

    def occurred_at_ms(self, event_id: str) -> int | None:
        """What was filled in the first time for the event of a key whose sender did not say; None for a new key."""
        known = self._keys.get(event_id)
        return None if known is None else known.occurred_at_ms

    def remember(self, events: Iterable[Written]) -> None:
        """Take note of what is about to be appended. Raises a 422 problem if the key came with other content."""
        first, *others = events
        digest = hashlib.blake2b(_content_of(first), digest_size=16)
        for each in others:
            digest.update(_content_of(each))
        event_id = first.event.event_id
        found = _Remembered(first.event.occurred_at_ms, digest.digest())
        known = self._keys.setdefault(event_id, found)
        if known.content != found.content:
            raise Problem(422, DoorReason.IDEMPOTENCY_KEY_REUSED)
        self._keys.move_to_end(event_id)
        if len(self._keys) > self._limit:
            self._keys.popitem(last=False)


def _content_of(written: Written) -> bytes:
    """What makes two messages the same: patient, organisation and body (its schema too), nothing else of the envelope."""
    event = written.event
    whose = f"{event.patient}\n{event.source.organisation}\n".encode()
    return written.record[:HEADER_BYTES] + whose + written.body
