"""What can go wrong, as one line for the user and one exit code for the shell."""


class BenchmarkError(Exception):
    """An error whose message is one line that says what, where and how to mend it."""

    exit_code = 1


class ConfigError(BenchmarkError):
    """The command, a plugin, a checkpoint or the data cannot be used; nothing was started."""

    exit_code = 2


class TrialError(BenchmarkError):
    """A method broke the rules of the masked model; its trial fails and the others go on."""

    exit_code = 3


class StorageError(BenchmarkError):
    """A results folder or a cache cannot be written or read."""

    exit_code = 4


class ResourceError(BenchmarkError):
    """Something outside cannot be reached, or a device that was asked for is absent."""

    exit_code = 5


class StaleError(BenchmarkError):
    """Something generated is not what its sources give."""

    exit_code = 6


class Diverged(Exception):
    """The loss was not finite at `step` (0-based); the trial ends as a result, not as a failure."""

    def __init__(self, step: int, loss: float):
        super().__init__(f"loss was {loss} at step {step}")
        self.step = step
        self.loss = loss
