"""What a reader of a report's numbers should know first: the warnings that several commands give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from trajcheck.files.extents import Extent
from trajcheck.metrics.columns import Column
from trajcheck.readable import some_of

#: Median relative disagreement between recorded and replayed gradients or losses from which a replay is not called the
#: training; more where either is of lower precision, whose rounding alone is several of its epsilons.
FIDELITY, FIDELITY_EPSILONS = 1e-3, 4.0

#: Median relative disagreement of gradients from which what was asked of a replay was not done.
UNLIKE = 0.1

#: How many times the median the largest disagreement is, beyond which the step itself is suspected.
OUTLIER = 10.0


def fidelity_warning(
    columns: Mapping[str, Column], steps: Sequence[int], epsilon: float, causes: Sequence[str] = ()
) -> str | None:
    """A warning when replayed gradients, or losses, are not those that were recorded, on most steps or on a single one,
    `epsilon` being the machine epsilon of the coarsest dtype that is involved, `steps` those of the rows and `causes`
    what the run says of them."""
    limit = max(FIDELITY, FIDELITY_EPSILONS * epsilon)
    single = None
    for name, what in (("replay_grad_error", "gradients"), ("replay_loss_error", "losses")):
        each = columns.get(name)
        if each is None or not each.defined.any():
            continue
        median = float(np.median(each.values[each.defined]))
        worst = int(np.nanargmax(each.values))
        largest = float(each.values[worst])
        if median > limit:
            return (
                f"replayed {what} differ from the recorded ones by {median:.1e} (median of {int(each.defined.sum())} "
                f"rows, relative), most at step {steps[worst]} ({largest:.1e}): the replay is not the training. "
                f"{_because(causes)}"
            )
        if single is None and largest > max(limit, OUTLIER * median):
            single = (
                f"replayed {what} differ from the recorded ones by {largest:.1e} at step {steps[worst]}, by "
                f"{median:.1e} in the median (relative): its file may be damaged, or its gradient or loss lies within "
                "rounding of 0."
            )
    return single


def _because(causes: Sequence[str]) -> str:
    if causes:
        return f"What the run says of it: {'; '.join(causes)}."
    return (
        "Nothing in the run says why: the objective's loss, or what was observed (the batch, with its targets; of "
        "accumulated micro-batches each one's weight=; random numbers that the loss draws before it calls the model, "
        "which recorder.forward_begins(model) before the loss keeps), is not the training's."
    )


def unlike(columns: Mapping[str, Column], steps: Sequence[int]) -> str:
    """By how much replayed gradients differ from the recorded ones, in words, where it is more than UNLIKE in the
    median; else ''."""
    errors = columns.get("replay_grad_error")
    if errors is None or not errors.defined.any():
        return ""
    median = float(np.median(errors.values[errors.defined]))
    worst = int(np.nanargmax(errors.values))
    if median <= UNLIKE:
        return ""
    return (
        f"replayed gradients differ from the recorded ones by {100 * median:.0f}% (median of "
        f"{int(errors.defined.sum())} rows), most at step {steps[worst]} ({100 * errors.values[worst]:.0f}%): the "
        "replay is not the training"
    )


def other_draws(randomness: Mapping[str, int]) -> list[str]:
    """Where a replay's draws are not those of the training, by words on how many steps, in sentences; nothing where
    there were none to be seen."""
    return [
        f"the randomness of {count} steps is {words}"
        for words, count in randomness.items()
        if not words.startswith(("recorded", "seeded: no generator"))
    ]


def randomness_warnings(randomness: Mapping[str, int], said: str | None) -> list[str]:
    """The same, where a warning that was `said` does not give it for its cause."""
    return [sentence for sentence in other_draws(randomness) if sentence not in (said or "")]


def data_set_warning(weighing: str | None) -> str | None:
    """That nothing says how the batches of a data set weigh."""
    if weighing is not None and weighing.startswith("equally, although"):
        return f"--sample full: its batches weigh {weighing}"
    return None


def not_stored_warning(not_stored: Sequence[str]) -> str | None:
    """That a replay took other values than the run's for what no file could hold."""
    if buffers := [name for name in not_stored if name.startswith("buffer ")]:
        more = f" and {len(buffers) - 4} more" if len(buffers) > 4 else ""
        return f"{', '.join(buffers[:4])}{more} could not be stored with the run: the objective's own were used"
    return None


def rounding_warning(parameters: Iterable[Extent]) -> str | None:
    """That iterates were recorded in half precision."""
    if low := {extent.dtype for extent in parameters} & {"BF16", "F16"}:
        return f"parameters were recorded in {', '.join(sorted(low))}: differences are of rounded iterates"
    return None


def left_out_warning(left_out: Mapping[int, str]) -> str | None:
    """Which steps of a run were left out, and why the first of them."""
    if not left_out:
        return None
    step, reason = min(left_out.items())
    if len(left_out) == 1:
        return f"step {step} was left out: {reason}"
    every = some_of([str(each) for each in sorted(left_out)], 8)
    return f"{len(left_out)} steps were left out ({every}), step {step} as: {reason}; summary.json has all reasons"
