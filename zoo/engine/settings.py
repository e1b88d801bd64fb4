"""Settings of a process that numbers depend on, as a new process has them."""

import random
import sys

import numpy as np
import torch

from zoo.engine.streams import stream
from zoo.records.trial import Trial


def settle(trial: Trial, threads: int) -> None:
    """Set the usual settings and the threads, and seed the global streams by (task, seed), whatever
    ran in this process before."""
    usual_settings()
    torch.set_num_threads(threads)
    random.seed(stream(trial.task, trial.seed, "python"))
    np.random.seed(stream(trial.task, trial.seed, "numpy") % 2**32)
    torch.manual_seed(stream(trial.task, trial.seed, "torch"))


def usual_settings() -> None:
    """Set types, precision and flags of kernels to torch's defaults."""
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)
    torch.set_grad_enabled(True)
    torch.set_float32_matmul_precision("highest")
    if "torch._inductor.config" in sys.modules:
        torch.use_deterministic_algorithms(False)
    else:  # the same without importing inductor, which takes seconds
        torch.set_deterministic_debug_mode(0)
    torch.set_flush_denormal(False)
    torch.autograd.set_detect_anomaly(False)
    for device in ("cpu", "cuda"):
        torch.set_autocast_enabled(device, False)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = False
    torch.backends.cuda.enable_flash_sdp(True)
    torch.backends.cuda.enable_mem_efficient_sdp(True)
    torch.backends.cuda.enable_math_sdp(True)
