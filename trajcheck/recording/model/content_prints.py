"""Whether tensors hold what they held some time ago, from a few numbers that stay on their device.

A print is, of each tensor in pieces of bounded length, the product with a fixed random vector, and the norm. Equal
bytes have equal prints; other values differ in the product by about the norm of the difference, wherever in the tensor
they lie and in whatever order, while what rounding does (a weight that was moved and moved back) stays within
`ROUNDING` machine epsilons of the norm. Taking one reads each tensor twice, or once where sums.c is there, and waits
for no device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch

from trajcheck.recording.model.shards import local
from trajcheck.recording.sums.addresses import Addresses, takes_all
from trajcheck.recording.sums.compiled import compiled

#: Elements of a piece: odd, so that rows which change places meet other factors.
PIECE = (1 << 18) - 5
#: A difference of so many machine epsilons of a piece's norm is rounding.
ROUNDING = 32.0


class Print(NamedTuple):
    """Of each device and dtype: products and norms of the pieces, in order."""

    products: list[torch.Tensor]
    norms: list[torch.Tensor]


class ContentPrints:
    """Prints of tensors by name. They are looked up anew each time, wherever their data lie by then."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._kinds: dict[tuple[torch.device, torch.dtype], dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            if local(tensor).numel():
                self._kinds.setdefault((tensor.device, _working(tensor.dtype)), {})[name] = tensor
        self._factors: dict[tuple[torch.device, torch.dtype], torch.Tensor] = {}
        self._looked: _Looked | None = None  # at those that sums.c reads, the last time

    @torch.no_grad()
    def now(self) -> Print:
        found = Print([], [])
        for (device, dtype), tensors in self._kinds.items():
            factors = self._factors_of(device, dtype, max(local(t).numel() for t in tensors.values()))
            library = compiled() if dtype is torch.float32 and device.type == "cpu" else None
            if library is not None:
                looked = self._looked if self._looked is not None and self._looked.still() else _Looked(tensors)
                self._looked = looked if looked.lasts else None
                products, squares = library.prints(looked.places, factors).unbind(1)
                found.products.append(products.to(dtype))
                found.norms.append(squares.sqrt().to(dtype))
                continue
            pieces = [piece.to(dtype) for tensor in tensors.values() for piece in _pieces(tensor)]
            found.products.append(torch.stack([torch.dot(piece, factors[: piece.numel()]) for piece in pieces]))
            found.norms.append(torch.stack([torch.linalg.vector_norm(piece) for piece in pieces]))
        return found

    @torch.no_grad()
    def differ(self, before: Print, after: Print) -> Difference:
        """What is different, as it is found on the devices later on. Not a number in both is no difference."""
        flags = []
        for old, new, norm in zip(before.products, after.products, after.norms, strict=True):
            limit = ROUNDING * torch.finfo(old.dtype).eps
            broke = torch.isfinite(old) & ~torch.isfinite(new)
            flags.append((torch.abs(new - old) > limit * norm) | broke)
        owners = [[name for name, t in tensors.items() for _ in _counted(t)] for tensors in self._kinds.values()]
        return Difference(flags, owners)

    def _factors_of(self, device: torch.device, dtype: torch.dtype, longest: int) -> torch.Tensor:
        if (device, dtype) not in self._factors:
            stream = torch.Generator().manual_seed(len(self._factors) + 1)  # none of training's own
            drawn = torch.randn(min(longest, PIECE), generator=stream, dtype=torch.float64)
            self._factors[device, dtype] = drawn.to(dtype).to(device)
        return self._factors[device, dtype]


class _Looked:
    """Where the pieces of some tensors lie in the processor's memory, in float32.

    `lasts`: as long as the tensors are `still()` there; of others than contiguous float32 ones the pieces are copies.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._tensors = list(tensors.values())
        self._kept = [piece.float() for tensor in self._tensors for piece in _pieces(tensor)]
        self.places = Addresses(self._kept)
        self.lasts = takes_all(self._tensors)
        self._where = Addresses(self._tensors) if self.lasts else self.places

    def still(self) -> bool:
        return self._where.still(self._tensors)


class Difference:
    """Which tensors differ between two prints; asking waits for the devices, the first time."""

    def __init__(self, flags: list[torch.Tensor], owners: list[list[str]]) -> None:
        self._flags, self._owners = flags, owners
        self._names: list[str] | None = None

    @property
    def at_hand(self) -> bool:
        """Whether asking waits for nothing."""
        return self._names is not None or all(flags.device.type == "cpu" for flags in self._flags)

    @property
    def anywhere(self) -> torch.Tensor:
        """Whether any does, on the first device; nothing waits."""
        first, *others = [flags.any() for flags in self._flags] or [torch.tensor(False)]
        for flag in others:
            first = first | flag.to(first.device)
        return first

    @property
    def names(self) -> list[str]:
        if self._names is None:
            pairs = zip(self._flags, self._owners, strict=True)
            changed = {
                name for flags, owners in pairs for name, flag in zip(owners, flags.tolist(), strict=True) if flag
            }
            self._names = [name for owners in self._owners for name in dict.fromkeys(owners) if name in changed]
            self._flags = []
        return self._names


def _working(dtype: torch.dtype) -> torch.dtype:
    if dtype.is_complex:
        return torch.float64 if dtype is torch.complex128 else torch.float32
    return torch.float64 if dtype is torch.float64 else torch.float32


def _counted(tensor: torch.Tensor) -> range:
    """The numbers of its pieces."""
    held = local(tensor)
    return range(-(-held.numel() * (2 if held.is_complex() else 1) // PIECE))


def _pieces(tensor: torch.Tensor) -> Iterable[torch.Tensor]:
    flat = local(tensor.detach())
    if flat.is_complex():
        flat = torch.view_as_real(flat)
    return flat.reshape(-1).split(PIECE)
