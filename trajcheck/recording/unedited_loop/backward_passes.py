"""What backward() is called on, seen while somebody watches: it is the loss as it counts.

`torch.autograd.backward`, through which `Tensor.backward` goes too, is stood in for as long as there are watchers, and
put back after the last. Passes of `torch.autograd.grad` are none: they leave `.grad` as it is.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Hashable
from typing import Any, Protocol

import torch

from trajcheck.recording.unedited_loop.loss_functions import is_mean, targets_of, weights_of

#: Sums, multiples by what needs no gradient, and the same in another dtype, place or shape.
_SUMS = {"AddBackward0", "SubBackward0"}
_MULTIPLES = {"MulBackward0", "MulBackward1", "DivBackward0", "DivBackward1"}
_COPIES = {f"{name}Backward0" for name in ("ToCopy", "Alias", "Squeeze", "Unsqueeze", "View", "Clone", "Select")}
#: So many functions of a sum are looked at.
_MOST = 100

_LOCK = threading.Lock()
_watchers: list[Watcher] = []
_inside = threading.local()


class Root:
    """Where a backward pass begins: some `tensors`, each with the gradient that it is given (None: 1)."""

    def __init__(self, tensors: Any, gradients: Any) -> None:
        many = isinstance(tensors, list | tuple)
        self.tensors = list(tensors) if many else [tensors]
        given = list(gradients) if isinstance(gradients, list | tuple) else [gradients]
        self._gradients = given if len(given) == len(self.tensors) else [None] * len(self.tensors)
        self._hooks: list[Any] = []
        self._factors: list[torch.Tensor] = []
        self._passed: set[Hashable] = set()
        self.targets: torch.Tensor | None = None
        self.weights: list[torch.Tensor] = []
        self.mean = False

    @property
    def value(self) -> float:
        """sum_i <gradient_i, tensor_i>, which is differentiated; nan where it is no number. Waits for the device."""
        total = 0.0
        for tensor, gradient in zip(self.tensors, self._gradients, strict=True):
            if not isinstance(tensor, torch.Tensor) or tensor.numel() != 1:
                return math.nan
            total += float(tensor.detach()) * (1.0 if gradient is None else float(gradient.detach()))
        return total

    @property
    def rounding(self) -> float:
        """The unit of rounding of the coarsest of the tensors."""
        tensors = [tensor for tensor in self.tensors if isinstance(tensor, torch.Tensor)]
        return max((torch.finfo(tensor.dtype).eps for tensor in tensors if tensor.is_floating_point()), default=0.0)

    @property
    def made_by(self) -> list[str]:
        """The functions of whose values it is a sum of multiples, as autograd names them."""
        return sorted({node.name().partition("Backward")[0] for node in self._functions()})

    def made_of(self, mark: Hashable) -> bool:
        """Whether it is, or is a sum of multiples of, the value of a node that was marked; once it is measured."""
        return mark in self._passed

    def measure(self) -> None:
        """Before the pass: keep the `targets` that those functions took, where they show them, the `weights` of each
        example, and whether they are one that takes a `mean`; find out in it what multiple of their values it is."""
        functions = self._functions()
        self.targets, self.mean = targets_of(functions), is_mean(functions)
        self.weights = weights_of(functions)
        self._hooks = [node.register_prehook(self._measured) for node in functions]

    @property
    def factor(self) -> float | None:
        """After it: that multiple; None where there are several, or none is known."""
        for hook in self._hooks:
            hook.remove()
        factors = {float(factor) for factor in self._factors} if len(self._factors) == len(self._hooks) else set()
        return factors.pop() if len(factors) == 1 else None

    def _measured(self, gradients: tuple[torch.Tensor | None, ...]) -> None:
        if gradients and gradients[0] is not None and gradients[0].numel() == 1:
            self._factors.append(gradients[0].detach().clone())

    def _functions(self) -> list[Any]:
        """The first nodes below sums, and multiplications by constants."""
        ahead = [tensor.grad_fn for tensor in self.tensors if isinstance(tensor, torch.Tensor)]
        found: dict[Any, None] = {}
        while ahead and len(found) < _MOST:
            node = ahead.pop()
            if node is None:
                continue
            self._passed.add(mark_of(node))
            before = [each for each, _ in node.next_functions if each is not None]
            if node.name() in _SUMS or (node.name() in _MULTIPLES | _COPIES and len(before) == 1):
                ahead += before
            else:
                found[node] = None
        return list(found)


def mark_of(node: Any) -> Hashable:
    """What tells a node of the graph from others, and keeps nothing alive; None of a leaf."""
    return None if node is None else (node.name(), getattr(node, "_sequence_nr", lambda: -1)())


class Watcher(Protocol):
    """Is told of every backward pass of any thread; must not raise."""

    def backward_begins(self, root: Root) -> None: ...

    def backward_ended(self, root: Root) -> None: ...


def watch_backward_passes(watcher: Watcher) -> Callable[[], None]:
    """Tell a watcher from now on, until what is returned is called."""
    with _LOCK:
        _watchers.append(watcher)
        if len(_watchers) == 1:
            _stand_in()
    return lambda: _forget(watcher)


def _forget(watcher: Watcher) -> None:
    with _LOCK:
        if watcher in _watchers:
            _watchers.remove(watcher)
        if not _watchers and getattr(torch.autograd.backward, "of_trajcheck", None) is not None:
            torch.autograd.backward = torch.autograd.backward.of_trajcheck  # type: ignore[attr-defined]


def _stand_in() -> None:
    original = torch.autograd.backward
    if hasattr(original, "of_trajcheck"):
        return

    @functools.wraps(original)
    def backward(tensors: Any, grad_tensors: Any = None, *args: Any, **kwargs: Any) -> None:
        if torch.compiler.is_compiling() or getattr(_inside, "pass_", False):
            return original(tensors, grad_tensors, *args, **kwargs)
        root, watchers = Root(tensors, kwargs.get("grad_variables", grad_tensors)), list(_watchers)
        _inside.pass_ = True
        try:
            for watcher in watchers:
                watcher.backward_begins(root)
            original(tensors, grad_tensors, *args, **kwargs)
            for watcher in watchers:
                watcher.backward_ended(root)
        finally:
            _inside.pass_ = False

    backward.of_trajcheck = original  # type: ignore[attr-defined]
    torch.autograd.backward = backward
