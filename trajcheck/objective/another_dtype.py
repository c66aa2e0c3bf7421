"""An objective in another dtype for a while."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from trajcheck.objective.objective import Objective


@contextmanager
def in_another_dtype(objective: Objective, dtype: str, recorded: Mapping[str, torch.dtype]) -> Iterator[None]:
    """Model and loss converted as `Objective.prepare` does; afterwards the same tensors are back, bit by bit.

    The same model, and not a second one: what its code made by chance, or by hand, is the same in both dtypes.
    """
    modules = list(objective.modules())
    parameters = [
        (module, name, p, p.data) for module in modules for name, p in module._parameters.items() if p is not None
    ]
    buffers = [(module, name, buffer) for module in modules for name, buffer in module._buffers.items()]
    before = objective.dtype, objective.casts, objective.draws_in
    try:
        objective.prepare(dtype, recorded)
        yield
    finally:
        for module, name, parameter, data in parameters:
            parameter.data = data
            module._parameters[name] = parameter
        for module, name, buffer in buffers:
            module._buffers[name] = buffer
        objective.dtype, objective.casts, objective.draws_in = before
