"""What the tests of trajcheck.integrations.lightning make of its classes; imported late, as these take long."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as lightning
import numpy as np
import torch
from loops import loss_of
from torch import Tensor, nn

from trajcheck.integrations.lightning import TrajcheckCallback as TrajcheckCallback


def sgd(module: nn.Module) -> Any:
    return torch.optim.SGD(module.parameters(), lr=0.25, momentum=0.9)


class Classifier(lightning.LightningModule):
    """Its own forward is never called; training_step draws dropout masks and moves BatchNorm's statistics."""

    def __init__(self, dropout: float = 0.0, make: Any = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(dropout), nn.Tanh(), nn.Linear(8, 3))
        self.make = make or sgd

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = loss_of(self.net, batch)
        self.log("loss", loss)
        return {"loss": loss}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        with torch.enable_grad():  # forwards in evaluation are no samples, also where gradients are wanted
            self.log("validation", loss_of(self.net, batch))

    def configure_optimizers(self) -> Any:
        return self.make(self)


class Manual(Classifier):
    """Own backward passes and steps, through the module's forward."""

    automatic_optimization = False

    def __init__(self, optimizers: int = 1) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.count = optimizers

    def forward(self, inputs: Tensor) -> Tensor:
        return self.net(inputs)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(loss_of(self, batch))
        optimizer.step()

    def configure_optimizers(self) -> Any:
        return [sgd(self) for _ in range(self.count)]


class Points(lightning.Callback):
    """The trained parameters before each update, its loss and its rate."""

    def __init__(self) -> None:
        self.points: dict[int, np.ndarray] = {}
        self.losses: dict[int, float] = {}
        self.rates: dict[int, float] = {}

    def on_train_batch_start(self, trainer: Any, module: Any, *_: Any) -> None:
        self.keep(trainer, module)
        self.rates[trainer.global_step] = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
        self.losses[trainer.global_step - 1] = outputs["loss"].item()
        self.keep(trainer, module)

    def keep(self, trainer: Any, module: Any) -> None:
        parameters = [p.detach().double().numpy().ravel() for p in module.parameters()]
        self.points[trainer.global_step] = np.concatenate(parameters)
