"""The embedded laboratory: an artificial language, three tasks in it, and a small BERT."""

from tasks.laboratory import tasks

__all__ = ["tasks"]
