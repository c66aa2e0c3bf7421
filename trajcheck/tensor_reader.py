"""Recorded tensors as torch's, in host memory, bit for bit."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from trajcheck.extent_reader import ExtentReader
from trajcheck.formats.tensor_bytes import CODES
from trajcheck.snapshot import Extent

#: torch's dtypes by safetensors' code.
TORCH_DTYPES = {code: dtype for dtype, code in CODES.items()}


def read_tensor(reader: ExtentReader, extent: Extent) -> Tensor:
    """The whole tensor, in its own dtype. Raises StepFileError on a short read."""
    if not extent.length:
        return torch.empty(extent.shape, dtype=TORCH_DTYPES[extent.dtype])
    data = np.empty(extent.length, dtype=np.uint8)
    reader.into(extent, 0, data.data)
    return torch.from_numpy(data).view(TORCH_DTYPES[extent.dtype]).reshape(extent.shape)
