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
import json
import math
import shutil
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, cast

import torch

from trajcheck.errors import OutputError, RecorderError, TrajcheckError
from trajcheck.formats.native_writer import step_filename
from trajcheck.learning_time import LearningTime
from trajcheck.observations import Observations
from trajcheck.record_writer import Record, RecordWriter
from trajcheck.recorded_model import RecordedModel
from trajcheck.recording_plan import Plan, SchedulePlan, Situation, ThinningPlan, make_plan, readable
from trajcheck.run_folder import Continuation, RunFolder, describe_optimizer, describe_versions
from trajcheck.sample_state import ForwardHook
from trajcheck.schedules import Budget, Every, Schedule

Method = TypeVar("Method", bound=Callable[..., Any])
Tau = tuple[list[float] | None, list[float] | None]  # tau and tau_squares, per group


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
        objective: kept for exporting the loss program with the run, which a later version does; not used yet.
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
        quiet: do not print the plan.

    Raises RecorderError at once for what cannot be recorded: LBFGS, several ranks, a folder that holds another run, an
    optimizer of another model.

    `step` is the number t of the next update. Set `epoch` to have it stored. Close the recorder before other weights
    (an average, an earlier checkpoint) are loaded into the model: closing records the final iterate.
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
    ) -> None:
        self.active = False
        self.path = Path(path)
        self.step = start_step
        self._start, self._total, self._strict, self._quiet = start_step, total_steps, strict, quiet
        self._schedule = _one_schedule(schedule, every)
        _check_arguments(model, optimizer, start_step, total_steps, grad_dtype, user)
        self._optimizer, self._grad_dtype, self._objective = optimizer, grad_dtype, objective
        self._model = RecordedModel(model, optimizer, parameters, masters)
        self._observations = Observations(self._model, model, scaler)
        self._groups = len(optimizer.param_groups)

        self._in_step = False
        self._rates: list[float] | None = None
        self._iterate: dict[str, torch.Tensor] | None = None
        self._gradients: dict[str, torch.Tensor] | None = None
        self._evaluations = 0
        self._went_on: Continuation | None = None
        self._frozen_from: int | None = None
        self._plan: Plan | None = None
        self._writer: RecordWriter | None = None
        self._time = LearningTime([0.0] * self._groups, [0.0] * self._groups)
        self._scheduled = self._first_is_scheduled()
        self._handles: list[Any] = []

        description = {
            "schedule": repr(self._schedule),
            "parameters": self._model.describe(),
            "tied": self._model.tied,
            "optimizer": describe_optimizer(optimizer),
            "versions": describe_versions(model),
            "user": dict(user or {}),
        }
        self.active = True
        atexit.register(self.close)
        try:
            self._folder = RunFolder(self.path, start_step, description)
            self._check_disk()
        except OSError as error:
            self._fail(error)
            return
        except BaseException:
            self._stop()
            raise
        self._handles = [
            model.register_forward_pre_hook(ForwardHook(self._before_forward)),
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]

    # What the training loop calls

    def observe(self, batch: Any, loss: Any, weight: float | None = None) -> None:
        """Tell the recorder the batch and its loss, after the backward pass and before the optimizer's step.

        With gradient accumulation, call it once a micro-batch. The step's loss is f = sum_i weight_i loss_i, and its
        gradient the sum of those that `backward()` left, so the weight is 1 unless said otherwise: if
        `(loss / 4).backward()` was called, pass `loss` and weight=0.25, so that f can be evaluated again from
        the batches. `batch` is tensors, and dicts, lists and tuples of them.
        """
        self._observe(batch, loss, 1.0 if weight is None else weight)

    def clip_grad_norm_(self, max_norm: float, norm_type: float = 2.0) -> torch.Tensor:
        """torch.nn.utils.clip_grad_norm_ on the optimizer's parameters, noting the factor. Returns the norm before."""
        tensors = [t for group in self._optimizer.param_groups for t in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(tensors, max_norm, norm_type)
        if self.active and self._scheduled:
            self._observations.clip(lambda: min(1.0, max_norm / (float(norm) + 1e-6)))
        return norm

    def clipped(self, factor: float | None) -> None:
        """Say that the gradients of the coming step were multiplied by `factor`; None: by an unknown one."""
        if self.active and self._scheduled:
            self._observations.clip(lambda: math.nan if factor is None else float(factor))

    def close(self) -> None:
        """Record the iterate after the last update, finish writing, and let go of model and optimizer.

        Does nothing the second time. Raises OutputError or RecorderError with `strict=True` if something failed.
        """
        if self.active:
            self._finish()
        if self.active:
            self._stop()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._strict = False  # the exception of the training is the one to see
        self.close()

    # What the hooks do

    @_contained
    def _observe(self, batch: Any, loss: Any, weight: float) -> None:
        self._settle()
        if self._scheduled:
            self._observations.add(batch, loss, weight)
        self._observations.note(self._current_rates)

    @_contained
    def _before_forward(self, module: torch.nn.Module) -> None:
        self._settle()
        if self._scheduled:
            self._observations.forward_begins(module)

    def _settle(self) -> None:
        """Forget observations whose gradients were cleared, recording them if the loss scaler skipped their step."""
        skipped_rates = self._observations.skipped()
        if skipped_rates is None:
            return
        if self._scheduled:
            self._begin()
            step, tau = self._count(None, made=False)
            self._record(step, tau, self._model.iterate(), skipped_rates, skipped=True)
        else:
            self._count(None, made=False)
        self._advance()

    @_contained
    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> Any:
        self._in_step = True
        self._rates = self._current_rates()
        self._iterate = self._gradients = None
        if not self._scheduled:
            return None
        self._begin()
        self._check_writer()
        self._model.check_frozen()
        self._iterate = self._model.iterate()
        self._evaluations = 0
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if callable(closure):
            watched = self._watched(closure)
            return (
                ((*args[:1], watched, *args[2:]), kwargs) if len(args) > 1 else (args, {**kwargs, "closure": watched})
            )
        if getattr(optimizer, "grad_scale", None) is None:
            self._gradients = self._model.gradients(self._grad_dtype)
        return None

    def _watched(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """The closure, counting its evaluations and taking the gradients that it leaves.

        Not only in the post-hook: torch.optim.SGD(nesterov=True, foreach=True) adds the momentum to .grad in place.
        """

        def watched() -> Any:
            result = closure()
            self._closure_ran()
            return result

        return watched

    @_contained
    def _closure_ran(self) -> None:
        self._evaluations += 1
        self._gradients = self._model.gradients(self._grad_dtype) if self._evaluations == 1 else None
        if self._evaluations > 1:
            raise RecorderError(
                f"step {self.step}: {type(self._optimizer).__name__} evaluated its closure "
                f"{self._evaluations} times in one step, so there is no one gradient of that step. "
                "Only optimizers that evaluate it once can be recorded."
            )

    @_contained
    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if not self._in_step:
            return
        found_inf = getattr(optimizer, "found_inf", None)
        iterate, gradients, rates = self._iterate, self._gradients, self._rates
        step, tau = self._count(rates, found_inf)
        if iterate is not None:
            if gradients is None:
                gradients = self._model.gradients(self._grad_dtype)
            skipped = found_inf is not None and bool(found_inf)
            self._observations.drop_if_cleared()
            self._record(step, tau, {**iterate, **gradients}, rates, skipped)
        self._advance()

    def _count(self, rates: list[float] | None, found_inf: Any = None, *, made: bool = True) -> tuple[int, Tau]:
        """Count the step; its number, and tau before it.

        First of all, and before any waiting: an interrupt later must not leave x_{t+1} under the number t.
        """
        step, tau = self.step, self._time.values() if self._scheduled else (None, None)
        self.step += 1
        self._in_step = False
        self._iterate = self._gradients = None
        if made:
            self._time.add(rates, found_inf)
        return step, tau

    # What becomes of a step

    def _begin(self) -> None:
        """Before the first record or update of this job."""
        if self._went_on is None:
            went_on = Continuation()
            if self._folder.resumed:
                went_on = self._folder.go_on(self._start, self._model)
            if self._start > 0:
                fits = all(len(v) == self._groups for v in (went_on.tau, went_on.tau_squares) if v is not None)
                self._time = LearningTime(*((went_on.tau, went_on.tau_squares) if fits else (None, None)))
            self._frozen_from = went_on.frozen_from
            self._went_on = went_on
            self._writer = RecordWriter(self.path, went_on.stored_batch, self._written)

    def _record(
        self, step: int, tau: Tau, vectors: dict[str, torch.Tensor], rates: list[float] | None, skipped: bool
    ) -> None:
        tensors, metadata = self._observations.take()
        if rates is not None and all(map(math.isfinite, rates)):
            metadata["lr"] = rates
        if skipped:
            metadata["skipped"] = True
        self._hand_over(step, tau, {**vectors, **tensors}, metadata)

    def _hand_over(self, step: int, tau: Tau, tensors: dict[str, torch.Tensor], metadata: dict[str, Any]) -> None:
        assert self._writer is not None
        sums = zip(("tau", "tau_squares"), tau, strict=True)
        metadata.update({key: value for key, value in sums if value is not None})
        if self.epoch is not None:
            metadata["epoch"] = self.epoch
        if self._model.frozen:
            if self._frozen_from is None:
                tensors.update(self._model.frozen_values())
                self._frozen_from = step
            else:
                metadata["frozen_from"] = self._frozen_from
        record = Record(step, tensors, metadata)
        self._make_plan(record).written(step, record.bytes)
        self._writer.put(record)

    def _make_plan(self, first: Record) -> Plan:
        """The plan, made when the first record shows how large one is."""
        if self._plan is None:
            plan = make_plan(self._schedule, self._situation(first.bytes))
            if isinstance(plan, ThinningPlan) and self._went_on is not None:
                known = [first.step, *self._went_on.referred]
                plan.protect(known if self._frozen_from is None else [*known, self._frozen_from])
            self._say(f"trajcheck: recording {self.path}: {plan.describe()}")
            self._plan = plan
        return self._plan

    def _situation(self, record_bytes: int) -> Situation:
        return Situation(
            record_bytes=record_bytes,
            free_bytes=shutil.disk_usage(self.path).free,
            existing=self._folder.steps() if self._folder.resumed and self._folder.planned else {},
            start=self._start,
            total_steps=self._total,
            seed=self._folder.id,
        )

    def _written(self, step: int, size: int) -> None:
        if self._plan is not None:
            self._plan.written(step, size)

    def _advance(self) -> None:
        """Prepare for the next step."""
        self._observations.reset()
        if self._plan is None:
            self._scheduled = self._first_is_scheduled()
            return
        if self._writer is not None and (deletable := self._plan.deletable()):
            self._writer.delete(deletable)
        self._scheduled = self._plan.wants(self.step)

    def _first_is_scheduled(self) -> bool:
        """Before there is a plan: the default one records the first step, and a step already there is completed."""
        if isinstance(self._schedule, Budget):
            return True
        if self.step == self._start and (self.path / step_filename(self.step)).exists():
            return True
        return bool(self._schedule.wants(self.step))

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
        if self.step == self._start and self._folder.resumed:
            return
        self._begin()
        self._model.check_frozen()
        held = self._iterate if self._in_step else None  # a step that failed half-way may have changed the parameters
        self._hand_over(self.step, self._time.values(), held or self._model.iterate(), {})
        assert self._writer is not None
        self._writer.close()
        self._check_writer()

    def _check_writer(self) -> None:
        if self._writer is not None and self._writer.error is not None:
            raise self._writer.error

    def _check_disk(self) -> None:
        """Refuse at once what cannot fit, as far as it is known before the first batch."""
        record_bytes = self._model.record_bytes(self._grad_dtype)
        situation = self._situation(record_bytes)
        needed: int | None = 2 * record_bytes
        if not isinstance(self._schedule, Budget):
            needed = SchedulePlan(self._schedule, situation).bytes or needed
        if needed is not None and needed > situation.free_bytes:
            raise RecorderError(
                f"{self.path}: recording needs at least {readable(needed)}, and {readable(situation.free_bytes)} "
                "are free on that disk. Record fewer steps (every=, schedule=Budget(bytes=...)), fewer "
                "parameters, or elsewhere."
            )

    def _stop(self) -> None:
        self.active = False
        for handle in self._handles:
            handle.remove()
        self._handles = []
        atexit.unregister(self.close)
        if self._writer is not None:
            self._writer.close()
        self._observations.reset()
        self._iterate = self._gradients = None

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
        self._say(f"trajcheck: {message}")
        warnings.warn(message, RuntimeWarning, stacklevel=4)

    def _say(self, line: str) -> None:
        if not self._quiet:
            print(line, file=sys.stderr)


def _one_schedule(schedule: Schedule | Budget | None, every: int | None) -> Schedule | Budget:
    if schedule is not None and every is not None:
        raise RecorderError("schedule= and every= were both given; give one of them.")
    if schedule is not None and not isinstance(schedule, Budget) and not callable(getattr(schedule, "wants", None)):
        raise RecorderError(
            f"schedule={schedule!r} has no method wants(step); use every={schedule!r}, or one of trajcheck.schedules."
        )
    return schedule or (Budget() if every is None else Every(every))


def _check_arguments(
    model: Any,
    optimizer: Any,
    start_step: int,
    total_steps: int | None,
    grad_dtype: torch.dtype | None,
    user: Mapping[str, Any] | None,
) -> None:
    """Raise RecorderError for what cannot be recorded, before anything is touched."""
    if not isinstance(model, torch.nn.Module):
        raise RecorderError(f"model: expected a torch.nn.Module, got {type(model).__name__}.")
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise RecorderError(
            f"optimizer: expected a torch.optim.Optimizer, got {type(optimizer).__name__}. Pass the optimizer that a "
            "wrapper holds (often wrapper.optimizer)."
        )
    if isinstance(optimizer, torch.optim.LBFGS):
        raise RecorderError(
            "LBFGS evaluates its closure several times a step, so a step has no one gradient and cannot be recorded."
        )
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        ranks = torch.distributed.get_world_size()
        if ranks > 1:
            raise RecorderError(f"torch.distributed runs with {ranks} ranks; only one process can be recorded so far.")
    if start_step < 0 or (total_steps is not None and total_steps < 1):
        raise RecorderError(f"start_step={start_step}, total_steps={total_steps}: expected counts of updates.")
    if grad_dtype not in (None, torch.float32, torch.bfloat16):
        raise RecorderError(f"grad_dtype={grad_dtype}: expected None, torch.float32 or torch.bfloat16.")
    try:
        json.dumps(user, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RecorderError(f"user={user!r:.80} cannot be written as JSON: {error}.") from error
