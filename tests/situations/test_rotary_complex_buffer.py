"""A language model with Llama's rotary embedding, whose buffer `freqs_cis` is complex, replayed in every dtype."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import trajcheck
from trajcheck import Recorder

WIDTHS = {torch.complex64: "complex64", torch.complex128: "complex128"}


class Rotary(nn.Module):
    """One attention head whose queries and keys are turned by angles that grow with the position."""

    def __init__(self, dtype: torch.dtype = torch.complex64) -> None:
        super().__init__()
        self.token, self.q, self.k = nn.Embedding(11, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.out = nn.Linear(8, 11)
        angles = torch.outer(torch.arange(6).double(), 0.7 ** torch.arange(4).double())
        self.register_buffer("freqs_cis", torch.polar(torch.ones_like(angles), angles).to(dtype))
        self.freqs_cis: Tensor

    def turned(self, x: Tensor) -> Tensor:
        pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * self.freqs_cis[: x.shape[1]]).flatten(-2).type_as(x)

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.token(tokens)
        weights = (self.turned(self.q(h)) @ self.turned(self.k(h)).mT / math.sqrt(8)).softmax(-1)
        return self.out(weights @ h)


def loss_of(model: nn.Module, tokens: Tensor) -> Tensor:
    return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


def narrow() -> tuple[nn.Module, object]:
    return Rotary(), loss_of


def wide() -> tuple[nn.Module, object]:
    return Rotary(torch.complex128), loss_of


def dense_loss(parameters: dict[str, np.ndarray], tokens: np.ndarray) -> float:
    """The same network in float64 numpy."""
    p = {name: value.astype(np.float64) for name, value in parameters.items()}
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    h = p["token.weight"][inputs]
    angles = np.outer(np.arange(inputs.shape[1]), 0.7 ** np.arange(4))

    def turned(name: str) -> np.ndarray:
        x = h @ p[f"{name}.weight"].T + p[f"{name}.bias"]
        even, odd = x[..., 0::2], x[..., 1::2]
        real, imaginary = even * np.cos(angles) - odd * np.sin(angles), even * np.sin(angles) + odd * np.cos(angles)
        return np.stack([real, imaginary], -1).reshape(x.shape)

    scores = turned("q") @ turned("k").swapaxes(-1, -2) / np.sqrt(8)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    logits = (weights / weights.sum(-1, keepdims=True)) @ h @ p["out.weight"].T + p["out.bias"]
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return float(-np.take_along_axis(logs, targets[..., None], -1).mean())


def record(folder: Path, dtype: torch.dtype) -> list[float]:
    torch.manual_seed(0)
    model = Rotary(dtype)
    optimizer, right = torch.optim.SGD(model.parameters(), lr=0.5), []
    with Recorder(folder, model, optimizer, every=1, quiet=True, objective=loss_of) as recorder:
        for _ in range(4):
            tokens = torch.randint(11, (5, 7))
            right.append(dense_loss({n: p.detach().numpy() for n, p in model.named_parameters()}, tokens.numpy()))
            loss = loss_of(model, tokens)
            loss.backward()
            recorder.observe(tokens, loss)
            optimizer.step()
            optimizer.zero_grad()
    return right


@pytest.mark.parametrize("dtype", list(WIDTHS), ids=list(WIDTHS.values()))
def test_losses_and_gradients_keep_the_imaginary_part(tmp_path: Path, dtype: torch.dtype) -> None:
    right = record(tmp_path / "run", dtype)
    name = "narrow" if dtype is torch.complex64 else "wide"
    for objective in (f"{__file__}:{name}", "run"):
        for replay, near in (("float32", 1e-6), ("float64", 1e-8), ("as-is", 1e-6)):
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # torch warns where it drops an imaginary part
                report = trajcheck.analyze(
                    tmp_path / "run",
                    objective=objective,
                    replay_dtype=replay,
                    out=tmp_path / f"{objective[-4:]}{replay}",
                )
            steps = report.steps.set_index("step")
            np.testing.assert_allclose(steps["loss"][:4], right, rtol=near if dtype is torch.complex128 else 1e-6)
            assert steps["replay_grad_error"].max() < 1e-5


def test_a_file_holds_the_buffer_and_a_reader_gives_it_back(tmp_path: Path) -> None:
    from trajcheck.files.extent_reader import ExtentReader
    from trajcheck.files.torch_tensors import read_tensor
    from trajcheck.runs.trajectory import open_trajectory

    for dtype in WIDTHS:
        record(tmp_path / str(dtype), dtype)
        with ExtentReader() as reader:
            extent = open_trajectory(tmp_path / str(dtype)).snapshots[0].buffers["freqs_cis"]
            assert torch.equal(read_tensor(reader, extent), Rotary(dtype).freqs_cis)


def test_a_buffer_that_no_file_can_hold_is_named_at_once_and_in_the_report(tmp_path: Path) -> None:
    class Sparse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)
            self.register_buffer("links", torch.eye(3).to_sparse())

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(torch.sparse.mm(self.links, x))

    model = Sparse()
    with pytest.warns(
        RuntimeWarning, match=r"cannot hold buffer links \(Tensor, float32, torch.sparse_coo\): a replay"
    ):
        recorder = Recorder(tmp_path / "run", model, torch.optim.SGD(model.parameters(), lr=0.1), every=1, quiet=True)
    recorder.close()
