"""A CPU tensor as the bytes and the dtype code that a safetensors file holds."""

from __future__ import annotations

import torch

CODES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint64: "U64", torch.uint32: "U32", torch.uint16: "U16", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip

#: The dtypes that parameters and gradients may have.
FLOATING = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def as_bytes(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, not copied."""
    return tensor.detach().reshape(-1).view(torch.uint8).numpy().data


def same_bytes(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two contiguous CPU tensors have the same dtype, shape and bytes."""
    return (a.dtype, a.shape) == (b.dtype, b.shape) and as_bytes(a) == as_bytes(b)
