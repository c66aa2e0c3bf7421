"""Numbers of bytes, seconds and steps, and lists of names, in words."""

from __future__ import annotations

from collections.abc import Sequence


def size_text(count: float) -> str:
    """Bytes, as 1.2 MB, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 99.5 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def time_text(seconds: float) -> str:
    """As 0.4 s, 12 s, 3.5 min, 14 h."""
    if seconds < 60:
        value, unit = seconds, "s"
    elif seconds < 3600:
        value, unit = seconds / 60, "min"
    else:
        value, unit = (seconds / 3600, "h") if seconds < 72 * 3600 else (seconds / 86400, "days")
    return f"{value:.0f} {unit}" if value >= 9.5 else f"{value:.2g} {unit}"


def runs_of_steps(steps: Sequence[int], recorded: Sequence[int]) -> str:
    """Steps as text, `0, 3-17, 20`: a-b stands for all recorded steps from a to b."""
    place = {step: index for index, step in enumerate(recorded)}
    parts: list[list[int]] = []
    for step in steps:
        if parts and place[step] == place[parts[-1][-1]] + 1:
            parts[-1] = [parts[-1][0], step]
        else:
            parts.append([step, step])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def some_of(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
