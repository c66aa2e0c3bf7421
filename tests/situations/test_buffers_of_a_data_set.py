"""A model whose forward writes into a buffer that it reads, measured on a whole data set: each batch begins with the
buffers of the record, as each probe batch does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from plain_run_files import write_plain_step

import trajcheck

OBJECTIVE = """
import torch


class Counting(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(1))
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        if self.training:
            self.calls += 1
        return self.w * x * self.calls


def counting():
    batches = [torch.ones(2), 2 * torch.ones(2), torch.ones(2)]
    return Counting(), lambda model, batch: (model(batch) ** 2).mean(), batches
"""


def test_batches_do_not_begin_where_the_one_before_ended(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for step, w in enumerate((3.0, 2.0, 1.0)):
        tensors = {"param/w": np.array([w], np.float32), "buffer/calls": np.array([float(step)], np.float32)}
        write_plain_step(tmp_path / "run", step, tensors, lr=0.1)
    (tmp_path / "objective.py").write_text(OBJECTIVE)
    objective = f"{tmp_path / 'objective.py'}:counting"
    report = trajcheck.analyze(tmp_path / "run", ["final"], objective, sample=("full",), out=tmp_path / "report")
    calls = np.arange(1.0, 4)  # of the record, and once more
    x = np.array([3.0, 2.0, 1.0])
    np.testing.assert_allclose(report.steps["loss"], (x * calls) ** 2 * (1 + 4 + 1) / 3, rtol=1e-6)
