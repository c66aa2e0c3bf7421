"""Sums over every step between two records, kept on the training device.

With k the step of the last record, x_t the parameters before update t and g_t the gradient of step t,

    G = sum_{k<=t<k'} g_t        s = sum_{k<=t<k'} <g_t, x_t - x_k>

so that sum_{k<=t<k'} <g_t, x_t - x*> = s + <G, x_k - x*> for any point x* that is chosen later.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Sequence
from typing import Any, NamedTuple

import torch

from trajcheck.errors import RecorderError
from trajcheck.recording.model.recorded_model import Copy, Parameter, fresh_copy
from trajcheck.recording.model.shards import local

#: Elements that are worked on at once. On a CPU they stay in cache; on a GPU few kernels cover them.
CHUNK_CPU, CHUNK_DEVICE = 1 << 18, 1 << 22

Factor = float | torch.Tensor
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
        self._vectors: list[_Vectors] = []
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
            self._vectors = _make_vectors(self._parameters)
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


class _Piece(NamedTuple):
    """Some rows of a tensor; all of it where `rows` is None."""

    source: torch.Tensor
    first: int
    rows: int | None
    numel: int

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        tensor = local(tensor)
        part = tensor if self.rows is None else tensor.narrow(0, self.first, self.rows)
        return part.reshape(-1)


class _Chunk(NamedTuple):
    """Pieces that are worked on together, and where they lie in the flat vectors."""

    pieces: list[_Piece]
    begin: int
    end: int


class _Vectors:
    """G and x_k of the parameters of one dtype on one device, each one flat vector."""

    def __init__(self, parameters: Sequence[Parameter], device: torch.device, dtype: torch.dtype) -> None:
        limit = CHUNK_CPU if device.type == "cpu" else CHUNK_DEVICE
        # Large tensors first, in chunks of their own: those need not be gathered from many places.
        self._parameters = sorted(parameters, key=lambda p: p.source.numel() < limit // 2)
        self._chunks = list(_chunks([p.source for p in self._parameters], limit))
        self._device = device
        wide = torch.float64 if dtype is torch.float64 else torch.float32
        numel = sum(local(p.source).numel() for p in parameters)
        self._sum = torch.zeros(numel, dtype=wide, device=device)
        self._origin = torch.zeros(numel, dtype=wide, device=device)
        longest = max((chunk.end - chunk.begin for chunk in self._chunks), default=0)
        self._work = torch.zeros(2, longest, dtype=torch.float64, device=device)
        self._zero = torch.zeros(1, dtype=dtype, device=device)
        self.totals = torch.zeros(2, dtype=torch.float64, device=device)  # s and the sum of |g|^2

    @torch.no_grad()
    def restart(self) -> None:
        self._sum.zero_()
        self.totals.zero_()
        for chunk in self._chunks:
            self._origin[chunk.begin : chunk.end].copy_(_flat([piece.of(piece.source) for piece in chunk.pieces]))

    @torch.no_grad()
    def add(self, factors: Sequence[Factor], found_inf: torch.Tensor | None) -> None:
        known = math.prod(factor for factor in factors if not isinstance(factor, torch.Tensor))
        tensors = [self._here(factor) for factor in factors if isinstance(factor, torch.Tensor)]
        skips = None if found_inf is None else self._here(found_inf) > 0
        gradient = _DenseGradients(self._zero)
        dots = []
        for chunk in self._chunks:
            g = _flat([gradient.of(piece) for piece in chunk.pieces]).to(self._sum.dtype)
            if known != 1.0:
                g = g / known
            for factor in tensors:
                g = g / factor
            if skips is not None:
                g = g.masked_fill(skips, 0.0)
            self._sum[chunk.begin : chunk.end].add_(g)
            wide, moved = self._work[:, : g.numel()]
            wide.copy_(g)
            x = _flat([piece.of(piece.source) for piece in chunk.pieces])
            torch.sub(x, self._origin[chunk.begin : chunk.end], out=moved)
            dots += [torch.dot(wide, moved), torch.dot(wide, wide)]
        if dots:
            self.totals += torch.stack(dots).view(-1, 2).sum(0)

    def gradient_sums(self) -> Iterator[tuple[str, torch.Tensor]]:
        """G by the names of the parameters."""
        begin = 0
        for p in self._parameters:
            held = local(p.source)
            end = begin + held.numel()
            yield p.name, self._sum[begin:end].view(held.shape)
            begin = end

    def _here(self, scalar: torch.Tensor) -> torch.Tensor:
        return scalar.detach().reshape(()).to(self._device, non_blocking=True)


class _DenseGradients:
    """Pieces of gradients; a parameter without one has the gradient zero."""

    def __init__(self, zero: torch.Tensor) -> None:
        self._zero = zero
        self._last: tuple[torch.Tensor, torch.Tensor] | None = None

    def of(self, piece: _Piece) -> torch.Tensor:
        gradient = piece.source.grad
        if gradient is None:
            return self._zero.expand(piece.numel)
        if gradient.layout is not torch.strided:
            if self._last is None or self._last[0] is not gradient:
                self._last = gradient, gradient.to_dense()
            gradient = self._last[1]
        return piece.of(gradient)


def _make_vectors(parameters: Sequence[Parameter]) -> list[_Vectors]:
    groups: dict[tuple[torch.device, torch.dtype], list[Parameter]] = {}
    for p in parameters:
        groups.setdefault((p.source.device, p.source.dtype), []).append(p)
    return [_Vectors(members, *key) for key, members in groups.items()]


def _chunks(sources: Sequence[torch.Tensor], limit: int) -> Iterator[_Chunk]:
    """The tensors in order, cut between rows so that a chunk has at most `limit` elements (or is one row)."""
    pieces: list[_Piece] = []
    begin = end = 0
    for piece in (piece for source in sources for piece in _cut(source, limit)):
        if pieces and end - begin + piece.numel > limit:
            yield _Chunk(pieces, begin, end)
            pieces, begin = [], end
        pieces.append(piece)
        end += piece.numel
    if pieces:
        yield _Chunk(pieces, begin, end)


def _cut(source: torch.Tensor, limit: int) -> Iterator[_Piece]:
    held = local(source)
    numel = held.numel()
    if numel <= limit:
        if numel:
            yield _Piece(source, 0, None, numel)
        return
    row = numel // held.shape[0]
    rows = max(limit // row, 1)
    for first in range(0, held.shape[0], rows):
        here = min(rows, held.shape[0] - first)
        yield _Piece(source, first, here, here * row)


def _flat(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))


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
