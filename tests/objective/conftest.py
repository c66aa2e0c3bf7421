"""Runs of models whose module is gone when a test begins."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import exported_models as models
import pytest
import torch
from exported_runs import MODULE, RUNS, record


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Runs of models whose module is gone when the test begins."""
    folder = tmp_path_factory.mktemp("runs")
    source = folder / f"{MODULE}.py"
    shutil.copy(models.__file__, source)
    spec = importlib.util.spec_from_file_location(MODULE, source)
    assert spec is not None and spec.loader is not None
    users = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = users
    spec.loader.exec_module(users)
    for name, (make, loss, batches) in RUNS.items():
        torch.manual_seed(0)
        record(folder / name, make(users), getattr(users, loss), batches)
    del sys.modules[MODULE]
    source.unlink()
    yield folder


@pytest.fixture
def run(runs: Path, tmp_path: Path) -> Path:
    """A copy of a run with dropout."""
    shutil.copytree(runs / "dropout", tmp_path / "run")
    return tmp_path / "run"
