"""Inner products of vectors in host memory, by the inner loop of the streaming pass (kernel.py)."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from trajcheck.formats.tensor_bytes import CODES
from trajcheck.kernel import run
from trajcheck.kernel_data import Block, Memory, Segments
from trajcheck.program import Program
from trajcheck.program_writer import RowRequest, write_program
from trajcheck.reduction import Label, Shares, Vector
from trajcheck.snapshot import ITEM_SIZE

#: Elements at a time, and below how many threads cost more than they help.
PART, WORTH_THREADS = 65536, 1 << 20


class HostReducer:
    """A Reducer (reduction.py) for the CPU: no copies, each vector is read once for all products.

    `shapes` of the tensors; `decay` of the parameters, by name. Leaving the context ends its threads.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], decay: Mapping[str, float]) -> None:
        numels = {name: math.prod(shape) for name, shape in shapes.items()}
        self.tensors: Sequence[str] = [name for name, numel in numels.items() if numel]
        self.decay = decay
        self.parts: list[tuple[str, int, int]] = []
        self.starts: list[int] = []
        for name in self.tensors:
            self.starts.append(len(self.parts))
            self.parts += [(name, start, min(start + PART, numels[name])) for start in range(0, numels[name], PART)]
        count = torch.get_num_threads() if sum(numels.values()) >= WORTH_THREADS else 1
        self._pool = ThreadPoolExecutor(count, "trajcheck-products") if count > 1 else None

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
    ) -> Shares:
        names = set(vectors)
        if self.decay and {"gradient", "x"} <= names:
            names.add("regularised")
        towards = tuple((number, tuple(sorted(each))) for number, each in references.items())
        labels, program = _program(tuple(sorted(names)), towards, tuple(step_products), tuple(reference_products))
        divisors = divisors or {}

        blocks = {}
        for key in program.vectors:
            kind = "x" if key[0] == "iterate" else key[0]
            vector = vectors[kind] if key[1] < 0 else references[key[1]][kind]
            blocks[key] = {name: _block(vector[name], divisors.get(kind, 1.0)) for name in self.tensors}

        def products(part: tuple[str, int, int]) -> np.ndarray:
            name, start, stop = part
            here = [_part(blocks[key][name], start, stop) for key in program.vectors]
            with np.errstate(invalid="ignore", over="ignore"):  # what is not finite becomes an empty cell
                return run(program, here, Segments.of([0, stop - start], [self.decay.get(name, 0.0)]))

        shares = list((self._pool.map if self._pool else map)(products, self.parts))
        values = np.array(shares).reshape(len(self.parts), program.outputs)
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


def _block(tensor: Tensor, divisor: float) -> Block:
    """The tensor's own memory."""
    memory = Memory.of(tensor.detach().reshape(-1).view(torch.uint8).numpy())
    return Block(memory, CODES[tensor.dtype], tensor.numel(), divisor)


def _part(block: Block, start: int, stop: int) -> Block:
    """Elements [start, stop)."""
    begin, end = (ITEM_SIZE[block.dtype] * place for place in (start, stop))
    memory = Memory(block.memory.raw[begin:end], block.memory.address + begin)
    return block._replace(memory=memory, length=stop - start)
