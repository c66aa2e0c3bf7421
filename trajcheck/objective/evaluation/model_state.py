"""Model and loss as one module, in the modes and with the buffers of the sample that is evaluated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trajcheck.errors import ObjectiveError
from trajcheck.objective.exported import ExportedModel
from trajcheck.objective.file import Loss
from trajcheck.objective.module_modes import modes_of, set_modes
from trajcheck.objective.parameter_names import buffer_names
from trajcheck.objective.precision import in_width
from trajcheck.objective.sample import Sample
from trajcheck.runs.canonical_names import canonical
from trajcheck.runs.modes import Modes, modes_in_words, other_modes


class ModelState:
    """What of model and loss is no parameter: modes and buffers, by the run's names, put into place for a sample.

    `scope` is the one module of both, `exported` the modes that a recorded program was made in, which it cannot leave,
    `around` the attribute in which the run's model lies, and `error(where, text)` makes the objective's error.
    """

    def __init__(self, model: nn.Module, loss: Loss, error: Callable[[str, str], ObjectiveError]) -> None:
        self.scope = _Scope(model, loss)
        self.exported: Modes | None = model.exported_modes if isinstance(model, ExportedModel) else None
        self.around = ""
        self._error = error
        self._own = self._modes = modes_of(model)
        self._buffers = buffer_names(self.scope)

    # -- modes

    def in_words(self, modes: Modes | None) -> str:
        """The mode in which a sample of these modes is evaluated; None: the objective's own."""
        if modes is not None:
            return modes_in_words(modes)
        return modes_in_words(self.exported if self.exported is not None else self._own)

    def take_modes(self, sample: Sample, where: str) -> None:
        """Put the model's modules into the modes of the sample."""
        modes = self._own if sample.modes is None else dict(sample.modes)
        if self.exported is not None:
            if sample.modes is not None and modes != self.exported:
                raise self._error(where, other_modes(self.exported, modes))
        elif modes != self._modes:
            self._modes = {}
            try:
                set_modes(self.scope.model, modes)
            except ObjectiveError as error:
                raise self._error(where, str(error)) from error
            self._modes = modes

    # -- buffers

    def statistics_read(self, modes: Modes | None) -> set[str]:
        """The batch statistics, by name, that are read in these modes: those of modules in evaluation."""
        self.take_modes(Sample({}, modes=modes), "")
        return {name for name, module in self.normalised() if not module.training}

    def buffers_read(self, modes: Modes | None, known: Iterable[str]) -> set[str]:
        """The model's buffers that a loss may read in these modes: all but the statistics of modules that train. One
        that goes by several names goes by that which is among `known`."""
        self.take_modes(Sample({}, modes=None if self.exported is not None else modes), "")
        written = {name for name, module in self.normalised() if module.training}
        there = {name for name, _ in self.scope.named_buffers(remove_duplicate=False)}
        found = set()
        for same in set(self._buffers.values()):
            names = [canonical(name.removeprefix("model.")) for name in same if name.startswith("model.")]
            if names and there.intersection(same) and not written.intersection(names):
                found.add(next((name for name in names if name in known), names[0]))
        return found

    def normalised(self) -> Iterator[tuple[str, nn.Module]]:
        """The batch statistics of the model, each with its module."""
        for path, module in self.scope.model.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats:
                for name, buffer in module.named_buffers(recurse=False):
                    if buffer is not None:
                        yield canonical(f"{path}.{name}" if path else name), module

    def statistic(self, name: str, where: str) -> Tensor:
        """A buffer as it stands in the model."""
        return self.scope.get_buffer(self.names_of_buffer(name, where)[0])

    def fresh_buffers(
        self, sample: Sample, where: str, device: torch.device, dtype: torch.dtype | None
    ) -> dict[str, Tensor]:
        """Copies of all buffers of model and loss, by their names in `scope`: the sample's where it has them, as wide
        as `dtype`, or as they are."""
        if not self._buffers and not sample.buffers:
            return {}
        own = dict(self.scope.named_buffers(remove_duplicate=False))
        values = {same: own[same[0]].clone() for same in self._buffers.values() if same[0] in own}
        for name, value in sample.buffers.items():
            same = self.names_of_buffer(name, where)
            values[same] = value.to(device, in_width(value.dtype, dtype), copy=True)
        return {name: value for same, value in values.items() for name in same}

    def names_of_buffer(self, name: str, where: str) -> tuple[str, ...]:
        same = self._buffers.get(f"model.{self.around}{name}")
        if same is None:
            raise self._error(where, f"the run has a buffer {name}, which the objective's model does not have")
        return same

    def set_buffers(self, buffers: Mapping[str, Tensor], where: str) -> None:
        """Another rank begins, with its own buffers. Equal ones are left alone: a graph may have them."""
        with torch.no_grad():
            for name, value in buffers.items():
                here = self.scope.get_buffer(self.names_of_buffer(name, where)[0])
                if not torch.equal(here, value.to(here.dtype)):
                    here.copy_(value)

    def put_back(self, buffers: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, value in buffers.items():
                here = self.scope.get_buffer(name)
                if not torch.equal(here, value):
                    here.copy_(value)


class _Scope(nn.Module):
    """Model and loss as one module, so that whatever the loss calls sees the replaced tensors."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model = model
        owner = loss if isinstance(loss, nn.Module) else getattr(loss, "__self__", None)
        if isinstance(owner, nn.Module) and owner is not model:
            self.loss = owner

    def forward(self, work: Callable[[], Any]) -> Any:
        return work()
