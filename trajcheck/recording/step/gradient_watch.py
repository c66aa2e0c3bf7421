"""Whether gradients were cleared without a step, so that what was observed for them has to be forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from operator import attrgetter

import torch

from trajcheck.recording.model.shards import is_sharded, local

_ALWAYS_NEW = count(1)
_PLAIN = {torch.Tensor, torch.nn.Parameter}

_gradient, _layout, _version = attrgetter("grad"), attrgetter("layout"), attrgetter("_version")
_address = torch.Tensor.data_ptr


class GradientWatch:
    """Compares the gradients of some tensors with how they were at the last `note()`.

    Two cheap signs are used, and values are read only when both leave it open: autograd accumulates into the same
    tensor in place, which raises its version, and clearing gives it up or zeroes it in place.

    Among several ranks (`shared`) one backward pass may raise the version twice: the average over the ranks is copied
    back. Where parameters are sharded, gradients that are accumulated without averaging them yet are not in `.grad`:
    none of those noted tells nothing then.
    """

    def __init__(self, tensors: Sequence[torch.Tensor], *, shared: bool = False) -> None:
        self._tensors = list(tensors)
        self._changes = 2 if shared else 1  # of one backward pass
        self._sharded = any(map(is_sharded, self._tensors))
        self._hidden = False
        self._noted: list[tuple[int, int] | None] = []

    def note(self) -> None:
        """Remember the gradients as they are now."""
        self._noted = self._marks()
        self._hidden = self._sharded and all(mark is None for mark in self._noted)

    def all_none(self) -> bool:
        return not self._hidden and all(tensor.grad is None for tensor in self._tensors)

    def cleared(self) -> bool:
        """All gradients are None, or have become zero since `note()`."""
        if self.all_none():
            return True
        if self._marks() == self._noted:
            return False
        return not any(_nonzero(tensor.grad) for tensor in self._tensors if tensor.grad is not None)

    def untouched(self) -> bool:
        """Nothing was done to the gradients since `note()`."""
        return self._marks() == self._noted

    def zeroed_perhaps(self) -> bool:
        """More was done to a gradient in place since `note()` than one backward pass does: it may have been zeroed
        before that pass, which cannot be told from accumulation."""
        for old, tensor in zip(self._noted, self._tensors, strict=False):
            new = _mark(tensor.grad)
            if old is not None and new is not None and old[0] == new[0] != -1 and new[1] > old[1] + self._changes:
                return True
        return False

    def replaced(self) -> bool:
        """Between `note()` and now, a backward pass later, gradients were given up and made anew.

        This is `zero_grad()` between a forward and its backward pass: when the next forward began, the gradients of
        the previous observation were still there.
        """
        marks = self._marks()
        pairs = [(old, new) for old, new in zip(self._noted, marks, strict=True) if old is not None]
        if not pairs or any(new is not None and old is None for old, new in zip(self._noted, marks, strict=True)):
            return False
        if any(tensor.grad is not None and tensor.grad.requires_grad for tensor in self._tensors):
            return False  # create_graph=True accumulates out of place
        return not any(new is not None and old[1] < new[1] for old, new in pairs)

    def _marks(self) -> list[tuple[int, int] | None]:
        gradients = list(map(_gradient, self._tensors))
        if _PLAIN.issuperset(map(type, gradients)) and {torch.strided}.issuperset(map(_layout, gradients)):
            return list(zip(map(_address, gradients), map(_version, gradients), strict=True))
        return list(map(_mark, gradients))


def _mark(gradient: torch.Tensor | None) -> tuple[int, int] | None:
    """Where a gradient lies and how often it was changed in place; a sparse one counts as always changing."""
    if gradient is None:
        return None
    gradient = local(gradient)
    if gradient.layout is not torch.strided:
        return -1, next(_ALWAYS_NEW)
    return gradient.data_ptr(), gradient._version


def _nonzero(gradient: torch.Tensor) -> bool:
    gradient = local(gradient)
    values = gradient if gradient.layout is torch.strided else gradient._values()
    return bool(values.detach().ne(0).any())
