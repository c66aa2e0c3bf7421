"""A mode that sees each of torch's operations, and torch's compilers not imported for it."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Mode(TorchDispatchMode):
    """torch hides the `__torch_dispatch__` of each subclass from its compilers by a wrapper that imports them: 2 s of
    processor time for an objective that compiles nothing. Here it is hidden when they are there to look at it."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:  # torch's wrapper, at the definition of the class
        return False

    def __enter__(self) -> Any:
        of = type(self)
        if "torch._dynamo" in sys.modules and "_hidden" not in of.__dict__:
            of._hidden = True  # type: ignore[attr-defined]
            of.__torch_dispatch__ = torch.compiler.disable(of.__torch_dispatch__)  # type: ignore[method-assign]
        return super().__enter__()
