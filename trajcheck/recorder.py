"""Recording a training loop: what one adds to it, and what becomes of each step.

    with Recorder("runs/gpt2", model, optimizer) as recorder:
        for batch in loader:
            loss = loss_fn(model, batch)
            loss.backward()
            recorder.observe(batch, loss)
            optimizer.step()
            optimizer.zero_grad()

The Recorder never changes training: it reads parameters, gradients and generator states and writes none of them.
Whatever fails inside it stops the recording with one warning, and training goes on; with `strict=True` it raises.
"""

from __future__ import annotations

import atexit
import functools
import math
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, cast

import torch

from trajcheck.errors import OutputError, RecorderError, TrajcheckError
from trajcheck.learning_time import Sums
from trajcheck.observations import Clip, Observations
from trajcheck.probe_batches import store_probe
from trajcheck.recorded_model import RecordedModel
from trajcheck.recorder_arguments import check_arguments, check_windows, one_schedule
from trajcheck.recorder_export import ObjectiveExport, check_loss
from trajcheck.recording import Recording
from trajcheck.run_folder import RunFolder, describe_optimizer, describe_versions
from trajcheck.sample_state import ForwardHook
from trajcheck.schedules import Budget, Schedule
from trajcheck.window_sums import Taken, WindowSums

Method = TypeVar("Method", bound=Callable[..., Any])


def _contained(method: Method) -> Method:
    """Nothing that goes wrong in the method reaches the training loop, unless recording is strict."""

    @functools.wraps(method)
    def wrapper(self: Recorder, *args: Any) -> Any:
        if not self.active:
            return None
        try:
            return method(self, *args)
        except Exception as error:
            self._fail(error)

    return cast(Method, wrapper)


class Recorder:
    """Records x_t, g_t, z_t and the optimizer's rates at scheduled steps into the folder `path`.

    Arguments:
        model, optimizer: what is trained; one optimizer, one process.
        objective: loss(model, batch) -> scalar tensor, exported once, at the first recorded batch, to objective.pt2, so
            that the run can be replayed without the code that trained it; where that fails, one warning says why. To
            trace it, it is called with tensors that hold nothing: what it prints or keeps should not matter.
        schedule: which steps, from `trajcheck.schedules`; `every=k` is short for Every(k). Default: Budget().
        total_steps: length of the whole run, where known; lets the default schedule choose its steps beforehand.
        start_step: updates made before this job; above 0, an existing run in the folder is gone on with.
        parameters: a regular expression (searched for in the name) or a function of the name; the others are left out.
        grad_dtype: torch.float32 or torch.bfloat16 to store gradients in that type; None: as they are.
        scaler: the torch.amp.GradScaler, if any, so that the steps it skips are recorded and numbered as skipped.
        masters: {name: float32 master} where the optimizer updates masters of low-precision weights that do not match
            the model's parameters in order and shape.
        user: anything JSON can hold, kept in run.json.
        strict: raise OutputError or RecorderError in the training loop when recording fails.
        windows: sum gradients, losses and <g_t, x_t - x_k> over every step from one record k to the next, on the
            training device, so that sums towards any x* chosen later are exact over all steps. Takes two more vectors
            of device memory. Refused where the default schedule may have to delete records: give total_steps=.
        quiet: print neither the plan nor why recording stopped; the warning is given all the same.

    Raises RecorderError at once for what cannot be recorded: LBFGS, several ranks, a folder that holds another run, an
    optimizer of another model.

    `step` is the number t of the next update, `active` whether recording goes on. Set `epoch` to have it stored. Close
    the recorder before other weights (an average, an earlier checkpoint) are loaded into the model: closing records
    the final iterate.
    """

    epoch: int | None = None

    def __init__(
        self,
        path: str | Path,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        objective: Any = None,
        *,
        schedule: Schedule | Budget | None = None,
        every: int | None = None,
        total_steps: int | None = None,
        start_step: int = 0,
        parameters: str | Callable[[str], bool] | None = None,
        grad_dtype: torch.dtype | None = None,
        scaler: torch.amp.GradScaler | None = None,
        masters: Mapping[str, torch.Tensor] | None = None,
        user: Mapping[str, Any] | None = None,
        strict: bool = False,
        quiet: bool = False,
        windows: bool = False,
    ) -> None:
        check_arguments(model, optimizer, start_step, total_steps, grad_dtype, user)
        check_loss(objective)
        schedule = one_schedule(schedule, every)
        if windows:
            check_windows(schedule, total_steps)
        self.path, self.step, self.active = Path(path), start_step, True
        self._start, self._strict, self._quiet = start_step, strict, quiet
        self._optimizer, self._grad_dtype = optimizer, grad_dtype
        self._groups = len(optimizer.param_groups)
        self._model = RecordedModel(model, optimizer, parameters, masters)
        self._observations = Observations(self._model, model, scaler)
        self._windows = WindowSums(self._model.trained) if windows else None
        self._window: Taken = {}, {}  # that of the step that is being made
        self._recording: Recording | None = None
        self._handles: list[Any] = []
        self._scheduled = self._in_step = False
        self._rates: list[float] | None = None  # of the step that is being made
        self._iterate: dict[str, torch.Tensor] | None = None
        self._gradients: dict[str, torch.Tensor] | None = None
        self._evaluations = 0
        description = {
            "schedule": repr(schedule),
            "parameters": self._model.describe(),
            "tied": self._model.tied,
            "optimizer": describe_optimizer(optimizer),
            "versions": describe_versions(model),
            "user": dict(user or {}),
        }
        try:
            self._recording = Recording(
                RunFolder(self.path, start_step, description),
                self._model,
                schedule,
                start=start_step,
                total_steps=total_steps,
                groups=self._groups,
                grad_dtype=grad_dtype,
                windows=windows,
                say=self._say,
            )
            self._scheduled = self._recording.wants(self.step)
            resumed = self._recording.resumed
            self._export = ObjectiveExport(self.path, model, objective, resumed=resumed, say=self._say)
        except OSError as error:
            self._fail(error)
            return
        self._handles = [
            model.register_forward_pre_hook(ForwardHook(self._before_forward)),
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]
        atexit.register(self.close)

    # What the training loop calls

    def observe(self, batch: Any, loss: Any, weight: float | None = None) -> None:
        """Tell the recorder the batch and its loss, after the backward pass and before the optimizer's step.

        With gradient accumulation, call it once a micro-batch. The step's loss is f = sum_i weight_i loss_i, and its
        gradient the sum of those that `backward()` left, so the weight is 1 unless said otherwise: if
        `(loss / 4).backward()` was called, pass `loss` and weight=0.25, so that f can be evaluated again from
        the batches. `batch` is tensors, and dicts, lists and tuples of them.
        """
        self._observe(batch, loss, 1.0 if weight is None else weight)

    def probe(self, batches: Iterable[Any]) -> None:
        """Store a few batches with the run, set aside from training: `--sample probe` measures on all of them.

        Each batch is as `observe` takes it. Call it once, at any time; a resumed job may call it again with the same
        batches, which does nothing. A probe that cannot be stored (other batches than the run's, none) is one warning,
        and the run is recorded without it; with `strict=True` it raises RecorderError or OutputError.
        """
        if not self.active:
            return
        try:
            store_probe(self.path, batches)
        except Exception as error:
            if self._strict:
                self._fail(error)
            reason = str(error) if isinstance(error, TrajcheckError) else f"{type(error).__name__}: {error}"
            message = f"the probe of {self.path} was not stored, recording goes on: {reason}"
            self._say(message)
            warnings.warn(message, RuntimeWarning, stacklevel=2)

    def clip_grad_norm_(self, max_norm: float, norm_type: float = 2.0) -> torch.Tensor:
        """torch.nn.utils.clip_grad_norm_ on the optimizer's parameters, noting the factor. Returns the norm before."""
        tensors = [t for group in self._optimizer.param_groups for t in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(tensors, max_norm, norm_type)
        self._clip_noted(norm, max_norm)
        return norm

    def clipped(self, factor: float | None) -> None:
        """Say that the gradients of the coming step were multiplied by `factor`; None: by an unknown one."""
        self._clipped(factor)

    def close(self) -> None:
        """Record the iterate after the last update, finish writing, and remove the hooks.

        Does nothing the second time. Raises OutputError or RecorderError with `strict=True` if something failed.
        """
        try:
            self._finish()
        finally:
            self._stop()
            for handle in self._handles:
                handle.remove()
            self._handles = []
            atexit.unregister(self.close)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._strict = False  # the exception of the training is the one to see
        self.close()

    # What the hooks do

    @property
    def _watching(self) -> bool:
        """Whether anything of the coming step is wanted: its record, or its part of the sums."""
        return self._scheduled or self._windows is not None

    @_contained
    def _observe(self, batch: Any, loss: Any, weight: float) -> None:
        self._settle()
        if self._watching:
            self._observations.add(batch, loss, weight, full=self._scheduled)
        if self._scheduled and self._export.pending:
            self._export.export(batch, self._observations.micro_batches[-1], self.step)
        self._observations.note(self._current_rates)

    @_contained
    def _clip_noted(self, norm: torch.Tensor, max_norm: float) -> None:
        if self._watching:
            applied = torch.clamp(max_norm / (norm + 1e-6), max=1.0) if self._windows is not None else None
            self._observations.clip(Clip(lambda: min(1.0, max_norm / (float(norm) + 1e-6)), applied))

    @_contained
    def _clipped(self, factor: float | None) -> None:
        if self._watching:
            known = float(factor) if factor is not None and math.isfinite(factor) else None
            self._observations.clip(Clip(lambda: math.nan if known is None else known, known))

    @_contained
    def _before_forward(self, module: torch.nn.Module) -> None:
        self._settle()
        if self._watching:
            self._observations.forward_begins(module, full=self._scheduled)

    @_contained
    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> Any:
        self._in_step = True
        self._rates = self._current_rates()
        self._iterate = self._gradients = None
        recording = self._begun()
        if not self._watching:
            return None
        if self._scheduled:
            recording.check()
            self._iterate = self._model.iterate()
            self._turn_window()
        self._evaluations = 0
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if callable(closure):
            if self._windows is not None:
                self._windows.hold()
            watched = self._watched(closure)
            return (
                ((*args[:1], watched, *args[2:]), kwargs) if len(args) > 1 else (args, {**kwargs, "closure": watched})
            )
        self._sum_gradients()
        if self._scheduled and getattr(optimizer, "grad_scale", None) is None:
            self._gradients = self._model.gradients(self._grad_dtype)
        return None

    def _watched(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """The closure, counting its evaluations and taking the gradients that it leaves.

        They are not taken after the step where it can be helped: torch.optim.SGD(nesterov=True, foreach=True), the
        default on a GPU, adds the momentum to .grad in place.
        """

        def watched() -> Any:
            result = closure()
            self._closure_ran()
            return result

        return watched

    @_contained
    def _closure_ran(self) -> None:
        self._evaluations += 1
        if self._evaluations > 1:
            raise RecorderError(
                f"step {self.step}: {type(self._optimizer).__name__} evaluated its closure more than once in one "
                "step, so there is no one gradient of that step. Only optimizers that evaluate it once can be recorded."
            )
        self._sum_gradients()
        if self._scheduled:
            self._gradients = self._model.gradients(self._grad_dtype)

    def _sum_gradients(self) -> None:
        """Add g_t to the window: what .grad holds, without the loss scale that a fused step has yet to divide out."""
        if self._windows is None:
            return
        factors = self._observations.factors()
        if factors is None:
            self._windows.void()
            return
        scale = getattr(self._optimizer, "grad_scale", None)
        found_inf = getattr(self._optimizer, "found_inf", None)
        self._windows.add(factors if scale is None else [*factors, scale], found_inf)

    def _turn_window(self) -> None:
        """The window that ends at the record of this step, and the beginning of the next."""
        if self._windows is not None and self._windows.start != self.step:  # a step() may call its parent's
            self._window = self._windows.take(self.step)
            self._windows.restart(self.step)

    @_contained
    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if not self._in_step:  # a subclass whose step() calls its parent's: that one was recorded
            return
        found_inf = getattr(optimizer, "found_inf", None)
        iterate, gradients, rates = self._iterate, self._gradients, self._rates
        step, sums = self._count(rates, found_inf)
        self._observations.drop_if_cleared()
        if self._windows is not None:
            self._windows.count(self._observations.loss(), found_inf)
        if iterate is not None:
            if gradients is None:  # fused, and the scale is divided out only by the step itself; or an unused closure
                gradients = self._model.gradients(self._grad_dtype)
            skipped = found_inf is not None and bool(found_inf)
            self._record(step, sums, {**iterate, **gradients}, rates, skipped)
        self._next()

    # What becomes of a step

    def _begun(self) -> Recording:
        assert self._recording is not None
        self._recording.begin()
        return self._recording

    def _settle(self) -> None:
        """If the loss scaler skipped the update of the observed step, record it as skipped and count it."""
        if not self._observations.skipped():
            return
        self._begun()
        scheduled, rates = self._scheduled, self._observations.rates
        step = self.step
        if scheduled:
            self._turn_window()
        _, sums = self._count(None, None, made=False)
        if self._windows is not None:
            self._windows.skip()
        if scheduled:
            self._record(step, sums, self._model.iterate(), rates, skipped=True)
        self._next()

    def _count(self, rates: list[float] | None, found_inf: Any, *, made: bool = True) -> tuple[int, Sums]:
        """Count the step; its number, and the sums of rates before it.

        This comes before any waiting: a KeyboardInterrupt later must not leave x_{t+1} under the number t.
        """
        recording = self._begun()
        step, sums = self.step, recording.sums() if self._scheduled else (None, None)
        self.step += 1
        self._in_step = False
        self._iterate = self._gradients = None
        if made:
            recording.count(rates, found_inf)
        return step, sums

    def _record(
        self, step: int, sums: Sums, vectors: dict[str, torch.Tensor], rates: list[float] | None, skipped: bool
    ) -> None:
        tensors, metadata = self._observations.take()
        window, of_window = self._take_window()
        metadata.update(of_window)
        if rates is not None and all(map(math.isfinite, rates)):
            metadata["lr"] = rates
        if skipped:
            metadata["skipped"] = True
        self._write(step, sums, {**vectors, **tensors, **window}, metadata)

    def _take_window(self) -> Taken:
        window, self._window = self._window, ({}, {})
        return window

    def _write(self, step: int, sums: Sums, tensors: dict[str, torch.Tensor], metadata: dict[str, Any]) -> None:
        if self.epoch is not None:
            metadata["epoch"] = self.epoch
        self._begun().write(step, sums, tensors, metadata)

    def _next(self) -> None:
        """Prepare for the next step."""
        recording = self._begun()
        recording.thin()
        self._observations.reset()
        self._scheduled = recording.wants(self.step)

    def _current_rates(self) -> list[float] | None:
        groups = self._optimizer.param_groups
        if len(groups) != self._groups:
            raise RecorderError(
                f"step {self.step}: the optimizer has {len(groups)} parameter groups, and had {self._groups} when "
                "recording began. Make the Recorder after the last add_param_group()."
            )
        rates = [group.get("lr") for group in groups]
        return None if None in rates else [float(cast(float, rate)) for rate in rates]

    # Ends

    @_contained
    def _finish(self) -> None:
        """The final iterate, params alone."""
        self._settle()
        assert self._recording is not None
        if self._recording.resumed and self.step == self._start:
            return
        recording = self._begun()
        held = self._iterate if self._in_step else None  # a step that failed half-way may have changed the parameters
        if held is None and self._windows is not None:
            self._window = self._windows.take(self.step)
        window, metadata = self._take_window()
        self._write(self.step, recording.sums(), {**(held or self._model.iterate()), **window}, metadata)
        recording.close()
        recording.check()

    def _stop(self) -> None:
        """Record no more. The hooks stay, idle, until close(): one of them may be running, and an optimizer does not
        bear that its hooks change while it calls them."""
        self.active = False
        if self._recording is not None:
            self._recording.close()
        self._observations.reset()
        self._iterate = self._gradients = self._windows = None
        self._window = {}, {}

    def _fail(self, error: Exception) -> None:
        self._stop()
        if isinstance(error, OSError):
            reason: TrajcheckError = OutputError(f"{self.path}: step {self.step} could not be written: {error}.")
        elif isinstance(error, TrajcheckError):
            reason = error
        else:
            reason = RecorderError(f"step {self.step}: {type(error).__name__}: {error}")
        if self._strict:
            raise reason from error
        message = f"recording of {self.path} stopped, training goes on: {reason}"
        self._say(message)
        warnings.warn(message, RuntimeWarning, stacklevel=4)

    def _say(self, line: str) -> None:
        if not self._quiet:
            print(f"trajcheck: {line}", file=sys.stderr)
