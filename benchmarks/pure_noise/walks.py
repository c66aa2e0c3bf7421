"""Trainings along independent g_t ~ N(0, I), each the gradient of its own batch under f(x; z) = <x, z>, by several
optimizers; any number of seeds at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SIZE, RATE = 200, 0.01
#: Iterates in the reference mean:N.
LAST = 20

State = dict[str, Any]
#: An optimizer: x and g [seeds, SIZE], its state and the rate -> the next x.
Update = Callable[[np.ndarray, np.ndarray, State, float], np.ndarray]


def sgd(momentum: float) -> Update:
    def update(x: np.ndarray, g: np.ndarray, state: State, rate: float) -> np.ndarray:
        state["v"] = momentum * state.get("v", 0.0) + g
        return np.asarray(x - rate * state["v"])

    return update


def adam(decay: float) -> Update:
    def update(x: np.ndarray, g: np.ndarray, state: State, rate: float) -> np.ndarray:
        t = state["t"] = state.get("t", 0) + 1
        state["m"] = 0.9 * state.get("m", 0.0) + 0.1 * g
        state["v"] = 0.999 * state.get("v", 0.0) + 0.001 * g * g
        step = state["m"] / (1 - 0.9**t) / (np.sqrt(state["v"] / (1 - 0.999**t)) + 1e-8)
        return np.asarray((1 - rate * decay) * x - rate * step)

    return update


def schedule_free(x: np.ndarray, g: np.ndarray, state: State, rate: float) -> np.ndarray:
    """y = 0.1 z + 0.9 (the mean of all z so far), at which gradients are taken (arXiv 2405.15682)."""
    t = state["t"] = state.get("t", 0) + 1
    z, mean = state.get("z", x) - rate * g, state.get("mean", x)
    state["z"], state["mean"] = z, mean + (z - mean) / t
    return np.asarray(0.1 * z + 0.9 * state["mean"])


def constant(t: int, steps: int) -> float:
    return RATE


def cosine(t: int, steps: int) -> float:
    return RATE * 0.5 * (1 + float(np.cos(np.pi * t / steps)))


@dataclass(frozen=True)
class Training:
    """How it steps, and what run.json says of it. `skip`: steps after which a gradient is forgotten, as the report
    takes it; None where a later iterate of the run is never free of it."""

    update: Update
    schedule: Callable[[int, int], float]
    steps: int
    skip: int | None
    optimizer: str
    group: dict[str, Any]


PLAIN = {"momentum": 0.0, "dampening": 0, "weight_decay": 0, "nesterov": False}
ADAM = {"betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0}
DECAYED = {**ADAM, "weight_decay": 0.01, "decoupled": True}
TRAININGS = {
    "SGD": Training(sgd(0), constant, 150, 1, "SGD", PLAIN),
    "SGD, cosine rate": Training(sgd(0), cosine, 150, 1, "SGD", PLAIN),
    "momentum 0.9": Training(sgd(0.9), constant, 150, 50, "SGD", {**PLAIN, "momentum": 0.9}),
    "momentum 0.99": Training(sgd(0.99), constant, 600, 500, "SGD", {**PLAIN, "momentum": 0.99}),
    "Adam": Training(adam(0), constant, 150, 50, "Adam", ADAM),
    "AdamW": Training(adam(0.01), cosine, 150, 50, "AdamW", DECAYED),
    "schedule-free": Training(schedule_free, constant, 150, None, "SGDScheduleFree", {"weight_decay": 0}),
}


@dataclass(frozen=True)
class Walks:
    """x [steps + 1, seeds, SIZE], g [steps, seeds, SIZE], the rate of every step."""

    x: np.ndarray
    g: np.ndarray
    rates: list[float]


def walks(name: str, seeds: Sequence[int]) -> Walks:
    """Those of some seeds, each as it is alone."""
    training = TRAININGS[name]
    drawn = [np.random.default_rng([seed, list(TRAININGS).index(name)]) for seed in seeds]
    noise = np.stack([rng.normal(size=(training.steps + 1, SIZE)) for rng in drawn], axis=1)
    x, g, state = [noise[0]], noise[1:], State()
    rates = [training.schedule(t, training.steps) for t in range(training.steps)]
    for t, rate in enumerate(rates):
        x.append(training.update(x[-1], g[t], state, rate))
    return Walks(np.stack(x), g, rates)
