"""Read `objective.pt2`: the loss program that a Recorder exported, replayed without the code that trained.

The file holds a graph of torch's own operations, f(parameters, buffers, batch), and no weights: in their place stand
scalars expanded to the parameters' shapes. Loaded, it looks like what an objective file's NAME() returns, a module with
the run's parameters and buffers and a loss(model, batch), so that everything else is said once, in objective.py.

torch reads such files with sympy's parser and looks operators up by name, so a file made to do harm can run code; one
that holds pickles, compiled code or script objects, which the Recorder never writes, is refused before torch sees it.
"""

from __future__ import annotations

import io
import logging
import warnings
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from trajcheck.errors import ObjectiveError, RecorderError
from trajcheck.files.plain_json import parse_json
from trajcheck.files.torch_tensors import FLOATING, as_bytes
from trajcheck.objective.file import LossProgram, Traits, describe
from trajcheck.objective.precision import Casts, bits, floating_dtypes
from trajcheck.runs.batch_flattening import flatten
from trajcheck.runs.formats.stored_run import PROGRAM
from trajcheck.runs.modes import Modes

FILE = PROGRAM
FORMAT = 1

#: The entry of the archive that holds the facts, and where the parts of the program stand in the exported module.
FACTS = "trajcheck.json"
MODEL, LOSS = "model", "loss"

Facts = dict[str, Any]


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

    def place(self, name: str, tensor: Tensor) -> None:
        """Register a parameter or buffer under its dotted name."""
        path, _, last = name.rpartition(".")
        owner = self.container(path)
        owner._parameters.pop(last, None)
        owner._buffers.pop(last, None)
        if isinstance(tensor, nn.Parameter):
            owner.register_parameter(last, tensor)
        else:
            owner.register_buffer(last, tensor)

    def container(self, path: str) -> nn.Module:
        """The submodule with this dotted name, made where there is none."""
        owner: nn.Module = self
        for part in filter(None, path.split(".")):
            if part not in owner._modules:
                owner.add_module(part, Weightless())
            owner = owner.get_submodule(part)
        return owner


class ExportedModel(Weightless):
    """The parameters and buffers of an exported program, under the names that they had in the model."""

    traits: Traits
    modes: Modes  # of the model when it was exported


def weightless(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Zeros of the tensor's shape and dtype that take the memory of one."""
    one = torch.zeros((1,) * tensor.ndim, dtype=tensor.dtype, device=device)
    return one.expand(tensor.shape) if tensor.numel() else torch.empty(tensor.shape, dtype=tensor.dtype, device=device)


class ExportedLoss(nn.Module):
    """loss(model, batch) of an exported program; `model` must be the ExportedModel that came with it."""

    def __init__(self, graph: fx.GraphModule, model: ExportedModel, state: nn.Module, facts: Facts, path: Path) -> None:
        super().__init__()
        self.state = state  # tensors of a loss that is itself a module
        # In tuples, out of nn.Module's sight: the model's tensors must be found under one name only.
        self._held = (graph, model)
        self._facts, self._path = facts, path
        self._exported = [p.dtype for p in model.parameters()]
        self._target = _Target(graph, floating_dtypes(list(model.parameters())))

    def forward(self, model: nn.Module, batch: Any) -> Any:
        graph, own = self._held
        assert model is own
        tensors = self._tensors(batch)
        now = [p.dtype for p in model.parameters()]
        dtype = None if now == self._exported else min(set(now) & set(FLOATING), key=bits)
        self._target.set(next(model.parameters()).device, dtype)
        # Not graph(...), whose handler of errors prints the graph's code.
        return nn.Module.__call__(graph, tensors)

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


class _Target:
    """The device and the dtypes that are written into a graph: where it makes tensors, and where it converts them.

    `own` are the dtypes that the parameters had when the program was exported; the rules are those of `Casts`.
    """

    def __init__(self, graph: fx.GraphModule, own: Collection[torch.dtype]) -> None:
        self._own = own
        self._now: tuple[torch.device, torch.dtype | None] = (torch.device("cpu"), None)
        self._modules = [module for module in graph.modules() if isinstance(module, fx.GraphModule)]
        self._nodes = [(node, node.args, node.kwargs) for module in self._modules for node in module.graph.nodes]
        self._constants = [(module, name, value) for _, module, name, value in _constants(graph)]

    def set(self, device: torch.device, dtype: torch.dtype | None) -> None:
        """`dtype`: the one that all parameters have now, None where each has its own."""
        if (device, dtype) == self._now:
            return
        casts = Casts(self._own, dtype)

        def converted(found: torch.dtype) -> torch.dtype:
            return casts.dtype(found) if found in FLOATING or found.is_complex else found

        def written(value: Any) -> Any:
            if isinstance(value, torch.device):
                return device
            return converted(value) if isinstance(value, torch.dtype) else value

        def placed(value: Any) -> Any:
            return device if isinstance(value, torch.device) else value

        for node, args, kwargs in self._nodes:
            # a view reads the same bytes as another dtype, and is no conversion
            change = placed if node.target is torch.ops.aten.view.dtype else written
            node.args = fx.node.map_aggregate(args, change)
            node.kwargs = fx.node.map_aggregate(kwargs, change)
        for module in self._modules:
            module.recompile()
        for owner, name, constant in self._constants:
            setattr(owner, name, constant.to(device, converted(constant.dtype)))
        self._now = (device, dtype)


def constant_checksum(tensor: Tensor) -> int:
    """crc32 of a tensor's numbers, the same in a wider dtype."""
    wide = tensor.detach().cpu()
    return zlib.crc32(as_bytes((wide.double() if wide.dtype in FLOATING else wide).contiguous()))


def _constants(graph: fx.GraphModule) -> list[tuple[str, nn.Module, str, Tensor]]:
    """(path of the module, module, name, tensor) of all that is no parameter and no buffer of model or loss."""
    found = []
    for path, module in graph.named_modules():
        tensors = {name: value for name, value in vars(module).items() if isinstance(value, Tensor)}
        if path.partition(".")[0] not in (MODEL, LOSS):
            tensors |= {name: value for name, value in module._buffers.items() if value is not None}
        found += [(path, module, name, value) for name, value in tensors.items()]
    return found


def load_exported(path: Path) -> tuple[LossProgram, Facts]:
    """The program in `path`, and the facts stored with it.

    Errors: ObjectiveError for a file that is missing, damaged, not the Recorder's, or that this torch cannot load.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ObjectiveError(
            f"{path}: no exported objective ({error.strerror}). The run was recorded without Recorder(objective=...), "
            "or the export failed; give an objective file: --objective FILE.py:NAME"
        ) from error
    return from_bytes(data, path)


def from_bytes(data: bytes, path: Path) -> tuple[LossProgram, Facts]:
    """`load_exported` of a file's content."""
    facts = _inspect(data, path)
    reasons: list[str] = []
    try:
        with warnings.catch_warnings(), _quiet(reasons):
            warnings.simplefilter("ignore")
            graph = torch.export.load(io.BytesIO(data)).module()
    except Exception as error:
        versions = f"It was exported by torch {facts['torch']}, this is torch {torch.__version__}"
        raise ObjectiveError(
            f"{path}: torch cannot load the program ({reasons[0] if reasons else describe(error, None)}). {versions}: "
            "use that version, or an objective file (--objective FILE.py:NAME)"
        ) from error
    try:
        return _program(graph, facts, path), facts
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, f"the program does not have what {FACTS} says ({describe(error, None)})") from error


def _program(graph: fx.GraphModule, facts: Facts, path: Path) -> LossProgram:
    model, state = ExportedModel(), Weightless()
    graph_tensors = {**dict(graph.named_parameters()), **dict(graph.named_buffers())}
    for entry in facts["parameters"]:
        like = torch.empty(entry["shape"], dtype=getattr(torch, entry["dtype"]), device="meta")
        model.place(entry["name"], nn.Parameter(weightless(like, "cpu"), requires_grad=entry["trainable"]))
    for name, tensor in graph_tensors.items():
        owner, _, rest = name.partition(".")
        if owner == MODEL and rest and not isinstance(tensor, nn.Parameter):
            model.place(rest, tensor)
        elif owner == LOSS and rest:
            state.place(rest, tensor.detach())
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for alias, name in facts["aliases"].items():
        model.place(alias, tensors[name])
    for module_path, _, name, value in _constants(graph):
        owner, _, rest = module_path.partition(".")
        if owner in (MODEL, LOSS):
            setattr((model if owner == MODEL else state).container(rest), name, value)
    graph.add_module(MODEL, model)
    if LOSS in graph._modules:
        graph.add_module(LOSS, state)
    model.traits, model.modes = _traits(graph), facts.get("modes") or {}
    return LossProgram(None, model, ExportedLoss(graph, model, state, facts, path))


def _traits(graph: fx.GraphModule) -> Traits:
    """`traits_of`, where there are operators instead of modules."""
    calls = [node for each in graph.modules() if isinstance(each, fx.GraphModule) for node in each.graph.nodes]
    names = {str(node.target): node for node in calls if node.op == "call_function"}
    recurrent = [node for name, node in names.items() if name.startswith(("aten.lstm.", "aten.gru.", "aten.rnn_"))]
    dropout = any(isinstance(arg, float) and arg > 0 for node in recurrent for arg in node.args)
    return Traits(bool(recurrent), dropout, any("embedding_renorm" in name for name in names))


def _inspect(data: bytes, path: Path) -> Facts:
    """The facts, read without torch, once the archive is whole and holds nothing that would be unpickled or run."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            packed = [entry.filename for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]
            if packed:  # a few bytes could unpack to any number
                raise _damaged(path, f"{packed[0]} is compressed, which no Recorder writes")
            if broken := archive.testzip():
                raise _damaged(path, f"the checksum of {broken} is wrong")
            found = [name for name in archive.namelist() if name.rpartition("/")[2] == FACTS]
            if not found:
                raise _damaged(path, f"it has no {FACTS}, so no Recorder wrote it")
            facts = parse_json(archive.read(found[0]).decode())
            for name in archive.namelist():
                if reason := _dangerous(name, archive):
                    raise ObjectiveError(
                        f"{path}: {name} {reason}. The Recorder writes no such thing, and the file is not loaded"
                    )
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError, AttributeError) as error:
        raise _damaged(path, f"it is not a whole .pt2 archive ({error})") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        found_format = facts.get("format") if isinstance(facts, dict) else facts
        raise ObjectiveError(
            f"{path}: its format is {found_format!r:.40}; this trajcheck reads format {FORMAT}. Use a newer trajcheck"
        )
    if lacking := {"torch", "parameters", "aliases", "batch", "batch_tree", "reference"} - facts.keys():
        raise _damaged(path, f"{FACTS} lacks {_listed(lacking)}")
    modes = facts.get("modes", {})
    if not isinstance(modes, dict) or not all(mode in ("train", "eval") for mode in modes.values()):
        raise _damaged(path, f"its modes are {modes!r:.60}; expected an object of train and eval")
    return facts


def _dangerous(name: str, archive: zipfile.ZipFile) -> str:
    """Why an entry of the archive must not reach torch.export.load; "" where it may."""
    file = name.rpartition("/")[2]
    if "aotinductor/" in name or file.startswith(("custom_obj_", "opaque_obj_")):
        return "holds compiled code or an object of another class"
    if ("sample_inputs/" in name or "example_inputs" in file) and archive.getinfo(name).file_size:
        return "holds pickled inputs"
    if file.endswith("_config.json"):
        entries = parse_json(archive.read(name).decode()).get("config", {}).values()
        if any(entry.get("use_pickle") is not False for entry in entries):
            return "asks for unpickling"
    return ""


def _damaged(path: Path, what: str) -> ObjectiveError:
    return ObjectiveError(f"{path}: {what}. Restore the file, or give an objective file: --objective FILE.py:NAME")


@contextmanager
def _quiet(reasons: list[str]) -> Iterator[None]:
    """torch.export.load logs the real error with its traceback, and raises another: collect the former."""

    def collect(record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1] is not None:
            reasons.append(describe(record.exc_info[1], None))
        return False

    logger = logging.getLogger("torch.export")
    logger.addFilter(collect)
    try:
        yield
    finally:
        logger.removeFilter(collect)


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
