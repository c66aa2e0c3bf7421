"""What a device other than the CPU tells later: the same findings, in flags that are asked for at a record."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from trajcheck.recording.model.recorded_model import Parameter, RecordedModel
from trajcheck.recording.step import unseen_updates
from trajcheck.recording.step.unseen_updates import UnseenUpdates


def parameters() -> list[Parameter]:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    return RecordedModel(model, torch.optim.SGD(model.parameters(), lr=0.1)).stored


@pytest.mark.parametrize("waiting", [2, 512])
def test_flags_of_a_device_are_read_at_a_record(waiting: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unseen_updates, "WAITING", waiting)
    monkeypatch.setattr(unseen_updates, "_moved", lambda before, now: unseen_updates._differ(before, now))
    found = parameters()
    unseen = UnseenUpdates(found)
    for step in range(10):
        if step:
            with monkeypatch.context() as patch:  # nothing is read between records
                for name in ("item", "tolist", "cpu", "__bool__", "__float__", "__int__"):
                    patch.setattr(Tensor, name, lambda *_: 1 / 0)
                unseen.arrives(step, content=False)
        unseen.left(content=False)
        if step in (3, 7):
            for each in found:
                each.source.data.mul_(0.5)
    unseen.take()
    assert (unseen.all.times, unseen.all.first, unseen.all.last) == (2, 4, 8)


def test_rounding_is_no_move_and_nan_is_told_once() -> None:
    before = torch.randn(50)
    assert not unseen_updates._moved(before, before.clone())
    assert not unseen_updates._moved(before, (before + 0.3) - 0.3)
    assert unseen_updates._moved(before, before * 1.001)
    broken = before.clone()
    broken[3] = torch.nan
    assert unseen_updates._moved(before, broken)
    assert not unseen_updates._moved(broken, broken.clone())


def test_prints_tell_where_content_changed() -> None:
    found = parameters()
    unseen = UnseenUpdates(found)
    before = unseen.prints.now()
    found[2].source.data[0, 1] += 0.01
    difference = unseen.prints.differ(before, unseen.prints.now())
    assert bool(difference.anywhere)
    assert difference.names == ["1.weight"]
