"""sums.c as it was built, called through ctypes; None where it was not, and torch does its work."""

from __future__ import annotations

import ctypes
import importlib.machinery
import os
from functools import cache
from pathlib import Path

import torch

from trajcheck.recording.sums.addresses import Addresses, Places

#: The version of sums.c's interface.
_VERSION = 3

_POINTER, _NUMBER, _TRUTH = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
_DOUBLE = ctypes.c_double


class CompiledSums:
    """Over contiguous float32 tensors on the CPU, in lists of equal length; all are kept alive by whoever calls. ctypes
    releases the interpreter's lock during a call."""

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        if int(library.trajcheck_sums_version()) != _VERSION:
            raise OSError(f"{path} was built from another version of sums.c")
        self._squares, self._moved = library.trajcheck_squares, library.trajcheck_moved
        self._window, self._prints = library.trajcheck_window, library.trajcheck_prints
        self._gather, self._gathered = library.trajcheck_gather, library.trajcheck_gathered
        self._squares.argtypes, self._squares.restype = (_POINTER, _POINTER, _NUMBER), _DOUBLE
        self._moved.argtypes, self._moved.restype = (*[_POINTER] * 3, _NUMBER), _DOUBLE
        self._prints.argtypes, self._prints.restype = (_POINTER, _POINTER, _NUMBER, _POINTER, _POINTER), None
        self._window.argtypes, self._window.restype = (*[_POINTER] * 5, _NUMBER, _DOUBLE, _POINTER), None
        self._gather.argtypes, self._gather.restype = (*[_POINTER] * 3, _NUMBER, _NUMBER, _POINTER), None
        self._gathered.argtypes, self._gathered.restype = (*[_POINTER] * 3, _NUMBER, _NUMBER, _POINTER), _TRUTH

    def squares(self, tensors: Addresses) -> float:
        """The sum of |x|^2."""
        return float(self._squares(tensors.table, tensors.sizes, tensors.count))

    def prints(self, tensors: Addresses, factors: torch.Tensor) -> torch.Tensor:
        """Of each tensor <x, factors>, with the first of them, and |x|^2, in float64 [tensors, 2]."""
        found = torch.empty(tensors.count, 2, dtype=torch.float64)
        self._prints(tensors.table, tensors.sizes, tensors.count, factors.data_ptr(), found.data_ptr())
        return found

    def moved(self, tensors: Addresses, before: Addresses) -> float:
        """The sum of |x - before|^2; `before` holds x from then on."""
        return float(self._moved(tensors.table, before.table, tensors.sizes, tensors.count))

    def window(
        self,
        gradients: Addresses,
        tensors: Addresses,
        origins: Addresses,
        sums: Addresses,
        divisor: float,
        totals: torch.Tensor,
    ) -> None:
        """Add g / divisor to `sums`, and <g / divisor, x - origin> and |g / divisor|^2 to the two doubles `totals`."""
        each = [vectors.table for vectors in (gradients, tensors, origins, sums)]
        self._window(*each, tensors.sizes, tensors.count, divisor, totals.data_ptr())

    def gather(self, places: Places, out: torch.Tensor) -> None:
        """The elements at these places, of any dtype of 1, 2, 4 or 8 bytes, one after the other."""
        self._gather(*places.arguments, out.data_ptr())

    def gathered(self, places: Places, known: torch.Tensor) -> bool:
        """Whether they are, bit by bit, what `known` holds."""
        return bool(self._gathered(*places.arguments, known.data_ptr()))


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
