"""What a sample is beside its batch, as the forward began: generators, frozen parameters, buffers, modes."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from trajcheck.objective.module_modes import modes_of
from trajcheck.recording.model.surroundings import Captured, Surroundings


@dataclass
class ForwardState:
    """What a forward pass that began could see besides trained parameters and batch. `training` is the mode of the
    module that was called, `modes` those of all of the model's (module_modes.py)."""

    generators: dict[str, torch.Tensor]
    surroundings: Captured = field(default_factory=Captured)
    autocast: str | None = None
    training: bool = True
    modes: dict[str, str] = field(default_factory=dict)

    def agrees(self, other: ForwardState) -> bool:
        """Whether all but the generators was the same."""
        mine, others = (
            (state.autocast, state.training, state.modes, state.surroundings.prints) for state in (self, other)
        )
        return mine == others

    def without_generators(self) -> ForwardState:
        return replace(self, generators={})


def generator_states(devices: list[torch.device]) -> dict[str, torch.Tensor]:
    """A copy of torch's generator states: `cpu`, and `cuda:0` and so on for `devices`."""
    states = {"cpu": torch.get_rng_state()}
    states.update({str(device): torch.cuda.get_rng_state(device) for device in devices})
    return states


def capture(
    module: torch.nn.Module, model: torch.nn.Module, devices: list[torch.device], surroundings: Surroundings
) -> ForwardState:
    """The state now, at the beginning of a forward of `module`, the model itself or a part of it."""
    device_type = devices[0].type if devices else "cpu"
    return ForwardState(
        generators=generator_states(devices),
        surroundings=surroundings.capture(),
        autocast=_autocast(device_type) or _autocast_inside(module),
        training=module.training,
        modes=modes_of(model),
    )


def _autocast(device_type: str) -> str | None:
    enabled = torch.is_autocast_enabled(device_type)
    return str(torch.get_autocast_dtype(device_type)).removeprefix("torch.") if enabled else None


def _autocast_inside(module: torch.nn.Module) -> str | None:
    """The dtype of the autocast that Accelerate has put around the model's forward, where no hook sees it begin."""
    prepared = any(hasattr(m, "_original_forward") for m in (module, getattr(module, "module", None)))
    state = sys.modules.get("accelerate.state")
    if not prepared or state is None:
        return None
    return {"bf16": "bfloat16", "fp16": "float16"}.get(state.AcceleratorState().mixed_precision)


def consumed(before: ForwardState, devices: list[torch.device]) -> dict[str, bool]:
    """Which generators have been drawn from since."""
    now = generator_states(devices)
    return {name: not torch.equal(state, now[name]) for name, state in before.generators.items()}


class ForwardHook:
    """A forward pre-hook that calls a method for as long as its owner lives.

    Copies of the model (an average of its weights, a pickle) get a hook that does nothing: they are not the model that
    is recorded, and a recorder with its thread cannot be copied.
    """

    def __init__(self, method: Callable[..., None] | None = None) -> None:
        self._method = None if method is None else weakref.WeakMethod(method)

    def __call__(self, module: torch.nn.Module, args: Any) -> None:
        self._call(module)

    def _call(self, *args: Any) -> None:
        if torch.compiler.is_compiling() or self._method is None:
            return
        method = self._method()
        if method is not None and torch.is_grad_enabled():
            method(*args)

    def __reduce__(self) -> tuple[type[ForwardHook], tuple[()]]:
        return type(self), ()


class AfterForwardHook(ForwardHook):
    """The same after the forward, with all that went in and came out: method(module, args, kwargs, output)."""

    def __call__(self, module: torch.nn.Module, args: Any, kwargs: Any = None, output: Any = None) -> None:
        self._call(module, args, kwargs, output)
