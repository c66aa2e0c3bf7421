"""A tensor of a step file as torch has it: its own dtype, in host memory."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from trajcheck.extent_reader import ExtentReader
from trajcheck.formats.tensor_bytes import CODES
from trajcheck.snapshot import Extent

_TORCH = {code: dtype for dtype, code in CODES.items()}


def load_tensor(reader: ExtentReader, extent: Extent) -> Tensor:
    """Read it whole, into memory of its own."""
    if not extent.length:
        return torch.empty(extent.shape, dtype=_TORCH[extent.dtype])
    data = np.empty(extent.length, dtype=np.uint8)
    reader.into(extent, 0, data.data)
    return torch.from_numpy(data).view(_TORCH[extent.dtype]).reshape(extent.shape)
