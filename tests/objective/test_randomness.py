"""One draw for all points of a step; the streams of the process are left alone."""

from __future__ import annotations

import pickle
import random
from typing import Any

import numpy as np
import pytest
import torch
from small_objectives import CPU, in_place, normalised, parameters_of, regression_batch, squared_error
from torch import Tensor, nn
from torch.nn import functional as F

from trajcheck.objective.objective import Objective
from trajcheck.objective.sample import make_sample


def dropout_objective() -> tuple[Objective, dict[str, Tensor]]:
    model = normalised(dropout=0.5)
    return Objective(model, squared_error), parameters_of(model)


def test_every_point_of_a_step_draws_the_same_masks() -> None:
    masks = []

    def loss(model: nn.Module, batch: Any) -> Tensor:
        masks.append(torch.cat([F.dropout(torch.ones(50)), torch.tensor(np.random.rand(3)), torch.rand(3)]))
        masks[-1][0] = random.random()
        return squared_error(model, batch)

    model = nn.Linear(3, 2)
    objective = Objective(model, loss)
    sample = make_sample(regression_batch(), device=CPU, seed=5)
    objective.loss(parameters_of(model, 1), sample)
    torch.rand(7)
    objective.loss_and_gradient(parameters_of(model, 2), sample)
    objective.loss(parameters_of(model, 1), make_sample(regression_batch(), device=CPU, seed=6))
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])


def test_recorded_generator_states_are_used() -> None:
    objective, x = dropout_objective()
    tensors = regression_batch()
    model = normalised(dropout=0.5)
    torch.manual_seed(3)
    torch.rand(11)
    state = torch.get_rng_state()
    expected, _ = in_place(model, squared_error, x, (tensors["0"], tensors["1"]))
    sample = make_sample(tensors, device=CPU, generators={"cpu": state[None]}, recorded_torch=torch.__version__)
    torch.testing.assert_close(objective.loss(x, sample), expected.double(), rtol=1e-6, atol=0)
    assert objective.randomness(sample) == "recorded"


@pytest.mark.parametrize(
    ("generators", "options", "words"),
    [
        ({}, {}, "seeded: no generator state recorded"),
        ({"cuda:0": (1, 16), "cpu": (1, 5056)}, {}, "seeded: the run was recorded on cuda, the replay is on cpu"),
        ({"cpu": (2, 5056)}, {}, "seeded: 2 generator states recorded for 1 forwards"),
        ({"cpu": (1, 40)}, {}, f"seeded: torch {torch.__version__} cannot use the recorded generator state (cpu)"),
        (
            None,
            {"recorded_torch": "1.0"},
            f"recorded (by torch 1.0, replayed by {torch.__version__}: draws may differ)",
        ),
        (
            None,
            {"dtype": torch.float32, "recorded_dtype": torch.float64},
            "recorded (in float64, replayed in float32: draws may differ)",
        ),
        (
            None,
            {"dtype": torch.float64, "recorded_dtype": torch.float32},
            "recorded",
        ),
    ],
)
def test_randomness_in_words(
    generators: dict[str, tuple[int, int]] | None, options: dict[str, Any], words: str
) -> None:
    states = {name: torch.zeros(shape, dtype=torch.uint8) for name, shape in (generators or {}).items()}
    if generators is None:
        states = {"cpu": torch.get_rng_state()}  # one state may come without the axis of micro-batches
    sample = make_sample(regression_batch(), device=CPU, generators=states, **options)
    assert sample.randomness == words


def test_the_random_streams_of_the_process_are_untouched() -> None:
    objective, x = dropout_objective()
    before = torch.get_rng_state(), random.getstate(), pickle.dumps(np.random.get_state())
    sample = make_sample(
        {"0": torch.ones(8, 3), "1": torch.ones(8, 2)},
        device=CPU,
        generators={"cpu": torch.Generator().manual_seed(9).get_state()},
    )
    objective.loss_and_gradient(x, sample)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1] and pickle.dumps(np.random.get_state()) == before[2]
