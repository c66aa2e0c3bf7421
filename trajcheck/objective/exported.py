"""Read `objective.json`: the loss program that a Recorder exported, replayed without the code that trained.

The file holds a graph of torch's own operations, f(parameters, buffers, batch), as plain data (program/), and no
weights: in their place stand scalars expanded to the parameters' shapes. Loaded, it looks like what an objective file's
NAME() returns, a module with the run's parameters and buffers and a loss(model, batch), so that everything else is said
once, in objective.py. Nothing in it is executed but operators of a list of our own, so it may come from anybody.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trajcheck.errors import ObjectiveError, RecorderError, StepFileError
from trajcheck.files.complex_pairs import with_complex
from trajcheck.files.plain_json import parse_json
from trajcheck.files.safetensors_header import read_header
from trajcheck.files.torch_tensors import FLOATING, TORCH_DTYPES, as_bytes
from trajcheck.objective.file import LossProgram, Traits, describe
from trajcheck.objective.precision import Casts, bits, floating_dtypes
from trajcheck.objective.program.nodes import Checked, Step
from trajcheck.objective.program.running import Program, steps_of
from trajcheck.objective.program.signs import ANY, Range, lower_bound
from trajcheck.objective.program.stored import (
    CONSTANTS,
    FILE,
    Facts,
    checked_program,
    damaged,
    read_constants,
    read_facts,
)
from trajcheck.runs.batch_flattening import flatten
from trajcheck.runs.modes import Modes


class Weightless(nn.Module):
    """A module whose parameters are scalars, expanded: they have shape, dtype and device, and take no memory."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Weightless:
        parameters = dict(self._parameters)
        self._parameters.clear()
        super()._apply(fn, recurse)
        for name, parameter in parameters.items():
            assert parameter is not None
            one = fn(parameter.data[(slice(1),) * parameter.ndim])
            parameter.data = one.reshape(()).expand(parameter.shape) if one.numel() else one.reshape(parameter.shape)
            self._parameters[name] = parameter
        return self


def _place(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Register a parameter or buffer under its dotted name."""
    *path, last = name.split(".")
    owner = module
    for part in path:
        if part not in owner._modules:
            owner.add_module(part, Weightless())
        inner = owner._modules[part]
        assert inner is not None
        owner = inner
    owner._parameters.pop(last, None)
    owner._buffers.pop(last, None)
    if isinstance(tensor, nn.Parameter):
        owner.register_parameter(last, tensor)
    else:
        owner.register_buffer(last, tensor)


class ExportedModel(Weightless):
    """The parameters and buffers of an exported program, under the names that they had in the model."""

    exported_traits: Traits
    exported_modes: Modes  # of the model when it was exported


def weightless(shape: list[int], dtype: torch.dtype) -> Tensor:
    """Zeros that take the memory of one."""
    if 0 in shape:
        return torch.empty(shape, dtype=dtype)
    return torch.zeros((1,) * len(shape), dtype=dtype).expand(shape)


class ExportedLoss(nn.Module):
    """loss(model, batch) of an exported program; `model` must be the ExportedModel that came with it.

    `state` holds the tensors of a loss that is itself a module, `constants` all others that the program takes. Both
    are copied to where the replay is; nothing changes the constants.
    """

    def __init__(
        self,
        program: Program,
        model: ExportedModel,
        state: nn.Module,
        constants: Mapping[str, Tensor],
        facts: Facts,
        path: Path,
    ) -> None:
        super().__init__()
        self.state = state
        # In tuples, out of nn.Module's sight: the model's tensors must be found under one name only.
        self._held = (program, model)
        self._constants = (dict(constants), dict(constants))  # as they were stored, and as they are now
        self._facts, self._path = facts, path
        self._exported = [p.dtype for p in model.parameters()]
        self._own = floating_dtypes(list(model.parameters()))
        self._now: tuple[torch.device, torch.dtype | None] = (torch.device("cpu"), None)
        self._owners = {each: self._owner(*each) for each in program.checked.used if each[0] != "constant"}

    def forward(self, model: nn.Module, batch: Any) -> Any:
        program, own = self._held
        assert model is own
        tensors = self._tensors(batch)
        now = [p.dtype for p in model.parameters()]
        dtype = None if now == self._exported else min(set(now) & set(FLOATING), key=bits)
        self._set(next(model.parameters()).device, dtype)
        return program(tensors, self._source)

    def lower_bound(self) -> float:
        """What no loss is below, as far as the program itself tells; else -inf."""
        return lower_bound(self._held[0].checked.block, self._range)

    def _range(self, kind: str, name: str) -> Range:
        """That of a constant, or of a tensor of a loss that is a module, such as weights of classes."""
        if kind not in ("constant", "loss"):
            return ANY
        tensor = self._constants[0][name] if kind == "constant" else self._source(kind, name)
        if not tensor.numel() or tensor.is_complex():
            return ANY
        low, high = (float(each) for each in torch.aminmax(tensor.detach().double()))
        return Range(low, high) if low <= high else ANY  # NaN

    def _owner(self, kind: str, name: str) -> tuple[nn.Module, str]:
        path, _, last = name.rpartition(".")
        return (self.state if kind == "loss" else self._held[1]).get_submodule(path), last

    def _source(self, kind: str, name: str) -> Tensor:
        if kind == "constant":
            return self._constants[1][name]
        owner, last = self._owners[kind, name]
        found: Tensor = getattr(owner, last)
        return found

    def _set(self, device: torch.device, dtype: torch.dtype | None) -> None:
        """`dtype`: the one that all parameters have now, None where each has its own. The rules are those of `Casts`;
        `_own` are the dtypes that they had when the program was exported."""
        if (device, dtype) == self._now:
            return
        casts = Casts(self._own, dtype)

        def converted(found: torch.dtype) -> torch.dtype:
            return casts.dtype(found) if found in FLOATING or found.is_complex else found

        self._held[0].set(device, converted)
        stored, now = self._constants
        now |= {name: constant.to(device, converted(constant.dtype)) for name, constant in stored.items()}
        self._now = (device, dtype)

    def _tensors(self, batch: Any) -> list[Tensor]:
        """The batch's tensors in the program's order; ObjectiveError where the batch does not fit the program."""
        try:
            tensors, tree = flatten(batch)
        except RecorderError as error:
            raise self._misfit(str(error)) from error
        inputs = self._facts["batch"]
        expected = {entry["path"]: entry for entry in inputs}
        if tensors.keys() != expected.keys():
            raise self._misfit(f"its tensors are {_listed(tensors)}, those exported with {_listed(expected)}")
        if difference := _difference(self._facts["batch_tree"], tree):
            raise self._misfit(f"{difference}; what is no tensor is a constant of the program")
        for path, entry in expected.items():
            here, there = list(tensors[path].shape), entry["shape"]
            if len(here) != len(there) or any(size not in (None, here[i]) for i, size in enumerate(there)):
                takes = ", ".join("any" if size is None else str(size) for size in there)
                raise self._misfit(f"its tensor {path!r} has shape {here}, and the program takes [{takes}]")
            if tensors[path].is_floating_point() != entry["floating"]:
                kinds = {True: "floating", False: "not floating"}
                raise self._misfit(
                    f"its tensor {path!r} is {kinds[not entry['floating']]}, in the program {kinds[entry['floating']]}"
                )
            if entry.get("constant") not in (None, constant_checksum(tensors[path])):
                raise self._misfit(f"its array {path!r} has other numbers than in the export, where they are constants")
        return [tensors[entry["path"]] for entry in inputs]

    def _misfit(self, what: str) -> ObjectiveError:
        return ObjectiveError(
            f"{self._path}: the batch does not fit the program: {what}. An objective file (--objective FILE.py:NAME) "
            "may take any batch"
        )


def constant_checksum(tensor: Tensor) -> int:
    """crc32 of a tensor's numbers, the same in a wider dtype."""
    wide = tensor.detach().cpu()
    return zlib.crc32(as_bytes((wide.double() if wide.dtype in FLOATING else wide).contiguous()))


def load_exported(path: Path) -> tuple[LossProgram, Facts]:
    """The program in `path`, and the facts stored with it.

    Errors: ObjectiveError for a file that is missing, damaged or not the Recorder's, or of which a node is not what a
    program may hold.
    """
    facts = read_facts(path)
    return loaded(facts, _stored_tensors(facts, path), path), facts


def loaded(facts: Facts, tensors: Mapping[str, Tensor], path: Path) -> LossProgram:
    """The program of checked `facts` and of its tensors, by KIND/NAME. Raises ObjectiveError."""
    program = Program(checked_program(facts, path), str(path))
    try:
        return _program(program, tensors, facts, path)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        what = f"its parameters and buffers are not called as those of a model ({describe(error, None)})"
        raise damaged(path, what) from error


def _stored_tensors(facts: Facts, path: Path) -> dict[str, Tensor]:
    """Those of objective.safetensors, by KIND/NAME."""
    data, beside = memoryview(read_constants(facts, path)), path.with_name(CONSTANTS)
    tensors = {}
    try:
        if data:
            file = read_header(str(beside), "give an objective file: --objective FILE.py:NAME")
            file = with_complex(file, parse_json(file.metadata.get("trajcheck", "{}")))
            for name, spec in file.layout.specs.items():
                part = data[file.start + spec.begin : file.start + spec.end]
                dtype = TORCH_DTYPES[spec.dtype]
                empty = torch.empty(spec.shape, dtype=dtype)
                tensors[name] = torch.frombuffer(bytearray(part), dtype=dtype).reshape(spec.shape) if part else empty
    except (StepFileError, ValueError, AttributeError) as error:
        raise damaged(beside, f"it does not hold tensors ({error})") from error
    if tensors.keys() != set(facts["tensors"]):
        raise damaged(beside, f"it holds {_listed(tensors)[:80]}, and {FILE} says {_listed(facts['tensors'])[:80]}")
    return tensors


def _program(program: Program, tensors: Mapping[str, Tensor], facts: Facts, path: Path) -> LossProgram:
    model, state = ExportedModel(), Weightless()
    constants = {}
    for entry in facts["parameters"]:
        like = weightless(entry["shape"], getattr(torch, entry["dtype"]))
        _place(model, entry["name"], nn.Parameter(like, requires_grad=entry["trainable"]))
    for each, tensor in tensors.items():
        kind, _, name = each.partition("/")
        if kind == "constant":
            constants[name] = tensor
        else:
            _place(model if kind == "buffer" else state, name, tensor)
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for alias, name in facts["aliases"].items():
        _place(model, alias, named[name])
    model.exported_traits, model.exported_modes = _traits(program.checked), facts["modes"]
    return LossProgram(None, model, ExportedLoss(program, model, state, constants, facts, path))


def _traits(checked: Checked) -> Traits:
    """`traits_of`, where there are operators instead of modules."""
    steps = [step for step in steps_of(checked.block) if step.operator is not None]
    recurrent = [step for step in steps if step.op.startswith(("aten.lstm.", "aten.gru.", "aten.rnn_"))]
    dropout = any(_dropout(step) > 0 for step in recurrent)
    return Traits(bool(recurrent), dropout, any("embedding_renorm" in step.op for step in steps))


def _dropout(step: Step) -> float:
    assert step.operator is not None
    names = [argument.name for argument in step.operator.positional]
    given = {**dict(zip(names, step.args, strict=False)), **step.kwargs}
    return float(given["dropout"]) if isinstance(given.get("dropout"), int | float) else 0.0


def _difference(exported: Any, here: Any, where: str = "batch") -> str:
    """The first place at which two trees of a batch differ, in words; "" where they do not."""
    if exported == here:
        return ""
    if isinstance(exported, dict) and isinstance(here, dict) and exported.keys() == here.keys() and len(here) == 1:
        (kind,) = here
        a, b = exported[kind], here[kind]
        if kind == "value":
            return f"{where} is {b!r:.60}, and was {a!r:.60} when the program was exported"
        if kind == "dict" and isinstance(a, Mapping) and a.keys() == b.keys():
            return next(filter(None, (_difference(a[key], b[key], f"{where}[{key!r}]") for key in a)), "")
        if kind in ("list", "tuple") and len(a) == len(b):
            parts = enumerate(zip(a, b, strict=True))
            return next(filter(None, (_difference(x, y, f"{where}[{i}]") for i, (x, y) in parts)), "")
    return f"{where} is built of other containers than in the export"


def _listed(names: Any) -> str:
    return ", ".join(repr(name) for name in sorted(names)) or "none"
