"""The model of a config.json: transformers' own class for its model_type, built within the bounds of a run's tensors.

It is built twice: on torch's meta device first, where tensors take no memory, and only where its parameters are the
run's, name by name and shape by shape, in earnest. What registers more parameters, buffers or modules than the run
warrants ends at once, so a config.json with absurd sizes costs nothing. No code of the archive's is imported, no
weights are loaded, and nothing is asked of a network.
"""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from trajcheck.errors import ObjectiveError
from trajcheck.objective.common.config_file import ModelConfig
from trajcheck.objective.common.names import CAUSAL_LM
from trajcheck.objective.full_precision import value_for_a_while
from trajcheck.objective.parameter_names import attribute_around, match_parameters, parameter_aliases
from trajcheck.readable import one_line, some_of
from trajcheck.runs.canonical_names import canonical
from trajcheck.runs.trajectory import Shapes

#: What is built by another library, from a name.
_OF_OTHERS = ("timm_wrapper", "timm_backbone")

#: Elements of buffers, such as masks and tables of positions, that any model may have.
_BUFFERS = 1 << 26


def build(config: ModelConfig, kind: str, shapes: Shapes, tied: Mapping[str, str], dtype: torch.dtype) -> nn.Module:
    """The model, in evaluation mode, its parameters of `dtype` and 0. `shapes` are the run's parameters, frozen ones
    included, and `tied` its aliases. Raises ObjectiveError, naming config.json and what does not fit."""
    bounds = _Bounds(len(shapes), sum(math.prod(shape) for shape in shapes.values()))
    make = _maker(config, kind, bounds)
    with torch.device("meta"):
        outline = make(dtype)
    here = {canonical(name): tuple(p.shape) for name, p in outline.named_parameters()}
    aliases = parameter_aliases(outline, str(config.path))
    around = attribute_around({*shapes, *tied}, aliases.values())
    known = {name.removeprefix(around): own for name, own in aliases.items()}
    _, problems = match_parameters(shapes, tied, here, known)
    if problems:
        name = type(outline).__name__
        raise ObjectiveError(f"{config.path}: its {name} does not fit the run: {'; '.join(problems)}")
    with torch.device("cpu"), torch.no_grad():
        model = make(dtype)
        for parameter in model.parameters():
            parameter.zero_()
    return model.eval()


def transformers_modules() -> tuple[Any, Any, Any]:
    """transformers, and its tables of configurations and of models. Raises ObjectiveError where it is not there."""
    try:
        import transformers
        from transformers.models.auto import configuration_auto, modeling_auto
    except ImportError as error:
        raise ObjectiveError(
            "objectives hf-... build the model with transformers, which is not installed: pip install trajcheck[hf]"
        ) from error
    return transformers, configuration_auto, modeling_auto


def _maker(config: ModelConfig, kind: str, bounds: _Bounds) -> Any:
    """What builds the model, anew at each call."""
    transformers, configurations, models = transformers_modules()
    kinds = "CAUSAL_LM" if kind == CAUSAL_LM else "IMAGE_CLASSIFICATION"
    table = getattr(models, f"MODEL_FOR_{kinds}_MAPPING_NAMES")
    own = one_line(config.model_type, 80)
    if own in _OF_OTHERS or own not in configurations.CONFIG_MAPPING_NAMES:
        raise ObjectiveError(
            f"{config.path}: model_type {own!r} is none of transformers {transformers.__version__}'s own; give "
            "--objective FILE.py:NAME."
        )
    if own not in table:
        raise ObjectiveError(f"{config.path}: transformers has no class for --objective {kind} of model_type {own!r}.")
    classes = (table[own],) if isinstance(table[own], str) else tuple(table[own])
    name = next((each for each in config.architectures if each in classes), None)
    if config.architectures and name is None:
        raise ObjectiveError(
            f"{config.path}: is of {one_line(some_of(config.architectures), 200)}; --objective {kind} is of "
            f"{' or '.join(classes)}. Give --objective FILE.py:NAME."
        )
    entries = {key: value for key, value in config.entries.items() if key != "model_type"}

    def make(dtype: torch.dtype) -> Any:
        with _failures(config), _offline(), bounds.watched(), _quiet(transformers):
            settings = configurations.CONFIG_MAPPING[own](**entries)
            settings.use_cache = False
            module = configurations.model_type_to_module_name(own)
            found = getattr(importlib.import_module(f"transformers.models.{module}"), name or classes[0])
            with _without_initial_values():
                model = found._from_config(settings, dtype=dtype)
            model.tie_weights()
            if kind == CAUSAL_LM and getattr(model, "loss_type", "") is None:
                model.loss_type = "ForCausalLM"  # what is taken without a name too, with a warning
            return model

    return make


@contextlib.contextmanager
def _failures(config: ModelConfig) -> Iterator[None]:
    """Whatever goes wrong in a model of strange numbers is said of its config.json."""
    try:
        yield
    except ObjectiveError:
        raise
    except Exception as error:
        sizes = f" Its {some_of(config.too_large)} can be no size in this archive." if config.too_large else ""
        raise ObjectiveError(
            f"{config.path}: the model cannot be made from it: {type(error).__name__}: {one_line(error, 300)}.{sizes}"
        ) from error


class _Bounds:
    """How many modules, parameters and elements a model of so many tensors may have while it is built."""

    def __init__(self, tensors: int, elements: int) -> None:
        # a parameter that is tied, or made by a layer and replaced, counts twice
        self._most = {
            "parameters": 2 * tensors + 100,
            "elements of parameters": 2 * elements + (1 << 16),
            "elements of buffers": max(4 * elements, _BUFFERS),
            "modules": 50 * tensors + 10_000,
        }
        self._count: dict[str, int] = {}

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        self._count = dict.fromkeys(self._most, 0)
        hooks = (
            register_module_parameter_registration_hook(self._parameter),
            register_module_buffer_registration_hook(self._buffer),
            register_module_module_registration_hook(self._module),
        )
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _parameter(self, module: nn.Module, name: str, value: Tensor | None) -> None:
        if value is not None:
            self._add("parameters", 1)
            self._add("elements of parameters", value.numel())

    def _buffer(self, module: nn.Module, name: str, value: Tensor | None) -> None:
        if value is not None:
            self._add("elements of buffers", value.numel())

    def _module(self, module: nn.Module, name: str, value: nn.Module | None) -> None:
        self._add("modules", 1)

    def _add(self, what: str, count: int) -> None:
        self._count[what] += count
        if self._count[what] > self._most[what]:
            raise ValueError(f"more than {self._most[what]:,} {what}, and the archive's tensors warrant no more")


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """What asks the hub for a file is told that there is no network."""
    from huggingface_hub import constants

    with value_for_a_while(constants, "HF_HUB_OFFLINE", True):
        yield


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without its remarks on the configuration."""
    level = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.utils.logging.set_verbosity(level)


@contextlib.contextmanager
def _without_initial_values() -> Iterator[None]:
    """Parameters as they come: every one of them is the run's at each evaluation."""
    try:
        from transformers.initialization import no_init_weights
    except ImportError:  # another version: initial values are drawn for nothing
        yield
        return
    with no_init_weights():
        yield
