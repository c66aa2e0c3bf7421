"""The conditions of every evaluation: full precision, repeatable kernels, nothing compiled.

A convexity gap is a small difference of losses: TF32 (10 bits of mantissa) would drown it. The user's own settings are
put back afterwards.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch


@contextmanager
def value_for_a_while(owner: Any, name: str, value: Any) -> Iterator[None]:
    """`owner.name = value` for a while."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def _matmul_precision(precision: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _switches() -> list[Any]:
    """The objects of torch >= 2.9 that hold an `fp32_precision` for one kind of operation."""
    backends = torch.backends
    owners = (backends.cuda, backends.cudnn, backends.mkldnn)
    found = [getattr(owner, kind, None) for owner in owners for kind in ("matmul", "conv", "rnn")]
    return [switch for switch in found if hasattr(switch, "fp32_precision")]


@contextmanager
def full_precision(*, use_cudnn: bool = True) -> Iterator[None]:
    """Neither TF32 nor bfloat16 inside float32 products, no low-precision sums, deterministic cuDNN.

    torch has two interfaces to these switches, and reading the old one raises where the new one was used before. So the
    old one is set where it can be read, and the new one wherever that left a low precision. `use_cudnn` False does
    without cuDNN.
    """
    with ExitStack() as stack:
        matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
        for context in (_matmul_precision("highest"), value_for_a_while(cudnn, "allow_tf32", False)):
            try:
                stack.enter_context(context)
            except RuntimeError:
                continue
        for switch in _switches():
            if switch.fp32_precision not in ("none", "ieee"):
                stack.enter_context(value_for_a_while(switch, "fp32_precision", "ieee"))
        stack.enter_context(value_for_a_while(matmul, "allow_fp16_reduced_precision_reduction", False))
        stack.enter_context(value_for_a_while(matmul, "allow_bf16_reduced_precision_reduction", False))
        stack.enter_context(value_for_a_while(cudnn, "benchmark", False))
        stack.enter_context(value_for_a_while(cudnn, "enabled", use_cudnn and cudnn.enabled))
        stack.enter_context(value_for_a_while(cudnn, "deterministic", True))
        yield


@contextmanager
def evaluation(device: torch.device, dtype: torch.dtype | None, *, use_cudnn: bool = True) -> Iterator[None]:
    """Evaluate a loss on `device`: `full_precision`, with torch.compile'd functions run as they were written.

    `dtype` is that of `torch.zeros(n)` inside the loss; None leaves it. Gradients stay enabled, for losses
    that differentiate with respect to their inputs.
    """
    compiles = "torch._dynamo" in sys.modules
    before = torch.get_default_dtype()
    with (
        full_precision(use_cudnn=use_cudnn),
        torch.cuda.device(device) if device.type == "cuda" else nullcontext(),
        torch.compiler.set_stance("force_eager") if compiles else nullcontext(),
        torch.enable_grad(),
    ):
        torch.set_default_dtype(dtype or before)
        try:
            yield
        finally:
            torch.set_default_dtype(before)
