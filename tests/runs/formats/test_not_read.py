"""What is known and not read where it lies is refused by name, with what to do."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from trajcheck.errors import RunError
from trajcheck.runs.formats.recognise import open_run


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("step-10/.metadata", "torch.distributed.checkpoint"),
        ("global_step10/mp_rank_00_model_states.pt", "DeepSpeed"),
        ("run.json", "trajcheck's own recording"),
    ],
)
def test_formats_of_folders_in_a_tar_file(name: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / "run" / name).parent.mkdir(parents=True)
    (tmp_path / "run" / name).write_bytes(b"x")
    with tarfile.open(tmp_path / "run.tar", "w") as tar:
        tar.add(tmp_path / "run", "run")
    words = rf"run\.tar: run/{name} is of {kind}, which is read in a folder alone: unpack it\."
    with pytest.raises(RunError, match=words):
        open_run(tmp_path / "run.tar")
