"""Storages and tensors as a file of torch.save describes them, and the extents of their bytes.

A tensor is (storage, offset, shape, strides), counted in elements. Element i_1, ..., i_k lies at
offset + sum_j i_j strides_j. An extent is of C order, so of others it has parts, as long as they are few.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING, Any

from trajcheck.errors import StepFileError
from trajcheck.files.extents import ITEM_SIZE, PAIRS, Extent, Part
from trajcheck.files.pickles.budget import PickleError
from trajcheck.files.pickles.inert import Global, Inert
from trajcheck.files.safetensors_header import LONGEST, MOST_DIMENSIONS

if TYPE_CHECKING:
    from trajcheck.files.extent_reader import ExtentReader

#: safetensors' codes by torch's names of dtypes, and PAIRS.
CODES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "complex64": "C64", "complex128": PAIRS,
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
    "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
#: Bytes of an element of dtypes that have no code.
_OTHER_SIZES = {
    "complex32": 4, "quint8": 1, "qint8": 1, "qint32": 4, "quint4x2": 1, "quint2x4": 1,
    "float8_e8m0fnu": 1, "float4_e2m1fn_x2": 1,
}  # fmt: skip
_SIZES = {**{name: 16 if code == PAIRS else ITEM_SIZE[code] for name, code in CODES.items()}, **_OTHER_SIZES}
#: dtypes by the classes of storages.
_STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool", "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64", "QUInt8Storage": "quint8", "QInt8Storage": "qint8", "QInt32Storage": "qint32",
    "QUInt4x2Storage": "quint4x2", "QUInt2x4Storage": "quint2x4",
    "UntypedStorage": "uint8", "_UntypedStorage": "uint8",
}  # fmt: skip
#: Parts of a tensor that is not in C order.
MOST_PARTS = 4096


class Storage:
    """The memory of tensors: `numel` elements of a dtype by torch's name. Where they lie is known once the file's
    entries are."""

    __slots__ = ("dtype", "key", "numel", "offset", "path")

    def __init__(self, key: str, dtype: str, numel: int) -> None:
        self.key, self.dtype, self.numel = key, dtype, numel
        self.path, self.offset = "", -1

    @property
    def nbytes(self) -> int:
        return self.numel * _SIZES[self.dtype]


class StoredTensor:
    """A tensor in a file of torch.save; `parameter`: whether it was saved as torch.nn.Parameter."""

    __slots__ = ("dtype", "offset", "parameter", "requires_grad", "said", "shape", "storage", "strides")

    def __init__(
        self, storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: str, said: str
    ) -> None:
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides
        self.dtype, self.said = dtype, said
        self.parameter = self.requires_grad = False

    def in_storage(self, storage: Storage) -> StoredTensor:
        """The same tensor in another file's storage, which is of the same dtype and length."""
        made = StoredTensor(storage, self.offset, self.shape, self.strides, self.dtype, self.said)
        made.parameter, made.requires_grad = self.parameter, self.requires_grad
        return made

    @property
    def code(self) -> str:
        """safetensors' code of its dtype; torch's name where there is none."""
        known = CODES.get(self.dtype, f"torch.{self.dtype}")
        return f"{known}, the {self.said} of what is stored" if self.said else known

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def place(self) -> tuple[object, ...]:
        """What tied tensors have in common: the same numbers in the same order."""
        return self.storage.key, self.offset, self.shape, self.strides, self.dtype

    @property
    def parts(self) -> int:
        """How many ranges of its storage it is in C order; 1 of a contiguous one."""
        return math.prod(self.shape[: self._outer]) if self.numel else 1

    @property
    def in_place(self) -> bool:
        """Whether it has an extent."""
        return not self.said and self.dtype in CODES and self.parts <= MOST_PARTS

    @property
    def _outer(self) -> int:
        """The number of leading dimensions over which the rest, a range by itself, is repeated."""
        expected, outer = 1, len(self.shape)
        while outer and (self.shape[outer - 1] == 1 or self.strides[outer - 1] == expected):
            outer -= 1
            expected *= self.shape[outer]
        return outer

    def extent(self, name: str) -> Extent:
        """Where its bytes lie, in C order. Raises StepFileError, with `name`, where they lie in another order, or are
        not its numbers."""
        path, size = self.storage.path, _SIZES[self.dtype]
        if self.said:
            raise StepFileError(f"{path}: tensor {name!r} is the {self.said} of what is stored, which is not read.")
        if self.dtype not in CODES:
            raise StepFileError(f"{path}: tensor {name!r} has dtype torch.{self.dtype}, which is not read.")
        if self.parts > MOST_PARTS:
            raise StepFileError(
                f"{path}: tensor {name!r} of shape {list(self.shape)} is stored with strides {list(self.strides)}"
                f"{', channels last' if self.channels_last else ''}: its numbers lie in another order than by rows. "
                "Save tensor.contiguous()."
            )
        begin = self.storage.offset + self.offset * size
        if self.parts == 1:
            return Extent(path, begin, self.numel * size, self.code, self.shape)
        parts = tuple(self._in_parts(path, size))
        return Extent(path, parts[0].offset, self.numel * size, self.code, self.shape, parts)

    def in_order(self, reader: ExtentReader, start: int, stop: int) -> bytes:
        """The bytes of elements [start, stop) in C order, whatever the order in which they lie; what of the storage
        they lie between is held in memory. Raises StepFileError."""
        import numpy as np  # here, so that formats are recognised without it

        size, whole = _SIZES[self.dtype], (start, stop) == (0, self.numel)
        if start == stop:
            return b""
        steps = [] if whole else np.unravel_index(np.arange(start, stop), self.shape)
        places = sum((at * stride for at, stride in zip(steps, self.strides, strict=False)), np.zeros(1, np.int64))
        last = sum((length - 1) * stride for length, stride in zip(self.shape, self.strides, strict=True))
        first, last = (0, last) if whole else (int(places.min()), int(places.max()))
        between = np.empty(((last + 1 - first), size), np.uint8)
        reader.range(self.storage.path, self.storage.offset + (self.offset + first) * size, between.reshape(-1).data)
        if not whole:
            return between[places - first].tobytes()
        strides = (*(stride * size for stride in self.strides), 1)
        return np.lib.stride_tricks.as_strided(between, (*self.shape, size), strides).tobytes()

    def _in_parts(self, path: str, size: int) -> Iterator[Part]:
        outer = self._outer
        length, position = math.prod(self.shape[outer:]) * size, 0
        for index in product(*map(range, self.shape[:outer])):
            element = self.offset + sum(i * stride for i, stride in zip(index, self.strides, strict=False))
            yield Part(position, position + length, path, self.storage.offset + element * size)
            position += length

    @property
    def channels_last(self) -> bool:
        """Whether its numbers lie in torch's order of that name, (N, H, W, C), which is another one than by rows."""
        if len(self.shape) not in (4, 5):
            return False
        order = [0, *range(2, len(self.shape)), 1]
        expected = 1
        for dimension in reversed(order):
            if self.strides[dimension] != expected:
                return False
            expected *= self.shape[dimension]
        return self.parts > 1

    def as_it_lies(self) -> Extent:
        """The numbers of one that is channels last, in that order: flat, so that nobody takes it for the tensor."""
        begin = self.storage.offset + self.offset * _SIZES[self.dtype]
        return Extent(self.storage.path, begin, self.numel * _SIZES[self.dtype], self.code, (self.numel,))


def storage(given: Any) -> Storage:
    """The storage that ("storage", class, key, location, elements, ...) refers to. Raises PickleError."""
    if not isinstance(given, tuple) or len(given) < 5 or given[0] != "storage":
        raise PickleError("refers to something outside it that is no storage")
    kind, key, numel = given[1], given[2], given[4]
    if not isinstance(kind, Global) or not isinstance(key, str) or not _natural(numel):
        raise PickleError("refers to a storage that is none")
    dtype = _STORAGES.get(kind.name)
    if dtype is None or kind.module.partition(".")[0] != "torch":
        raise PickleError(f"refers to a storage of class {kind.dotted}, which is not known")
    return Storage(key, dtype, numel)


def tensor(given: tuple[Any, ...]) -> StoredTensor:
    """_rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks, metadata)."""
    dtype = given[0].dtype if given and isinstance(given[0], Storage) else None
    return _tensor(given, dtype, given[6] if len(given) > 6 else None)


def tensor_of_bytes(given: tuple[Any, ...]) -> StoredTensor:
    """_rebuild_tensor_v3, of dtypes that have no class of storages: a dtype after the hooks."""
    dtype = given[6].name if len(given) > 6 and isinstance(given[6], Global) and given[6].module == "torch" else None
    return _tensor(given, dtype, given[7] if len(given) > 7 else None)


def parameter(given: tuple[Any, ...]) -> Any:
    """_rebuild_parameter(tensor, requires_grad, hooks): the tensor itself, which says so."""
    if len(given) < 2 or not isinstance(given[0], (StoredTensor, Inert)):
        raise PickleError("has a parameter that is no tensor")
    if isinstance(given[0], StoredTensor):
        given[0].parameter, given[0].requires_grad = True, given[1] is True
    return given[0]


def _tensor(given: tuple[Any, ...], dtype: Any, metadata: Any) -> StoredTensor:
    if len(given) < 4 or not isinstance(given[0], Storage) or dtype not in _SIZES:
        raise PickleError("has a tensor of what is no storage, or of a dtype that is not known")
    held, offset, shape, strides = given[:4]
    for numbers in (shape, strides):
        if not isinstance(numbers, tuple) or len(numbers) > MOST_DIMENSIONS or not all(map(_natural, numbers)):
            raise PickleError("has a tensor whose shape or strides are not natural numbers")
    if not _natural(offset) or len(shape) != len(strides) or math.prod(shape) > LONGEST:
        raise PickleError("has a tensor whose shape, strides and offset do not fit together")
    last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    if math.prod(shape) and (last + 1) * _SIZES[dtype] > held.nbytes:
        raise PickleError(
            f"has a tensor of shape {list(shape)!s:.100}, strides {list(strides)!s:.100} and offset {offset} in a "
            f"storage of {held.nbytes:,} bytes: it would reach beyond it"
        )
    flags = metadata if isinstance(metadata, dict) else {}
    said = next((word for bit, word in {"conj": "conjugate", "neg": "negative"}.items() if flags.get(bit)), "")
    made = StoredTensor(held, offset, shape, strides, dtype, said)
    made.requires_grad = len(given) > 4 and given[4] is True
    return made


def _natural(number: Any) -> bool:
    return type(number) is int and 0 <= number <= LONGEST
