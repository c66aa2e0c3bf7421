"""What a recording met on its way, in sentences for its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trajcheck.readable import some_of
from trajcheck.recording.step.unseen_updates import Unseen


def found_on_the_way(name: str, unseen: Unseen, elsewhere: Sequence[int], lacking: Mapping[str, int]) -> list[str]:
    """Of the optimizers `name`: changes that they did not make, recorded steps whose gradients were taken `elsewhere`,
    and how many steps each was `lacking` in."""
    found = []
    if unseen.times:
        found.append(
            f"before {unseen.times} of the steps, the first of them step {unseen.first}, something else than {name} "
            f"changed {some_of(list(unseen.names))}: that is no update of the optimizer, and is not taken for one"
        )
    for each, count in lacking.items():
        found.append(
            f"{each} made no update in {count} steps in which other optimizers made theirs: its rate is 0 there, and "
            "the gradients of these steps are not in the run. A Recorder for each optimizer has those of its own"
        )
    if elsewhere:
        found.append(
            f"the gradients of {len(elsewhere)} recorded steps, first step {elsewhere[0]}, were taken at other "
            "parameters than x_t (as by SAM), so they are not g_t and were not stored; a replay of their batches gives "
            "loss and gradient at x_t"
        )
    return found
