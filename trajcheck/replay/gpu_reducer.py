"""Inner products of vectors on a GPU: segmented sums over flat chunks of all tensors, deterministic."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trajcheck.inner_products.catalogue import inner_products
from trajcheck.replay.reducer import Label, Shares, Vector
from trajcheck.replay.residency import REDUCED

#: Elements of a segment, which has one partial sum of each product. Every tensor begins a segment of its own.
SEGMENT = 16384


@dataclass(frozen=True)
class _Piece:
    """Elements [start, stop) of one tensor, at `offset` in their chunk."""

    name: str
    start: int
    stop: int
    offset: int


class DeviceReducer:
    """A Reducer (reducer.py) for whole devices: a few kernels a chunk, however many tensors there are.

    `shapes` of the tensors. A chunk holds at most `chunk` elements, a multiple of
    `segment`, and the tensors in it are padded with zeros to whole segments.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        device: torch.device,
        *,
        chunk: int = REDUCED,
        segment: int = SEGMENT,
    ) -> None:
        numels = {name: math.prod(shape) for name, shape in shapes.items()}
        self.tensors: Sequence[str] = [name for name, numel in numels.items() if numel]
        self.device, self.segment = device, segment
        self.starts: list[int] = []
        self._chunks: list[list[_Piece]] = [[]]
        filled = segments = 0
        for name in self.tensors:
            self.starts.append(segments)
            start = 0
            while start < numels[name]:
                if filled == chunk:
                    self._chunks.append([])
                    filled = 0
                stop = min(numels[name], start + chunk - filled)
                self._chunks[-1].append(_Piece(name, start, stop, filled))
                filled += -(-(stop - start) // segment) * segment
                segments += -(-(stop - start) // segment)
                start = stop
        self.parts = segments
        self._largest = max(chunk if len(self._chunks) > 1 else 0, filled)

    def __enter__(self) -> DeviceReducer:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def reduce(
        self,
        vectors: Mapping[str, Vector],
        references: Mapping[int, Mapping[str, Vector]],
        step_products: Collection[str],
        reference_products: Collection[str],
        divisors: Mapping[str, float] | None = None,
        decay: Mapping[str, float] | None = None,
    ) -> Shares:
        memory: dict[tuple[int | None, str], Tensor] = {}
        labels: list[Label] = []
        parts: list[Tensor] = []
        for pieces in self._chunks:
            wide = {
                (number, kind): self._wide(memory, (number, kind), vector, pieces, divisors or {})
                for number, each in ((None, vectors), *references.items())
                for kind, vector in each.items()
            }
            if decay is not None and {(None, "gradient"), (None, "x")} <= wide.keys():
                wide[None, "regularised"] = self._regularised(memory, wide, pieces, decay)
            own = {kind: tensor for (number, kind), tensor in wide.items() if number is None}
            towards = [
                {kind: tensor for (known, kind), tensor in wide.items() if known == number} for number in references
            ]
            found, each_found = inner_products(
                own, towards, step_products, reference_products, torch.sub, self._segment_sums
            )
            labels = [(None, name) for name in found]
            columns = list(found.values())
            for number, products in zip(references, each_found, strict=True):
                labels += [(number, name) for name in products]
                columns += products.values()
            none = torch.zeros(0, 0, dtype=torch.float64, device=self.device)
            parts.append(torch.stack(columns) if columns else none)
        return Shares(labels, torch.cat(parts, dim=1))

    def _wide(
        self,
        memory: dict[tuple[int | None, str], Tensor],
        key: tuple[int | None, str],
        vector: Vector,
        pieces: list[_Piece],
        divisors: Mapping[str, float],
    ) -> Tensor:
        """A chunk of a vector, flat in float64."""
        if key not in memory:
            memory[key] = torch.empty(self._largest, dtype=torch.float64, device=self.device)
        flat = self._emptied(memory[key], pieces)
        torch._foreach_copy_(
            self._views(flat, pieces), [vector[piece.name].reshape(-1)[piece.start : piece.stop] for piece in pieces]
        )
        divisor = divisors.get(key[1], 1.0)
        return flat if divisor == 1.0 else flat.div_(divisor)

    def _regularised(
        self,
        memory: dict[tuple[int | None, str], Tensor],
        wide: Mapping[tuple[int | None, str], Tensor],
        pieces: list[_Piece],
        decay: Mapping[str, float],
    ) -> Tensor:
        """g_t + lambda x_t on a chunk; lambda is that of each tensor."""
        key = (None, "regularised")
        if key not in memory:
            memory[key] = torch.empty(self._largest, dtype=torch.float64, device=self.device)
        x = wide[None, "x"]
        flat = memory[key][: len(x)].copy_(x)
        torch._foreach_mul_(self._views(flat, pieces), [decay.get(piece.name, 0.0) for piece in pieces])
        return flat.add_(wide[None, "gradient"])

    def _emptied(self, memory: Tensor, pieces: list[_Piece]) -> Tensor:
        last = pieces[-1]
        length = last.offset + last.stop - last.start
        return memory[: -(-length // self.segment) * self.segment].zero_()

    @staticmethod
    def _views(flat: Tensor, pieces: list[_Piece]) -> list[Tensor]:
        return [flat[piece.offset : piece.offset + piece.stop - piece.start] for piece in pieces]

    def _segment_sums(self, a: Tensor, b: Tensor) -> Tensor:
        return (a * b).view(-1, self.segment).sum(dim=1)
