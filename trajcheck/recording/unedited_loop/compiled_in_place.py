"""Modules that are compiled in place, seen when they are called: torch's global hooks do not fire for them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import nn

from trajcheck.recording.model.called import WatchedCalls
from trajcheck.recording.unedited_loop.live_objects import live


class CompiledInPlace:
    """Calls `before(module)` when a module begins on which `compile()` was called, before now or later, until
    `remove()`. `nn.Module.compile` is stood in for meanwhile."""

    def __init__(self, before: Callable[[nn.Module], None]) -> None:
        self._before = before
        self._watched: list[WatchedCalls] = []
        self._removed = False
        for module in live(nn.Module):
            if vars(module).get("_compiled_call_impl") is not None:
                self._watch(module)
        self._compile = nn.Module.compile

        @functools.wraps(self._compile)
        def compile_in_place(module: nn.Module, *args: Any, **kwargs: Any) -> None:
            self._compile(module, *args, **kwargs)
            if not self._removed:
                self._watch(module)

        self._stand_in = compile_in_place
        nn.Module.compile = compile_in_place  # type: ignore[method-assign, assignment]

    def remove(self) -> None:
        self._removed = True
        if nn.Module.compile is self._stand_in:
            nn.Module.compile = self._compile  # type: ignore[method-assign]
        for calls in self._watched:
            calls.remove()

    def _watch(self, module: nn.Module) -> None:
        self._watched.append(WatchedCalls(module, self._before, None))
