"""A format is one class and one row: folders of weights, as other libraries leave them, known to nobody but this file,
are analyzed, found by a batch, keyed, fingerprinted and verified."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from archives import statuses, write_walk
from plain_run_files import Outcome
from safetensors.numpy import load_file, save_file

import trajcheck
from trajcheck.commands.batch.discovery import find_runs
from trajcheck.commands.batch.run_state import fingerprint
from trajcheck.errors import OutputError, RunError
from trajcheck.files.safetensors_header import read_header
from trajcheck.measuring.options import Options
from trajcheck.runs.formats import recognise
from trajcheck.runs.formats.native.run import NativeRun
from trajcheck.runs.formats.stored_run import StoredRun, StoredStep
from trajcheck.runs.run_info import RunInfo
from trajcheck.runs.snapshot import Snapshot
from trajcheck.runs.trajectory import open_trajectory

Cli = Callable[..., Outcome]

STEPS = (0, 2, 5, 10)  # by their names, 10 comes before 2


class WeightFolders(StoredRun):
    """checkpoint-N/model.safetensors, and the losses in log.json beside them."""

    name = "folders of weights"
    looks = "checkpoint-N/model.safetensors"

    @classmethod
    def recognise(cls, path: Path) -> bool:
        return path.is_dir() and any(path.glob("checkpoint-*/model.safetensors"))

    def steps(self) -> Mapping[int, StoredStep]:
        folders = {int(folder.name.partition("-")[2]): folder for folder in self.path.glob("checkpoint-*")}
        missing = {
            step: None if (folder / "model.safetensors").exists() else "no weights" for step, folder in folders.items()
        }
        return {
            step: StoredStep(step, (str(folders[step] / "model.safetensors"),), missing[step])
            for step in sorted(folders)
        }

    def snapshot(self, step: int) -> Snapshot:
        file = read_header(self.steps()[step].files[0])
        loss = json.loads((self.path / "log.json").read_text())[str(step)]
        return Snapshot(step, file.path, file.extents({name: name for name in file.layout.specs}), loss=loss)

    def info(self) -> RunInfo:
        return RunInfo(id=self.path.name, optimizer="AdamW", files=(str(self.path / "log.json"),))


class OneFile(StoredRun):
    """model.safetensors alone, as each of the folders of the format above holds it."""

    name = "a file of weights"
    looks = "model.safetensors"

    @classmethod
    def recognise(cls, path: Path) -> bool:
        return (path / "model.safetensors").is_file()

    def steps(self) -> Mapping[int, StoredStep]:
        return {0: StoredStep(0, (str(self.path / "model.safetensors"),))}

    def snapshot(self, step: int) -> Snapshot:
        file = read_header(self.steps()[step].files[0])
        return Snapshot(step, file.path, file.extents({name: name for name in file.layout.specs}))


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recognise, "FORMATS", (NativeRun, WeightFolders))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Four points of a random walk."""
    folder = tmp_path / "archive" / "other"
    stream = np.random.default_rng(0)
    x = {"layer.weight": stream.normal(size=(3, 2)), "layer.bias": stream.normal(size=2)}
    for step in STEPS:
        (folder / f"checkpoint-{step}").mkdir(parents=True)
        save_file(x, weights(folder, step))
        x = {name: value + 0.1 * stream.normal(size=value.shape) for name, value in x.items()}
    (folder / "log.json").write_text(json.dumps({str(step): 1.0 / (1 + step % 10) for step in STEPS}))
    return folder


def weights(run: Path, step: int) -> Path:
    return run / f"checkpoint-{step}" / "model.safetensors"


def point(run: Path, step: int) -> np.ndarray:
    return np.concatenate([value.ravel() for _, value in sorted(load_file(weights(run, step)).items())])


def change(run: Path, step: int) -> None:
    save_file({name: value + 0.5 for name, value in load_file(weights(run, step)).items()}, weights(run, step))


def test_it_is_analyzed(run: Path, tmp_path: Path) -> None:
    report = trajcheck.analyze(run, ["final", "best", "step:2"], out=tmp_path / "out")
    assert report.steps["step"].tolist() == list(STEPS)
    assert report.steps["loss"].tolist() == [1.0, 1 / 3, 1 / 6, 1.0]
    assert report.summary["run"]["id"] == "other" and report.summary["run"]["optimizer"] == "AdamW"
    for spec, step in (("final", 10), ("best", 5), ("step:2", 2)):
        found = report.references.loc[report.references["ref"] == spec, "ref_dist"]
        expected = [np.linalg.norm(point(run, each) - point(run, step)) for each in STEPS]
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)
    lengths = [np.linalg.norm(point(run, b) - point(run, a)) for a, b in pairwise(STEPS)]
    np.testing.assert_allclose(report.steps["path_length"].dropna(), np.cumsum([0, *lengths]), rtol=1e-12)


def test_it_is_a_reference_of_a_run_in_another_format(run: Path, tmp_path: Path) -> None:
    native = write_walk(tmp_path / "native", range(3))
    report = trajcheck.analyze(native, [f"{run}@step:2"], out=tmp_path / "out")
    first = load_file(native / "step-000000000.safetensors")
    here = np.concatenate([first[f"param/{name}"].ravel() for name in ("layer.bias", "layer.weight")])
    assert report.references["ref_dist"][0] == pytest.approx(np.linalg.norm(here - point(run, 2)), rel=1e-12)


def test_it_is_found_by_a_batch_and_left_alone_until_a_file_changes(run: Path, tmp_path: Path) -> None:
    write_walk(tmp_path / "archive" / "native")
    batch = partial(trajcheck.batch, [tmp_path / "archive"], tmp_path / "out", trajcheck.BatchConfig(plots=False))
    assert batch().analyzed == {"done": 2}
    assert statuses(tmp_path / "out") == {"native": "done", "other": "done"}
    assert batch().unchanged == 2
    before = fingerprint(run, Options())
    change(run, 5)
    assert fingerprint(run, Options()) != before
    again = batch()
    assert again.analyzed == {"done": 1} and again.unchanged == 1


def test_a_file_that_changes_makes_its_rows_anew_and_no_others(run: Path, tmp_path: Path) -> None:
    def computed() -> int:
        return trajcheck.analyze(run, ["init"], out=tmp_path / "out").summary["scalars"]["computed"]

    assert (computed(), computed()) == (4, 0)
    change(run, 10)
    assert computed() == 2  # its own, and that of the step before, which leads to it
    (run / "log.json").write_text((run / "log.json").read_text() + " ")
    assert computed() == 4


def test_it_is_verified_as_far_as_it_can_be(cli: Cli, run: Path, tmp_path: Path) -> None:
    outcome = cli("verify", tmp_path / "archive")
    assert outcome.code == 0 and outcome.out.count("other") == 2, "its folders are no runs by themselves"
    assert "no checksums are stored in this format (folders of weights)" in " ".join(outcome.out.split())
    (found,) = trajcheck.verify(run).runs
    assert (found.steps, found.files, found.checked, found.damage) == (4, 4, 0, [])
    assert found.bytes == sum(weights(run, step).stat().st_size for step in STEPS)


def test_a_part_of_a_run_is_no_run_by_itself(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recognise, "FORMATS", (OneFile, NativeRun, WeightFolders))
    shutil.copytree(run / "checkpoint-5", tmp_path / "archive" / "alone")
    expected = [tmp_path / "archive" / "alone", run]
    assert [each.path for each in trajcheck.verify(tmp_path / "archive").runs] == expected
    assert [each.path for each in find_runs([tmp_path / "archive"], tmp_path / "out")] == expected


def test_what_is_wrong_with_it_is_found(run: Path) -> None:
    def damage() -> str:
        (said,) = trajcheck.verify(run).runs[0].damage
        return said

    whole = weights(run, 5).read_bytes()
    weights(run, 5).write_bytes(whole[:-1])
    assert str(weights(run, 5)) in damage() and "truncated" in damage()
    save_file({"layer.weight": np.zeros((3, 2)), "layer.bias": np.array([0, np.nan])}, weights(run, 5))
    assert "step 5, tensor param/layer.bias: holds NaN" in damage()
    save_file({"layer.weight": np.zeros((3, 3)), "layer.bias": np.zeros(2)}, weights(run, 5))
    assert "layer.weight has shape [3, 3]; expected [3, 2]" in damage()
    weights(run, 5).unlink()
    assert "no weights" in damage()
    weights(run, 5).write_bytes(whole)
    weights(run, 10).unlink()  # as a job that was killed leaves it
    assert trajcheck.verify(run).runs[0].damage == [] and open_trajectory(run).steps == [0, 2, 5]


def test_reports_are_not_written_into_it(run: Path) -> None:
    with pytest.raises(OutputError, match="lies in the recorded run"):
        trajcheck.analyze(run, out=run / "checkpoint-5" / "report")


def test_where_no_format_fits_the_known_ones_are_named(run: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "archive")
    (tmp_path / "archive").mkdir()
    for call in (trajcheck.analyze, trajcheck.verify):
        with pytest.raises(RunError, match=r"trajcheck's own \(step-.*folders of weights \(checkpoint-N"):
            call(tmp_path / "archive")
