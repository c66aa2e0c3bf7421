"""What stands in an optimizer's place where a loop writes its updates itself, as `p.data.add_(p.grad, alpha=-lr)`."""

from __future__ import annotations

from typing import Any

import torch

from trajcheck.errors import RecorderError

HOW = "`with recorder.update(lr=...):` around the lines that change the parameters"


class UpdatesByHand(torch.optim.Optimizer):
    """One group of all parameters that require a gradient, at the rate that the loop tells; it makes no steps."""

    def __init__(self, model: Any) -> None:
        trained = [p for p in model.parameters() if p.requires_grad] if isinstance(model, torch.nn.Module) else []
        if not trained:
            raise RecorderError("optimizer=None: expected a model with parameters that require a gradient.")
        super().__init__(trained, {"lr": None})

    def at_rate(self, lr: float | torch.Tensor | None) -> None:
        """The next update has this rate; None: none is known."""
        self.param_groups[0]["lr"] = None if lr is None else float(lr)
