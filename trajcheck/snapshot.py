"""What one recorded step holds, and where on disk its tensors lie.

Nothing here reads tensor data: a snapshot answers with *extents* (file, offset, length, dtype, shape), and the
streaming pass and the replay read those bytes when and as they need them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

#: Bytes per element of the dtypes that a parameter, gradient, batch or buffer may have, by safetensors' code.
ITEM_SIZE = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip

#: Machine epsilon of the dtypes that parameters and gradients may have.
EPSILON = {"F64": 2.0**-52, "F32": 2.0**-23, "F16": 2.0**-10, "BF16": 2.0**-7}
FLOATING = tuple(EPSILON)


class Part(NamedTuple):
    """Bytes [begin, end) of a tensor, from `offset` on in a file."""

    begin: int
    end: int
    path: str
    offset: int


class Extent(NamedTuple):
    """A tensor as a range of bytes in a file: little-endian, C order, contiguous.

    A tensor that is stored in several files (the shards of a sharded run) has `parts`, in order and without gaps; path
    and offset are then those of the first.
    """

    path: str
    offset: int
    length: int
    dtype: str
    shape: tuple[int, ...]
    parts: tuple[Part, ...] = ()

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def undivided(self) -> Part:
        """All of a tensor that has no parts."""
        return Part(0, self.length, self.path, self.offset)


class Spec(NamedTuple):
    """A tensor within its file: dtype, shape, and where its bytes begin and end after the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class Extents(Mapping[str, Extent]):
    """Lazy view of some tensors of one file, under other names.

    `names` maps the name shown to the name in the file. The tables are shared between all steps with the same
    layout, so that a run of ten thousand steps costs a few objects a step and not a few hundred.
    """

    __slots__ = ("_names", "_path", "_specs", "_start")

    def __init__(self, path: str, start: int, specs: Mapping[str, Spec], names: Mapping[str, str]) -> None:
        self._path, self._start, self._specs, self._names = path, start, specs, names

    def __getitem__(self, name: str) -> Extent:
        spec = self._specs[self._names[name]]
        return Extent(self._path, self._start + spec.begin, spec.end - spec.begin, spec.dtype, spec.shape)

    @property
    def base(self) -> tuple[str, int]:
        """The file, and where in it offsets within the layout are counted from."""
        return self._path, self._start

    @property
    def layout(self) -> tuple[Mapping[str, Spec], Mapping[str, str]]:
        """What all steps with the same layout share: the tensors within a file, and the names shown."""
        return self._specs, self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True)
class Window:
    """Sums over the steps from record `start` on, before this one; the sum of their gradients lies in tensors.

    `steps` of them were made (a loss scaler skips some); `grad_dot_offset` is s = sum <g_t, x_t - x_start>,
    `loss_sum` the sum of f(x_t; z_t) and `grad_sq_sum` that of |g_t|^2. Gradients are those before clipping.
    """

    start: int
    steps: int
    grad_dot_offset: float
    loss_sum: float | None
    grad_sq_sum: float | None


@dataclass(frozen=True)
class Probe:
    """Batches set aside in one file: tensors `<i>/<path>` for batch i, and the tree of the tuple of them."""

    path: str
    batch: Mapping[str, Extent]
    batch_tree: Any
    batches: int


@dataclass(frozen=True)
class Snapshot:
    """One recorded step t.

    `parameters` are x_t, before the update (float32 masters where the weights were of low precision); `gradients` are
    what the optimizer used, so still multiplied by `clip`. `lr` and `tau` hold one value a parameter group.
    `window_gradient` is the sum G of the gradients, not clipped, over the steps of `window`.
    A step of several ranks has their micro-batches one rank after the other; `buffers` are those of the first rank, and
    `rank_buffers` those with which each other began, by the first of its micro-batches.
    """

    step: int
    path: str
    parameters: Mapping[str, Extent]
    gradients: Mapping[str, Extent] = field(default_factory=dict)
    frozen: Mapping[str, Extent] = field(default_factory=dict)  # as this step finds them, wherever they are stored
    batch: Mapping[str, Extent] = field(default_factory=dict)
    buffers: Mapping[str, Extent] = field(default_factory=dict)
    generators: Mapping[str, Extent] = field(default_factory=dict)
    loss: float | None = None
    epoch: float | None = None
    lr: tuple[float, ...] | None = None
    tau: tuple[float, ...] | None = None
    tau_squares: tuple[float, ...] | None = None
    clip: float | None = 1.0  # None: clipped, by a factor that nobody knows
    skipped: bool = False
    batch_from: int | None = None
    batch_tree: Any = None
    frozen_from: int | None = None
    micro_batches: int = 1
    micro_weights: tuple[float, ...] | None = None
    window: Window | None = None
    window_gradient: Mapping[str, Extent] = field(default_factory=dict)
    rank_buffers: Mapping[int, Mapping[str, Extent]] = field(default_factory=dict)

    @property
    def has_batch(self) -> bool:
        return bool(self.batch) or self.batch_from is not None
