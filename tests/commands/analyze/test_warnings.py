"""commands/analyze/findings.py and reports/making/headline.py: what an analysis warns of, and when it does not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import SAMPLES
from plain_run_files import write_plain_step
from safetensors import safe_open
from safetensors.numpy import load_file

import trajcheck


def walk(folder: Path, steps: int, optimizer: str = "SGD", **group: Any) -> Path:
    """A random walk with gradients, said to be made by some optimizer."""
    folder.mkdir()
    stream = np.random.default_rng(0)
    x = stream.normal(size=5)
    for step in range(steps + 1):
        g = stream.normal(size=5)
        write_plain_step(folder, step, {"param/w": x, "grad/w": g}, loss=1.0, lr=0.1, tau=0.1 * step)
        x = x - 0.1 * g
    about = {"format": 1, "parameters": [{"name": "w", "shape": [5], "group": 0}]}
    about["optimizer"] = {"name": optimizer, "groups": [{"lr": 0.1, **group}]}
    (folder / "run.json").write_text(json.dumps(about))
    return folder


def said(run: Path, out: Path, **options: object) -> list[str]:
    found = trajcheck.analyze(run, out=out, **options).summary["warnings"]  # type: ignore[arg-type]
    return [warning for warning in found if "carries a gradient" in warning]


def test_momentum_is_warned_of_with_advice_that_can_be_followed(tmp_path: Path) -> None:
    [warning] = said(walk(tmp_path / "long", 60, momentum=0.9), tmp_path / "a", skip=1)
    assert "towards final: SGD with a momentum of 0.9 carries a gradient on for 50 steps" in warning
    assert "so cos_skip still holds some" in warning and "Leave it out, or give 50; --sample probe" in warning
    [warning] = said(walk(tmp_path / "short", 50, "Adam", betas=[0.9, 0.999]), tmp_path / "b")
    assert "towards final: no recorded step lies 50 steps ahead" in warning and "--sample probe" in warning
    [warning] = said(tmp_path / "long", tmp_path / "a", refs=["step:40"])
    assert "towards step:40: no recorded step lies 50 steps ahead" in warning
    assert not said(tmp_path / "long", tmp_path / "a", refs=["step:40"], steps="40:")  # x* holds nothing of these steps


@pytest.mark.parametrize(
    ("group", "needed"),
    [({"momentum": 0.99}, 500), ({"momentum": 0.5}, 10), ({"momentum": 0.0}, 1), ({"momentum": 0.95}, 100)],
)
def test_the_default_is_what_the_momentum_takes(tmp_path: Path, group: dict[str, Any], needed: int) -> None:
    report = trajcheck.analyze(walk(tmp_path / "run", 20, **group), out=tmp_path / "report")
    assert report.summary["run"]["skip"] == needed


def test_skip_50_does_not_silence_a_momentum_of_99_percent(tmp_path: Path) -> None:
    run = walk(tmp_path / "run", 120, momentum=0.99)
    [warning] = said(run, tmp_path / "report", skip=50)
    assert "carries a gradient on for 500 steps" in warning
    [warning] = said(run, tmp_path / "report")
    assert "no recorded step lies 500 steps ahead" in warning


@pytest.mark.parametrize("name", ["SGDScheduleFree", "Lookahead", "Lion"])
def test_what_an_unknown_optimizer_remembers_is_not_known(tmp_path: Path, name: str) -> None:
    run = walk(tmp_path / "run", 60, name, betas=[0.9, 0.99], momentum=0.9)
    [warning] = said(run, tmp_path / "report")
    assert f"how long {name} carries a gradient on is not known" in warning and "--sample probe" in warning
    [warning] = said(run, tmp_path / "report", skip=50)
    assert f"how long {name} carries" in warning


def test_momentum_is_not_warned_of_where_nothing_holds_it(tmp_path: Path) -> None:
    run = walk(tmp_path / "run", 60, momentum=0.9)
    assert not said(run, tmp_path / "report", refs=["init"])
    assert not said(run, tmp_path / "report", skip=50)
    assert not said(run, tmp_path / "report")
    assert not said(run, tmp_path / "report", metrics=["geometry"])
    assert not said(walk(tmp_path / "plain", 60), tmp_path / "other")


@pytest.mark.parametrize("tensor", ["param/0.weight", "grad/2.bias"])
def test_a_flipped_bit_in_one_step_is_seen_and_the_step_named(tmp_path: Path, tensor: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(SAMPLES / "digits-sgd-seed0", run)
    objective = f"{SAMPLES / 'objectives.py'}:digits"
    options = {"objective": objective, "metrics": ["progress"], "steps": "20:40", "out": tmp_path / "report"}
    healthy = trajcheck.analyze(run, **options)  # type: ignore[arg-type]
    assert not [each for each in healthy.summary["warnings"] if "replayed" in each]
    path = run / "step-000000033.safetensors"
    tensors = load_file(path)
    with safe_open(path, "np") as file:
        metadata = json.loads(file.metadata()["trajcheck"])
    tensors[tensor].view(np.uint32).flat[3] ^= 1 << 29
    write_plain_step(run, 33, tensors, **{k: v for k, v in metadata.items() if k not in ("format", "step", "checksum")})
    damaged = trajcheck.analyze(run, **options)  # type: ignore[arg-type]
    [warning] = [each for each in damaged.summary["warnings"] if "replayed" in each]
    assert "at step 33, by" in warning and "its file may be damaged" in warning
