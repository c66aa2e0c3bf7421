"""trajcheck.recording.model.optimizers: rates that lie on a GPU."""

from __future__ import annotations

import torch
from torch import nn

from trajcheck.recording.model.optimizers import Optimizers


class OnGpu(torch.Tensor):
    """A number that says it is on a GPU, and counts how often somebody waited for it."""

    reads = 0

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda", 0)

    def __float__(self) -> float:
        OnGpu.reads += 1
        return float(self.as_subclass(torch.Tensor))


def test_a_rate_on_a_gpu_is_waited_for_when_it_was_written() -> None:
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.5)
    rate = torch.tensor(0.25).as_subclass(OnGpu)
    optimizer.param_groups[0]["lr"] = rate
    found = Optimizers(optimizer)
    assert [found.rates() for _ in range(3)] == [[0.25]] * 3 and OnGpu.reads == 1
    rate.fill_(0.125)
    assert [found.rates() for _ in range(3)] == [[0.125]] * 3 and OnGpu.reads == 2
    optimizer.param_groups[0]["lr"] = 2 * rate
    assert found.rates() == [0.25] and OnGpu.reads == 3
