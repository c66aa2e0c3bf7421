"""trajcheck/objective/modules_beside.py: files beside an objective are its own code's, and take no library's place."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import torch

from trajcheck.objective.file import load_program
from trajcheck.objective.modules_beside import beside

NAMES = ("tb_library", "tb_installed", "tb_missing", "tb_helper", "tb_late", "tb_pack")

OBJECTIVE = """
import torch, tb_installed, tb_helper, tb_library
from tb_pack.inner import SIZE

def make():
    tb_library.import_late("tb_pack")
    def loss(model, batch):
        import tb_late
        assert tb_library.import_late("tb_installed") == "installed"
        assert tb_library.import_late("tb_missing") is None
        return model(batch).sum() * tb_late.FACTOR
    return torch.nn.Linear(tb_helper.SIZE, SIZE), loss
"""


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Path]]:
    """The folder of installed modules, and that of the objective, where files of libraries' names leave a mark."""
    installed, own = tmp_path / "site-packages", tmp_path / "own"
    (own / "tb_pack").mkdir(parents=True)
    installed.mkdir()
    (installed / "tb_library.py").write_text(
        "import importlib\n"
        "def import_late(name):\n"
        "    try:\n        return importlib.import_module(name).__doc__\n"
        "    except ImportError:\n        return None\n"
    )
    (installed / "tb_installed.py").write_text('"""installed"""')
    (installed / "tb_helper").mkdir()  # a folder without code takes the place of nothing
    for name in ("tb_installed", "tb_missing", "json", "sympy"):
        (own / f"{name}.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'a').write({name!r})")
    (own / "tb_helper.py").write_text("import tb_installed\nSIZE = 3")
    (own / "tb_late.py").write_text("FACTOR = 2.0")
    (own / "tb_pack" / "__init__.py").touch()
    (own / "tb_pack" / "inner.py").write_text("import tb_helper\nfrom . import other\nSIZE = tb_helper.SIZE - 1")
    (own / "tb_pack" / "other.py").touch()
    (own / "objective.py").write_text(OBJECTIVE)
    monkeypatch.syspath_prepend(str(installed))
    yield installed, own
    for name in [name for name in sys.modules if name.startswith(NAMES)]:
        del sys.modules[name]


def test_libraries_are_given_nothing_that_lies_beside(folders: tuple[Path, Path], tmp_path: Path) -> None:
    _, own = folders
    path, finders = list(sys.path), list(sys.meta_path)
    program = load_program(f"{own / 'objective.py'}:make", torch.device("cpu"))
    package = [f"tb_pack/{name}.py" for name in ("__init__", "inner", "other")]
    sources = {own / name for name in ("objective.py", "tb_helper.py", "tb_late.py", *package)}
    assert set(map(Path, program.sources)) == sources
    with beside(program.path):
        one = torch.ones(1, 3)
        assert torch.equal(program.loss(program.model, one), 2 * program.model(one).sum())
    assert not (tmp_path / "mark").exists()
    assert sys.path == path and sys.meta_path == finders
    assert not list(own.rglob("__pycache__"))


def test_while_it_is_loaded_a_library_may_import_by_name(folders: tuple[Path, Path]) -> None:
    _, own = folders
    library = import_module("tb_library")
    with beside(own / "objective.py"):
        assert library.import_late("tb_late") is None
    with beside(own / "objective.py", loading=True):
        assert library.import_late("tb_late") is None and "tb_late" in sys.modules  # it has no docstring
