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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import torch

from trajcheck.errors import HeldRunError, RecorderError
from trajcheck.readable import some_of
from trajcheck.recording.arguments import check_arguments, check_windows, one_overhead, one_schedule
from trajcheck.recording.export import ObjectiveExport, check_loss, exportable
from trajcheck.recording.failures import announce, brief, failure, to_nobody, to_stderr
from trajcheck.recording.forks import belongs_here
from trajcheck.recording.guard import Guard
from trajcheck.recording.hooks import LoopHooks
from trajcheck.recording.model.optimizers import Optimizers
from trajcheck.recording.model.ranks import current_ranks, without_wrapper
from trajcheck.recording.model.recorded_model import RecordedModel
from trajcheck.recording.model.shards import whole
from trajcheck.recording.model.surroundings import Surroundings
from trajcheck.recording.model.updates_by_hand import HOW, UpdatesByHand
from trajcheck.recording.run.folder import RunFolder, describe_run
from trajcheck.recording.run.group_settings import GroupSettings
from trajcheck.recording.run.probe_batches import store_probe
from trajcheck.recording.run.run_writer import RunWriter
from trajcheck.recording.run.trained_set import TrainedSet
from trajcheck.recording.run_end import RunEnd
from trajcheck.recording.schedule.schedules import Budget, Schedule
from trajcheck.recording.schedule.time_spent import TimeSpent
from trajcheck.recording.step.forwards import Forward
from trajcheck.recording.step.observations import Observations
from trajcheck.recording.step.window_sums import WindowSums
from trajcheck.recording.step_ends import StepEnds
from trajcheck.recording.step_parts import StepParts
from trajcheck.recording.step_recorder import StepRecorder
from trajcheck.runs.formats.native.every_step import EVERY_STEP
from trajcheck.runs.run_info import CLOSED


class Recorder:
    """Records x_t, g_t, z_t and the optimizer's rates at scheduled steps into the folder `path`.

    Arguments:
        model, optimizer: what is trained, by one optimizer or a list of several that hold different parameters, as Muon
            and AdamW: one step of the run is then one step of each, in any order; where one makes none, its rate is 0
            in that step. None where the loop writes its updates itself: tell the Recorder of each by
            `with recorder.update(lr=...)`. Under torch.distributed every rank makes a Recorder of the same folder, with
            the model inside DistributedDataParallel or sharded by fully_shard, and calls it alike.
        objective: loss(model, batch) -> scalar tensor, exported once, at the first recorded batch, to objective.json,
            so that the run can be replayed without the code that trained it; where that fails, one warning says why. To
            trace it, it is called with tensors that hold nothing: what it prints or keeps should not matter.
        schedule: which steps, trajcheck.Budget(), Pairs(100), ...; `every=k` is short for Every(k). Default: Budget().
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
        overhead: limit on the time that records take of the training thread, as a share of training: 0.05 leaves out
            scheduled records, in pairs, as far as is needed beyond the first seconds, and says so. "auto": 0.05 under a
            Budget, which is a plan; none under any other schedule, which is an order. None: no limit, as on several
            ranks, whose times differ.
        every_step: write loss, rate, |g_t|^2 and |x_{t+1} - x_t|^2 of every step, recorded or not, to every-step.f64 in
            the folder. Takes one more vector of memory on the training device; False leaves it out.
        micro_gradients: of recorded steps that are accumulated over micro-batches, record three numbers of each
            micro-batch's gradient, from which the noise between them is known without a replay. Takes as many vectors
            of memory on the training device as there are micro-batches, until a recorded step ends. observe() is then
            to be called after each backward().
        quiet: print neither the plan, nor what is left out, nor why recording stopped; of that there is a warning.

    Of an optimizer that evaluates its closure several times a step, as LBFGS does, f and g_t are those of the first.

    Raises RecorderError at once for what cannot be recorded: flattened parameters or such as are
    sharded by columns, a folder that holds another run, an optimizer of another model. A run has one recorder at a
    time, on whatever machine: a second one says who has it, and the training goes on unrecorded.

    `step` is the number t of the next update, `active` whether recording goes on, `spent` the time that it takes.
    Set `epoch` to have it stored. Close the recorder before other weights (an average, an earlier checkpoint) are
    loaded into the model: closing records the final iterate.
    """

    def __init__(
        self,
        path: str | Path,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None,
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
        overhead: float | Literal["auto"] | None = "auto",
        every_step: bool = True,
        micro_gradients: bool = False,
    ) -> None:
        model, ranks = without_wrapper(model), current_ranks()
        if optimizer is None:
            optimizer = UpdatesByHand(model)
        optimizers = Optimizers(optimizer)
        check_arguments(model, optimizers, start_step, total_steps, grad_dtype, user)
        check_loss(objective)
        schedule = one_schedule(schedule, every)
        overhead = one_overhead(overhead, schedule, ranks.count)
        if windows:
            check_windows(schedule, total_steps)
        self.path = Path(path)
        self._alone, self._finish, self._ended = ranks.count == 1, True, CLOSED
        self._start, self._strict, self._say = start_step, strict, to_nobody if quiet or not ranks.first else to_stderr
        self._optimizers = optimizers
        self._optimizer: Any = optimizer
        self._model = RecordedModel(model, optimizers, parameters, masters, ranks)
        if lost := self._model.lost():
            announce(f"{self.path}: {lost}", self._say, stacklevel=2)
        if left_out := [p.name for p in self._model.parameters if not p.chosen]:
            self._say(
                f"{self.path}: recorded without {some_of(left_out)}, which parameters= leaves out, so no loss of this "
                "run can be replayed: what follows from recorded vectors is all that can be measured"
            )
        self.spent = TimeSpent()
        surroundings = Surroundings(self._model, self.spent, self._warn)
        self._observations = Observations(self._model, model, surroundings, scaler)
        sums = WindowSums(self._model.stored) if windows else None
        self.guard = Guard(self.spent, self._fail)
        self._steps: StepRecorder | None = None
        self._end: RunEnd | None = None
        self._hooks: LoopHooks | None = None
        description = describe_run(self._model, model, optimizers, repr(schedule), overhead=overhead, user=user)
        writer: RunWriter | None = None
        try:
            same = {"schedule": repr(schedule), "start_step": start_step, "windows": windows}
            with ranks.agreed(str(self.path), same) as agreed:
                writer = RunWriter(
                    RunFolder(self.path, start_step, description, ranks, agreed, self._say),
                    self._model,
                    surroundings,
                    schedule,
                    start=start_step,
                    total_steps=total_steps,
                    groups=len(optimizers.param_groups),
                    grad_dtype=grad_dtype,
                    windows=windows,
                    overhead=overhead,
                    spent=self.spent,
                    say=self._say,
                    warn=self._warn,
                )
            settings, trained = GroupSettings(self.path, optimizers), TrainedSet(self.path, self._model)
            loss = exportable(objective, self._model, self._say) if ranks.first else None
            export = ObjectiveExport(self.path, model, loss, resumed=writer.resumed, say=self._say)
        except (OSError, HeldRunError) as error:
            if writer is not None:
                writer.release()
            self._fail(error)
            return
        try:
            parts = StepParts(
                optimizers,
                self._model,
                self._observations,
                writer,
                export,
                sums,
                self.spent,
                grad_dtype,
                settings,
                trained,
                self._warn,
                every_step,
                self._without_every_step,
                micro_gradients,
            )
            ends = StepEnds(parts)
            self._steps, self._end = StepRecorder(parts, ends), RunEnd(parts, ends)
            self._hooks = LoopHooks(model, optimizers, self._steps, self.guard)
        except BaseException:
            writer.abandon()
            raise
        belongs_here(self)
        atexit.register(self.close)

    @property
    def active(self) -> bool:
        """Whether recording goes on."""
        return self.guard.active

    @property
    def epoch(self) -> int | None:
        """Stored with the steps that are made while it is set."""
        return None if self._steps is None else self._steps.records.epoch

    @epoch.setter
    def epoch(self, epoch: int | None) -> None:
        if self._steps is not None:
            self._steps.records.epoch = epoch

    @property
    def step(self) -> int:
        """The number t of the next update."""
        return self._start if self._steps is None else self._steps.step

    @property
    def watching(self) -> bool:
        """Whether anything of the coming step is wanted: its record, or its part of the window's sums."""
        return self._going is not None and self._going.watching

    @property
    def _going(self) -> StepRecorder | None:
        """What follows the steps, while recording goes on."""
        return self._steps if self.active else None

    # What the training loop calls

    def forward_begins(self, model: torch.nn.Module) -> None:
        """Tell the recorder that the forward of the coming micro-batch begins: its randomness and buffers are as they
        are now, and so is autocast.

        Needed only where something else is called than the model itself, a method of it or a part; the model's own
        forward is seen. Of two beginnings the first counts; one in training mode replaces one in evaluation mode.
        """
        if steps := self._going:
            with self.guard:
                steps.before_forward(model, told=True)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed job needs beside `start_step=`, for a checkpoint: the step, and the sums of learning rates.

        Waits until the records so far are on the disk, so that a job that goes on from the checkpoint leaves no gap.
        """
        if self._end is not None and self.active:
            with self.guard:
                return self._end.state_dict()
        return {"step": None}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict()`, before the first step; without it tau goes on from recorded steps alone.

        Raises RecorderError where it is of another step than `start_step`, or of other parameter groups.
        """
        if state["step"] is not None and self._end is not None and self.active:
            self._end.load_state_dict(state)

    @contextmanager
    def update(self, lr: float | None = None) -> Iterator[None]:
        """Around an update that the loop writes itself, at the rate `lr`, of a Recorder that was given no optimizer.

            with recorder.update(lr=0.1):
                for p in model.parameters():
                    p.data.add_(p.grad, alpha=-0.1)

        What the parameters and their gradients are at its beginning are x_t and g_t. Raises RecorderError where there
        is an optimizer, whose steps are seen.
        """
        by_hand = self._optimizers.members[0]
        if not isinstance(by_hand, UpdatesByHand):
            raise RecorderError(
                f"update(): this Recorder sees the steps of {self._optimizers.name}. Updates that the loop writes "
                "itself are recorded by one that is given None as its optimizer."
            )
        by_hand.at_rate(lr)
        if self._hooks is None:
            yield
            return
        with self._hooks.step_by_hand(by_hand):
            yield

    def observe(self, batch: Any, loss: Any, weight: float | None = None) -> None:
        """Tell the recorder the batch and its loss, after the backward pass and before the optimizer's step.

        With gradient accumulation, call it once a micro-batch. The step's loss is f = sum_i weight_i loss_i, and its
        gradient the sum of those that `backward()` left, so the weight is 1 unless said otherwise: if
        `(loss / 4).backward()` was called, pass `loss` and weight=0.25, so that f can be evaluated again from
        the batches. `batch` is tensors, and dicts, lists and tuples of them.
        """
        if steps := self._going:
            with self.guard:
                steps.observe(batch, loss, 1.0 if weight is None else weight)

    # What stands in for observe() in a loop that nobody edits

    def observe_known(
        self, batch: Any, loss: float, weight: float | None, forwards: Sequence[Forward], lacks: str = ""
    ) -> None:
        """observe(), where it is known which forwards made the loss, and perhaps not by what `weight` it counts;
        `lacks`: what the batch is without."""
        if steps := self._going:
            with self.guard:
                steps.observe(batch, loss, weight, forwards, lacks)

    def use_scaler(self, scaler: torch.amp.GradScaler) -> None:
        """`scaler=`, where it is known only when the first loss is scaled."""
        self._observations.scaler = scaler

    @property
    def latest_forward(self) -> Forward | None:
        """The last forward that ended since the last step, where that is recorded."""
        return None if self._going is None else self._going.latest_forward

    def watch_calls(self, module: torch.nn.Module, *, begun: bool) -> None:
        """Take the calls of a wrapper or a part of the model for forwards too; `begun`: one has begun just now."""
        if self._hooks is not None:
            self._hooks.watch_calls(module)
            if begun:
                self._hooks.forward_begins(module)

    def probe(self, batches: Iterable[Any]) -> None:
        """Store a few batches with the run, set aside from training: `--sample probe` measures on all of them.

        Each batch is as `observe` takes it. Call it once, at any time; a resumed job may call it again with the same
        batches, which does nothing. A probe that cannot be stored (other batches than the run's, none) is one warning,
        and the run is recorded without it; with `strict=True` it raises RecorderError or OutputError. Of several ranks
        the first stores its own.
        """
        if not self.active or not self._model.ranks.first:
            return
        try:
            store_probe(self.path, batches)
        except Exception as error:
            if self._strict:
                self._fail(error)
            message = f"the probe of {self.path} was not stored, recording goes on: {brief(error)}"
            announce(message, self._say, stacklevel=2)

    def clip_grad_norm_(self, max_norm: float, norm_type: float = 2.0) -> torch.Tensor:
        """torch.nn.utils.clip_grad_norm_ on the optimizer's parameters, noting the factor. Returns the norm before."""
        tensors = [t for group in self._optimizers.param_groups for t in group["params"]]
        norm = whole(torch.nn.utils.clip_grad_norm_(tensors, max_norm, norm_type))
        if steps := self._going:
            with self.guard:
                steps.clip_noted(norm, max_norm)
        return norm

    def clipped(self, factor: float | None) -> None:
        """Say that the gradients of the coming step were multiplied by `factor`; None: by an unknown one."""
        if steps := self._going:
            with self.guard:
                steps.clipped(factor)

    def close(self) -> None:
        """Record the iterate after the last update, finish writing, and remove the hooks.

        Does nothing the second time. Raises OutputError or RecorderError with `strict=True` if something failed.
        """
        try:
            if self._end is not None and self.active:
                with self.guard:
                    if self._finish:
                        ended = self._end.finish()
                        self._ended = ended if self._ended == CLOSED else self._ended
                    by_hand = isinstance(self._optimizers.members[0], UpdatesByHand)
                    untold = [f"no update was told of, so there is none in it: {HOW} tells it"]
                    for line in [*(untold if by_hand and self.step == self._start else ()), *self._end.said()]:
                        self._warn(line)
        finally:
            self._stop(self._ended)
            if self._hooks is not None:
                self._hooks.remove()
            atexit.unregister(self.close)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._strict = False  # the exception of the training is the one to see
            self._ended = f"{kind.__name__} in the training loop"
            self._finish = self._alone  # the other ranks may be at another step: this one's iterate is none of theirs
        self.close()

    # Failures

    def _fail(self, error: Exception) -> None:
        """Record no more, and say why; raise it where recording is strict."""
        reason = failure(error, self.path, self.step)
        self._stop(str(reason))
        if self._strict:
            raise reason from error
        announce(f"recording of {self.path} stopped, training goes on: {reason}", self._say, stacklevel=4)

    def _without_every_step(self, error: Exception) -> None:
        """What is taken of every step failed: the records go on without it."""
        if self._strict:
            raise failure(error, self.path, self.step) from error
        self._warn(f"{EVERY_STEP} goes no further than step {self.step}, records go on: {brief(error)}")

    def _warn(self, line: str) -> None:
        """Something that recording goes on with."""
        announce(f"{self.path}: {line}", self._say, stacklevel=4)

    def forked(self) -> None:
        """This process is a child of the one that records: it goes on unrecorded, and says so if it trains."""
        if self.active:
            self.guard.active, self._steps, self._end = False, None, None
            self.guard.say_first = lambda: self._warn(
                "this process was forked from the one that records, so its steps are no part of the run; make the "
                "Recorder in the process that trains"
            )

    def _stop(self, ended: str) -> None:
        """Record no more. The hooks stay, idle, until close(): one of them may be running, and an optimizer does not
        bear that its hooks change while it calls them."""
        self.guard.active = False
        if self._end is not None:
            self._end.stop(ended)
