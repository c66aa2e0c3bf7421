"""What a benchmark found: rows on the terminal, and the same as JSON with the machine they were measured on."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import trajcheck
from benchmarks.timing import Spread
from trajcheck.inner_products.loop import description


@dataclass(frozen=True)
class Row:
    """One figure: what was measured, against what, the target where there is one, and what limits a missed one."""

    what: str
    measured: Spread | float
    unit: str = ""  # empty for a ratio
    target: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        value = self.measured.median if isinstance(self.measured, Spread) else self.measured
        return None if self.target is None else value <= self.target


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory": f"{memory:.0f} GiB",
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "numpy": version("numpy"),
        "trajcheck": trajcheck.__version__,
        "inner_loop": description(),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a table of README.md."""
    lines = ["| what | measured | target |", "|---|---|---|"]
    for row in rows:
        measured = f"{row.measured}" if isinstance(row.measured, Spread) else f"{row.measured:.3g}"
        target = "" if row.target is None else f"{row.target:g}" + (", missed" if row.met is False else "")
        lines.append(f"| {row.what} | {measured} {row.unit}".rstrip() + f" | {target} |")
    return "\n".join(lines)


def show(title: str, settings: dict[str, object], rows: Sequence[Row], out: Path | None) -> None:
    """Print the rows as one aligned table, and write them to `out` as JSON where it is given."""
    here = machine()
    print(f"{title}: {', '.join(f'{name} {value}' for name, value in settings.items())}")
    print(", ".join(f"{name} {value}" for name, value in here.items()))
    cells = [("what", "measured", "target", "")]
    for row in rows:
        measured = f"{row.measured}" if isinstance(row.measured, Spread) else f"{row.measured:.3g}"
        target = "" if row.target is None else f"<= {row.target:g}"
        cells.append((row.what, f"{measured} {row.unit}".rstrip(), target, "missed" if row.met is False else ""))
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    for row in rows:
        if row.note:
            print(f"{row.what}: {row.note}")
    if out is not None:
        record = {"title": title, "machine": here, "settings": settings, "rows": [asdict(row) for row in rows]}
        out.write_text(json.dumps(record, indent=1, default=str) + "\n")
