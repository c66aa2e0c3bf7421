"""The vectors that window sums are made of: the sum G of the gradients and x_k, of one dtype on one device.

In the processor's memory sums.c adds a step's gradient in one pass; elsewhere, and for other dtypes and factors that
are on a device, torch does it in parts of bounded size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from trajcheck.recording.model.recorded_model import Parameter
from trajcheck.recording.model.shards import local
from trajcheck.recording.sums.addresses import Addresses, takes_all
from trajcheck.recording.sums.compiled import compiled
from trajcheck.recording.sums.squares import CHUNK_CPU, CHUNK_DEVICE, Number


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


class WindowVectors:
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
        self._flat: dict[int, tuple[torch.Tensor, torch.Tensor]] | None = None  # where x_k and G of a parameter lie

    @torch.no_grad()
    def restart(self) -> None:
        self._sum.zero_()
        self.totals.zero_()
        for chunk in self._chunks:
            self._origin[chunk.begin : chunk.end].copy_(_flat([piece.of(piece.source) for piece in chunk.pieces]))

    @torch.no_grad()
    def add(self, factors: Sequence[Number], found_inf: torch.Tensor | None) -> None:
        known = math.prod(factor for factor in factors if not isinstance(factor, torch.Tensor))
        tensors = [self._here(factor) for factor in factors if isinstance(factor, torch.Tensor)]
        skips = None if found_inf is None else self._here(found_inf) > 0
        if not tensors and skips is None and self._add_in_one_pass(known):
            return
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

    def _add_in_one_pass(self, divisor: float) -> bool:
        """Where everything lies as sums.c takes it."""
        library = compiled()
        if library is None or self._device.type != "cpu" or self._sum.dtype is not torch.float32:
            return False
        moving = [p.source for p in self._parameters if p.source.grad is not None]
        sources, gradients = moving, [source.grad for source in moving if source.grad is not None]
        if not takes_all(sources) or not takes_all(gradients):
            return False
        if self._flat is None:
            self._flat = {}
            begin = 0
            for p in self._parameters:
                end = begin + p.source.numel()
                self._flat[id(p.source)] = self._origin[begin:end], self._sum[begin:end]
                begin = end
        origins, sums = zip(*[self._flat[id(source)] for source in sources], strict=True) if sources else ((), ())
        at = [Addresses(vectors) for vectors in (gradients, sources, origins, sums)]
        library.window(at[0], at[1], at[2], at[3], divisor, self.totals)
        return True

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


def make_vectors(parameters: Sequence[Parameter]) -> list[WindowVectors]:
    groups: dict[tuple[torch.device, torch.dtype], list[Parameter]] = {}
    for p in parameters:
        groups.setdefault((p.source.device, p.source.dtype), []).append(p)
    return [WindowVectors(members, *key) for key, members in groups.items()]


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
