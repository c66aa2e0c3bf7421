"""trajcheck.objective.file_sources: the user's files that an objective is made of, and no others."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from trajcheck.objective.file_sources import source_hashes

FILES = {
    "objective.py": "import torch, os.path, trajcheck\nimport helper\nfrom models.net import Net\n"
    "from absent import x\nimport space.inside\n",
    "helper.py": "def later():\n    from lazily import CONSTANT\n    return CONSTANT\n",
    "lazily.py": "CONSTANT = 1\nraise RuntimeError('nothing is executed')\n",
    "models/__init__.py": "from . import blocks\n",
    "models/net.py": "from .blocks import deep\nfrom .parts import *\nclass Net: pass\n",
    "models/blocks/__init__.py": "from ..parts.small import y\n",
    "models/blocks/deep.py": "import objective\n",
    "models/parts/__init__.py": "",
    "models/parts/small.py": "y = 1\n",
    "models/unused.py": "",
    "space/inside.py": "",  # of a package without __init__.py
    "broken.py": "def",
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def names(project: Path, file: str) -> set[str]:
    return {Path(found).relative_to(project).as_posix() for found in source_hashes(project / file)}


def test_imports_are_followed_wherever_they_stand(project: Path) -> None:
    before = set(sys.modules)
    assert names(project, "objective.py") == FILES.keys() - {"models/unused.py", "broken.py"}
    assert not {"helper", "models", "lazily"} & (set(sys.modules) - before)


def test_a_file_that_cannot_be_parsed_counts_alone(project: Path) -> None:
    assert names(project, "broken.py") == {"broken.py"}


def test_a_change_in_any_of_them_is_seen(project: Path) -> None:
    before = source_hashes(project / "objective.py")
    (project / "models/parts/small.py").write_text("y = 2\n")
    after = source_hashes(project / "objective.py")
    assert [file for file in before if before[file] != after[file]] == [str(project / "models/parts/small.py")]
