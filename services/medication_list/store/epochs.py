"""By how much an epoch rises: by chance, so that none comes twice.

A store that comes back with an older copy goes through offsets and epochs once more. Were epochs counted, a worker that
had read a patient before that, and writes after it, could find the offset and the epoch of its reading again, and write
what follows from a refold that is gone.
"""

import secrets


def by_chance() -> int:
    """From 1 to 2^32. An epoch rises with every refold, and is a signed number of 64 bits: it lasts for 2^31 of them."""
    return 1 + int(secrets.token_hex(4), 16)
