"""Kernels: interpreted on the CPU against plain torch, and compiled for GPUs without one.

Where Triton is not installed all of this is skipped; `pip install triton` suffices, a GPU is not
needed.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from zoo.kernels import launch

triton = pytest.importorskip("triton", reason="Triton is not installed: kernels are NOT tested")


def test_kernels_give_what_plain_torch_gives():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    tests = Path(__file__).with_name("interpreted_kernels.py")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [*command, str(tests)], env=environment, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stdout[-4000:]


I32, I64, F32 = "*i32", "*i64", "*fp32"
COMPILED = {
    "count_digit": ([I64, I64, *[I32] * 5], {"SHIFT": 16, "STRIDE": 1, "CHECK": 1}),
    "guess_digit": ([I32, I32, I64, I32, I32, I32], None),
    "check_guess": ([I32] * 7, None),
    "pick_digit": ([I32] * 7, {"FIRST": 0, "BUT": 1}),
    "share_ties": ([I32] * 9, None),
    "count_ties": ([I64, I64, *[I32] * 6, "i32"], {}),
    "start_ties": ([I32, I32, "i32"], {"WIDTH": 1024}),
    "make_mask": ([I64, I64, *[I32] * 6, "*u8", I64, "i32"], {}),
    "sum_sigmoids": ([I64, I64, "fp32", F32, "i32"], {}),
    "make_above": ([I64, I64, I64, "fp32", "*u8", I32], {}),
    "make_working": ([*[I64] * 6, "i64"], {"GATE": 1, "KIND": "bfloat16"}),
    "sum_squares": (
        [*[I64] * 6, F32, "fp32", "fp32", "i64", F32, "i32"],
        {"SCORES": 1, "WEIGHTS": 1, "PENALTY": 1, "GATE": 0, "KIND": "bfloat16"},
    ),
    "update": (
        [*[I64] * 6, F32, "fp32", "fp32", "i64", F32, *[I64] * 4, *["fp32"] * 11],
        {"SCORES": 1, "WEIGHTS": 1, "PENALTY": 1, "GATE": 1, "KIND": "bfloat16"},
    ),
}
"""Types of the arguments of every kernel, and values that it is compiled for."""


@pytest.mark.parametrize("name", COMPILED)
def test_kernels_compile_for_a_gpu_that_is_not_there(name):
    """For compute capability 8.0 (A100), down to machine code. Matrices are read 16 bytes at a
    time."""
    from triton.backends.compiler import GPUTarget

    from zoo.kernels import ranking, stepping

    kernel = getattr(ranking, name, None) or getattr(stepping, name)
    types, fixed = COMPILED[name]
    constants = dict(fixed or {})
    if "EVEN" in kernel.arg_names:
        constants |= {"EVEN": True, "BLOCK": launch.BLOCK}
    if "KIND" in constants:
        constants["KIND"] = getattr(triton.language, constants["KIND"])
    given = iter(types)
    signature = {n: "constexpr" if n in constants else next(given) for n in kernel.arg_names}
    source = triton.compiler.ASTSource(fn=kernel, signature=signature, constexprs=constants)
    made = triton.compile(
        source, target=GPUTarget("cuda", 80, 32), options={"num_warps": launch.WARPS}
    )
    assert len(made.asm["cubin"]) > 0
    assert ("ld.global.v4" in made.asm["ptx"]) == ("EVEN" in kernel.arg_names)


def test_every_kernel_is_compiled_by_a_test():
    from zoo.kernels import ranking, stepping

    launched = {
        name
        for module in (ranking, stepping)
        for name, value in vars(module).items()
        if hasattr(value, "arg_names") and "program_id" in value.src
    }
    assert launched == set(COMPILED)
