"""Task adapters: real data from the hub or a folder, and the embedded laboratory."""

from tasks import glue, squad

__all__ = ["glue", "squad"]
