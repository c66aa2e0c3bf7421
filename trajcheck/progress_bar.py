"""Progress on anything that takes over a second: silent unless a person is looking at a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from trajcheck.readable import plain, size_text


@contextmanager
def progress_bar(
    label: str, steps: int, quiet: bool, unit: str = "step", *, size: Callable[[], int] | None = None
) -> Iterator[Callable[[float], object]]:
    """Yields a function that is told how many steps' worth of work was done.

    `size` says how many bytes all of it reads, and is asked only where somebody looks. Both rates, and the time that is
    left, are those of the work so far as a whole: steps come in bursts, and their last one says little about the next.
    """
    if quiet or not (_seen(sys.stdout) and _seen(sys.stderr)):
        yield lambda work: None
        return
    from tqdm import tqdm

    per_step = 0.0 if size is None or not steps else size() / steps
    rate = "{rate_fmt}{postfix}" if per_step else "{rate_fmt}"
    shape = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total_fmt} {unit}s [{elapsed}<{remaining}, " + rate + "]"
    with tqdm(
        total=steps,
        desc=plain(label, 60),
        unit=unit,
        disable=False,
        delay=1,
        dynamic_ncols=True,
        bar_format=shape,
        smoothing=0,
    ) as bar:

        def done(work: float) -> None:
            elapsed = bar.format_dict["elapsed"]
            if per_step and elapsed:
                bar.set_postfix_str(f"{size_text(per_step * (bar.n + work) / elapsed)}/s", refresh=False)
            bar.update(work)

        yield done


def remark(words: str, quiet: bool) -> None:
    """A line on stderr beside the progress, also where no terminal is; what stderr does not take is lost."""
    if quiet or sys.stderr is None:
        return
    with suppress(OSError, ValueError):
        sys.stderr.write(f"{plain(words)}\n")
        sys.stderr.flush()


def _seen(stream: TextIO | None) -> bool:
    """Whether a person looks at it; nobody does where it is closed."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False
