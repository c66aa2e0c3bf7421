"""References by role: the other seed of the same group; options that go together for each run; paths of one run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from archives import index, index_rows, statuses, write_archive
from plain_run_files import Outcome
from safetensors.numpy import load_file

import trajcheck
from trajcheck import batch
from trajcheck.commands.batch.config_file import read_config
from trajcheck.commands.batch.options import Override
from trajcheck.commands.batch.roles import path_parts, roles_of_run
from trajcheck.errors import RunError, UsageError
from trajcheck.measuring.options import Options

Cli = Callable[..., Outcome]
NAMES = ("cnn/sgd/seed0", "cnn/sgd/seed1", "mlp/seed0", "mlp/seed1")
settings = partial(trajcheck.BatchConfig, plots=False)
OTHER = """[[runs]]
match = "*"
ref_as = {other = ["{group}/seed1", "{group}/seed0"]}
"""


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "archive", NAMES)


def vector(file: Path) -> np.ndarray:
    return np.concatenate([v.ravel() for k, v in sorted(load_file(file).items()) if k.startswith("param/")]).astype(
        float
    )


def test_the_other_seed_of_the_same_group(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "night.toml").write_text(OTHER)
    config = read_config(tmp_path / "night.toml")
    assert batch([archive], tmp_path / "out", settings(overrides=config.overrides)).analyzed == {"done": 4}
    rows = {(os.path.relpath(row["run"], archive), row["ref"]): row for row in index_rows(tmp_path / "out")}
    assert {ref for _, ref in rows} == {"final", "other", "x_(t-1)"}
    for name in NAMES:
        twin = archive / name.replace("seed0", "seed#").replace("seed1", "seed0").replace("seed#", "seed1")
        start, end = archive / name / "step-000000000.safetensors", twin / "step-000000005.safetensors"
        assert float(rows[name, "other"]["ref_dist"]) == pytest.approx(
            float(np.linalg.norm(vector(start) - vector(end))), rel=1e-12
        )


def test_the_run_itself_is_no_other(archive: Path, tmp_path: Path) -> None:
    options = Options(ref_as={"other": "{group}/seed1"})  # type: ignore[arg-type]
    batch([archive], tmp_path / "out", settings(options=options))
    refs = {
        name: [row["ref"] for row in index_rows(tmp_path / "out") if row["run"].endswith(name)] for name in NAMES[:2]
    }
    assert refs == {NAMES[0]: ["final", "other", "x_(t-1)"], NAMES[1]: ["final", "x_(t-1)"]}
    said = {row["run"]: row["message"] for row in index_rows(tmp_path / "out")}
    assert [said[str(archive / name)] for name in NAMES[:2]] == ["", "other: is the run itself"]


def test_parts_of_a_path(tmp_path: Path) -> None:
    assert path_parts("a/b/c") == {
        "path": "a/b/c",
        "name": "c",
        "group": "a/b",
        "part1": "a",
        "part2": "b",
        "part3": "c",
    }
    assert path_parts("a")["group"] == "."
    roles = partial(roles_of_run, run=tmp_path / "a/b", name="a/b", archive=tmp_path)
    for name in ("a/b", "c"):
        (tmp_path / name).mkdir(parents=True)
    assert roles(["x={archive}/../{part1}@init", "y=final", "z={group}/no", "z={part1}/../c"]).ref_as == (
        *("x=" + f"{tmp_path}/../a@init", "y=final", f"z={tmp_path}/c"),
    )
    with pytest.raises(UsageError, match=r"\{part3\} in '\{part3\}' is not known of the run a/b; what is: \{path\}"):
        roles(["x={part3}"])


def test_a_role_in_the_tables_of_one_run(archive: Path, tmp_path: Path, cli: Cli) -> None:
    run, other = archive / NAMES[0], archive / NAMES[1]
    report = trajcheck.analyze(run, ref_as=(f"other={other}",), out=tmp_path / "role")
    plain = trajcheck.analyze(run, ("final", str(other)), out=tmp_path / "plain")
    assert list(report.references.ref.unique()) == ["final", "other"]
    assert report.summary["headline"]["references"]["other"] == plain.summary["headline"]["references"][str(other)]
    one, two = (each.references[each.references.ref != "final"].drop(columns="ref") for each in (report, plain))
    pd.testing.assert_frame_equal(one, two)
    for words, said in (
        (["other"], "expected ROLE=SPEC"),
        (["final=x"], "final is a reference already"),
        (["a b=x"], "a role is a word"),
        (["a=x", "--ref-as", "a=y"], "was given twice, as x and as y"),
        (["a=init", "--ref", "a"], "is a --ref too"),
    ):
        done = cli("analyze", run, "--ref-as", *words)
        assert done.code == 2 and said in done.err, done
    done = cli("analyze", run, "--ref-as", "a=nowhere", "--out", tmp_path / "none")
    assert done.code == 3 and "--ref-as a: reference 'nowhere'" in done.err


def test_paths_are_one_however_they_are_written(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    ways = ["archive/mlp", "./archive/mlp", "archive/../archive/mlp", "link/mlp", "archive"]
    (tmp_path / "link").symlink_to("archive")
    batch(ways, out, settings())
    assert statuses(out) == {"seed0": "done", "seed1": "done"} and len({row["run"] for row in index_rows(out)}) == 4
    batch(["archive/mlp/seed0", "archive/mlp/../mlp/seed0"], out, settings())  # has a report of its own now
    runs = [row["run"] for row in index_rows(out) if row["ref"] == "final"]
    assert len(runs) == len(set(runs)) == 4
    assert [row["report"] for row in index_rows(out) if row["run"].endswith("mlp/seed0")] == ["seed0"] * 2
    report = trajcheck.analyze("archive/mlp/seed0", ("./archive/mlp/seed1", "archive/../archive/mlp/seed1"), out="one")
    assert list(report.references.ref.unique()) == ["archive/mlp/seed1"]
    with pytest.raises(RunError, match="nowhere: no such folder"):
        batch(["archive", "./archive", "nowhere"], out, settings())


def test_what_options_lack_the_tables_of_runs_may_have(archive: Path, tmp_path: Path, objective_file: Path) -> None:
    text = f"""[options]
sample = "previous"
[[runs]]
match = "mlp/*"
objective = "{objective_file}:good"
"""
    (tmp_path / "night.toml").write_text(text)
    config = read_config(tmp_path / "night.toml")
    result = batch([archive], tmp_path / "out", settings(options=config.options, overrides=config.overrides))
    assert result.analyzed == {"done": 2, "failed": 2} and result.remaining == 0
    rows = {os.path.relpath(row["run"], archive): row for row in index_rows(tmp_path / "out")}
    assert rows["mlp/seed0"]["sample"] == "previous"
    assert rows["cnn/sgd/seed0"]["status"] == "failed" and "--sample previous needs" in rows["cnn/sgd/seed0"]["message"]
    none = (Override("nothing", {"objective": "run"}),)
    with pytest.raises(UsageError, match="--sample previous needs --objective"):
        batch([archive], tmp_path / "out", settings(options=config.options, overrides=none))


def test_what_a_training_said_of_itself(archive: Path, tmp_path: Path) -> None:
    said = {"optimizer": "SGD\u202e\n", "seed": 3, "data": {"name": "digits", "sizes": [1]}, "none": None, "on": True}
    run = archive / "mlp/seed0/run.json"
    run.write_text(json.dumps({**json.loads(run.read_text()), "user": said}))
    batch([archive], tmp_path / "out", settings(include=("mlp/*",)))
    row = index(tmp_path / "out")["seed0"]
    found = {name: value for name, value in row.items() if name.startswith("user.")}
    assert found == {"user.optimizer": r"SGD\u202e", "user.seed": "3", "user.data.name": "digits", "user.on": "True"}
    assert index(tmp_path / "out")["seed1"]["user.seed"] == ""
