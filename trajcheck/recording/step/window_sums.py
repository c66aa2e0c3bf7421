"""Sums over every step between two records, kept on the training device.

With k the step of the last record, x_t the parameters before update t and g_t the gradient of step t,

    G = sum_{k<=t<k'} g_t        s = sum_{k<=t<k'} <g_t, x_t - x_k>

so that sum_{k<=t<k'} <g_t, x_t - x*> = s + <G, x_k - x*> for any point x* that is chosen later.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from typing import Any

import torch

from trajcheck.errors import RecorderError
from trajcheck.recording.model.recorded_model import Copy, Parameter, fresh_copy
from trajcheck.recording.sums.squares import Number
from trajcheck.recording.sums.window_vectors import WindowVectors, make_vectors

Factor = Number
Taken = tuple[dict[str, torch.Tensor], dict[str, Any]]  # tensors and metadata of a record


class WindowSums:
    """Accumulates G, s, sum |g_t|^2 and the sum of the losses from one record to the next.

    Nothing here waits for the device but `take()`, at a record. Two vectors of device memory: G and x_k, in float32
    (float64 for float64 parameters); differences are formed in that precision, products and sums in float64, in parts
    of bounded size. x is what the optimizer updates: a master copy where there is one.

    A step is `add()` and then `count()`, or `skip()`; `start` is where the window begins. Whatever breaks that order,
    or makes a gradient's factor unknown, leaves the window void: the next record has none, rather than a wrong one.
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self._parameters = list(parameters)
        self._vectors: list[WindowVectors] = []
        self._open = False
        self.start, self._passed = -1, 0
        self._held: list[int] | None = None  # versions of the parameters at `hold()`
        self._added: tuple[list[int], _Gradients] | None = None  # at `add()`, until `count()`
        for device in {p.source.device for p in parameters}:
            try:
                torch.zeros(1, dtype=torch.float64, device=device)
            except (TypeError, RuntimeError) as error:
                raise RecorderError(
                    f"windows=True sums in float64, which device {device} cannot do: {error}"
                ) from error

    def restart(self, step: int) -> None:
        """Begin the window of the record of `step`: x_k is the parameters as they are now."""
        if not self._vectors:
            self._vectors = make_vectors(self._parameters)
        for vectors in self._vectors:
            vectors.restart()
        self.start, self._passed, self._open = step, 0, True
        self._held = self._added = None
        self._steps = 0
        self._skipped: dict[torch.device, torch.Tensor] = {}
        self._loss: float | None = 0.0
        self._losses: dict[torch.device, torch.Tensor] = {}

    def void(self) -> None:
        """The window cannot be known; sum no more until the next record."""
        self._open = False

    def hold(self) -> None:
        """x_t is now, and `add()` comes later in the step: void the window if the parameters change in between."""
        self._held = self._versions()

    def add(self, factors: Sequence[Factor], found_inf: torch.Tensor | None) -> None:
        """Sum the gradients as they are now, divided by `factors`, at the parameters as they are now.

        Where the tensor `found_inf` is not zero a loss scaler skips the step, and nothing is summed.
        """
        if not self._open:
            return
        if self._held is not None and self._held != self._versions():
            self.void()
            return
        now = self._versions(), _Gradients(self._parameters)
        if self._added is not None:  # a step() that calls its parent's comes here twice, with nothing changed
            if now != self._added:
                self.void()
            return
        self._added, self._held = now, None
        for vectors in self._vectors:
            vectors.add(factors, found_inf)

    def check_rest(self, groups: Container[int]) -> None:
        """Another optimizer comes, with the gradients of these parameter groups: void the window if they were changed
        since `add()`."""
        if self._added is not None and not self._added[1].same_of([p.group in groups for p in self._parameters]):
            self.void()

    def count(self, loss: Factor | None, found_inf: torch.Tensor | None) -> None:
        """The step whose gradients were added was made, at this loss (None: unknown)."""
        if self._added is None:
            self.void()
        if not self._open:
            return
        self._held = self._added = None
        self._passed += 1
        self._steps += 1
        if found_inf is not None:
            _accumulate(self._skipped, (found_inf.detach().reshape(()) > 0).double())
        if loss is None:
            self._loss = None
        elif self._loss is not None:
            if found_inf is not None:
                _accumulate(self._losses, _unless(found_inf, loss))
            elif isinstance(loss, torch.Tensor):
                _accumulate(self._losses, loss)
            else:
                self._loss += loss

    def skip(self) -> None:
        """A step was skipped and counted without the optimizer's knowing."""
        self._passed += 1

    def _versions(self) -> list[int]:
        return [p.source._version for p in self._parameters]

    def take(self, step: int, copy: Copy = fresh_copy) -> Taken:
        """The window that ends before `step`, copied to host memory; empty where it is not known. Waits."""
        if not self._open or self._added is not None or self._passed == 0 or self.start + self._passed != step:
            return {}, {}
        totals = [v.totals.tolist() for v in self._vectors]  # of a rank that stores no parameters: none
        offset, squares = (math.fsum(total[i] for total in totals) for i in (0, 1))
        if not (math.isfinite(offset) and math.isfinite(squares)):
            return {}, {}
        skipped = sum(int(total) for total in self._skipped.values())
        loss = None if self._loss is None else self._loss + math.fsum(float(total) for total in self._losses.values())
        window = {
            "from": self.start,
            "steps": self._steps - skipped,
            "grad_dot_offset": offset,
            "loss_sum": loss if loss is not None and math.isfinite(loss) else None,
            "grad_sq_sum": squares,
        }
        sums = {f"window/{name}": tensor for vectors in self._vectors for name, tensor in vectors.gradient_sums()}
        tensors = {name: copy(name, tensor) for name, tensor in sums.items()}
        return tensors, {"window": window}


class _Gradients:
    """Gradients as they are now; equal to those of later on if they are the same tensors and were not changed."""

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self._sources = [p.source for p in parameters]
        self._tensors = [source.grad for source in self._sources]
        self._versions = [None if tensor is None else tensor._version for tensor in self._tensors]

    def same_of(self, wanted: Sequence[bool]) -> bool:
        """Whether some of the tensors are as they were."""
        noted = zip(self._sources, self._tensors, self._versions, wanted, strict=True)
        return all(s.grad is t and (t is None or t._version == v) for s, t, v, chosen in noted if chosen)

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, _Gradients)
        same = all(a is b for a, b in zip(self._tensors, other._tensors, strict=True))
        return same and self._versions == other._versions


def _unless(found_inf: torch.Tensor, loss: Factor) -> torch.Tensor:
    skips = found_inf.detach().reshape(()) > 0
    if isinstance(loss, torch.Tensor):
        value = loss.to(skips.device, non_blocking=True)
    else:
        value = torch.full((), loss, dtype=torch.float64, device=skips.device)
    return value.masked_fill(skips, 0.0)


def _accumulate(totals: dict[torch.device, torch.Tensor], value: torch.Tensor) -> None:
    there = totals.get(value.device)
    totals[value.device] = value if there is None else there + value
