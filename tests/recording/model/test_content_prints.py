"""Prints tell of every change of content, also where tensors lie where they lay."""

from __future__ import annotations

import torch

from trajcheck.recording.model.content_prints import ContentPrints


def test_what_lies_in_the_same_memory_in_another_order_is_different() -> None:
    weight = torch.nn.Parameter(torch.randn(40, 40, generator=torch.Generator().manual_seed(0)))
    prints = ContentPrints({"weight": weight})
    before = prints.now()
    assert not prints.differ(before, prints.now()).names
    weight.data = weight.data.t()
    assert prints.differ(before, prints.now()).names == ["weight"]
