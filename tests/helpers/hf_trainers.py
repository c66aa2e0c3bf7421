"""What the tests of trajcheck.integrations.hf make of classes of transformers; imported late, as these take long."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor

from trajcheck.integrations.hf import TrajcheckCallback as TrajcheckCallback
from trajcheck.integrations.hf import model_loss as model_loss


class InOrder(transformers.Trainer):
    def _get_train_sampler(self, *args: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)


class Stop(transformers.TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        control.should_training_stop = state.global_step == 3
        return control


class Live(transformers.TrainerCallback):
    """The trained parameters in float64 whenever the Trainer saves, and the rate of every update."""

    def __init__(self) -> None:
        self.points: dict[int, Tensor] = {}
        self.rates: list[float] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **more: Any) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
        self.points[state.global_step] = flat(model)


def flat(model: Any) -> Tensor:
    """Tied parameters once, frozen ones not."""
    return torch.cat([p.detach().double().reshape(-1).clone() for p in model.parameters() if p.requires_grad])
