"""Progress on anything that takes over a second: silent unless a person is looking at a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(label: str, steps: int, quiet: bool, unit: str = "step") -> Iterator[Callable[[float], object]]:
    """Yields a function that is told how many steps' worth of work was done."""
    from tqdm import tqdm

    silent = quiet or not (sys.stdout.isatty() and sys.stderr.isatty())
    shape = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total_fmt} {unit}s [{elapsed}<{remaining}, {rate_fmt}]"
    with tqdm(total=steps, desc=label, unit=unit, disable=silent, delay=1, dynamic_ncols=True, bar_format=shape) as bar:
        yield bar.update
