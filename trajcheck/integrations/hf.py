"""Recording a transformers.Trainer: `Trainer(..., callbacks=[TrajcheckCallback("runs/gpt2", every=10)])`.

The Trainer tells its callbacks neither batch nor loss, and shows them clipped gradients. So the Recorder's hooks on
the optimizer stay the authority, and hooks on the model see the rest: the batch is what the model is called with
(`num_items_in_batch` among it, where the Trainer counts items over the accumulated micro-batches), the loss is the one
it returns, and the gradient that arrives there says how the Trainer weighs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

try:
    from accelerate.optimizer import AcceleratedOptimizer
    from transformers import TrainerCallback
except ImportError as error:
    raise ImportError(
        f"trajcheck.integrations.hf needs transformers and accelerate ({error}): pip install 'trajcheck[hf]'"
    ) from error

from trajcheck.recording.arguments import check_options
from trajcheck.recording.failures import announce, to_nobody, to_stderr
from trajcheck.recording.recorder import Recorder
from trajcheck.recording.step.sample_state import AfterForwardHook
from trajcheck.recording.unedited_loop.live_objects import what_is_called
from trajcheck.recording.unedited_loop.loop_watch import LoopWatch, inputs_of
from trajcheck.recording.unedited_loop.loss_seen import loss_in


def model_loss(model: torch.nn.Module, batch: Mapping[str, Any]) -> torch.Tensor:
    """f of a batch that TrajcheckCallback recorded: the loss that the model itself returns.

    For the objective file of a run (`return GPT2LMHeadModel(config), model_loss`), or objective=model_loss. Raises
    ValueError where the model returns none.
    """
    loss = loss_in(model(**batch))
    if loss is None:
        raise ValueError(
            f"{type(model).__name__} returned no loss for a batch of {', '.join(batch)}; it does where `labels` are "
            "among them. Write loss(model, batch) yourself."
        )
    return loss


class TrajcheckCallback(TrainerCallback):
    """Records the training into the folder `path`. Options are those of trajcheck.Recorder.

    Length, epoch, loss scaler and, on resuming from a checkpoint, the number of steps made are the Trainer's. `probe`
    is batches that were set aside, as the model is called with them. `recorder` is the Recorder while training runs.

    Raises RecorderError when training begins for what cannot be recorded, as Recorder does; what fails later stops the
    recording with one warning, and training goes on, unless `strict=True`.
    """

    def __init__(self, path: str | Path, *, probe: Iterable[Any] | None = None, **options: Any) -> None:
        check_options(Recorder, "TrajcheckCallback", options)
        self._path, self._options, self._probe = path, options, probe
        self._watch: LoopWatch | None = None
        self._handles: list[Any] = []
        self._epoch = 0

    @property
    def recorder(self) -> Recorder | None:
        return None if self._watch is None else self._watch.recorder

    def observed(self, loss_func: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        """For a Trainer with a loss function: `Trainer(..., compute_loss_func=callback.observed(loss_func))`.

        The model then sees no labels and returns no loss. The batch becomes what it is called with, `labels`, and
        `num_items_in_batch` where the Trainer counts them.
        """

        def wrapper(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> torch.Tensor:
            loss = loss_func(outputs, labels, num_items_in_batch=num_items_in_batch)
            more = {"labels": labels, "num_items_in_batch": num_items_in_batch}
            if self._watch is not None and torch.is_grad_enabled():
                known = {name: value for name, value in more.items() if value is not None}
                self._watch.loss_seen(loss, lambda batch: {**batch, **known})
            return loss

        return wrapper

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._close()
        optimizer, scaler = kwargs["optimizer"], None
        while isinstance(optimizer, AcceleratedOptimizer):
            optimizer, scaler = optimizer.optimizer, optimizer.scaler
        model = what_is_called(kwargs["model"])
        from_trainer = {"total_steps": state.max_steps, "start_step": state.global_step, "scaler": scaler}
        self._watch = LoopWatch(self._path, model, optimizer, **{**from_trainer, **self._options})
        self._handles = [model.register_forward_hook(AfterForwardHook(self._after_forward), with_kwargs=True)]
        if self._probe is not None:
            self._watch.recorder.probe(self._probe)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._epoch = int(state.epoch or 0)

    # The best checkpoint is loaded before on_train_end; the final iterate is the model after its last update.

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if control.should_training_stop or state.global_step >= state.max_steps:
            self._close()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if control.should_training_stop:  # early stopping, decided by an evaluation after the epoch
            self._close()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._close()

    def _after_forward(self, module: torch.nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if self._watch is not None and module.training:
            self._watch.recorder.epoch = self._epoch  # now that a step which the loss scaler skipped is recorded
            self._watch.forward_ended(inputs_of(args, kwargs), output)

    def _close(self) -> None:
        watch, self._watch = self._watch, None
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if watch is None:
            return
        with watch:
            pass
        if watch.functions:
            announce(
                f"{watch.recorder.path}: the loss that backward() was called on was made outside of the model, by "
                f"{', '.join(sorted(watch.functions))}: "
                + (
                    f"{watch.without_targets} batches were recorded without labels"
                    if watch.without_targets
                    else "batches are pairs, what the model was called with and the targets that this function took"
                )
                + ". Give the Trainer compute_loss_func=callback.observed(loss_func), or let the model compute the "
                "loss.",
                to_nobody if self._options.get("quiet") else to_stderr,
                stacklevel=2,
            )
