"""For how many steps an optimizer carries a gradient on, and how far ahead cos_skip looks accordingly.

x_s - x* is free of the gradient of step t where all that the optimizer makes of it lies between x_t and x_s. Momentum
and Adam's first moment make exp(-5) of it, 0.7%, after 5 / (1 - beta) steps. The second moments of Adam and its kin see
squares, which noise of either sign enters alike. Of what is not listed here nobody knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trajcheck.runs.decayed_terms import LIMIT, DecayedTerms
from trajcheck.runs.optimizer_settings import Group, OptimizerSettings
from trajcheck.runs.trajectory import Trajectory

#: After so many times 1 / (1 - beta) steps a gradient is forgotten.
TIMES = 5

#: Where the decay rate of the first moment stands among an optimizer's settings; "": it has none.
_FIRST_MOMENT = {
    **dict.fromkeys(("SGD", "FusedSGD", "RMSprop", "Muon"), "momentum"),
    **dict.fromkeys(
        ("Adam", "AdamW", "NAdam", "RAdam", "Adamax", "SparseAdam", "FusedAdam", "DeepSpeedCPUAdam"), "beta1"
    ),
    **dict.fromkeys(("Adagrad", "Adadelta"), ""),
}

PROBE = "--sample probe, on batches that no step was made from, is free of it"


@dataclass(frozen=True)
class Memory:
    """`steps` after which all of a run's gradients are forgotten, None where that is not known; `words` are the
    optimizer with the setting that counts, or why it is not known."""

    steps: int | None
    words: str


@dataclass(frozen=True)
class Skip:
    """cos_skip takes the first record at least `steps` after t; None: nobody said how many, and how many are needed is
    not known. `given`: by the user."""

    steps: int | None
    given: bool
    memory: Memory
    decayed: DecayedTerms | None = None

    def taken(self, place: int, step: int) -> str:
        """Why x_s, at a place, and an x* of that step do not hold as much of an own term; '' where they do."""
        share = 0.0 if self.decayed is None else self.decayed.taken(place, step)
        return self._decay(share) if share > LIMIT else ""

    @property
    def decays(self) -> str:
        """The same of the first record and the last."""
        share = 0.0 if self.decayed is None else self.decayed.most
        return self._decay(share) if share > LIMIT else ""

    @staticmethod
    def _decay(share: float) -> str:
        return (
            f"weight decay takes {100 * share:.0f}% of a step's own term out of x* that x_s still holds, so that "
            f"x_s - x* is not free of it. {PROBE}"
        )

    @property
    def enough(self) -> bool:
        """Whether the gradient of step t is known to be forgotten at x_s."""
        return self.steps is not None and self.memory.steps is not None and self.steps >= self.memory.steps

    @property
    def missing(self) -> str:
        """Why no cosine towards a later iterate is known to be free of the step's own term."""
        if self.memory.steps is None or self.steps is None:
            return self.unknown
        carries = f"{self.memory.words} carries a gradient on for {self.memory.steps} steps"
        if not self.enough:
            return (
                f"{carries}, so cos_skip still holds some of the step's own term with --skip {self.steps}. Leave it "
                f"out, or give {self.memory.steps}; {PROBE}"
            )
        return self.decays or self.too_far

    @property
    def unknown(self) -> str:
        """Why there is no x_s on any row."""
        return f"{self.memory.words}, so how far ahead x_s must lie is not known (--skip N). {PROBE}"

    @property
    def too_far(self) -> str:
        """Why there is none on a row from which no record lies far enough ahead."""
        if self.given:
            return f"no recorded step lies {self.steps} steps ahead and not behind x* (--skip)"
        why = "" if self.steps == 1 else f", for which {self.memory.words} carries a gradient on. {PROBE}"
        return f"no recorded step lies {self.steps} steps ahead and not behind x*{why}"


def skip_of(trajectory: Trajectory, given: int | None) -> Skip:
    """How far ahead cos_skip looks: as far as was `given`, else as the run's optimizer needs it."""
    memory = memory_of(trajectory)
    return Skip(memory.steps if given is None else given, given is not None, memory, DecayedTerms(trajectory))


def memory_of(trajectory: Trajectory) -> Memory:
    """The longest memory of any parameter group at any recorded update; not known where something else has moved the
    parameters: what is copied back from an average carries gradients on for as long as it lasts."""
    moved = [snapshot.unseen.last for snapshot in trajectory.snapshots if snapshot.unseen is not None]
    if moved:
        return Memory(
            None,
            f"how long what moved the parameters beside the optimizer (last at step {moved[-1]}) carries "
            "a gradient on is not known",
        )
    found = [_memory(settings, group) for settings in trajectory.settings.used for group in settings.groups or ({},)]
    unknown = next((each for each in found if each.steps is None), None)
    return unknown or max(found, key=lambda each: each.steps or 0)


def _memory(settings: OptimizerSettings, group: Group) -> Memory:
    if settings.name is None:
        return Memory(None, "the optimizer is unknown, run.json does not name it")
    name = str(group.get("optimizer", settings.name))  # several optimizers of one model say whose each group is
    setting = _FIRST_MOMENT.get(name)
    if setting is None:
        return Memory(None, f"how long {name} carries a gradient on is not known")
    beta = _beta(setting, group)
    if beta is None:
        return Memory(None, f"the {setting} of {name} is unknown, run.json does not hold it")
    if not 0 <= beta < 1:
        return Memory(None, f"{name} with a {setting} of {beta:g} never forgets a gradient")
    words = f"{name} with a {setting} of {beta:g}" if beta else name
    return Memory(max(1, round(TIMES / (1 - beta))) if beta else 1, words)


def _beta(setting: str, group: Group) -> float | None:
    if not setting:
        return 0.0
    if setting == "momentum":
        value: Any = group.get("momentum", 0) if group else None
    else:
        betas = group.get("betas")
        value = betas[0] if isinstance(betas, list) and betas else None
    return float(value) if isinstance(value, int | float) else None
