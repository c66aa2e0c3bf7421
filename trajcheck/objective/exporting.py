"""Write `objective.json`: the loss program loss(model, batch), exported by torch once, from the model as it is.

What is traced is a copy of the model without weights and without the Recorder's hook, under fake tensors: nothing is
computed, and weights, gradients, buffers, modes and random streams of the training are not touched. What the file
holds are torch's own operations; names of files, lines of source and classes do not get into it.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
import logging
import random
import time
import types
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from trajcheck.errors import ObjectiveError
from trajcheck.files.opening import read_bytes
from trajcheck.files.tensor_writing import write_tensors
from trajcheck.files.torch_tensors import storable
from trajcheck.files.whole_files import write_bytes
from trajcheck.objective.devices import devices_of
from trajcheck.objective.exported import constant_checksum, loaded
from trajcheck.objective.file import Loss, LossProgram, describe
from trajcheck.objective.full_precision import evaluation
from trajcheck.objective.module_modes import modes_of, set_modes
from trajcheck.objective.program.arguments import Misfit
from trajcheck.objective.program.sizes import Requirements, Unwritable
from trajcheck.objective.program.stored import (
    CONSTANTS,
    FORMAT,
    MOST_CONSTANTS,
    MOST_JSON,
    Facts,
    check_facts,
    checksum,
)
from trajcheck.objective.program.writing import Writer
from trajcheck.objective.sample import process_generators_untouched
from trajcheck.readable import size_text
from trajcheck.runs.batch_flattening import flatten
from trajcheck.runs.batch_tree import nodes_of
from trajcheck.runs.modes import Modes
from trajcheck.version import __version__

#: Where model and loss stand in the module that is traced.
MODEL, LOSS = "model", "loss"


@dataclass(frozen=True)
class Exported:
    """What was written: bytes of the files, seconds it took, whether sizes of the batch may differ, what it says."""

    bytes: int
    seconds: float
    dynamic: bool
    facts: Facts


def export_objective(
    path: Path,
    model: nn.Module,
    loss: Loss,
    batch: Any,
    *,
    autocast: str | None = None,
    modes: Modes | None = None,
    golden: Callable[[LossProgram], Facts | None] = lambda program: None,
) -> Exported:
    """Export loss(model, batch), [] floating, into the file `path`, which appears whole or not at all, and after
    the file beside it that holds its tensors.

    Sizes of the batch's tensors stay open where the program allows it; where it cannot be exported so, they are those
    of `batch`. `modes` are those of its modules that are exported; None: as they are. `autocast` is noted: the
    program is exported without it, as everything is replayed. `golden` gets the program as it is loaded again, and
    returns its golden value (exported_check.py).
    Errors: ObjectiveError, in one line, for a program that torch cannot export, that uses what the file has no words
    for, or whose replay would be wrong; OSError.
    """
    started = time.perf_counter()
    model = _unwrapped(model)
    tensors, tree = flatten(batch)
    if nodes_of(tree, "nested"):
        raise ObjectiveError("the batch holds a nested tensor, which an exported program cannot take")
    modes = modes_of(model) if modes is None else modes
    with _conditions(model):
        written, dynamic = _exported(model, loss, batch, tensors, modes)
    stored = written.tensors(model)
    facts: Facts = {
        "format": FORMAT,
        "checksum": "",
        "torch": torch.__version__,
        "trajcheck": __version__,
        "parameters": [
            {
                "name": name,
                "shape": list(p.shape),
                "dtype": str(p.dtype).removeprefix("torch."),
                "trainable": p.requires_grad,
            }
            for name, p in model.named_parameters()
        ],
        "aliases": _aliases(model),
        "tensors": sorted(stored),
        "constants": None,
        "batch": _inputs(written.inputs, tensors, nodes_of(tree, "array")),
        "batch_tree": tree,
        "dynamic": dynamic,
        "autocast": autocast,
        "modes": dict(modes),
        "reference": None,
        "requires": written.requires,
        "nodes": written.nodes,
        "output": written.output,
    }
    facts = json.loads(json.dumps(facts, allow_nan=False))
    try:
        check_facts({**facts, "checksum": checksum(facts)})  # what cannot be read again is not worth writing
    except Misfit as error:
        raise ObjectiveError(f"the program cannot be stored: {error}") from error
    facts["reference"] = golden(loaded(facts, stored, path))
    size = 0
    if stored:
        beside = write_tensors(path.with_name(CONSTANTS), stored, {"format": FORMAT})
        data = read_bytes(beside, MOST_CONSTANTS)
        size = len(data)
        facts["constants"] = {"bytes": size, "sha256": hashlib.sha256(data).hexdigest()}
    facts["checksum"] = checksum(facts)
    text = json.dumps(facts, allow_nan=False, separators=(",", ":")).encode()
    try:
        if max(len(text) - MOST_JSON, size - MOST_CONSTANTS) > 0:
            raise ObjectiveError(
                f"the program takes {size_text(len(text))} and its tensors {size_text(size)}: too much"
            )
        write_bytes(path, text)
    except BaseException:
        path.with_name(CONSTANTS).unlink(missing_ok=True)
        raise
    return Exported(len(text) + size, time.perf_counter() - started, dynamic, facts)


@dataclass(frozen=True)
class _Written:
    """A traced program in nodes, with the nodes of torch's graph that stand for the batch's tensors."""

    nodes: list[Any]
    output: Any
    requires: list[Any]
    inputs: list[fx.Node]
    taken: dict[tuple[str, str], Tensor]  # tensors that are no parameters, by kind and name

    def tensors(self, model: nn.Module) -> dict[str, Tensor]:
        """What objective.safetensors holds: the model's buffers, and what else the program takes, by KIND/NAME."""
        buffers = {("buffer", name): buffer for name, buffer in model.named_buffers() if storable(buffer)}
        found = {}
        for (kind, name), tensor in {**self.taken, **buffers}.items():
            if not storable(tensor):
                raise ObjectiveError(f"the loss takes the {kind} {name}, which no file can hold")
            found[f"{kind}/{name}"] = tensor.detach().cpu().contiguous()
        return found


class _Program(nn.Module):
    """f as a function of the batch's tensors alone."""

    def __init__(self, model: nn.Module, loss: Loss, batch: Any, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.model = model
        if isinstance(owner := _owner(loss), nn.Module) and owner is not model:
            self.loss = owner
        originals = list(tensors.values())

        def evaluate(inputs: list[Tensor]) -> Any:
            # A batch of the same classes: deepcopy replaces what its memo knows.
            memo: dict[int, Any] = {}
            for original, own in zip(originals, inputs, strict=True):
                memo.setdefault(id(original), own)
            return loss(model, copy.deepcopy(batch, memo))

        self._evaluate = evaluate

    def forward(self, inputs: list[Tensor]) -> Any:
        value = self._evaluate(inputs)
        if isinstance(value, tuple) and len(value) == 2:  # (value, count): a data set's batches weigh by the count
            value = value[0]
        if not isinstance(value, Tensor) or value.ndim or not value.is_floating_point():
            shape = f" of shape {tuple(value.shape)}, {value.dtype}" if isinstance(value, Tensor) else ""
            raise ObjectiveError(f"the loss is a {type(value).__name__}{shape}; expected a floating scalar tensor")
        return value


def _exported(
    model: nn.Module, loss: Loss, batch: Any, tensors: Mapping[str, Tensor], modes: Modes
) -> tuple[_Written, bool]:
    """The program and whether sizes are open. On the CPU where that works: constants are then not copied twice."""
    own = next(iter(model.parameters())).device
    places = [torch.device("cpu")] if own.type == "cpu" else [torch.device("cpu"), own]
    failure: Exception | None = None
    for dynamic in (True, False):
        for place in places:
            try:
                with _streams_watched():
                    program = _trace(model, loss, batch, tensors, place, dynamic, modes)
                return _written(program, len(tensors)), dynamic
            except Unwritable as error:  # which sizes are possible; of one batch's own it can be said
                failure = error
            except ObjectiveError:
                raise
            except Exception as error:
                failure = error
    assert failure is not None
    if isinstance(failure, Unwritable):
        raise failure
    raise ObjectiveError(f"torch.export cannot trace the loss: {_first_line(failure)}") from failure


def _written(program: ExportedProgram, inputs: int) -> _Written:
    """The nodes of a traced program. Raises ObjectiveError for one that depends on no parameter, or uses what a program
    has no words for."""
    sources: dict[str, tuple[str, str]] = {}
    tensors: dict[tuple[str, str], Tensor] = {}
    for spec in program.graph_signature.input_specs:
        if spec.target is None:
            continue
        owner, _, rest = spec.target.partition(".")
        kind = "constant" if spec.kind.name == "CONSTANT_TENSOR" else spec.kind.name.lower()
        if kind != "constant" and owner == LOSS:
            kind = "loss"
        source = sources[spec.target] = (kind, spec.target if kind == "constant" else rest)
        if kind != "parameter":
            known = program.state_dict if spec.target in program.state_dict else program.constants
            tensors[source] = known[spec.target]
    module = program.module()
    assert isinstance(module, fx.GraphModule)
    writer = Writer(module, sources)
    if not any(kind == "parameter" for kind, _ in writer.taken):
        raise ObjectiveError(
            "the loss depends on no parameter of the model that it is given; write it as a function of its arguments: "
            "loss(model, batch)"
        )
    placeholders = [node for node in program.graph_module.graph.nodes if node.op == "placeholder"][-inputs or None :]
    requires = Requirements(program, placeholders[:inputs])
    taken = {source: tensors[source] for source in writer.taken if source[0] != "parameter"}
    return _Written(writer.nodes, writer.output, requires.nodes, placeholders[:inputs], taken)


def _trace(
    model: nn.Module,
    loss: Loss,
    batch: Any,
    tensors: Mapping[str, Tensor],
    place: torch.device,
    dynamic: bool,
    modes: Modes,
) -> ExportedProgram:
    trained = {p.untyped_storage().data_ptr() for p in model.parameters() if p.numel()}
    model, loss = _copies(model, loss, place)
    set_modes(model, modes)
    # Nothing is computed, so nothing is in them: memory is asked for, and never touched.
    inputs = [torch.empty(t.shape, dtype=t.dtype, device=place) for t in tensors.values()]
    sizes = [{i: torch.export.Dim.AUTO for i in range(t.ndim)} for t in inputs] if dynamic else None
    shapes = None if sizes is None else (sizes,)
    with _functions_refused():
        program = torch.export.export(
            _Program(model, loss, batch, tensors), (inputs,), dynamic_shapes=shapes, strict=False
        )
    for name, tensor in program.constants.items():
        if not isinstance(tensor, Tensor) or type(tensor) not in (Tensor, nn.Parameter):
            raise ObjectiveError(f"the loss holds a {type(tensor).__name__} ({name}), which the file cannot")
        if tensor.untyped_storage().data_ptr() in trained:
            raise ObjectiveError(
                "the loss takes parameters from elsewhere than from the model that it is given, and they would be "
                "constants; write it as a function of its arguments: loss(model, batch)"
            )
    return program


def _copies(model: nn.Module, loss: Loss, place: torch.device) -> tuple[nn.Module, Loss]:
    """Copies of model and loss on `place`: the model's parameters without values, all other tensors with theirs."""
    memo: dict[int, Any] = {}
    for name, p in model.named_parameters():
        if type(p) is not nn.Parameter or type(p.data) is not Tensor:
            kind = type(p.data) if type(p) is nn.Parameter else type(p)
            raise ObjectiveError(f"the parameter {name} is a {kind.__name__}, which cannot be exported")
        memo[id(p)] = nn.Parameter(torch.empty(p.shape, dtype=p.dtype, device=place), requires_grad=p.requires_grad)
    owner = _owner(loss)
    for root in (model, owner) if isinstance(owner, nn.Module) else (model,):
        for p in root.parameters():
            if id(p) not in memo:
                memo[id(p)] = nn.Parameter(p.detach().to(place, copy=True), requires_grad=False)
        plain = [value for module in root.modules() for value in vars(module).values() if isinstance(value, Tensor)]
        for tensor in [*root.buffers(), *plain]:
            memo.setdefault(id(tensor), tensor.detach().to(place, copy=True))
    copied = copy.deepcopy(model, memo)
    _bare(copied)
    if not isinstance(owner, nn.Module):
        return copied, loss
    own = copy.deepcopy(owner, memo)
    _bare(own)
    return copied, own if loss is owner else types.MethodType(getattr(loss, "__func__"), own)  # noqa: B009


def _bare(model: nn.Module) -> None:
    """Without backward hooks, torch.compile and the autocast that Accelerate puts around a model's forward; the
    Recorder's own hook is idle in a copy (see ForwardHook)."""
    for module in model.modules():
        for name, child in list(module._modules.items()):
            if child is not None:
                module._modules[name] = _unwrapped(child)
    for module in model.modules():
        module._backward_hooks.clear()
        module._backward_pre_hooks.clear()
        module._compiled_call_impl = None
        if "_original_forward" in vars(module):
            module.forward = vars(module).pop("_original_forward")


def _unwrapped(model: nn.Module) -> nn.Module:
    """The model inside DistributedDataParallel, DataParallel and torch.compile."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def _owner(loss: Loss) -> Any:
    return loss if isinstance(loss, nn.Module) else getattr(loss, "__self__", None)


@contextmanager
def _conditions(model: nn.Module) -> Iterator[None]:
    """Full precision, no autocast, gradients on, all random streams given back, and nothing printed."""
    device = next(iter(model.parameters())).device
    with ExitStack() as stack:
        for each in devices_of(model) or [torch.device("cpu")]:
            stack.enter_context(process_generators_untouched(each))
        stack.enter_context(evaluation(device, None))
        for kind in {"cpu", device.type}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(_torch_silent())
        yield


@contextmanager
def _torch_silent() -> Iterator[None]:
    """No warnings, no prints and no log lines of torch's, which may show source: what fails is said in one line."""

    def nothing(record: logging.LogRecord) -> bool:
        return False

    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "torch"]
    handlers = {handler for name in names for handler in logging.getLogger(name).handlers}
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        for handler in handlers:
            handler.addFilter(nothing)
        try:
            yield
        finally:
            for handler in handlers:
                handler.removeFilter(nothing)


@contextmanager
def _streams_watched() -> Iterator[None]:
    """ObjectiveError where something draws real random numbers: the graph would repeat them for ever."""

    def states() -> tuple[Any, ...]:
        name, *rest = np.random.get_state()
        return random.getstate(), name, np.asarray(rest[0]).tobytes(), rest[1:], torch.get_rng_state().numpy().tobytes()

    before = states()
    yield
    if states() != before:
        raise ObjectiveError("the loss draws from Python's or numpy's random stream, which an exported program cannot")


@contextmanager
def _functions_refused() -> Iterator[None]:
    """ObjectiveError for a torch.autograd.Function: tracing keeps its forward and loses its backward."""

    def apply(cls: type, *args: Any, **kwargs: Any) -> Any:
        if (cls.__module__, cls.__name__) == ("torch.utils.checkpoint", "_NoopSaveInputs"):
            return before.__func__(cls, *args, **kwargs)  # what torch before 2.9 marks a checkpoint with
        raise ObjectiveError(
            f"the loss uses {cls.__name__}, a torch.autograd.Function, and torch.export keeps no backward of its own"
        )

    function = torch.autograd.Function
    before: Any = function.__dict__["apply"]
    setattr(function, "apply", classmethod(apply))  # noqa: B010
    try:
        yield
    finally:
        setattr(function, "apply", before)  # noqa: B010


def _inputs(nodes: list[fx.Node], tensors: Mapping[str, Tensor], arrays: Collection[str]) -> list[dict[str, Any]]:
    """The batch's tensors in the program's order; None is a size that may differ."""
    return [
        {
            "path": path,
            "shape": [int(str(size)) if str(size).isdecimal() else None for size in node.meta["val"].shape],
            "floating": tensor.is_floating_point(),
            # what the loss does with a numpy array is no part of the graph: it is a constant of the program
            **({"constant": constant_checksum(tensor)} if path in arrays else {}),
        }
        for (path, tensor), node in zip(tensors.items(), nodes, strict=True)
    ]


def _aliases(model: nn.Module) -> dict[str, str]:
    """Second names of tied parameters and shared buffers -> the first."""
    first: dict[int, str] = {}
    aliases = {}
    for named in (model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)):
        for name, tensor in named:
            if first.setdefault(id(tensor), name) != name:
                aliases[name] = first[id(tensor)]
    return aliases


def _first_line(error: BaseException) -> str:
    return describe(error, None)[:300]
