"""|g_t|^2 and |x_{t+1} - x_t|^2 of every step, from one pass over gradients and one over parameters.

In the processor's memory sums.c does it; elsewhere, and for other dtypes, torch's fused norms. Differences are formed
in float32 (float64 of float64 parameters), squares summed in float64. Nothing waits for a device.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from functools import partial
from itertools import chain

import torch

from trajcheck.recording.model.recorded_model import Parameter
from trajcheck.recording.model.shards import local
from trajcheck.recording.sums.addresses import Addresses, takes, takes_all
from trajcheck.recording.sums.compiled import CompiledSums, compiled

#: Elements of the differences that torch makes at once: on a CPU they stay in cache, on a GPU few kernels cover them.
CHUNK_CPU, CHUNK_DEVICE = 1 << 18, 1 << 22

#: A number at hand, or one on a device that nobody has waited for.
Number = float | torch.Tensor


class StepSquares:
    """Of these parameters, at every step; it holds one more vector, x_t."""

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self._parameters = list(parameters)
        self._sources = [p.source for p in parameters]
        self._before: list[torch.Tensor] = []
        self._held: Addresses | None = None  # where x_t lies, if sums.c can read all of it
        self._now: Addresses | None = None  # where the parameters lay at the last look, if it could read all of them
        self._alive: list[torch.Tensor] = []  # what lies there, kept for another thread that reads it
        devices = dict.fromkeys(source.device for source in self._sources)
        self._devices = {d: [i for i, s in enumerate(self._sources) if s.device == d] for d in devices}
        #: How many elements lie in the processor's memory.
        self.on_processor = sum(local(source).numel() for source in self._sources if source.device.type == "cpu")

    @torch.no_grad()
    def begin(self) -> None:
        """The parameters are x_t."""
        now = [_values(source) for source in self._sources]
        if [each.shape for each in now] != [each.shape for each in self._before]:
            self._before = [torch.empty(each.shape, dtype=_wide(each.dtype), device=each.device) for each in now]
            self._held = Addresses(self._before) if takes_all(self._before) else None
        for before, each in zip(self._before, now, strict=True):
            before.copy_(each)

    def gradients(self, groups: Container[int] | None = None) -> list[Number]:
        """The squares of what `.grad` holds, as parts of a sum; of all parameters, or of those of some groups."""
        chosen = [p.source.grad for p in self._parameters if groups is None or p.group in groups]
        gradients = [gradient for gradient in chosen if gradient is not None]
        if gradients and takes_all(gradients) and (library := compiled()) is not None:
            return [library.squares(Addresses(gradients))]
        with torch.no_grad():
            return _squares([_dense(gradient) for gradient in gradients])

    def moved(self, *, aside: bool = False) -> Callable[[], list[Number] | None]:
        """Call it, in another thread if `aside`, for |x - x_t|^2 of the parameters x as they are now, which are x_t
        from then on, as parts of a sum; None where they are of other shapes than x_t was."""
        library = compiled()
        if library is not None and self._held is not None:
            if self._now is None or not self._now.still(self._sources):
                self._now = Addresses(self._sources) if takes_all(self._sources) else None
                self._alive = [source.detach() for source in self._sources] if aside and self._now is not None else []
            if self._now is not None and self._now.numels == self._held.numels:
                return partial(_all_moved, library, self._now, self._held, (self._alive, self._before))
        return self._moved

    @torch.no_grad()
    def _moved(self) -> list[Number] | None:
        now = [_values(source) for source in self._sources]
        if [each.shape for each in now] != [each.shape for each in self._before]:
            self.begin()
            return None
        found: list[Number] = []
        for device, places in self._devices.items():
            pairs = [(now[i], self._before[i]) for i in places]
            library = compiled() if device.type == "cpu" else None
            fast = [pair for pair in pairs if library and takes_all(pair)]
            if library is not None and fast:
                found.append(library.moved(*[Addresses(vectors) for vectors in zip(*fast, strict=True)]))
            slow = pairs if not fast else [pair for pair in pairs if not takes_all(pair)]
            found += _moved(slow, CHUNK_CPU if device.type == "cpu" else CHUNK_DEVICE)
        return found


def _all_moved(library: CompiledSums, now: Addresses, before: Addresses, alive: object) -> list[Number]:
    """`alive`: the tensors."""
    return [library.moved(now, before)]


def _squares(tensors: Sequence[torch.Tensor]) -> list[Number]:
    library = compiled()
    fast = [each for each in tensors if library and takes(each)]
    found: list[Number] = [library.squares(Addresses(fast))] if library is not None and fast else []
    slow = tensors if not fast else [each for each in tensors if not takes(each)]
    by_device: dict[torch.device, list[torch.Tensor]] = {}
    for each in slow:
        if each.numel():
            by_device.setdefault(each.device, []).append(each)
    return found + [_norm_squared(members) for members in by_device.values()]


def _moved(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]], limit: int) -> list[Number]:
    """By torch, some pieces at a time."""
    found: list[Number] = []
    for pieces in _together(pairs, limit):
        now, before = [piece[0] for piece in pieces], [piece[1] for piece in pieces]
        wide = [x if x.dtype == y.dtype else x.to(y.dtype) for x, y in zip(now, before, strict=True)]
        found.append(_norm_squared(torch._foreach_sub(wide, before)))
        torch._foreach_copy_(before, wide)
    return found


def _together(
    pairs: Sequence[tuple[torch.Tensor, torch.Tensor]], limit: int
) -> Iterator[list[tuple[torch.Tensor, torch.Tensor]]]:
    """Flat pieces of all pairs, in lists of about `limit` elements."""
    held: list[tuple[torch.Tensor, torch.Tensor]] = []
    size = 0
    for now, before in pairs:
        parts = zip(now.reshape(-1).split(limit), before.reshape(-1).split(limit), strict=True)
        for x, y in parts:
            if not x.numel():
                continue
            if held and size + x.numel() > limit:
                yield held
                held, size = [], 0
            held.append((x, y))
            size += x.numel()
    if held:
        yield held


def _norm_squared(tensors: Sequence[torch.Tensor]) -> Number:
    on_cpu = tensors[0].device.type == "cpu"
    pieces = list(chain.from_iterable(t.reshape(-1).split(CHUNK_CPU) for t in tensors)) if on_cpu else list(tensors)
    norms = torch._foreach_norm(pieces, 2, dtype=torch.float64)
    total = torch.stack(norms).square().sum()
    return float(total) if on_cpu else total


def _values(tensor: torch.Tensor) -> torch.Tensor:
    """What this rank holds, as real numbers."""
    held = local(tensor.detach())
    return torch.view_as_real(held) if held.is_complex() else held


def _dense(gradient: torch.Tensor) -> torch.Tensor:
    held = local(gradient.detach())
    if held.layout is not torch.strided:
        held = held.coalesce().values() if held.layout is torch.sparse_coo else held.to_dense()
    return torch.view_as_real(held) if held.is_complex() else held


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype is torch.float64 else torch.float32
