"""The content of tensors as one number each, computed where they lie: so that what changed without a word is noticed.

A parameter that is written through `.data`, as an average of weights often is, moves no version counter. So its bits
are added up as 64-bit integers, in columns of an odd length that are then weighed by place: equal numbers for equal
bits, and another one, but for one chance in 2^64, for any others, a change of order included. Each tensor is read
once and copied nowhere, and one number a tensor leaves the device.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import lru_cache

import torch
from torch import Tensor

#: Columns in which the words of a tensor are added up, the largest that leaves some rows. They are odd, as rows of
#: weight matrices are not, so rows that change places meet other columns.
COLUMNS = (4093, 1021)
ROWS = 8

INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def bit_prints(tensors: Mapping[str, Tensor]) -> dict[str, Hashable]:
    """A print of each tensor: dtype, shape, and a number that stands for its bits. Waits for their devices."""
    prints: dict[str, Hashable] = {}
    by_device: dict[torch.device, dict[str, Tensor]] = {}
    with torch.no_grad():
        for name, tensor in tensors.items():
            try:
                words = _words(tensor.detach())
            except RuntimeError:  # a class of its own, whose bits are out of reach: noticed as far as torch does
                prints[name] = (tensor.dtype, tensor.shape, id(tensor), tensor._version)
                continue
            prints[name] = (tensor.dtype, tensor.shape, 0)
            if words.numel():
                by_device.setdefault(words.device, {})[name] = words
        for words_of in by_device.values():
            for name, number in _numbers(words_of).items():
                prints[name] = (tensors[name].dtype, tensors[name].shape, number)
    return prints


def _words(tensor: Tensor) -> Tensor:
    """The tensor's bits as integers, in one dimension; a view wherever that is possible."""
    if tensor.is_contiguous():
        flat = tensor.reshape(-1)
    elif torch.ops.aten.is_non_overlapping_and_dense(tensor):
        flat = tensor.as_strided((tensor.numel(),), (1,))
    else:
        flat = tensor.contiguous().reshape(-1)
    size = flat.element_size()
    whole, begin = flat.numel() * size, flat.storage_offset() * size
    wide = next(width for width in (8, 4, 2, 1) if not whole % width and not begin % width and width >= min(size, 8))
    return flat.view(INTEGERS[wide])


def _numbers(words: Mapping[str, Tensor]) -> dict[str, int]:
    """The number of each, of tensors on one device."""
    columns: dict[int, dict[str, Tensor]] = {}
    small: dict[torch.dtype, dict[str, Tensor]] = {}
    for name, flat in words.items():
        width = next((each for each in COLUMNS if flat.numel() >= ROWS * each), 0)
        if not width or flat.dtype is not torch.int64:
            small.setdefault(flat.dtype, {})[name] = flat
            continue
        rows = flat.numel() // width
        sums = flat[: rows * width].view(rows, width).sum(0)
        sums[: flat.numel() - rows * width] += flat[rows * width :]  # the last row, which is not full
        columns.setdefault(width, {})[name] = sums
    parts: list[tuple[list[str], Tensor]] = []
    for width, sums_of in columns.items():
        table = torch.stack(list(sums_of.values()))
        parts.append((list(sums_of), _mixed(table * _weights(width, table.device)).sum(1)))
    for flats in small.values():
        parts.append((list(flats), _small_sums(list(flats.values()))))
    fetched = torch.cat([values for _, values in parts]).tolist()
    return dict(zip((name for names, _ in parts for name in names), fetched, strict=True))


def _small_sums(flats: list[Tensor]) -> Tensor:
    """Weighted sums of short tensors of one dtype, all in a few kernels."""
    lengths = [flat.numel() for flat in flats]
    weights = _weights(max(lengths), flats[0].device)
    products = _mixed((torch.cat(flats).to(torch.int64) + 1) * torch.cat([weights[:length] for length in lengths]))
    sums = products.cumsum(0)
    ends = torch.tensor(lengths).cumsum(0).to(sums.device) - 1
    upto = sums[ends]
    return torch.cat([upto[:1], upto[1:] - upto[:-1]])


def _mixed(values: Tensor) -> Tensor:
    """High bits brought down, so that what differs by a power of two does not cancel."""
    return values ^ (values >> 29)


@lru_cache(maxsize=16)
def _weights(length: int, device: torch.device) -> Tensor:
    """Odd numbers without a pattern, one a place; no random stream is touched."""
    places = torch.arange(1, length + 1, dtype=torch.int64)
    mixed = places * 6364136223846793005 + 1442695040888963407
    mixed = (mixed ^ (mixed >> 31)) * 7046029254386353131
    return ((mixed ^ (mixed >> 28)) | 1).to(device)
