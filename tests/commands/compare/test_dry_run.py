"""What the dry run of a comparison says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from quadratics import keep
from two_runs import NETWORK, Cli, network, network_objective, network_records, written

from trajcheck.commands.compare.command import estimate_comparison, run_comparison
from trajcheck.commands.compare.options import ComparisonOptions
from trajcheck.objective.objective import Objective


@pytest.mark.parametrize("replayed", [True, False])
@pytest.mark.parametrize("how", ["step", "time"])
def test_the_dry_run_says_what_is_read_and_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bytes_read: list[int], replayed: bool, how: str
) -> None:
    a, b = network_records(1), keep(network_records(2, 15, 0.15), [0, 2, 3, 4, 8, 15])
    runs = [written(tmp_path, name, each) for name, each in (("a", a), ("b", b))]
    options = ComparisonOptions(
        align=how,
        interpolate=how == "time",
        objective=network_objective(tmp_path) if replayed else None,
        line=2 if replayed else None,
    )
    cost = estimate_comparison(runs, options)
    counts = {"loss": 0, "loss_and_gradient": 0}
    loss, both = Objective.loss, Objective.loss_and_gradient
    bytes_read.clear()

    def count(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            counts[name] += 1
            return function(*arguments, **named)

        return call

    monkeypatch.setattr(Objective, "loss", count("loss", loss))
    monkeypatch.setattr(Objective, "loss_and_gradient", count("loss_and_gradient", both))
    found = run_comparison(runs, options, tmp_path / "report")
    assert cost.rows == len(found.pairs) > 2
    assert (counts["loss"], counts["loss_and_gradient"]) == (cost.losses, cost.gradients)
    checks = sum(bytes_read) - cost.stored_bytes - cost.replay_bytes
    # besides: are the ends of the runs finite, are the inits one
    size = 8 * NETWORK.size
    assert 0 <= checks <= 2 * 2 * size + 2 * size
    assert f"{cost.stored_bytes:,} bytes to read" in str(cost)


def test_the_dry_run_writes_nothing(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [written(tmp_path, name, network(4), None) for name in "ab"]
    monkeypatch.chdir(tmp_path)
    outcome = cli("compare", *runs, "--dry-run")
    assert outcome.code == 0 and "rows       4" in outcome.out
    assert not (tmp_path / "reports").exists()
