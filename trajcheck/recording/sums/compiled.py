"""sums.c as it was built, called through ctypes; None where it was not, and torch does its work."""

from __future__ import annotations

import ctypes
import importlib.machinery
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch

#: The version of sums.c's interface.
_VERSION = 2

_POINTER, _NUMBER = ctypes.c_void_p, ctypes.c_int64


class CompiledSums:
    """Over contiguous float32 tensors on the CPU, in lists of equal length; all are kept alive by whoever calls. ctypes
    releases the interpreter's lock during a call."""

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        if int(library.trajcheck_sums_version()) != _VERSION:
            raise OSError(f"{path} was built from another version of sums.c")
        self._squares, self._moved = library.trajcheck_squares, library.trajcheck_moved
        self._window, self._prints = library.trajcheck_window, library.trajcheck_prints
        self._squares.argtypes, self._squares.restype = (_POINTER, _POINTER, _NUMBER), ctypes.c_double
        self._moved.argtypes, self._moved.restype = (_POINTER, _POINTER, _POINTER, _NUMBER), ctypes.c_double
        self._prints.argtypes, self._prints.restype = (_POINTER, _POINTER, _NUMBER, _POINTER, _POINTER), None
        self._window.argtypes = (*[_POINTER] * 5, _NUMBER, ctypes.c_double, _POINTER)
        self._window.restype = None

    def squares(self, tensors: Sequence[torch.Tensor]) -> float:
        """The sum of |x|^2."""
        return float(self._squares(_addresses(tensors), _sizes(tensors), len(tensors)))

    def prints(self, tensors: Sequence[torch.Tensor], factors: torch.Tensor) -> torch.Tensor:
        """Of each tensor <x, factors>, with the first of them, and |x|^2, in float64 [tensors, 2]."""
        found = torch.empty(len(tensors), 2, dtype=torch.float64)
        self._prints(_addresses(tensors), _sizes(tensors), len(tensors), factors.data_ptr(), found.data_ptr())
        return found

    def moved(self, tensors: Sequence[torch.Tensor], before: Sequence[torch.Tensor]) -> float:
        """The sum of |x - before|^2; `before` holds x from then on."""
        return float(self._moved(_addresses(tensors), _addresses(before), _sizes(tensors), len(tensors)))

    def window(
        self,
        gradients: Sequence[torch.Tensor],
        tensors: Sequence[torch.Tensor],
        origins: Sequence[torch.Tensor],
        sums: Sequence[torch.Tensor],
        divisor: float,
        totals: torch.Tensor,
    ) -> None:
        """Add g / divisor to `sums`, and <g / divisor, x - origin> and |g / divisor|^2 to the two doubles `totals`."""
        each = [_addresses(vectors) for vectors in (gradients, tensors, origins, sums)]
        self._window(*each, _sizes(tensors), len(tensors), divisor, totals.data_ptr())


def _addresses(tensors: Sequence[torch.Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    return (_POINTER * len(tensors))(*[tensor.data_ptr() for tensor in tensors])


def _sizes(tensors: Sequence[torch.Tensor]) -> ctypes.Array[ctypes.c_int64]:
    return (_NUMBER * len(tensors))(*[tensor.numel() for tensor in tensors])


def takes(tensor: torch.Tensor) -> bool:
    """Whether a tensor is one that sums.c can read."""
    return (
        type(tensor) in (torch.Tensor, torch.nn.Parameter)  # others may hold their numbers elsewhere
        and tensor.dtype is torch.float32
        and tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and tensor.is_contiguous()
    )


@cache
def compiled() -> CompiledSums | None:
    """The environment variable TRAJCHECK_KERNEL=numpy leaves it out."""
    if os.environ.get("TRAJCHECK_KERNEL") == "numpy":
        return None
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"_sums{suffix}")
        if path.is_file():
            try:
                return CompiledSums(path)
            except (OSError, AttributeError):
                return None
    return None
