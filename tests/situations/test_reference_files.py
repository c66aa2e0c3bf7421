"""Reference points from the files that people have: tied, averaged, compiled, distributed and wrapped models, bf16,
.bin, checkpoints, shards, adapters; and files that do harm, or of which it cannot be told what is meant."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import Tensor, nn

import trajcheck
from trajcheck import Recorder
from trajcheck.errors import InvalidReferenceError


class Language(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wte, self.h = nn.Embedding(11, 6), nn.Linear(6, 6)
        self.register_buffer("pos", torch.arange(4.0))
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(torch.tanh(self.h(self.wte(tokens))))


class Adapted(nn.Module):
    """The names that PEFT gives: in the model lora_A.default.weight, in its file lora_A.weight."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.base = nn.Embedding(11, 11).requires_grad_(False)
        self.lora_A = nn.ModuleDict({name: nn.Linear(11, 2, bias=False) for name in names})
        self.lora_B = nn.ModuleDict({name: nn.Linear(2, 11, bias=False) for name in names})

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.base(tokens)
        for name in self.lora_A:
            h = h + self.lora_B[name](self.lora_A[name](h))
        return h


def _square(difference: Tensor) -> float:
    return float(np.square(difference.detach().numpy()).sum())


class Trained:
    """A run, its model at the end, and the Euclidean distance from its first iterate to any other, in float64."""

    def __init__(self, run: Path, model: nn.Module) -> None:
        self.run, self.model = run, model
        self.start = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
        self.average = torch.optim.swa_utils.AveragedModel(model)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        with Recorder(run, model, optimizer, every=1, quiet=True) as recorder:
            for _ in range(3):
                tokens = torch.randint(11, (4, 5))
                loss = nn.functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
                loss.backward()
                recorder.observe(tokens, loss)
                optimizer.step()
                optimizer.zero_grad()
                self.average.update_parameters(model)

    def distance(self, model: nn.Module, change: Callable[[Tensor], Tensor] = lambda p: p) -> float:
        there = dict(model.named_parameters())
        parts = [_square(change(there[name]).double() - start.double()) for name, start in self.start.items()]
        return float(np.sqrt(sum(parts)))

    def state(self, prefix: str = "") -> dict[str, Tensor]:
        return {prefix + name: tensor.clone() for name, tensor in self.model.state_dict().items()}


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    torch.manual_seed(0)
    return Trained(tmp_path_factory.mktemp("language") / "run", Language())


def sharded(trained: Trained, folder: Path) -> str:
    state = trained.state()
    del state["head.weight"]
    parts = {"a.safetensors": {"wte.weight": state.pop("wte.weight")}, "b.safetensors": state}
    for name, tensors in parts.items():
        save_file(tensors, folder / name)
    where = {name: file for file, tensors in parts.items() for name in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return str(folder)


def saved(tensors: Any, path: Path, **how: Any) -> str:
    (save_file if path.suffix == ".safetensors" else torch.save)(tensors, path, **how)
    return str(path)


def without(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {each: tensor for each, tensor in state.items() if each != name}


def by_columns(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same numbers, that of the next row beside each."""
    return {name: tensor.mT.contiguous().mT if tensor.dim() > 1 else tensor for name, tensor in state.items()}


WAYS: dict[str, Callable[[Trained, Path], Any]] = {
    "plain": lambda t, at: saved(t.state(), at / "x.safetensors"),
    "tied": lambda t, at: save_model(t.model, str(at / "x.safetensors")),
    "headonly": lambda t, at: saved(without(t.state(), "wte.weight"), at / "x.safetensors"),
    "compiled": lambda t, at: saved(t.state("_orig_mod."), at / "x.safetensors"),
    "ddp": lambda t, at: saved(t.state("module."), at / "x.pth"),
    "both": lambda t, at: saved(t.state("module._orig_mod."), at / "x.safetensors"),
    "fabric": lambda t, at: saved(t.state("_forward_module."), at / "x.safetensors"),
    "lightning": lambda t, at: saved({"state_dict": t.state("net.body."), "epoch": 3}, at / "x.ckpt"),
    "bin": lambda t, at: saved(t.model.state_dict(), at / "pytorch_model.bin"),
    "bin of old": lambda t, at: saved(t.state(), at / "x.bin", _use_new_zipfile_serialization=False),
    "columns": lambda t, at: saved(by_columns(t.state()), at / "x.pt"),
    "checkpoint": lambda t, at: saved({"model": t.state(), "step": 8, "lr": [0.1]}, at / "x.pt"),
    "shards": sharded,
    "pretrained": lambda t, at: (saved(t.state(), at / "model.safetensors"), str(at))[1],
}


@pytest.mark.parametrize("way", list(WAYS))
def test_a_file_of_the_end_of_the_run_is_read(way: str, language: Trained, tmp_path: Path) -> None:
    path = WAYS[way](language, tmp_path) or str(tmp_path / "x.safetensors")
    report = trajcheck.analyze(language.run, refs=[path], objective="none", out=tmp_path / "report")
    assert report.references["ref_dist"][0] == pytest.approx(language.distance(language.model), rel=1e-6)
    assert report.references["ref_dist"].iloc[-1] == 0


def test_other_points_than_the_end(language: Trained, tmp_path: Path) -> None:
    average = {name: tensor.clone() for name, tensor in language.average.state_dict().items()}
    swa = saved(average, tmp_path / "a.safetensors")
    half = saved({name: tensor.bfloat16() for name, tensor in language.state().items()}, tmp_path / "b.pt")
    report = trajcheck.analyze(language.run, refs=[swa, half], objective="none", out=tmp_path / "report")
    first = report.references[report.references["step"] == 0].set_index("ref")["ref_dist"]
    assert first[swa] == pytest.approx(language.distance(language.average.module), rel=1e-6)
    assert first[half] == pytest.approx(language.distance(language.model, lambda p: p.bfloat16()), rel=1e-6)
    again = trajcheck.analyze(
        language.run, refs=[swa, half], objective="none", out=tmp_path / "report"
    )  # from what is kept beside
    assert again.references.equals(report.references)


def test_numbers_in_another_order(language: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in too many parts to be read in place is written by rows beside the report."""
    monkeypatch.setattr("trajcheck.files.pickles.tensors.MOST_PARTS", 1)
    path = saved(by_columns(language.state()), tmp_path / "x.pt")
    for _ in range(2):
        report = trajcheck.analyze(language.run, refs=[path], objective="none", out=tmp_path / "report")
        assert report.references["ref_dist"][0] == pytest.approx(language.distance(language.model), rel=1e-6)
        assert report.references["ref_dist"].iloc[-1] == 0
    assert len(list((tmp_path / "report").rglob("weights-*.safetensors"))) == 1


def test_an_adapter_as_peft_saves_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    adapted = Trained(tmp_path / "run", Adapted("default"))
    adapter = {name.replace(".default", ""): t for name, t in adapted.state().items() if "lora" in name}
    path = saved(adapter, tmp_path / "adapter_model.safetensors")
    report = trajcheck.analyze(adapted.run, refs=[path], objective="none", out=tmp_path / "report")
    assert report.references["ref_dist"][0] == pytest.approx(adapted.distance(adapted.model), rel=1e-6)
    two = Trained(tmp_path / "two", Adapted("one", "other"))
    with pytest.raises(InvalidReferenceError, match=r"it lacks: lora_A"):  # of which adapter the file is, nobody says
        trajcheck.analyze(two.run, refs=[path], objective="none", out=tmp_path / "no")


class Harm:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def packed(path: Path) -> str:
    torch.save({"x": torch.zeros(10)}, path)
    with zipfile.ZipFile(path) as whole:
        entries = {each.filename: whole.read(each) for each in whole.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return str(path)


def test_what_does_harm_or_is_not_clear_is_refused_with_the_reason(language: Trained, tmp_path: Path) -> None:
    def refused(path: str, message: str) -> None:
        with pytest.raises(InvalidReferenceError, match=message):
            trajcheck.analyze(language.run, refs=[path], objective="none", out=tmp_path / "report")

    state = language.state()
    refused(saved({"model": Harm(tmp_path / "mark")}, tmp_path / "harm.pt"), "names posix.mkdir, .* made to do harm")
    assert not (tmp_path / "mark").exists()
    refused(packed(tmp_path / "packed.pt"), "a packed or encrypted entry .* which torch.save does not write")
    average = {name: tensor + 1 for name, tensor in state.items()}
    refused(saved({"model": state, "ema": average}, tmp_path / "two.pt"), "of this model under 'model' and 'ema'")
    both = {**state, "module.wte.weight": state["wte.weight"].clone()}
    refused(saved(both, tmp_path / "both.safetensors"), "'module.wte.weight' and 'wte.weight' are one parameter")
    refused(saved([1, 2], tmp_path / "list.pt"), "holds no state dict, a mapping of names to tensors; found list")
    more = {**state, "extra": state["pos"].clone()}
    refused(saved(more, tmp_path / "e.safetensors"), "of another model.*besides: extra")
    refused(saved(without(state, "h.bias"), tmp_path / "l.safetensors"), "of another model.*lacks: h.bias")
    other = {**state, "h.bias": torch.zeros(7)}
    refused(saved(other, tmp_path / "s.safetensors"), r"of another shape: h.bias \[7\] instead of \[6\]")
    integers = {**state, "h.bias": torch.zeros(6, dtype=torch.int64)}
    refused(saved(integers, tmp_path / "i.pt"), "tensor 'h.bias' has dtype I64; expected one of")
    for name in ("../a.safetensors", "/etc/passwd", "sub/a.safetensors", "a.txt", 3):
        folder = tmp_path / f"index{len(os.listdir(tmp_path))}"
        folder.mkdir()
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"wte.weight": name}}))
        refused(str(folder), "expected the name of a file of weights beside it")
    missing = tmp_path / "missing"
    missing.mkdir()
    index = json.loads(Path(sharded(language, missing), "model.safetensors.index.json").read_text())
    index["weight_map"]["h.bias"] = "a.safetensors"
    (missing / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(str(missing), "'h.bias' is not in a.safetensors, where it should be")
