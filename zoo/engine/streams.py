"""Named streams of random numbers."""

import hashlib


def stream(*names: object) -> int:
    """The 63-bit seed of a named stream: a stream for (trial, step) needs nothing of the step
    before."""
    text = "\0".join(str(name) for name in names)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
