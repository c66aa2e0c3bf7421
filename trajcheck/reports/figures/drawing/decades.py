"""Ticks of an axis that is linear around 0 and logarithmic beyond: as many as can be read, and none on another."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.ticker import Locator, MaxNLocator

#: Points between two labels, at the least: their font's height and a little.
APART = 13.0


class SpacedDecades(Locator):
    """0, and powers of ten on either side, hardly any where the axis is linear, far enough from 0 and from one another
    for their labels; where that leaves nothing beside 0, round values of the linear part. `linear_up_to` is the
    scale's linthresh."""

    def __init__(self, linear_up_to: float) -> None:
        self.linear_up_to = linear_up_to

    def __call__(self) -> list[float]:
        axis: Any = self.axis
        low, high = axis.get_view_interval()
        return self.tick_values(low, high)

    def tick_values(self, vmin: float, vmax: float) -> list[float]:
        low, high = min(vmin, vmax), max(vmin, vmax)
        first = int(np.floor(np.log10(self.linear_up_to) + 1e-9))
        last = int(np.floor(np.log10(max(-low, high, self.linear_up_to)) + 1e-9))
        place = self._places(low, high)
        for stride in range(1, max(2, last - first + 2)):
            powers = [10.0**k for k in range(first, last + 1) if (k - last) % stride == 0]
            powers = [each for each in powers if place(each) - place(0.0) >= APART]
            if all(place(b) - place(a) >= APART for a, b in pairwise(powers)):
                break
        ticks = [-each for each in reversed(powers)] + [0.0] + powers
        ticks = [each for each in ticks if low <= each <= high]
        return ticks if len(ticks) > 1 else self._linear(low, high)

    def _linear(self, low: float, high: float) -> list[float]:
        """Round values, as far apart as all are."""
        place = self._places(low, high)
        for count in (4, 3, 2, 1):
            ticks = [float(each) for each in MaxNLocator(count).tick_values(low, high) if low <= each <= high]
            if all(place(b) - place(a) >= APART for a, b in pairwise(ticks)):
                return ticks
        return ticks[:1]

    def _places(self, low: float, high: float) -> Any:
        """Where values stand along the axis, in points."""
        axis: Any = self.axis
        transform = axis.get_transform()
        bottom, top = transform.transform(np.array([low, high], dtype=np.float64))
        box = axis.axes.get_window_extent()
        length = (box.height if axis.axis_name == "y" else box.width) * 72.0 / axis.axes.figure.dpi

        def place(value: float) -> float:
            there = transform.transform(np.array([value], dtype=np.float64))[0]
            return float((there - bottom) / (top - bottom) * length) if top != bottom else 0.0

        return place
