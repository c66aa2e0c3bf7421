"""Numbers of bytes, seconds and steps in words."""

from __future__ import annotations

from collections.abc import Sequence

_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def size_text(count: float) -> str:
    """As 1.2 GB, in powers of 1000."""
    power = 0
    while count >= 999.5 and power + 1 < len(_UNITS):
        count, power = count / 1000, power + 1
    return f"{count:.0f} {_UNITS[power]}" if power == 0 or count >= 99.5 else f"{count:.2g} {_UNITS[power]}"


def time_text(seconds: float) -> str:
    """As 0.4 s, 12 s, 3.5 min, 14 h."""
    if seconds < 60:
        value, unit = seconds, "s"
    elif seconds < 3600:
        value, unit = seconds / 60, "min"
    else:
        value, unit = (seconds / 3600, "h") if seconds < 72 * 3600 else (seconds / 86400, "days")
    return f"{value:.0f} {unit}" if value >= 9.5 else f"{value:.2g} {unit}"


def readable(size: int) -> str:
    """1234567 -> '1.2 MB'."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.5 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


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
