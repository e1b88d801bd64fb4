"""Settings that numbers depend on, after code that has changed them."""

import random

import numpy as np
import torch

from tests.helpers import a_trial
from zoo.engine.settings import settle


def test_settings_are_those_of_a_new_process():
    settle(a_trial(), 1)
    first = random.random(), np.random.rand(), torch.rand(3)
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_num_threads(2)
    torch.set_float32_matmul_precision("medium")
    torch.use_deterministic_algorithms(True)
    torch.autograd.set_detect_anomaly(True)
    torch.set_autocast_enabled("cpu", True)
    torch.set_grad_enabled(False)
    settle(a_trial(), 1)
    again = random.random(), np.random.rand(), torch.rand(3)
    assert first[:2] == again[:2] and torch.equal(first[2], again[2])
    made = torch.ones(2, requires_grad=True) * 2
    assert made.dtype == torch.float32 and made.device.type == "cpu" and made.requires_grad
    assert torch.get_num_threads() == 1 and torch.get_float32_matmul_precision() == "highest"
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.is_anomaly_enabled() and not torch.is_autocast_enabled("cpu")
    settle(a_trial(seed=1), 1)
    assert random.random() != first[0]
