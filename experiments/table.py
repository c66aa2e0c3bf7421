"""The table of README.md, from the reports' tables alone."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments.claims.catalogue import CLAIMS
from experiments.claims.claim import HIDDEN, Cell, Claim, cells, told, verdict
from experiments.drawing import keep_picture
from experiments.measured import KEYS, Measured, Value
from experiments.recipe import HERE, Recipe, load, names

README, KEPT, FIGURES = HERE / "README.md", HERE / "reports", HERE / "figures"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
#: The size of which the kept reports are.
SIZE = "small"

Reports = Mapping[str, Sequence[Measured]]


def read(recipe: Recipe, reports: Path) -> list[Measured]:
    """The reports of a recipe that there are."""
    folders = [(training, reports / training.name) for training in recipe.trainings]
    return [Measured(training, folder) for training, folder in folders if folder.is_dir()]


def kept() -> Reports:
    """The reports beside README.md."""
    return {name: read(load(name, SIZE), KEPT / name) for name in names()}


def keep(reports: Reports) -> None:
    """Put the columns that the claims read of these reports beside README.md, as RECIPE/REPORT/TABLE.csv.gz, to six
    digits. What lay there of their recipes gives way."""
    table(reports)  # which notes what is read
    for name, runs in reports.items():
        if not runs:
            continue
        shutil.rmtree(KEPT / name, ignore_errors=True)
        for report in (each for run in runs for each in run.all):
            for which, columns in report.read.items():
                path = KEPT / name / report.folder.name / f"{which}.csv.gz"
                path.parent.mkdir(parents=True, exist_ok=True)
                frame = report.frame(which)
                wanted = [column for column in frame if column in columns or column in KEYS]
                text = frame[wanted].to_csv(index=False, float_format="%.6g", lineterminator="\n")
                path.write_bytes(gzip.compress(text.encode(), mtime=0))


def keep_figures(pictures: Mapping[str, Path]) -> None:
    """Put these pictures, by their names, into figures/ beside README.md, in place of what lay there."""
    FIGURES.mkdir(exist_ok=True)
    for old in FIGURES.glob("*.png"):
        old.unlink()
    for name, path in pictures.items():
        keep_picture(path, FIGURES / f"{name}.png")


def into_readme() -> None:
    """Make the table of README.md from the kept reports."""
    README.write_text(with_table(README.read_text(), table(kept())))


def with_table(readme: str, text: str) -> str:
    """README.md with this table between its marks."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def table(reports: Reports) -> str:
    """Markdown: every claim with its verdicts, then each claim's numbers. `reports` by recipe; claims of other recipes
    than these are left out."""
    found = {
        claim: {name: cells(claim, reports[name]) for name in claim.recipes if name in reports} for claim in CLAIMS
    }
    found = {claim: by_recipe for claim, by_recipe in found.items() if by_recipe}
    lines = [f"| claim | | {' | '.join(reports)} |", "|---|---|" + "---|" * len(reports)]
    for claim, by_recipe in found.items():
        answers = [_answer(claim, by_recipe[name]) if name in by_recipe else "" for name in reports]
        lines.append(f"| [{claim.key}](#{claim.key.lower()}) | {claim.words} | {' | '.join(answers)} |")
    lines += ["", "Not run, and why:", "", *(f"- {line}" for name in reports for line in _not_run(name, reports[name]))]
    for claim, by_recipe in found.items():
        lines += ["", *_section(claim, by_recipe)]
    return "\n".join(lines)


def _not_run(name: str, runs: Sequence[Measured]) -> Iterator[str]:
    """What of a recipe there is no report of: of its small trainings, of its full ones, and what it says itself."""
    wanted = load(name, SIZE).trainings
    have = {run.training.name for run in runs}
    if missing := [each.name for each in wanted if each.name not in have]:
        yield f"{name}: {len(missing)} of the {len(wanted)} trainings of `--{SIZE}`, interrupted: {', '.join(missing)}."
    full = load(name, "full").trainings
    networks = dict.fromkeys(each.model for each in full if each.model not in {one.model for one in wanted})
    more = f", {' and '.join(f'`{each}`' for each in networks)} among them" if networks else ""
    steps = max(each.steps for each in full)
    what = f"{name}, `--full`, {len(full)} trainings of {steps:,} steps{more}"
    yield f"{what}: together a day on a GPU; none was at hand."
    for each in load(name, SIZE).not_run:
        yield f"{name}, {each.what}: {each.why}."


def _answer(claim: Claim, found: Sequence[Cell]) -> str:
    return verdict(claim, found) if found else "not run"


def _section(claim: Claim, found: Mapping[str, Sequence[Cell]]) -> Iterator[str]:
    yield f"### {claim.key}"
    yield ""
    yield f"{claim.words}."
    yield ""
    yield f"- The authors' convention: {claim.convention}."
    yield f"- Agrees: {claim.rule}."
    if claim.why:
        yield f"- {claim.why}"
    for name, words in claim.figures:
        yield ""
        yield f"![{name}](figures/{name}.png)"
        yield ""
        yield f"*{words}.*"
    for name, rows in found.items():
        if rows:
            yield ""
            yield from _rows(name, rows)


def _rows(name: str, rows: Sequence[Cell]) -> Iterator[str]:
    given = [(label, value) for cell in rows for label, value in cell.values.items() if not label.startswith(HIDDEN)]
    measured = {label for label, value in given if value.measured}
    labels = [label for label in dict.fromkeys(label for label, _ in given) if label in measured]
    judged = any(cell.answers for cell in rows)
    yield f"| {name} | seeds | {' | '.join([*labels, *(['agrees'] if judged else [])])} |"
    yield "|---|---|" + "---|" * (len(labels) + judged)
    for cell in rows:
        count = max(value.of for value in cell.values.values())
        numbers = [_of_all(cell.values[label]) if label in cell.values else "" for label in labels]
        yield f"| {cell.name} | {count} | {' | '.join([*numbers, *([told(cell.answers)] if judged else [])])} |"


def _of_all(value: Value) -> str:
    """A number, and of how many trainings it is where it is undefined in some."""
    if not value.measured:
        return ""
    if not value.runs:
        return "unbounded"
    return f"{shown(value)}, {value.runs} of {value.of}" if value.runs < value.of else shown(value)


def shown(value: Value) -> str:
    """A number with its error in units of its last digits, as 0.187(12), to two digits of the error; to three digits
    where it has none."""
    if not value.runs:
        return ""
    if not np.isfinite(value.error) or value.error <= 1e-9 * abs(value.mean):
        return f"{value.mean:.3g}"
    power = int(np.floor(np.log10(max(abs(value.mean), value.error))))
    if -4 <= power < 6:
        places = 1 - int(np.floor(np.log10(value.error)))
        if places > 0:
            return f"{value.mean:.{places}f}({round(value.error * 10**places)})"
        return f"{value.mean:.0f}({value.error:.0f})"
    scaled = value._replace(mean=value.mean / 10.0**power, error=value.error / 10.0**power)
    return f"{shown(scaled)}e{power}"
