"""Reports on the sample runs are those that were made before.

Names, order, reasons and empty cells of every column that they had, to the letter; numbers of recorded vectors to the
last digit, where the compiled loop makes them, and all others to rounding.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from calls import CALLS, HERE, ROOT
from plain_run_files import Outcome

from trajcheck.inner_products.loop import compiled

pytestmark = pytest.mark.usefixtures("two_precisions")

#: Of these the last digits are chance: |Hv - lambda v| after some products, an integrator's own error.
ERRORS = (
    "_residual",
    "max_error",
    "min_error",
    "flow_error",
    "replay_loss_error",
    "replay_grad_error",
    "path_integral_error",
)


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
    old, new = (tables(folder, before) for folder in (HERE / name, tmp_path / "report"))
    known = {column for table in old.values() for column in table} | set(old["undefined.csv"]["column"])
    for file, table in new.items():  # columns that are new since then change nothing of the others
        was, now = old[file], table[[column for column in table if column in known]]
        if file == "undefined.csv":
            now = now[now["column"].isin(known)].reset_index(drop=True)
        if exact:
            assert now.equals(was), f"{name}/{file}"
        else:
            same(was, now, f"{name}/{file}")


def tables(folder: Path, names: Sequence[str]) -> dict[str, pd.DataFrame]:
    """The files of a report, each cell as it is written."""
    return {name: pd.read_csv(folder / name, dtype=str, keep_default_na=False) for name in names}


def same(old: pd.DataFrame, new: pd.DataFrame, where: str) -> None:
    assert list(new) == list(old), where
    assert len(new) == len(old), where
    for column in old:
        each, was = new[column], old[column]
        numbers = pd.to_numeric(was, errors="coerce")
        if numbers.isna().all() or (numbers.isna() != was.eq("")).any():  # words
            assert each.equals(was), f"{where} {column}"
            continue
        assert each.eq("").equals(was.eq("")), f"{where} {column}"
        if not str(column).removesuffix("_se").endswith(ERRORS):
            b, filled = numbers.dropna().to_numpy(), was.ne("")
            atol = 1e-10 * np.abs(b).max(initial=0.0)
            np.testing.assert_allclose(each[filled].astype(float), b, rtol=1e-7, atol=atol, err_msg=f"{where} {column}")
