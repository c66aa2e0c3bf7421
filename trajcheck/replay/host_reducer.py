"""Inner products of vectors in host memory, by the inner loop of the streaming pass (loop.py)."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch

from trajcheck.files.extents import ITEM_SIZE
from trajcheck.files.torch_tensors import CODES
from trajcheck.inner_products.blocks import TYPES, Parts
from trajcheck.inner_products.loop import run_parts
from trajcheck.inner_products.program import Program
from trajcheck.inner_products.program_writer import RowRequest, write_program
from trajcheck.replay.reducer import Label, Shares, Vector

#: Elements at a time, and below how many threads cost more than they help. Shares of the work that a thread takes.
PART, WORTH_THREADS, SHARES = 65536, 1 << 20, 4

#: As kernel.c knows them.
_TYPE_OF = {dtype: TYPES[code] for dtype, code in CODES.items() if code in TYPES}
_SIZES = np.array([ITEM_SIZE[dtype] for dtype in TYPES])


class HostReducer:
    """A Reducer (reducer.py) for the CPU: no copies, each vector is read once for all products.

    `shapes` of the tensors. Leaving the context ends its threads.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        numels = {name: math.prod(shape) for name, shape in shapes.items()}
        self.tensors: Sequence[str] = [name for name, numel in numels.items() if numel]
        cut = [
            (number, start, min(PART, numels[name] - start))
            for number, name in enumerate(self.tensors)
            for start in range(0, numels[name], PART)
        ]
        self._of, self._begins, self._lengths = (
            np.array([part[at] for part in cut], dtype=np.int64) for at in range(3)
        )
        self.starts: list[int] = np.searchsorted(self._of, np.arange(len(self.tensors))).tolist()
        count = torch.get_num_threads() if sum(numels.values()) >= WORTH_THREADS else 1
        self._pool = ThreadPoolExecutor(count, "trajcheck-products") if count > 1 else None
        self._at_once = max(1, -(-len(cut) // (SHARES * count if count > 1 else 1)))

    @property
    def parts(self) -> int:
        return len(self._lengths)

    def __enter__(self) -> HostReducer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def reduce(
        self,
        vectors: Mapping[str, Vector],
        references: Mapping[int, Mapping[str, Vector]],
        step_products: Collection[str],
        reference_products: Collection[str],
        divisors: Mapping[str, float] | None = None,
        decay: Mapping[str, float] | None = None,
    ) -> Shares:
        names = set(vectors)
        if decay is not None and {"gradient", "x"} <= names:
            names.add("regularised")
        towards = tuple((number, tuple(sorted(each))) for number, each in references.items())
        labels, program = _program(tuple(sorted(names)), towards, tuple(step_products), tuple(reference_products))
        kinds = ["x" if kind == "iterate" else kind for kind, _ in program.vectors]
        found = [
            vectors[kind] if number < 0 else references[number][kind]
            for kind, (_, number) in zip(kinds, program.vectors, strict=True)
        ]
        dense = [[_dense(vector[name]) for name in self.tensors] for vector in found]
        count = len(self.tensors)
        kinds_of = [[_TYPE_OF[tensor.dtype] for tensor in vector] for vector in dense]
        types = _by_tensor(kinds_of, count, np.int32)[self._of]
        begins = _by_tensor([[tensor.data_ptr() for tensor in vector] for vector in dense], count, np.int64)[self._of]
        addresses = begins + self._begins[:, None] * _SIZES[types]
        divided = np.array([(divisors or {}).get(kind, 1.0) for kind in kinds])
        decays = np.array([(decay or {}).get(name, 0.0) for name in self.tensors])[self._of]
        parts = Parts(addresses, types, divided, self._lengths, decays)

        def products(start: int) -> np.ndarray:
            with np.errstate(invalid="ignore", over="ignore"):  # what is not finite becomes an empty cell
                return run_parts(program, parts.some(start, start + self._at_once))

        starts = range(0, len(self._lengths), self._at_once)
        shares = list((self._pool.map if self._pool else map)(products, starts))
        values = np.concatenate([np.zeros((0, program.outputs)), *shares])
        own, each = program.rows[0]
        numbered = dict(zip(references, each, strict=True))
        places = [(own if number is None else numbered[number])[name] for number, name in labels]
        return Shares(labels, torch.from_numpy(values.T[np.array(places, dtype=np.intp)]))


@lru_cache(maxsize=64)
def _program(
    names: tuple[str, ...],
    references: tuple[tuple[int, tuple[str, ...]], ...],
    step_products: tuple[str, ...],
    reference_products: tuple[str, ...],
) -> tuple[list[Label], Program]:
    """The program for one row. Keys are as program_writer.py wants them; the step's own vectors have the number -1."""
    request = RowRequest(
        {name: ("iterate" if name == "x" else name, -1) for name in names},
        [{name: (name, number) for name in each} for number, each in references],
        step_products,
        reference_products,
    )
    program = write_program([request])
    own, towards = program.rows[0]
    labels: list[Label] = [(None, name) for name in own]
    for (number, _), each in zip(references, towards, strict=True):
        labels += [(number, name) for name in each]
    return labels, program


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.is_contiguous() else tensor.detach().contiguous()


def _by_tensor(values: Sequence[Sequence[int]], tensors: int, dtype: type) -> np.ndarray:
    """[vectors, tensors] as [tensors, vectors]."""
    return np.ascontiguousarray(np.array(values, dtype=dtype).reshape(len(values), tensors).T)
