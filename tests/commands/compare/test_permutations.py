"""A run whose units stand in another order is compared in the order of the first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from two_runs import network_objective, network_records, permuted, written

from trajcheck.commands.compare.command import run_comparison
from trajcheck.commands.compare.options import ComparisonOptions

HIDDEN = [("body.hidden.weight", 0), ("body.hidden.bias", 0), ("out", 0)]


def test_a_relabelled_run_is_compared_in_the_order_of_the_first(tmp_path: Path) -> None:
    """B went nearly the way of A, so its own order is the nearest one, and P is B in another."""
    a, b = network_records(1), network_records(1, rate=0.09)
    order = np.array([2, 0, 3, 1])
    run_a, run_b = written(tmp_path, "a", a), written(tmp_path, "b", b)
    run_p = written(tmp_path, "p", permuted(b, order))
    objective = network_objective(tmp_path)
    path = Path(objective.rpartition(":")[0])
    path.write_text(f"{path.read_text()}\nPERMUTATIONS = {{'objective': {{'hidden': {HIDDEN}}}}}\n")
    options = ComparisonOptions(objective=objective, line=2, layers=True)
    plain = run_comparison([run_a, run_b], options, tmp_path / "plain")
    matched = run_comparison([run_a, run_p], replace(options, match_permutations=True), tmp_path / "matched")
    for name in plain.pairs.columns.difference(["run_a", "run_b"]):
        np.testing.assert_allclose(matched.pairs[name], plain.pairs[name], rtol=1e-9, atol=1e-12, err_msg=name)
    assert plain.layers is not None and matched.layers is not None
    np.testing.assert_allclose(matched.layers["dist"], plain.layers["dist"], rtol=1e-12)
    assert matched.summary["relabelled"] == [str(run_p)]
    unmatched = run_comparison([run_a, run_p], options, tmp_path / "unmatched").pairs
    assert (abs(unmatched["dist"] - plain.pairs["dist"]) > 1e-6).all()
    assert not list((tmp_path / "matched").glob("*.safetensors"))
