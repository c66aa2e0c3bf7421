"""config.json and what lies beside it, of an archive in a tar file."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from trajcheck.errors import ObjectiveError
from trajcheck.objective.common.config_file import find_config, read_config
from trajcheck.objective.common.preprocessing import read_preprocessing
from trajcheck.runs.trajectory import open_trajectory


@pytest.mark.parametrize("beside", [False, True])
def test_a_tar_file(beside: bool, tmp_path: Path) -> None:
    """Its own config.json is found, and not one that lies beside the file; preprocessing is from there as well."""
    for step in (1, 2, 10):
        folder = tmp_path / "made" / f"step{step}"
        folder.mkdir(parents=True)
        save_file({"w.weight": np.full((3, 3), step, np.float32)}, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_embd": step}))
        said = {"do_rescale": True, "rescale_factor": step / 8}
        (folder / "preprocessor_config.json").write_text(json.dumps(said))
    if beside:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "other"}))
    with tarfile.open(tmp_path / "run.tar", "w") as tar:
        tar.add(tmp_path / "made", "made")
    trajectory = open_trajectory(tmp_path / "run.tar")
    found = find_config(trajectory, None)
    config = read_config(found, [(3, 3)])
    assert config.path == tmp_path / "run.tar" / "made" / "step1" / "config.json"
    assert dict(config.entries) == {"model_type": "gpt2", "n_embd": 1}
    read = read_preprocessing(config.beside)
    assert read.factor == 1 / 8 and read.files[0][0].endswith("step1/preprocessor_config.json")
    assert find_config(trajectory, str(tmp_path / "made" / "step2")).path == tmp_path / "made" / "step2"


def test_none_anywhere(tmp_path: Path) -> None:
    (tmp_path / "made" / "step1").mkdir(parents=True)
    save_file({"w.weight": np.ones((3, 3), np.float32)}, tmp_path / "made" / "step1" / "model.safetensors")
    with tarfile.open(tmp_path / "run.tar", "w") as tar:
        tar.add(tmp_path / "made", "made")
    with pytest.raises(ObjectiveError, match=r"no config\.json lies in .*run\.tar"):
        find_config(open_trajectory(tmp_path / "run.tar"), None)
