"""A verification as short aligned tables for the terminal, that fit 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from trajcheck.audit.findings import NOTE, SEVERITIES, Finding, in_words
from trajcheck.files.remote.address import is_remote
from trajcheck.readable import in_lines, plain, size_text, some_of
from trajcheck.reports.terminal.layout import WIDTH, aligned, wrapped

if TYPE_CHECKING:
    from trajcheck.reports.making.results import Verification

_HEAD = ("run", "steps", "files", "size", "checksums", "damage", "suspicious")
_FINDINGS = ("step", "finding", "evidence", "severity")

#: So many rows of findings are shown of each severity, and lines of damage on stderr of a run.
ROWS, LINES = 20, 20
#: Up to so many findings of a severity have a row each; of more, those alike that follow one another share one.
APART = 8


def verification_text(found: Verification) -> str:
    """A line a run, and of each what was found and what was not judged."""
    rows = [
        (
            str(run.path),
            str(run.steps),
            str(run.files),
            size_text(run.bytes),
            str(run.checked),
            str(len(audit.damage)),
            str(len(audit.of("suspicious"))),
        )
        for run, audit in zip(found.runs, found.audits, strict=True)
    ]
    lines = [
        *aligned([_HEAD, *rows]),
        "",
        f"files      of steps and probes, {_read(found)}",
        "checksums  files of which every tensor has one, and equals it",
    ]
    for run, audit in zip(found.runs, found.audits, strict=True):
        if audit.findings or audit.not_judged:
            name = plain(run.path)
            lines += ["", name if len(name) <= WIDTH else "..." + name[3 - WIDTH :]]
            lines += findings_table([each for each in audit.findings if each.steps or each.severity != NOTE])
            notes = [each for each in audit.findings if not each.steps and each.severity == NOTE]
            words = [each.evidence if each.finding == "files" else in_words(each) for each in notes]
            words += [f"not judged: {each}" for each in audit.not_judged]
            lines += [f"  {line}" for each in words for line in wrapped(each, 2, WIDTH - 7)]
    return in_lines(lines)


def _read(found: Verification) -> str:
    elsewhere = sum(is_remote(run.path) for run in found.runs)
    if not elsewhere:
        return "read whole"
    return (
        "of which headers and samples were read" if elsewhere == len(found.runs) else "those of this machine read whole"
    )


def damage_lines(found: Verification) -> Iterator[str]:
    """Damage in full, a line each: of files by their paths, of steps by their run."""
    for run, audit in zip(found.runs, found.audits, strict=True):
        said = set(run.damage)
        yield from run.damage
        rest = [each for each in audit.damage if each.finding != "files" and in_words(each) not in said]
        for each in rest[:LINES]:
            yield f"{run.path}: {in_words(each)}."
        if len(rest) > LINES:
            yield f"{run.path}: and {len(rest) - LINES} findings more (--format json lists all)."


def findings_table(findings: Sequence[Finding]) -> list[str]:
    """Rows step, finding, evidence, severity, the worst first; of many, those of one kind in a row are one."""
    rows: list[tuple[str, str, str, str]] = []
    for severity in SEVERITIES:
        mine = [each for each in findings if each.severity == severity]
        alike = [list(each) for _, each in groupby(mine, key=lambda one: (one.finding, one.tensors, one.of))]
        some = [_row(each) for each in (alike if len(mine) > APART else [[one] for one in mine])]
        rows += some[:ROWS]
        if len(some) > ROWS:
            rows.append(("...", "", f"{len(some) - ROWS} rows more; --format json has all", severity))
    if not rows:
        return []
    widths = [max(len(row[column]) for row in (_FINDINGS, *rows)) for column in (0, 1, 3)]
    room = max(20, WIDTH - sum(widths) - 6)
    lines = []
    for step, finding, evidence, severity in (_FINDINGS, *rows):
        parts = textwrap.wrap(evidence, room) or [""]
        for number, part in enumerate(parts):
            cells = (step, finding, severity) if number == 0 else ("", "", "")
            line = f"{cells[0]:{widths[0]}}  {cells[1]:{widths[1]}}  {part:{room}}  {cells[2]}"
            lines.append(line.rstrip())
    return lines


def _row(findings: Sequence[Finding]) -> tuple[str, str, str, str]:
    first = findings[0]
    steps = sorted({step for each in findings for step in each.steps})
    evidence = plain(first.evidence)
    if first.tensors and len(first.tensors) < 40 and first.finding not in ("frozen", "files"):
        evidence += f" ({some_of(first.tensors)})"
    if len(findings) > 1:
        evidence += f" (step {first.steps[0]}; {len(findings) - 1} more likewise)" if first.steps else ""
    return _short(steps), first.finding, evidence, first.severity


def _short(steps: Sequence[int]) -> str:
    if len(steps) < 3:
        return ", ".join(map(str, steps)) or "-"
    return f"{steps[0]}..{steps[-1]} ({len(steps)})"
