"""How the contract's types look over HTTP: JSON, instants as RFC 3339 under names without `_ms`, exact numbers."""

import re
from typing import Any, Final

import msgspec

from services.admission.plain import rfc3339

_encode: Final = msgspec.json.Encoder(decimal_format="number").encode
# In JSON that msgspec made, a letter, a quotation mark and a colon in this order stand only at the end of a name: within
# a text the mark would be escaped. So these find fields of our own types, and nothing in what was sent.
_INSTANT: Final = re.compile(rb'_ms":(-?[0-9]+|null)')
_ZEROS: Final = re.compile(rb'":(?<=[a-z_]":)(-?[0-9]+)(?:\.0+|(\.[0-9]*[1-9])0+)(?=[,}])')


def to_json(shown: Any) -> bytes:
    """The JSON of a contract type or of builtins that hold some: what is left at its default is left out.

    Numbers are written as people do, 100 and 0.5, whatever places the wire gave them.
    """
    return _ZEROS.sub(rb'":\1\2', _INSTANT.sub(_outside, _encode(shown)))


def _outside(found: re.Match[bytes]) -> bytes:
    at_ms = found[1]
    return b'":null' if at_ms == b"null" else b'":"%b"' % rfc3339(int(at_ms)).encode()
