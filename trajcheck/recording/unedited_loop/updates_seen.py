"""Whether a loop that no optimizer steps in writes its updates itself: gradients are made, and parameters move."""

from __future__ import annotations

import weakref
from collections.abc import Mapping

import torch
from torch import nn

from trajcheck.recording.unedited_loop.backward_passes import Root, watch_backward_passes

#: So many backward passes are looked behind.
PATIENCE = 5


class UpdatesSeen:
    """Watches modules that it is told of, until `remove()`. A few times it reads their parameters."""

    def __init__(self) -> None:
        self._modules: list[tuple[weakref.ref[nn.Module], Mapping[str, list[float]]]] = []
        self.passes = 0
        self._moved: dict[str, tuple[int, int]] = {}  # by class: how many parameters moved, of how many
        self.remove = watch_backward_passes(self)

    def forward(self, module: nn.Module) -> None:
        """A module without an optimizer is called, for the first time."""
        self._modules.append((weakref.ref(module), _prints(module)))

    def backward_begins(self, root: Root) -> None:
        if 0 < self.passes <= PATIENCE:
            for reference, before in self._modules:
                if (module := reference()) is not None:
                    now = _prints(module)
                    if moved := sum(now.get(name) != print_ for name, print_ in before.items()):
                        self._moved[type(module).__name__] = moved, len(before)

    def backward_ended(self, root: Root) -> None:
        self.passes += 1

    def said(self) -> str:
        """What was seen, and how to go on; '' where parameters stayed."""
        if not self._moved:
            return f" {self.passes} backward passes were made, and no parameters moved." if self.passes else ""
        moved = ", ".join(f"{one} of the {all_} parameters of {name}" for name, (one, all_) in self._moved.items())
        return (
            f" There were {self.passes} backward passes, and {moved} changed, so the loop writes its updates itself. "
            "Record it by trajcheck.Recorder(path, model, None), and put `with recorder.update(lr=...):` around the "
            "lines that change the parameters."
        )


def _prints(module: nn.Module) -> Mapping[str, list[float]]:
    """Sum and norm of each trainable parameter."""
    found = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad and parameter.is_floating_point() and not parameter.is_meta:
            values = parameter.detach()
            norm = torch.linalg.vector_norm(values, dtype=torch.float64)
            found[name] = torch.stack([values.sum(dtype=torch.float64), norm]).tolist()
    return found
