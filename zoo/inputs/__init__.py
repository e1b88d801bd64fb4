"""What comes in: checkpoints and their architecture, tasks, batches, and the cache on disk."""
