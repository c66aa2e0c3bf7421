"""Recording a loop that nobody edits: `with trajcheck.record("runs/mnist", every=10): train()`.

torch's global hooks show which optimizers step; the garbage collector knows the optimizers and modules that live. An
optimizer is attached to its module, with a LoopWatch, when the first forward in training mode of a module with its
parameters begins, or else at its first step. Then hooks on that module stand in for the global ones, which go as soon
as every live optimizer is attached: they would cost every call of every module, and torch.compile does not like them.
"""

from __future__ import annotations

import gc
import threading
import warnings
import weakref
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_pre_hook

from trajcheck.errors import RecorderError, TrajcheckError
from trajcheck.recording.arguments import check_options, check_windows, one_schedule
from trajcheck.recording.failures import announce, brief, to_nobody, to_stderr
from trajcheck.recording.outside_graphs import outside_graphs
from trajcheck.recording.recorder import Recorder
from trajcheck.recording.unedited_loop.attached_optimizers import AttachedOptimizers
from trajcheck.recording.unedited_loop.compiled_in_place import CompiledInPlace
from trajcheck.recording.unedited_loop.live_objects import live_optimizers, one_walk, owner_of, parameters_of
from trajcheck.recording.unedited_loop.updates_seen import UpdatesSeen

#: torch's warning that a global hook is called for a compiled module and for what is inside, which is passed over here.
COMPILED = r"Using `torch\.compile\(module\)` when there are global hooks"

_LOCK = threading.RLock()
_running: list[LoopRecording] = []


def record(path: str | Path, **options: Any) -> LoopRecording:
    """A context that records every optimizer which steps inside it; the loop stays as it is.

        with trajcheck.record("runs/mnist", every=10):
            train()

    Options are those of trajcheck.Recorder. Optimizers of one model, Muon and AdamW, are recorded as one run. The first
    run is in `path`, and that of every further model, as in a GAN, in path/optimizer-2, path/optimizer-3. Seen are
    parameters, gradients, rates and the factor that clipping applied; the inputs of the model, as the batch; what
    backward() is called on, as the loss. Where the model returned that, or a multiple of it, or a loss module or a
    function of torch, nn.CrossEntropyLoss or F.cross_entropy, made it (the batch then is (inputs, targets)), its weight
    is known. What was not seen is said at the end, and in the run.

    Raises RecorderError for options that Recorder does not take, for a folder that holds a run, and inside another
    record(). What fails later stops the recording with one warning, and the loop goes on, unless `strict=True`.
    """
    check_options(Recorder, "record", options)
    if options.get("windows"):
        check_windows(one_schedule(options.get("schedule"), options.get("every")), options.get("total_steps"))
    return LoopRecording(Path(path), options)


class LoopRecording:
    """What record() returns: `runs` are the folders that are recorded into."""

    def __init__(self, path: Path, options: dict[str, Any]) -> None:
        self._path, self._options = path, options
        self._strict = bool(options.get("strict"))
        self._say = to_nobody if options.get("quiet") else to_stderr
        self._attached: weakref.WeakKeyDictionary[torch.optim.Optimizer, AttachedOptimizers | None]
        self._attached = weakref.WeakKeyDictionary()
        self._recordings: list[AttachedOptimizers] = []
        self._seen: weakref.WeakSet[nn.Module] = weakref.WeakSet()
        self._called: list[weakref.ref[nn.Module]] = []
        self._handles: list[Any] = []
        self._global_forward: Any = None
        self._filter: Any = None

    @property
    def runs(self) -> list[Path]:
        return [recording.path for recording in self._recordings]

    def __enter__(self) -> LoopRecording:
        with _LOCK:
            if _running:
                raise RecorderError(
                    f"record({str(self._path)!r}) inside record({str(_running[0]._path)!r}); one at a time records all "
                    "optimizers."
                )
            if self._handles or self._recordings:
                raise RecorderError(f"record({str(self._path)!r}) was entered before; call record() again.")
            if not self._options.get("start_step") and (self._path / "run.json").exists():
                raise RecorderError(
                    f"{self._path} already holds a run. Record into another folder, remove this one, or, if this job "
                    "goes on with that run, pass start_step= the number of updates made so far."
                )
            _running.append(self)
        warnings.filterwarnings("ignore", COMPILED)
        self._filter = warnings.filters[0]
        self._handles = [register_optimizer_step_pre_hook(outside_graphs(self._before_step))]
        self._global_forward = register_module_forward_pre_hook(self._before_forward)
        self._updates = UpdatesSeen()
        self._handles += [CompiledInPlace(self._before_compiled), self._updates]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _LOCK:
            for handle in [*self._handles, self._global_forward]:
                handle.remove()
            _running.remove(self)
            if self._filter in warnings.filters:
                cast(list[Any], warnings.filters).remove(self._filter)
        failures = []
        for recording in self._recordings:
            try:
                recording.close(kind, error, trace)
            except TrajcheckError as failure:
                failures.append(failure)
            self._say(recording.said())
        if not self._recordings and kind is None:
            said = f"{self._path}: no optimizer made a step, so nothing was recorded.{self._updates.said()}"
            announce(said, self._say, stacklevel=2)
        if failures:
            raise failures[0]

    def _before_forward(self, module: nn.Module, args: Any) -> None:
        """Seen of the outermost module first; what is inside it is passed over from then on."""
        if torch.compiler.is_compiling() or not torch.is_grad_enabled() or module in self._seen:
            return
        with _LOCK, one_walk():
            self._seen.update(module.modules())
            self._called.append(weakref.ref(module))
            owned = {id(parameter) for parameter in module.parameters() if parameter.requires_grad}
            if not owned:
                return
            gc.collect()  # an optimizer that nobody can reach any more holds nothing
            optimizers = live_optimizers()
            found = []
            for optimizer in optimizers:
                rivals = [parameters_of(other) for other in optimizers if other is not optimizer]
                own = parameters_of(optimizer).keys()
                if owned & own and optimizer not in self._attached and not any(own & other.keys() for other in rivals):
                    found.append(optimizer)
            self._attach(found, module)
            if not any(owned & parameters_of(optimizer).keys() for optimizer in optimizers):
                self._updates.forward(module)
            if optimizers and all(optimizer in self._attached for optimizer in optimizers):
                self._global_forward.remove()
                self._updates.remove()

    def _before_compiled(self, module: nn.Module) -> None:
        self._before_forward(module, ())

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if optimizer not in self._attached:
            with _LOCK, one_walk():
                self._attach([optimizer], None)
                self._updates.remove()
                if all(other in self._attached for other in live_optimizers()):
                    self._global_forward.remove()

    def _attach(self, optimizers: list[torch.optim.Optimizer], called: nn.Module | None) -> None:
        """Record optimizers from now on, those of one model as one run; `called` is the module whose forward begins,
        None at a step."""
        seen = [module for reference in self._called if (module := reference()) is not None]
        preferred = seen if called is None else [called, *seen]
        runs: dict[int, tuple[nn.Module | None, list[torch.optim.Optimizer]]] = {}
        for optimizer in optimizers:
            self._attached[optimizer] = None
            model = owner_of(parameters_of(optimizer), preferred)
            runs.setdefault(id(model), (model, []))[1].append(optimizer)
        for model, several in runs.values():
            try:
                recording = self._recording(model, several, called, seen)
                self._attached.update(dict.fromkeys(several, recording))
            except Exception as error:
                if self._strict:
                    raise
                names = " + ".join(type(optimizer).__name__ for optimizer in several)
                announce(f"{names} is not recorded, the loop goes on: {brief(error)}", self._say, stacklevel=4)

    def _recording(
        self,
        model: nn.Module | None,
        optimizers: list[torch.optim.Optimizer],
        called: nn.Module | None,
        seen: list[nn.Module],
    ) -> AttachedOptimizers:
        if model is None:
            raise RecorderError(
                "no torch.nn.Module has all the parameters that it holds, so they have no names. Put what is trained "
                "into one module, or make a Recorder."
            )
        number = len(self._recordings) + 1
        path = self._path if number == 1 else self._path / f"optimizer-{number}"
        own = {key for optimizer in optimizers for key in parameters_of(optimizer)}
        watched = _called_for(own, seen, model) if called is None else called
        recording = AttachedOptimizers(path, model, watched, optimizers, self._options, begun=called is not None)
        self._recordings.append(recording)
        return recording


def _called_for(own: set[int], seen: list[nn.Module], model: nn.Module) -> nn.Module:
    """The first module that was called and has any of these parameters, else the model."""
    return next((module for module in seen if any(id(p) in own for p in module.parameters())), model)
