"""Many trials: suites, planning, executors and progress."""
