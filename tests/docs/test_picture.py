"""The picture that README.md and docs/ show is what the code draws."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from documents import DOCS, README
from places import ROOT
from plain_run_files import Outcome

import trajcheck

COMMAND = "analyze sample_checkpoints/digits-sgd-seed0 --objective run --sample own --sample probe"
NAME = "pictures/digits-cosine.png"


@pytest.mark.usefixtures("whole_figures")
def test_the_picture_is_what_the_code_draws(
    cli: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same shape, and alike where the eye would look; fonts and antialiasing may differ."""
    pytest.importorskip("matplotlib")
    pytest.importorskip("plotly")
    (tmp_path / "sample_checkpoints").symlink_to(ROOT / "sample_checkpoints")
    monkeypatch.chdir(tmp_path)
    assert cli(*COMMAND.split(), "--quiet", "--out", "report").code == 0
    assert COMMAND in (ROOT / "sample_checkpoints" / "README.md").read_text()
    from trajcheck.reports.figures.catalogue import PICTURES

    two = [picture for picture in PICTURES["analysis"] if picture.name in ("cosine", "distances")]
    monkeypatch.setitem(PICTURES, "analysis", two)
    drawn = {path.stem: path for path in trajcheck.draw_report("report", ["png"]).figures}
    assert unlike(DOCS / NAME, drawn["cosine"]) < 0.02
    assert unlike(DOCS / NAME, drawn["distances"]) > 0.04


def test_the_picture_is_shown() -> None:
    assert f"](docs/{NAME})" in README.read_text()
    assert f"]({NAME})" in (DOCS / "index.md").read_text()


def unlike(one: Path, other: Path) -> float:
    """The mean difference of two pictures in grey, coarsely, from 0 to 1; 1 where they differ in shape."""
    from PIL import Image

    with Image.open(one) as a, Image.open(other) as b:
        if abs(a.width / a.height / (b.width / b.height) - 1) > 0.03:
            return 1.0
        coarse = [np.asarray(each.convert("L").resize((144, 102), Image.Resampling.BOX), float) for each in (a, b)]
    return float(np.abs(coarse[0] - coarse[1]).mean() / 255)
