"""In which dtype each tensor of a replay is: all in one, or each in its own.

Real floating tensors take the dtype that is asked for, complex ones the complex dtype of that width. Integers, booleans
and float8, which hold codes rather than numbers to compute with, stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from trajcheck.files.torch_tensors import FLOATING
from trajcheck.objective.dtype_names import ONE_DTYPE

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in ONE_DTYPE}

#: The complex dtype of a width. torch has none of bfloat16, and hardly any operation of complex32.
_COMPLEX = {torch.float64: torch.complex128}
_COMPLEX_BITS = {torch.complex32: 16, torch.complex64: 32, torch.complex128: 64}


def in_width(found: torch.dtype, dtype: torch.dtype | None) -> torch.dtype:
    """What a tensor of dtype `found` becomes where `dtype` is asked for; None asks for nothing."""
    if dtype is None:
        return found
    if found.is_complex:
        return _COMPLEX.get(dtype, torch.complex64)
    return dtype if found in FLOATING else found


def floating_dtypes(tensors: Collection[Tensor]) -> frozenset[torch.dtype]:
    """Those of the real floating tensors."""
    return frozenset(tensor.dtype for tensor in tensors if tensor.dtype in FLOATING)


def bits(dtype: torch.dtype) -> int:
    return _COMPLEX_BITS[dtype] if dtype.is_complex else torch.finfo(dtype).bits


def narrower(own: Collection[torch.dtype], asked: torch.dtype | None) -> torch.dtype | None:
    """The one dtype of a model, where `asked` is wider; None elsewhere."""
    if asked is None or len(own) != 1:
        return None
    [found] = own
    return found if bits(found) < bits(asked) else None


class Casts:
    """What becomes of a dtype that is written in the code of a model, or in its graph, when the replay is in `asked`.

    One that is narrower than what is asked for becomes that, so that a `.float()` does not round a float64 replay, nor
    a `.bfloat16()` meet a weight that is not bfloat16 any more. So does one that parts of the model had (`own`): they
    have it no longer. Where all of the model had the dtype that is asked for, code is left as it is.
    """

    def __init__(self, own: Collection[torch.dtype], asked: torch.dtype | None) -> None:
        self.own, self.asked = frozenset(own), asked
        self.any = asked is not None and self.own != {asked}

    def dtype(self, found: torch.dtype) -> torch.dtype:
        if not self.any or self.asked is None:
            return found
        wanted = in_width(found, self.asked)
        narrower = wanted != found and bits(found) < bits(wanted)
        return wanted if narrower or found in self.own else found


def _named(names: Mapping[str, torch.dtype]) -> dict[Any, torch.dtype]:
    return {getattr(Tensor, name): dtype for name, dtype in names.items() if hasattr(Tensor, name)}


#: Methods that are casts by their name alone.
_SHORT = _named(
    {
        "half": torch.float16,
        "bfloat16": torch.bfloat16,
        "float": torch.float32,
        "double": torch.float64,
        "chalf": torch.complex32,
        "cfloat": torch.complex64,
        "cdouble": torch.complex128,
    }
)


class CastsInCode(TorchFunctionMode):
    """While it is entered, the dtypes that a model's code names are those of `casts`."""

    def __init__(self, casts: Casts) -> None:
        super().__init__()
        self._casts = casts

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        found = _SHORT.get(function)
        if found is not None and found is not (wanted := self._casts.dtype(found)):
            return args[0].to(wanted, **(kwargs or {}))
        if function is not Tensor.view:  # which reads the same bytes as another dtype
            if torch.dtype in map(type, args):
                args = tuple(map(self._replaced, args))
            if kwargs:
                kwargs = {key: self._replaced(value) for key, value in kwargs.items()}
        return function(*args, **kwargs) if kwargs else function(*args)

    def _replaced(self, value: Any) -> Any:
        is_cast = isinstance(value, torch.dtype) and (value in FLOATING or value.is_complex)
        return self._casts.dtype(value) if is_cast else value
