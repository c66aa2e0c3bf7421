"""Hooks of an optimizer whose step is compiled: they run outside of the graphs that torch.compile makes.

Traced, they would be compiled themselves, again for every tensor. Where a step has to be one graph (fullgraph=True),
nothing can run outside: the hooks do nothing there, which is noted, and training goes on unrecorded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

NO_HOOKS = "where no hook of the Recorder can run: compile it without fullgraph=True"
#: Whether a step was compiled as one graph in this process, so that no hook sees it.
seen_whole: list[bool] = []


def outside_graphs(hook: Callable[..., Any]) -> Callable[..., Any]:
    """The hook, never traced."""
    apart = torch.compiler.disable(hook)

    def called(*args: Any) -> Any:
        if torch.compiler.is_compiling() and _one_graph():
            return None
        return apart(*args)

    return called


@torch.compiler.assume_constant_result
def _one_graph() -> bool:
    """Asked while a step is traced: whether it has to become one graph."""
    from torch._dynamo.symbolic_convert import InstructionTranslator

    whole = bool(getattr(InstructionTranslator.current_tx(), "one_graph", False))
    if whole and not seen_whole:
        seen_whole.append(True)
    return whole
