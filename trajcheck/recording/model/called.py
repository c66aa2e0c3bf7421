"""The calls of a module, seen before and after, also where `module.compile()` has compiled it in place.

Hooks of a module that is compiled are traced with it, and do nothing then: the compiled copy of torch.compile(module)
is called itself, and has hooks of its own, but `module.compile()` puts a compiled function into the module's place,
inside which its hooks are. That function is stood in for while the calls are watched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from trajcheck.recording.step.sample_state import AfterForwardHook, ForwardHook


class WatchedCalls:
    """Calls `before(module)` and `after(module, args, kwargs, output)` around the calls of a module with gradients
    enabled, for as long as the owner of these methods lives, and until `remove()`. None: nothing to call."""

    def __init__(
        self, module: torch.nn.Module, before: Callable[..., None] | None, after: Callable[..., None] | None
    ) -> None:
        self.module = module
        self.before, self.after = ForwardHook(before), AfterForwardHook(after)
        self._handles = [
            module.register_forward_pre_hook(self.before),
            module.register_forward_hook(self.after, with_kwargs=True),
        ]
        self.follow()

    def follow(self) -> None:
        """Look whether the module was compiled in place since."""
        call = vars(self.module).get("_compiled_call_impl")
        if call is None:
            return
        if not isinstance(call, _AroundCompiled):
            call = _AroundCompiled(self.module, call)
            self.module._compiled_call_impl = call
        if self not in call.watched:
            call.watched.append(self)

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        call = vars(self.module).get("_compiled_call_impl")
        if isinstance(call, _AroundCompiled) and self in call.watched:
            call.watched.remove(self)
            if not call.watched:
                self.module._compiled_call_impl = call.compiled


class _AroundCompiled:
    """In the place of what `module.compile()` made."""

    def __init__(self, module: torch.nn.Module, compiled: Callable[..., Any]) -> None:
        self.module, self.compiled = module, compiled
        self.watched: list[WatchedCalls] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return self.compiled(*args, **kwargs)
        for each in list(self.watched):
            each.before(self.module, args)
        output = self.compiled(*args, **kwargs)
        for each in list(self.watched):  # those too that came with this call
            each.after(self.module, args, kwargs, output)
        return output
