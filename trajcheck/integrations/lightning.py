"""Recording a Lightning Trainer: `Trainer(..., callbacks=[TrajcheckCallback("runs/digits", every=10)])`.

Under automatic optimisation the forward, the backward pass and the clipping happen inside `optimizer.step(closure)`, so
the Recorder's hooks on the optimizer stay the authority. The batch is what training_step is given, the loss what it
returns, weighed by 1 / accumulate_grad_batches.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

try:
    from lightning.pytorch import Callback
except ImportError as error:
    raise ImportError(
        f"trajcheck.integrations.lightning needs lightning ({error}): pip install 'trajcheck[lightning]'"
    ) from error

from trajcheck.errors import RecorderError
from trajcheck.recording.arguments import check_options
from trajcheck.recording.recorder import Recorder
from trajcheck.recording.unedited_loop.loop_watch import LoopWatch


def training_step_loss(module: Any, batch: Any) -> torch.Tensor:
    """f of a batch that TrajcheckCallback recorded: what the LightningModule's training_step(batch, 0) returns.

    For the objective file of a run (`return Classifier(), training_step_loss`). What training_step logs goes nowhere.
    """
    module.log = module.log_dict = _nothing
    result = module.training_step(batch, 0)
    return result["loss"] if isinstance(result, Mapping) else result


def _nothing(*args: Any, **kwargs: Any) -> None:
    pass


class TrajcheckCallback(Callback):
    """Records the fit into the folder `path`. Options are those of trajcheck.Recorder.

    Length, epoch, loss scaler and, on resuming from a checkpoint, the number of steps made are the Trainer's. `probe`
    is batches that were set aside, as training_step takes them. `recorder` is the Recorder while the fit runs.

    Raises RecorderError when training begins for what cannot be recorded: several optimizers, and what Recorder
    refuses. What fails later stops the recording with one warning, and training goes on, unless `strict=True`.
    Callbacks that put other weights into the model at the end belong after this one.
    """

    def __init__(self, path: str | Path, *, probe: Iterable[Any] | None = None, **options: Any) -> None:
        check_options(Recorder, "TrajcheckCallback", options)
        self._path, self._options, self._probe = path, options, probe
        self._watch: LoopWatch | None = None
        self._batch: Any = None
        self._loss: torch.Tensor | None = None
        self._state: Mapping[str, Any] = {}  # of the Recorder, from a checkpoint

    @property
    def recorder(self) -> Recorder | None:
        return None if self._watch is None else self._watch.recorder

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._close()
        if len(trainer.optimizers) != 1:
            raise RecorderError(
                f"{type(pl_module).__name__} has {len(trainer.optimizers)} optimizers, and TrajcheckCallback records "
                "one. Put trainer.fit() inside `with trajcheck.record(path):`, which records a run for each."
            )
        total = trainer.estimated_stepping_batches
        from_trainer = {
            "total_steps": int(total) if math.isfinite(total) else None,
            "start_step": trainer.global_step,
            "scaler": getattr(trainer.precision_plugin, "scaler", None),
        }
        self._watch = LoopWatch(self._path, pl_module, trainer.optimizers[0], **{**from_trainer, **self._options})
        if self._state.get("step") == trainer.global_step:
            self._watch.recorder.load_state_dict(self._state)
        if self._probe is not None:
            self._watch.recorder.probe(self._probe)

    def state_dict(self) -> dict[str, Any]:
        return {} if self.recorder is None else self.recorder.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._state = state_dict

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if self._watch is None:
            return
        self._batch = batch
        with trainer.precision_plugin.forward_context():  # training_step, which comes next, runs under this autocast
            self._watch.recorder.forward_begins(pl_module)
        self._watch.recorder.epoch = trainer.current_epoch  # now that a step which the loss scaler skipped is recorded

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: torch.Tensor) -> None:
        self._loss = loss.detach().clone()

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        if self._watch is not None and self._loss is not None:
            parts = trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1
            self._watch.observe(self._batch, self._loss, 1 / parts)
            self._loss = None

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._batch = None

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._close(exception)

    def _close(self, error: BaseException | None = None) -> None:
        watch, self._watch, self._batch, self._loss = self._watch, None, None, None
        if watch is not None:
            watch.__exit__(None if error is None else type(error), error, None)
