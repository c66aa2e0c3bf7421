"""Models whose parts are of different dtypes: a float64 head, a bfloat16 base under float32 adapters, casts in the
code, a quantised base of int8, packed 4 bits or float8."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import trajcheck
from trajcheck import Recorder
from trajcheck.errors import ObjectiveError, RecorderError


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.head = nn.Linear(6, 8), nn.Linear(8, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.trunk(x)).double())


class Adapter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(6, 8).bfloat16().requires_grad_(False)
        self.lora_a, self.lora_b = nn.Linear(6, 2, bias=False), nn.Linear(2, 8, bias=False)
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.base(x.bfloat16()).float() + self.lora_b(self.lora_a(x))))


class Casts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(6, 8).bfloat16(), nn.LayerNorm(8), nn.Linear(8, 3).bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.norm(torch.tanh(self.a(x.bfloat16())).float()).bfloat16()).float()


class Codes(nn.Module):
    """A linear layer whose weight is stored as codes with a scale a row, under a float32 head."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        full = torch.randn(8, 6)
        scale = full.abs().amax(1, keepdim=True)
        if kind == "int8":
            codes = torch.round(full / scale * 127).to(torch.int8)
        elif kind == "packed":  # two codes of 4 bits a byte
            four = torch.round((full / scale + 1) * 7.5).to(torch.uint8)
            codes = four[:, 0::2] * 16 + four[:, 1::2]
        else:
            codes = (full / scale).to(torch.float8_e4m3fn)
        self.kind = kind
        self.codes = nn.Parameter(codes, requires_grad=False)
        self.register_buffer("scale", scale)
        self.out = nn.Linear(8, 3)
        self.scale: Tensor

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "packed":
            four = torch.stack([self.codes // 16, self.codes % 16], -1).flatten(1)
            weight = four.float() / 7.5 - 1
        else:
            weight = self.codes.float() / (127 if self.kind == "int8" else 1)
        return self.out(torch.tanh(F.linear(x, weight * self.scale)))


def loss_of(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def seeded(build: Callable[[], nn.Module]) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    return build(), loss_of


def head() -> tuple[nn.Module, Any]:
    return seeded(Head)


def adapter() -> tuple[nn.Module, Any]:
    return seeded(Adapter)


def casts() -> tuple[nn.Module, Any]:
    return seeded(Casts)


def int8() -> tuple[nn.Module, Any]:
    return seeded(lambda: Codes("int8"))


def packed() -> tuple[nn.Module, Any]:
    return seeded(lambda: Codes("packed"))


def float8() -> tuple[nn.Module, Any]:
    return seeded(lambda: Codes("float8"))


def train(run: Path, model: nn.Module, **options: Any) -> list[float]:
    """Six steps of SGD; the losses as training had them."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    generator, losses = torch.Generator().manual_seed(1), []
    with Recorder(run, model, optimizer, every=1, quiet=True, **options) as recorder:
        for _ in range(6):
            batch = torch.randn(16, 6, generator=generator), torch.randint(3, (16,), generator=generator)
            loss = loss_of(model, batch)
            loss.backward()
            recorder.observe(batch, loss)
            losses.append(float(loss.detach()))
            optimizer.step()
            optimizer.zero_grad()
    return losses


@pytest.mark.parametrize(
    ("make", "own", "eps"),
    [(head, 1e-6, 2.0**-23), (adapter, 1e-6, 2.0**-7), (casts, 1e-6, 2.0**-7)],
    ids=["head", "adapter", "casts"],
)
def test_each_tensor_keeps_its_own_dtype_or_all_are_wider(
    make: Callable[[], Any], own: float, eps: float, tmp_path: Path
) -> None:
    losses = train(tmp_path / "run", make()[0], objective=loss_of)
    for objective in (f"{__file__}:{make.__name__}", "run"):
        for dtype, near in ((None, own), ("as-is", own), ("float64", 2e-3), ("float32", 2e-3)):
            options: dict[str, Any] = {"objective": objective, "replay_dtype": dtype}
            report = trajcheck.analyze(tmp_path / "run", out=tmp_path / f"{objective[-4:]}-{dtype}", **options)
            assert np.abs(report.steps["loss"][:6] - losses).max() < near, (objective, dtype)
            shown = report.steps["gap_resolution"] / (report.steps["loss"].abs() + report.steps["loss"].shift().abs())
            if dtype in (None, "as-is"):
                assert report.summary["replay"]["dtype"] == "as-is"
                assert report.summary["replay"]["epsilon"] == eps
                assert shown.max() >= eps  # nothing finer than the coarsest part is called resolved


@pytest.mark.parametrize("make", [int8, packed, float8])
def test_a_base_of_codes_is_stored_as_it_is_and_never_cast(make: Callable[[], Any], tmp_path: Path) -> None:
    from trajcheck.files.extent_reader import ExtentReader
    from trajcheck.files.torch_tensors import read_tensor
    from trajcheck.runs.trajectory import open_trajectory

    model = make()[0]
    codes = model.codes.detach().clone()
    losses = train(tmp_path / "run", model, objective=loss_of)
    run = open_trajectory(tmp_path / "run")
    with ExtentReader() as reader:
        there = read_tensor(reader, run.snapshots[-1].frozen["codes"])
    assert there.dtype == codes.dtype and torch.equal(there.view(torch.uint8), codes.view(torch.uint8))
    assert set(run.shapes) == {"out.weight", "out.bias"} and run.numel == 27
    for objective in (f"{__file__}:{make.__name__}", "run"):
        for dtype in (None, "float64"):
            options: dict[str, Any] = {"objective": objective, "replay_dtype": dtype}
            report = trajcheck.analyze(tmp_path / "run", out=tmp_path / f"{objective[-4:]}-{dtype}", **options)
            np.testing.assert_allclose(report.steps["loss"][:6], losses, rtol=1e-6)
            assert report.steps["replay_grad_error"].max() < 1e-5


class Packed(nn.Parameter):
    """Codes that know their scale, as bitsandbytes' parameters do."""

    scale: float


class OfAClass(nn.Module):
    def __init__(self, shift: int) -> None:
        super().__init__()
        codes = torch.arange(48).reshape(8, 6).to(torch.int8) - 24 + shift
        self.codes = Packed(codes, requires_grad=False)
        self.codes.scale = 0.05
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(F.linear(x, self.codes.float() * self.codes.scale)))


def of_a_class() -> tuple[nn.Module, Any]:
    return seeded(lambda: OfAClass(0))


def of_other_codes() -> tuple[nn.Module, Any]:
    return seeded(lambda: OfAClass(1))


def test_codes_of_a_class_of_their_own_are_the_objectives_where_they_are_the_runs(tmp_path: Path) -> None:
    losses = train(tmp_path / "run", of_a_class()[0])
    report = trajcheck.analyze(tmp_path / "run", objective=f"{__file__}:of_a_class", out=tmp_path / "report")
    np.testing.assert_allclose(report.steps["loss"][:6], losses, rtol=1e-6)
    with pytest.raises(ObjectiveError, match=r"the frozen codes is a Packed.*and makes others"):
        trajcheck.analyze(tmp_path / "run", objective=f"{__file__}:of_other_codes", out=tmp_path / "no")
    with pytest.warns(RuntimeWarning, match="could not be exported: the parameter codes is a Packed"):
        train(tmp_path / "exported", of_a_class()[0], objective=loss_of)


def test_a_complex_parameter_is_left_out_as_the_advice_says(tmp_path: Path) -> None:
    class Spectral(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.filter = nn.Parameter(torch.ones(4, dtype=torch.complex64))
            self.out = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(torch.fft.irfft(torch.fft.rfft(x) * self.filter, n=6))

    with pytest.raises(RecorderError, match=r"'filter' has dtype torch.complex64.*Leave it out with parameters="):
        train(tmp_path / "no", Spectral())
    train(tmp_path / "run", Spectral(), parameters="out")
    report = trajcheck.analyze(tmp_path / "run", out=tmp_path / "report")
    assert report.references["ref_dist"].notna().all()
    with pytest.raises(ObjectiveError, match=r"left out of the recording \(filter\)"):
        trajcheck.analyze(tmp_path / "run", objective=f"{__file__}:head", out=tmp_path / "other")
