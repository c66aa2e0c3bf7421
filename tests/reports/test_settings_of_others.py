"""Figures are drawn in trajcheck's style, whatever settings of matplotlib lie about."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest
from matplotlib.figure import Figure

from trajcheck.reports.figures.render import _bytes, _styled
from trajcheck.runners.own_process import settle

OTHERS = {
    "lines.linewidth": 9.0,
    "axes.facecolor": "red",
    "xtick.labelsize": 30.0,
    "text.usetex": True,
    "axes.grid": False,
}


def drawn() -> bytes:
    with _styled():
        figure = Figure()
        figure.subplots().plot([1, 2], [3, 1])
        return _bytes(figure, "png")


def test_figures_do_not_depend_on_settings() -> None:
    before = dict(matplotlib.rcParams)
    expected = drawn()
    with matplotlib.rc_context(OTHERS):
        assert drawn() == expected
        assert matplotlib.rcParams["lines.linewidth"] == 9  # the caller's own stay
    with plt.style.context("ggplot"):
        assert drawn() == expected
    assert dict(matplotlib.rcParams) == before


def test_our_own_processes_read_none_in_the_working_folder(tmp_path: Path) -> None:
    """A pipe, which would be waited for."""
    os.mkfifo(tmp_path / "matplotlibrc")
    code = (
        "from trajcheck.runners.own_process import settle; import os, sys; settle(); "
        "print('matplotlib' in sys.modules, os.getcwd(), sorted(os.environ.keys() & {'MPLBACKEND', 'MATPLOTLIBRC'}))"
    )
    environment = {**os.environ, "MPLBACKEND": "nonsense", "MATPLOTLIBRC": str(tmp_path / "matplotlibrc")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == f"True {tmp_path} []\n", done


def test_settings_of_the_progress_bar_are_none_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("TQDM_MININTERVAL", "TQDM_NCOLS"):
        monkeypatch.setenv(name, "x")
    settle()
    assert not [name for name in os.environ if name.startswith("TQDM_")]
