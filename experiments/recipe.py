"""A recipe: one TOML a paper. Its grids are expanded into trainings, for a size: smallest (tests), small, full.

paper = "TZC"
title = "..."
[common]                    # what all trainings share
data = "digits"
[[grid]]                    # every combination of the lists is a training
sizes = ["small", "full"]   # of which sizes it is; without it, of all
model = ["mlp", "cnn"]
seeds = [[0, 0], [1, 1]]    # of the init, and of the batches' order
[sizes.smallest]            # what a size changes in all its trainings; lists of a grid's own cut to its values
steps = 12
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).parent
SIZES = ("smallest", "small", "full")


@dataclass(frozen=True)
class Training:
    """One training, and how its report is made."""

    data: str
    model: str
    optimizer: str
    rate: float
    steps: int
    batch: int  # 0: all of the data at every step
    schedule: str = "constant"
    seeds: tuple[int, int] = (0, 0)
    #: Divisor of the rate: so many times more steps, of which every so many-th is recorded.
    divisor: int = 1
    #: 1: every step is recorded; k: pairs of consecutive steps, every k.
    pairs: int = 1
    probe_batches: int = 8
    #: Every so many rows eigenvalues are taken, or none.
    curvature: int = 0
    curvature_ends: str = "max"
    references: tuple[str, ...] = ("final",)
    samples: tuple[str, ...] = ("own", "probe")
    #: Other trainings of the same cell as references: `other-seed`, `same-init`.
    others: tuple[str, ...] = ()
    #: A second report, with the hidden units of the other runs put in the nearest order.
    matched: bool = False
    #: Whether `trajcheck flow` is called on it too.
    flow: bool = False
    #: Whether the recipe has several rates, which names then tell.
    varied: bool = False

    @property
    def cell(self) -> str:
        """What it is, without its seeds."""
        words = [self.model, self.optimizer, f"b{self.batch or 'all'}"]
        if self.schedule != "constant":
            words.append(self.schedule)
        if self.varied:
            words.append(f"lr{self.rate:g}")
        if self.divisor > 1:
            words.append(f"over{self.divisor}")
        return "-".join(words)

    @property
    def name(self) -> str:
        init, order = self.seeds
        return f"{self.cell}-seed{init}" + (f"-order{order}" if order != init else "")

    @property
    def print(self) -> str:
        """Changes with anything that the training or its report is made from."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Chosen:
    """The trainings whose fields are as `where` says, a list being any of its values."""

    where: Mapping[str, Any]

    def of(self, training: Training) -> bool:
        return all(
            getattr(training, key) in (value if isinstance(value, list) else [value])
            for key, value in self.where.items()
        )


@dataclass(frozen=True)
class Figure(Chosen):
    """A figure of README.md: `picture` of `trajcheck report`, of the chosen trainings in groups of equal `by`; where
    there are none, of the first of them alone: of its report whose name ends in `report`. Drawn are the rows of these
    samples and this reference, `without` some columns."""

    name: str
    picture: str
    by: tuple[str, ...] = ()
    ref: str = "final"
    report: str = ""
    samples: tuple[str, ...] = ("own", "probe")
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Again(Chosen):
    """One more report of the chosen trainings, whose name ends in `ending`, with these options of `analyze` and
    the run's own objective, or a function of a file in this folder, which may know all that was trained on."""

    ending: str
    options: Mapping[str, Any]
    objective: str = "run"


@dataclass(frozen=True)
class NotRun:
    """What a claim's authors or readers would want to see here, and why it is not."""

    what: str
    why: str


@dataclass(frozen=True)
class Recipe:
    """All trainings of a paper, of one size."""

    name: str
    paper: str
    title: str
    size: str
    trainings: tuple[Training, ...]
    figures: tuple[Figure, ...] = ()
    again: tuple[Again, ...] = ()
    not_run: tuple[NotRun, ...] = ()

    def cell(self, training: Training) -> list[Training]:
        """The trainings that differ from it in nothing but their seeds, and it."""
        return [each for each in self.trainings if each.cell == training.cell]

    def other(self, training: Training, which: str) -> Training | None:
        """The training of another seed, or of the same init and another order of batches, in the same cell."""
        kin = [each for each in self.cell(training) if each.seeds != training.seeds]
        if which == "same-init":
            return next((each for each in kin if each.seeds[0] == training.seeds[0]), None)
        kin = [each for each in kin if each.seeds[0] != training.seeds[0]]
        later = [each for each in kin if each.seeds > training.seeds]
        return next(iter(later + kin), None)


def names() -> list[str]:
    """Of all recipes."""
    return sorted(path.parent.name for path in HERE.glob("*/recipe.toml"))


def load(name: str, size: str) -> Recipe:
    """The recipe of a folder, at a size."""
    text = tomllib.loads((HERE / name / "recipe.toml").read_text())
    changed = text.get("sizes", {}).get(size, {})
    trainings: list[Training] = []
    for grid in text["grid"]:
        if size in grid.get("sizes", SIZES):
            trainings += _expanded(
                {**text.get("common", {}), **{k: v for k, v in grid.items() if k != "sizes"}}, changed
            )
    return Recipe(
        name,
        text["paper"],
        text["title"],
        size,
        tuple(dict.fromkeys(trainings)),
        tuple(Figure(**_tuples(each)) for each in text.get("figure", ())),
        tuple(Again(**each) for each in text.get("again", ())),
        tuple(NotRun(**each) for each in text.get("not_run", ())),
    )


def _tuples(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}


def _expanded(settings: Mapping[str, Any], changed: Mapping[str, Any]) -> Iterator[Training]:
    settings = {**settings, **{key: value for key, value in changed.items() if key in settings or key == "steps"}}
    fixed: dict[str, Any] = {
        key: tuple(settings[key]) for key in ("references", "samples", "others") if key in settings
    }
    axes = {key: value if isinstance(value, list) else [value] for key, value in settings.items() if key not in fixed}
    several = len(axes["rate"]) > 1
    for values in itertools.product(*axes.values()):
        chosen = dict(zip(axes, values, strict=True))
        if isinstance(chosen["rate"], dict):  # by optimizer, or model and optimizer
            rates = chosen["rate"]
            chosen["rate"] = rates.get(f"{chosen['model']}-{chosen['optimizer']}", rates.get(chosen["optimizer"]))
        chosen["seeds"] = tuple(chosen.get("seeds", (0, 0)))
        yield Training(**chosen, **fixed, varied=several)
