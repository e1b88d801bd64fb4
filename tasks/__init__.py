"""Task adapters: real data from the hub or a folder, and the embedded laboratory."""

from tasks import glue, squad, tiny

__all__ = ["glue", "squad", "tiny"]
