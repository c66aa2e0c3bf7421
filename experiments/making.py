"""What is not there yet is made: runs, reports, figures. What is there is only read."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

import trajcheck
from experiments.drawing import draw_figure
from experiments.recipe import HERE, Again, Figure, Recipe, Training
from experiments.training import record

#: Beside each run and report: what it was made from.
MADE_FROM = "made-from.json"
MODELS = HERE / "models.py"

#: A function, and the training and the name of the run or report that it makes.
Job = tuple[Callable[[Training, str], None], Training, str]


@dataclass(frozen=True)
class Workplace:
    """The folder of a recipe: runs/ and reports/ below it."""

    folder: Path
    recipe: Recipe

    @property
    def reports(self) -> Path:
        return self.folder / "reports"

    def run(self, training: Training) -> Path:
        return self.folder / "runs" / training.name

    def make(self, say: Callable[[str], None], workers: int = 1) -> int:
        """Record, then analyze and draw what is missing, in so many processes; how much was made."""
        runs: list[Job] = [
            (self._record, each, each.name) for each in self.recipe.trainings if not _is_of(self.run(each), each)
        ]
        _do(runs, workers, lambda name: say(f"trained {name}"))
        reports: list[Job] = [
            (make, each, name)
            for each in self.recipe.trainings
            for name, make in self._reports(each).items()
            if not _is_of(self.reports / name, each)
        ]
        _do(reports, workers, lambda name: say(f"analyzed {name}"))
        if reports:
            self._draw_figures()
        return len(runs) + len(reports)

    def picture(self, figure: Figure) -> Path:
        """The file of a figure."""
        return self.folder / "figures" / figure.name / "drawn" / "figures" / f"{figure.picture}.png"

    def _draw_figures(self) -> None:
        for figure in self.recipe.figures:
            chosen = [self.reports / f"{each.name}{figure.report}" for each in self.recipe.trainings if figure.of(each)]
            if chosen:
                draw_figure(figure, chosen, self.folder / "figures" / figure.name)

    def _record(self, training: Training, name: str) -> None:
        run = self.run(training)
        if run.exists():
            shutil.rmtree(run)  # made from another recipe: this folder is the recipe's own
        record(training, run)
        _sign(run, training)

    def _reports(self, training: Training) -> dict[str, Callable[[Training, str], None]]:
        """What makes each of a training's reports, by the report's name."""
        found: dict[str, Callable[[Training, str], None]] = {training.name: self._analyze}
        for each in self.recipe.again:
            if each.of(training):
                found[f"{training.name}-{each.ending}"] = partial(self._again, each)
        if training.matched and self._others(training):
            found[f"{training.name}-matched"] = self._match
        if training.flow:
            found[f"{training.name}-flow"] = self._flow
        if training.flow and training.divisor == 1:
            found[f"{training.name}-compared"] = self._compare
        return found

    def _analyze(self, training: Training, name: str) -> None:
        more: dict[str, Any] = {}
        if training.curvature:
            more = {"curvature": training.curvature, "curvature_ends": training.curvature_ends}
        samples = [sample for sample in training.samples if sample != "probe" or training.probe_batches]
        self._towards(training, name, objective="run", sample=samples, **more)
        if self._first(training):
            _draw(self.reports / name)
        _sign(self.reports / name, training)

    def _again(self, again: Again, training: Training, name: str) -> None:
        objective = again.objective if again.objective == "run" else f"{HERE / again.objective}"
        trajcheck.analyze(self.run(training), objective=objective, out=self.reports / name, **again.options)
        _sign(self.reports / name, training)

    def _match(self, training: Training, name: str) -> None:
        # By itself the matching makes x* depend on the batches of the run's own steps: on the probe it does not.
        more: dict[str, Any] = {"sample": ["probe"], "match_permutations": True}
        self._towards(training, name, objective=f"{MODELS}:{training.model}", **more)
        _sign(self.reports / name, training)

    def _flow(self, training: Training, name: str) -> None:
        out = self.reports / name
        trajcheck.flow(self.run(training), objective="run", curvature=training.curvature or None, out=out)
        if self._first(training):
            _draw(out)
        _sign(out, training)

    def _compare(self, training: Training, name: str) -> None:
        """At equal time with the runs from the same init at fractions of the rate: EC's figure."""
        slower = [each for each in self.recipe.trainings if each.divisor > 1 and replace(each, divisor=1) == training]
        runs = [self.run(each) for each in (training, *slower)]
        trajcheck.compare(*runs, align="time", objective="none", out=self.reports / name)
        if self._first(training):
            _draw(self.reports / name)
        _sign(self.reports / name, training)

    def _towards(self, training: Training, name: str, **options: Any) -> None:
        others = [f"{role}={self.run(other)}" for role, other in self._others(training).items()]
        out = self.reports / name
        trajcheck.analyze(self.run(training), refs=list(training.references), ref_as=others, out=out, **options)

    def _others(self, training: Training) -> dict[str, Training]:
        found = {role: self.recipe.other(training, role) for role in training.others}
        return {role: other for role, other in found.items() if other is not None}

    def _first(self, training: Training) -> bool:
        """Whether it is the one of its cell that is drawn; of the smallest size, of all."""
        drawn = self.recipe.trainings if self.recipe.size == "smallest" else self.recipe.cell(training)
        return training == drawn[0]


def _do(jobs: Sequence[Job], workers: int, done: Callable[[str], None]) -> None:
    if workers == 1 or len(jobs) < 2:
        for make, training, name in jobs:
            make(training, name)
            done(name)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        names = {pool.submit(make, training, name): name for make, training, name in jobs}
        for each in as_completed(names):
            each.result()
            done(names[each])


def _draw(report: Path) -> None:
    try:
        trajcheck.draw_report(report, formats=["png"])
    except ModuleNotFoundError:
        return  # matplotlib is an extra: tables alone


def _is_of(folder: Path, training: Training) -> bool:
    try:
        return json.loads((folder / MADE_FROM).read_text())["print"] == training.print
    except (OSError, ValueError, KeyError):
        return False


def _sign(folder: Path, training: Training) -> None:
    (folder / MADE_FROM).write_text(json.dumps({"print": training.print, "name": training.name}) + "\n")
