"""What became of the trials of each fault: a row of a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Trials:
    """The trials of one fault: how many, how many ended with something lost or wrong, and what was seen on the way."""

    fault: str
    trials: int = 0
    wrong: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)  # of the trials that went wrong, in words

    def count(self, wrong: Sequence[str], seen: Sequence[str] = ()) -> None:
        """Add one trial; `wrong` says what was lost or wrong."""
        self.trials += 1
        self.wrong += bool(wrong)
        self.faults += wrong
        self.seen.update(seen)


def show(rows: Sequence[Trials]) -> None:
    """Print the rows as one aligned table, and after it what went wrong, if anything did."""
    cells = [("fault", "trials", "lost or wrong", "seen")]
    for row in rows:
        seen = ", ".join(f"{what} {count}" for what, count in row.seen.most_common())
        cells.append((row.fault, str(row.trials), str(row.wrong), seen))
    widths = [max(len(line[column]) for line in cells) for column in range(3)]
    for fault, trials, wrong, seen in cells:
        print(f"{fault:{widths[0]}}  {trials:>{widths[1]}}  {wrong:>{widths[2]}}  {seen}".rstrip())
    for row in rows:
        for fault in row.faults[:20]:
            print(f"{row.fault}: {fault}")
