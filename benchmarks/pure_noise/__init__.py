"""`python -m benchmarks pure_noise`: gradients that know nothing of x, and how often what is free of them is 0.

Trainings along independent g_t ~ N(0, I), each the gradient of its own batch under f(x; z) = <x, z>, by several
optimizers; towards their end, their beginning, an average of their last iterates, an exponential average of all,
another such training, and x_{t-1}. Counted: values within two of their own errors of 0, of how many that are given;
and whether a reason stands for every one that is withheld.

Reports are those of `trajcheck.analyze` in the default options; `--by-numpy` takes the same columns by plain numpy,
with the package's means and errors, which is a hundred times cheaper.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from benchmarks.pure_noise.by_numpy import by_numpy
from benchmarks.pure_noise.walks import TRAININGS

HELPERS = Path(__file__).parents[2] / "tests" / "helpers"
#: Seeds that are walked at a time: arrays of so many.
AT_A_TIME = 25

#: Reference, sample and quantity.
What = tuple[str, str, str]
#: By what and training: values within two errors of 0, beyond, and without an error.
Counts = dict[tuple[What, str], list[int]]


def main(
    seeds: Annotated[int, typer.Option(help="Trainings of each kind, of the seeds 1, 2, ...")] = 20,
    only: Annotated[str, typer.Option(help="Only trainings whose name holds this.")] = "",
    sample: Annotated[str, typer.Option(help="own or probe")] = "own",
    walked: Annotated[bool, typer.Option("--by-numpy", help="By plain numpy in place of reports.")] = False,
) -> None:
    """How often what is offered as free of noise is 0 within two of its errors, where gradients are noise."""
    sys.path.insert(0, str(HELPERS))
    counts: Counts = {}
    names = [name for name in TRAININGS if only in name]
    found = _walked(names, seeds) if walked else _reported(names, seeds, sample)
    try:
        for name, what, value, error in found:
            each = counts.setdefault((what, name), [0, 0, 0])
            if value is not None:
                each[2 if error is None else int(abs(value) > 2 * error)] += 1
    except KeyboardInterrupt:
        pass
    _print(counts, names)


#: Training, what, its value and its error.
Each = tuple[str, What, float | None, float | None]


def _walked(names: Sequence[str], seeds: int) -> Iterator[Each]:
    for name in names:
        for first in range(1, seeds + 1, AT_A_TIME):
            for ref, what, values in by_numpy(name, range(first, min(first + AT_A_TIME, seeds + 1))):
                yield from ((name, (ref, "own", what), *each) for each in values)


def _reported(names: Sequence[str], seeds: int, sample: str) -> Iterator[Each]:
    """Seed by seed, so that one that is interrupted has as many of each training."""
    from benchmarks.pure_noise.reports import on_own_samples, on_probe_batches, written

    for seed in range(1, seeds + 1):
        for name in names:
            with TemporaryDirectory(prefix="trajcheck-noise-") as folder:
                run, refs = written(Path(folder), name, seed)
                found = on_probe_batches(run, refs) if sample == "probe" else on_own_samples(run, refs, name)
                for ref, on, what, value, error in found:
                    yield name, (ref, on, what), value, error
                    if value is not None and error is not None and abs(value) > 2 * error:
                        typer.echo(f"{name}, seed {seed}: {what} to {ref}: {value:.4g} +- {error:.2g}", err=True)
        typer.echo(f"seed {seed}: done", err=True)


def _print(counts: Counts, names: Sequence[str]) -> None:
    """A row a quantity, a column a training: within / given, "-" where it is withheld throughout."""
    print("| what | towards | sample |", " | ".join([*names, "all"]), "|")
    print("|---" * (len(names) + 4) + "|")
    for ref, sample, what in dict.fromkeys(what for what, _ in counts):
        found = [counts.get(((ref, sample, what), name), [0, 0, 0]) for name in names]
        found.append([sum(each) for each in zip(*found, strict=True)])
        print(f"| {what} | {ref} | {sample} |", " | ".join(map(_cell, found)), "|")


def _cell(found: list[int]) -> str:
    within, beyond, unknown = found
    if not within + beyond + unknown:
        return "-"
    return f"{within}/{within + beyond}" + (f", {unknown} without an error" if unknown else "")
