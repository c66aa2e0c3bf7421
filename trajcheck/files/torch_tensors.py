"""A tensor as the bytes and the dtype code that a safetensors file holds, and back."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from trajcheck.files.extent_reader import ExtentReader
from trajcheck.files.extents import PAIRS, Extent

#: safetensors' codes of the dtypes that a file may hold.
CODES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.complex64: "C64",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ", torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
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


#: torch's dtypes by safetensors' code.
TORCH_DTYPES = {**{code: dtype for dtype, code in CODES.items()}, PAIRS: torch.complex128}


def storable(tensor: Tensor) -> bool:
    """Whether a file can hold a tensor (of a sharded one, the local part).

    Dense, of a dtype that has a code or is stored as pairs, and with its numbers in its own memory, not in that of
    tensors inside it.
    """
    known = tensor.dtype in CODES or tensor.dtype is torch.complex128
    plain = not tensor.is_nested and tensor.layout is torch.strided
    return known and plain and not torch.utils._python_dispatch.is_traceable_wrapper_subclass(tensor)


def read_tensor(reader: ExtentReader, extent: Extent) -> Tensor:
    """The whole tensor, in its own dtype. Raises StepFileError on a short read."""
    if not extent.length:
        return torch.empty(extent.shape, dtype=TORCH_DTYPES[extent.dtype])
    data = np.empty(extent.length, dtype=np.uint8)
    reader.into(extent, 0, data.data)
    return torch.from_numpy(data).view(TORCH_DTYPES[extent.dtype]).reshape(extent.shape)
