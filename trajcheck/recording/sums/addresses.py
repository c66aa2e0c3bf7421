"""Where tensors lie in the processor's memory, as tables that sums.c reads: looked up some times in every step."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Sequence
from operator import attrgetter

import torch

#: Bytes of an element that sums.c puts together with others.
WIDTHS = (1, 2, 4, 8)

_PLAIN = {torch.Tensor, torch.nn.Parameter}  # others may hold their numbers elsewhere

_address, _numel, _contiguous = torch.Tensor.data_ptr, torch.Tensor.numel, torch.Tensor.is_contiguous
_dtype, _layout, _on_cpu = attrgetter("dtype"), attrgetter("layout"), attrgetter("is_cpu")


def takes(tensor: torch.Tensor) -> bool:
    """Whether a tensor is one that sums.c can read: float32, contiguous, on the CPU."""
    return takes_all((tensor,))


def takes_all(tensors: Collection[torch.Tensor]) -> bool:
    """Whether all are."""
    return (
        _PLAIN.issuperset(map(type, tensors))
        and {torch.float32}.issuperset(map(_dtype, tensors))
        and {torch.strided}.issuperset(map(_layout, tensors))
        and all(map(_on_cpu, tensors))
        and all(map(_contiguous, tensors))
    )


class Addresses:
    """The addresses and sizes of tensors; the tensors are kept alive by whoever has made it."""

    __slots__ = ("_addresses", "count", "numels", "sizes", "table")

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self._addresses = array("q", list(map(_address, tensors)))
        self.numels = array("q", list(map(_numel, tensors)))
        self.count = len(tensors)
        self.table: int = self._addresses.buffer_info()[0]
        self.sizes: int = self.numels.buffer_info()[0]

    def still(self, tensors: Sequence[torch.Tensor]) -> bool:
        """Whether the same tensors lie where they lay, with as many elements, in float32 and one after the other."""
        return (
            list(map(_address, tensors)) == self._addresses.tolist()
            and list(map(_numel, tensors)) == self.numels.tolist()
            and {torch.float32}.issuperset(map(_dtype, tensors))
            and all(map(_contiguous, tensors))
        )


class Places:
    """Elements of one-dimensional tensors of one dtype, of one of WIDTHS, which it keeps alive."""

    def __init__(self, views: Sequence[torch.Tensor]) -> None:
        self._views = list(views)
        addresses = array("q", map(_address, views))
        steps, counts = array("q", [view.stride(0) for view in views]), array("q", map(_numel, views))
        self._tables = addresses, steps, counts
        self.number = sum(counts)
        self.arguments: tuple[int, ...] = (
            *(table.buffer_info()[0] for table in self._tables),
            len(views),
            views[0].element_size() if views else 1,
        )
