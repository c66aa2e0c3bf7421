"""tests/helpers/quadratics.py and networks.py: each loss, its gradient and its torch source say the same."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from handwritten import write_objective
from networks import Logistic, TanhNetwork
from quadratics import Problem, Quadratic, pure_noise

RNG = np.random.default_rng(5)
QUADRATIC, LOGISTIC, NETWORK = Quadratic.with_spectrum([0.5, 1.0, 3.0], seed=1), Logistic(4), TanhNetwork(3, 4)
CASES: dict[str, tuple[Problem, int, Any]] = {
    "quadratic": (QUADRATIC, 3, QUADRATIC.samples(1, RNG)[0]),
    "logistic": (LOGISTIC, 4, LOGISTIC.sample(6, RNG)),
    "network": (NETWORK, NETWORK.size, NETWORK.sample(6, RNG)),
}


@pytest.mark.parametrize("name", CASES)
def test_gradient_and_torch_source_agree_with_the_loss(name: str, tmp_path: Path) -> None:
    problem, size, z = CASES[name]
    x, direction = RNG.normal(size=size), RNG.normal(size=size)
    ahead, behind = problem.f(x + 1e-5 * direction, z), problem.f(x - 1e-5 * direction, z)
    assert (ahead - behind) / 2e-5 == pytest.approx(problem.grad(x, z) @ direction, rel=1e-6)

    write_objective(tmp_path / "problem.py", problem, {"x": (size,)})
    found = importlib.util.spec_from_file_location("problem", tmp_path / "problem.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    model, loss = module.objective()
    with torch.no_grad():
        model.x.copy_(torch.tensor(x))
    batch = tuple(map(torch.tensor, z)) if isinstance(z, tuple) else torch.tensor(z)
    value = loss(model, batch)
    value.backward()
    assert value.item() == pytest.approx(problem.f(x, z), rel=1e-13)
    np.testing.assert_allclose(model.x.grad.numpy(), problem.grad(x, z), rtol=1e-12, atol=1e-14)


def test_a_quadratic_has_the_spectrum_asked_for() -> None:
    np.testing.assert_allclose(np.linalg.eigvalsh(QUADRATIC.hessian), [0.5, 1.0, 3.0], rtol=1e-12)


def test_noise_steps_along_its_gradients() -> None:
    first, last = pure_noise([0.5], size=3, seed=0)
    assert isinstance(first.x, np.ndarray) and isinstance(first.g, np.ndarray)
    np.testing.assert_array_equal(last.x, first.x - 0.5 * first.g)
