"""Commands beside the benchmark: python -m zoo.tools.<name>."""
