"""Which sample the flow descends on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from handwritten import write_objective, write_run
from known_flows import BOWL, LAYOUT, descent, exact, quadratic
from quadratics import Quadratic, descend
from run_files import write_probe

import trajcheck
from trajcheck.errors import ObjectiveError, RunError

DATA = """

def with_data():
    return (*objective(), [torch.zeros(2, 6, dtype=torch.float64), torch.ones(1, 6, dtype=torch.float64)])
"""


def test_samples(tmp_path: Path) -> None:
    """full is the mean over the examples, probe the mean over the batches, own the batch; each moves the minimum."""
    run, objective, hessian, start = quadratic(tmp_path)
    path = Path(objective.rpartition(":")[0])
    path.write_text(path.read_text() + DATA)
    probes = [np.full((2, 6), 2.0), np.zeros((4, 6))]
    write_probe(run, probes)
    taus = 0.1 * np.arange(41)
    xs = descent(hessian, start, 0.1, 40)
    for sample, name, centre in (("own", "objective", 0), ("probe", "objective", 1), ("full", "with_data", 1 / 3)):
        report = trajcheck.flow(run, f"{path}:{name}", sample=sample, rtol=1e-7, curvature=20, out=tmp_path / sample)
        thetas = centre + exact(hessian, start - centre, taus)
        np.testing.assert_allclose(report.flow["flow_dist"], np.linalg.norm(xs - thetas, axis=1), atol=1e-5)
        np.testing.assert_allclose(report.flow["lambda_max"].dropna(), 4.0, rtol=1e-6)
        assert report.summary["flow"]["sample"] == sample
        same = sample == "own"
        assert any("not gradient descent on sample" in each for each in report.summary["warnings"]) != same
    losses = [np.mean([(p - start) @ hessian @ (p - start) / 2 for p in probe]) for probe in probes]
    probe = pd.read_csv(tmp_path / "probe" / "flow.csv")
    assert probe["loss"][0] == pytest.approx(np.mean(losses))


def test_the_sample_that_is_taken_when_none_is_named(tmp_path: Path) -> None:
    run, objective, _, _ = quadratic(tmp_path / "own")
    write_probe(run, [np.zeros((1, 6))])
    path = Path(objective.rpartition(":")[0])
    path.write_text(path.read_text() + DATA)

    def taken(run: Path, name: str) -> str:
        return str(
            trajcheck.flow(run, f"{path}:{name}", out=tmp_path / f"report-{run.name}-{name}").summary["flow"]["sample"]
        )

    assert taken(run, "objective") == "own" and taken(run, "with_data") == "full"
    problem = Quadratic.with_spectrum(BOWL, seed=7)
    batches = problem.samples(10, np.random.default_rng(0))
    other = write_run(tmp_path / "minibatches", descend(problem, np.ones(6), batches, [0.1] * 10), LAYOUT)
    with pytest.raises(
        RunError, match=r"no one sample for a flow.*the batch of step 1 is not that of step 0.*--sample full"
    ):
        taken(other, "objective")
    with pytest.raises(RunError, match=r"--sample own needs one full batch.*the batch of step 1 is not"):
        trajcheck.flow(other, objective, sample="own", out=tmp_path / "none")
    with pytest.raises(RunError, match="no probe batches"):
        trajcheck.flow(other, objective, sample="probe", out=tmp_path / "none")
    with pytest.raises(ObjectiveError, match="needs the data set"):
        trajcheck.flow(other, objective, sample="full", out=tmp_path / "none")
    assert not (tmp_path / "none").exists()
    write_probe(other, [np.zeros((1, 6))])
    assert taken(other, "objective") == "probe"


def test_a_batch_stored_again_and_again_is_one(tmp_path: Path) -> None:
    problem = Quadratic.with_spectrum(BOWL, seed=7)
    records = descend(problem, np.ones(6), [np.zeros((1, 6))] * 10, [0.1] * 10)
    run = write_run(tmp_path / "run", records, LAYOUT)
    objective = write_objective(tmp_path / "objective.py", problem, LAYOUT)
    assert trajcheck.flow(run, objective, out=tmp_path / "report").summary["flow"]["sample"] == "own"
