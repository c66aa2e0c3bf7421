"""Reports on the sample runs are those that were made before.

Names, order, reasons and empty cells to the letter; numbers of recorded vectors to the last digit, where the compiled
loop makes them, and all others to rounding.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from calls import CALLS, HERE, ROOT
from plain_run_files import Outcome

from trajcheck.inner_products.loop import compiled

#: Of these the last digits are chance: |Hv - lambda v| after some products, an integrator's own error.
ERRORS = ("_residual", "flow_error", "replay_loss_error", "replay_grad_error", "path_integral_error")


@pytest.mark.parametrize("name", CALLS)
def test_a_report_is_what_it_was(
    name: str, cli: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    outcome = cli(*CALLS[name], "--quiet", "--out", tmp_path / "report")
    assert outcome.code == 0, outcome.err
    before = sorted(path.name for path in (HERE / name).iterdir())
    assert before == sorted(path.name for path in (tmp_path / "report").glob("*.csv"))
    exact = not {"--objective", "--pca"} & {*CALLS[name]} and compiled() and platform.machine() == "x86_64"
    for file in before:
        old, new = HERE / name / file, tmp_path / "report" / file
        if exact:
            assert new.read_text() == old.read_text(), f"{name}/{file}"
        else:
            same(pd.read_csv(old), pd.read_csv(new), f"{name}/{file}")


def same(old: pd.DataFrame, new: pd.DataFrame, where: str) -> None:
    assert list(new) == list(old), where
    assert len(new) == len(old), where
    for column in old:
        each, was = new[column], old[column]
        if each.dtype.kind not in "fi":
            assert each.equals(was), f"{where} {column}"
            continue
        assert (each.isna() == was.isna()).all(), f"{where} {column}"
        if not str(column).removesuffix("_se").endswith(ERRORS):
            a, b = each.dropna().to_numpy(np.float64), was.dropna().to_numpy(np.float64)
            largest = np.abs(b).max(initial=0.0)
            np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-10 * largest, err_msg=f"{where} {column}")
