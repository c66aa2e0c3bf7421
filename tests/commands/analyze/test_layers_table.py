"""--layers and --group: one tensor at a time, and what lies in tensors that a normalisation follows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dense import Record
from dense_samples import Task, of_tensors
from frames import assert_close, col
from handwritten import cut, write_objective, write_run
from plain_run_files import Outcome
from quadratics import Layout, descend
from safetensors.numpy import save_file
from sample_cases import NETWORK, SPECS, analyzed, assert_close_tables, assert_table, network_records, rows_of, written

#: What makes sense for one tensor, at the least.
OF_STEPS = (
    *("step", "param_norm", "grad_norm", "step_norm", "init_dist", "update_corr", "descent"),
    *("inst_smooth", "radial_cos"),
)
OF_REFERENCES = ("step", "ref_dist", "grad_norm", "grad_dot_ref", "rsi", "eb", "cos", "update_dot_ref")
TENSORS = tuple(name for name, shape in NETWORK.layout.items() if np.prod(shape))


def tensor_rows(layers: pd.DataFrame, tensor: str, ref: str | None = None) -> pd.DataFrame:
    """The rows of one tensor: those of the path, or those towards a reference."""
    chosen = (layers["tensor"] == tensor) & (layers["sample"] == "own")
    chosen &= layers["ref"].isna() | layers["ref"].eq("") if ref is None else layers["ref"] == ref
    assert chosen.any(), f"no rows of {tensor} {ref or ''}"
    return layers[chosen].reset_index(drop=True)


def assert_tensors(layers: pd.DataFrame, task: Task, groups: dict[str, Sequence[str]]) -> None:
    for group, names in groups.items():
        expected = of_tensors(task, names)
        assert_table(tensor_rows(layers, group), expected.steps, group, OF_STEPS)
        for spec, columns in expected.references.items():
            assert_table(tensor_rows(layers, group, spec), columns, f"{group} towards {spec}", OF_REFERENCES)


def test_the_columns_of_every_tensor(tmp_path: Path) -> None:
    run, objective, task = written(tmp_path, network_records())
    layers = analyzed(run, objective, tmp_path / "report", layers=True).layers
    assert list(layers.columns[:6]) == ["step", "ref", "sample", "tensor", "numel", "radial_cos"]
    assert_tensors(layers, task, {name: [name] for name in TENSORS})
    for name in TENSORS:
        assert set(tensor_rows(layers, name)["numel"]) == {int(np.prod(NETWORK.layout[name]))}


def test_the_columns_of_every_tensor_from_recorded_gradients(tmp_path: Path) -> None:
    run, _, task = written(tmp_path, network_records())
    for record in task.records:
        record.z = None
    layers = analyzed(run, None, tmp_path / "report", layers=True).layers
    for name in TENSORS:
        expected = of_tensors(task, [name])
        assert_table(tensor_rows(layers, name), expected.steps, name, OF_STEPS)
        for spec in SPECS:
            assert_table(tensor_rows(layers, name, spec), expected.references[spec], name, OF_REFERENCES)


def test_tensors_add_up_to_the_whole(tmp_path: Path) -> None:
    run, objective, _ = written(tmp_path, network_records())
    report = analyzed(run, objective, tmp_path / "report", layers=True)
    parts = [tensor_rows(report.layers, name) for name in TENSORS]
    for name in ("update_corr", "descent"):
        assert_close(report.steps, name, np.sum([col(part, name) for part in parts], axis=0))
    for name in ("param_norm", "grad_norm", "step_norm", "init_dist"):
        assert_close(report.steps, name, np.sqrt(np.sum([col(part, name) ** 2 for part in parts], axis=0)))
    for spec in SPECS:
        rows = rows_of(report.references, "own", spec)
        parts = [tensor_rows(report.layers, name, spec) for name in TENSORS]
        for name in ("grad_dot_ref", "update_dot_ref"):
            assert_close(rows, name, np.sum([col(part, name) for part in parts], axis=0))
        for name in ("ref_dist", "grad_norm"):
            assert_close(rows, name, np.sqrt(np.sum([col(part, name) ** 2 for part in parts], axis=0)))


def test_the_table_is_written(tmp_path: Path) -> None:
    run, objective, _ = written(tmp_path, network_records())
    report = analyzed(run, objective, tmp_path / "report", layers=True)
    table = pd.read_csv(tmp_path / "report" / "layers.csv", keep_default_na=False)
    assert len(table) == len(report.layers)
    assert set(table["ref"]) == {"", *SPECS}


def test_without_being_asked_there_is_no_such_table(tmp_path: Path) -> None:
    run, objective, _ = written(tmp_path, network_records())
    report = analyzed(run, objective, tmp_path / "report")
    assert report.layers is None
    assert not (tmp_path / "report" / "layers.csv").exists()


# -- groups -------------------------------------------------------------------------------------------------------

WHOLE: Layout = {"head": (9,), "layer": (12,)}
SPLIT: Layout = {"head": (9,), "layer.a": (3,), "layer.b": (9,)}


def layers_in(layout: Layout, folder: Path, **options: Any) -> tuple[Any, Path]:
    run, objective, _ = written(folder, network_records(), layout=layout)
    return analyzed(run, objective, folder / "report", **options), run


def test_splitting_a_tensor_leaves_the_totals(tmp_path: Path) -> None:
    whole, _ = layers_in(WHOLE, tmp_path / "whole", layers=True)
    split, _ = layers_in(SPLIT, tmp_path / "split", layers=True)
    assert_close_tables(whole.steps, split.steps)
    assert_close_tables(whole.references, split.references)
    assert set(split.layers["tensor"]) == set(SPLIT)


def test_a_group_of_the_parts_is_the_tensor(tmp_path: Path) -> None:
    whole, _ = layers_in(WHOLE, tmp_path / "whole", layers=True)
    joined, _ = layers_in(SPLIT, tmp_path / "split", group=("layer",))
    assert set(joined.layers["tensor"]) == {"head", "layer"}
    for ref in (None, *SPECS):
        for name in WHOLE:
            assert_close_tables(tensor_rows(whole.layers, name, ref), tensor_rows(joined.layers, name, ref))


@pytest.mark.parametrize(
    ("patterns", "groups"),
    [
        (("body",), {"body": ["body.hidden.weight", "body.hidden.bias"], "gain": ["gain"], "out": ["out"]}),
        ((r"hidden\.(weight|bias)",), {"weight": ["body.hidden.weight"], "bias": ["body.hidden.bias"], "out": ["out"]}),
        (("bias", "gain|out"), {"bias": ["body.hidden.bias"], "gain": ["gain"], "out": ["out"]}),
        (("^(.)",), {"b": ["body.hidden.weight", "body.hidden.bias"], "g": ["gain"], "o": ["out"]}),
    ],
    ids=["the text matched", "its first group", "several patterns", "the first letter"],
)
def test_groups_go_by_the_text_that_is_matched(
    patterns: tuple[str, ...], groups: dict[str, Sequence[str]], tmp_path: Path
) -> None:
    run, objective, task = written(tmp_path, network_records())
    layers = analyzed(run, objective, tmp_path / "report", group=patterns).layers
    assert_tensors(layers, task, groups)


def test_the_command_line_takes_layers_and_groups(tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    run, _, _ = written(tmp_path, network_records())
    for name, options in {"layers": ["--layers"], "group": ["--group", "body", "--group", "gain|out"]}.items():
        outcome = cli("analyze", run, *options, "--out", tmp_path / name, "--quiet")
        assert outcome.code == 0, outcome.err
    tensors = {
        name: set(pd.read_csv(tmp_path / name / "layers.csv")["tensor"]) & {*TENSORS, "body"}
        for name in ("layers", "group")
    }
    assert tensors == {"layers": set(TENSORS), "group": {"body", "gain", "out"}}


def test_a_pattern_that_is_none_is_a_usage_error(tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    run, _, _ = written(tmp_path, network_records())
    outcome = cli("analyze", run, "--group", "body(", "--out", tmp_path / "report")
    assert outcome.code == 2
    assert "--group" in outcome.err and "body(" in outcome.err


# -- scale invariance ---------------------------------------------------------------------------------------------


@dataclass
class Normalised:
    """f(w, b; z) = <z, w/|w|> + 1/2 |b - z|^2: w is followed by a normalisation, b is not."""

    size: int = 6

    @property
    def layout(self) -> Layout:
        return {"bias": (self.size,), "linear.weight": (2, self.size // 2)}

    def f(self, x: np.ndarray, z: np.ndarray) -> float:
        b, w = x[: self.size], x[self.size :]
        return float(z @ w / np.linalg.norm(w) + 0.5 * (b - z) @ (b - z))

    def grad(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        b, w = x[: self.size], x[self.size :]
        direction = w / np.linalg.norm(w)
        return np.concatenate([b - z, (z - direction * (z @ direction)) / np.linalg.norm(w)])

    def torch_loss(self) -> str:
        return f"""
def loss(x, batch):
    b, w = x[: {self.size}], x[{self.size} :]
    return (batch * (w / w.norm())).sum() + 0.5 * (b - batch).square().sum()
"""


def normalised_run(folder: Path) -> tuple[Path, str, list[Record]]:
    problem, rng = Normalised(), np.random.default_rng(3)
    samples = [rng.normal(size=problem.size) for _ in range(20)]
    records = descend(problem, rng.normal(size=2 * problem.size), samples, [0.05] * 20)
    run = write_run(folder / "run", records, problem.layout)
    return run, write_objective(folder / "objective.py", problem, problem.layout), records


def reference_away_in(part: str, records: Sequence[Record], folder: Path) -> str:
    """A point that lies far off in one of the two tensors."""
    x = np.array(records[-1].x)
    x[slice(6, None) if part == "linear.weight" else slice(0, 6)] += 10.0
    save_file(cut(x, Normalised().layout), folder / "far.safetensors")
    return str(folder / "far.safetensors")


@pytest.mark.parametrize("replay", [True, False])
def test_a_normalised_tensor_has_no_radial_gradient(replay: bool, tmp_path: Path) -> None:
    run, objective, _ = normalised_run(tmp_path)
    layers = analyzed(run, objective if replay else None, tmp_path / "report", refs=["final"], layers=True).layers
    assert np.nanmax(np.abs(col(tensor_rows(layers, "linear.weight"), "radial_cos"))) < 1e-12
    assert np.nanmedian(np.abs(col(tensor_rows(layers, "bias"), "radial_cos"))) > 0.1


@pytest.mark.parametrize(("part", "warns"), [("linear.weight", True), ("bias", False)])
def test_distances_in_scale_invariant_tensors_are_warned_of(part: str, warns: bool, tmp_path: Path) -> None:
    run, objective, records = normalised_run(tmp_path)
    far = reference_away_in(part, records, tmp_path)
    report = analyzed(run, objective, tmp_path / "report", refs=[far], layers=True)
    assert any("whose scale" in warning for warning in report.summary["warnings"]) == warns


def test_no_warning_without_a_scale_invariant_tensor(tmp_path: Path) -> None:
    run, objective, _ = written(tmp_path, network_records())
    report = analyzed(run, objective, tmp_path / "report", layers=True)
    assert not any("whose scale" in warning for warning in report.summary["warnings"])


def test_layers_change_no_other_table(tmp_path: Path) -> None:
    run, objective, _ = written(tmp_path, network_records())
    plain = analyzed(run, objective, tmp_path / "plain")
    with_layers = analyzed(run, objective, tmp_path / "layers", layers=True)
    assert_close_tables(plain.steps, with_layers.steps)
    assert_close_tables(plain.references, with_layers.references)
