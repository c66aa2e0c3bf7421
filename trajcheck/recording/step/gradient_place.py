"""At which parameters a gradient was taken: it is g_t only if they did not move between its forward and the step.

SAM and its kin take it at x_t + e. After each forward of a step that is recorded, or summed, a mark is kept (where each
tensor lies and how often it was written, and of a recorded step a print of all content), and compared with x_t.
"""

from __future__ import annotations

from trajcheck.readable import some_of
from trajcheck.recording.model.content_prints import ContentPrints, Difference
from trajcheck.recording.step.places import Place, Places, Seen


class GradientPlace:
    """A forward `passed()`, its loss was `observed()`, the step begins where x_t `arrives()`, and its gradient is
    `taken()`: before it begins, or of a closure inside. `moved`: parameters are known to have moved, by their places;
    `reason()` says so, '' where the gradient is that of x_t, and may wait for a device.
    """

    def __init__(self, places: Places, prints: ContentPrints) -> None:
        self._places, self._prints = places, prints
        self._latest: Seen | None = None
        self.reset()

    def reset(self) -> None:
        """A step is over."""
        self._above = self._latest  # as in forwards.py, until the next forward has ended
        self._latest = None
        self._observed: list[Seen] = []
        self._here: Seen | None = None
        self._differences: list[Difference] = []
        self.moved = False

    def passed(self, content: bool) -> None:
        """A forward has ended: what it took from the parameters is as they are now."""
        self._latest = Seen(self._places.now(), self._prints.now() if content else None)
        self._above = None

    def observed(self, first: bool, content: bool) -> Place:
        """A loss was observed, the `first` of the coming step or another: where the parameters were in its forward.
        Where nobody has seen one, they count as they are now."""
        if self._latest is None:
            self.passed(content)
        assert self._latest is not None
        self._observed = [*([] if first else self._observed), self._latest]
        return self._latest.place

    def arrives(self, here: Seen, closure: bool) -> None:
        """x_t is now; with a `closure`, the forward comes later."""
        self._here = here
        self._differences, self.moved = [], False  # of a step that failed
        if closure:
            self._latest, self._observed = None, []

    def taken(self) -> None:
        """The gradient is there."""
        here = self._here
        if here is None:
            return
        for mark in {id(mark): mark for mark in (*self._observed, self._latest) if mark is not None}.values():
            if mark.print is not None and here.print is not None:
                self._differences.append(self._prints.differ(mark.print, here.print))
            elif mark.place != here.place:
                self.moved = True

    def reason(self) -> str:
        names = list(dict.fromkeys(name for difference in self._differences for name in difference.names))
        if not (names or self.moved):
            return ""
        which = some_of(names) if names else "they"
        return f"it was taken at other parameters than x_t: {which} moved between the forward pass and the step"
