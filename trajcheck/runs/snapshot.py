"""What one recorded step holds, and where on disk its tensors lie.

Nothing here reads tensor data: a snapshot answers with *extents* (file, offset, length, dtype, shape), and the
streaming pass and the replay read those bytes when and as they need them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trajcheck.files.extents import Extent


@dataclass(frozen=True)
class Window:
    """Sums over the steps from record `start` on, before this one; the sum of their gradients lies in tensors.

    `steps` of them were made (a loss scaler skips some); `grad_dot_offset` is s = sum <g_t, x_t - x_start>,
    `loss_sum` the sum of f(x_t; z_t) and `grad_sq_sum` that of |g_t|^2. Gradients are those before clipping.
    """

    start: int
    steps: int
    grad_dot_offset: float
    loss_sum: float | None
    grad_sq_sum: float | None


@dataclass(frozen=True)
class Unseen:
    """Changes of parameters that were no update of the optimizer, up to x_t: before how many steps of the job, the
    first and the last of them, and the names of some of the `changed` tensors, as far as they are known."""

    times: int
    first: int
    last: int
    tensors: tuple[str, ...] = ()
    changed: int = 0


@dataclass(frozen=True)
class MissedChange:
    """Frozen parameters or buffers, `tensors` ("param/<name>", "buffer/<name>") and more, `changed` of them, that were
    written without a sign after the record of step `after`, which was found at that of step `until`. What they were at
    the records between is not known."""

    after: int
    until: int
    tensors: tuple[str, ...]
    changed: int

    @property
    def sentence(self) -> str:
        words = [
            f"{'buffer' if kind == 'buffer' else 'frozen parameter'} {name}"
            for kind, _, name in (tensor.partition("/") for tensor in self.tensors)
        ]
        more = f" and {self.changed - len(words)} more" if self.changed > len(words) else ""
        return (
            f"{', '.join(words)}{more} changed behind torch's back (as through .data) after the record of step "
            f"{self.after}, which was found at that of step {self.until}: what it was at the steps between is not known"
        )

    def and_also(self, other: MissedChange) -> MissedChange:
        """Both as one: over all steps of either."""
        changed = self.changed + other.changed
        return MissedChange(min(self.after, other.after), max(self.until, other.until), self.tensors, changed)

    @property
    def metadata(self) -> dict[str, Any]:
        return {
            "after": self.after,
            "until": self.until,
            "tensors": list(self.tensors),
            "changed": self.changed,
        }


@dataclass(frozen=True)
class Contents:
    """How far it is known what frozen parameters and buffers held: all were read wholly at the record of step `sure`
    or later, None: at this record, and none was found changed unseen but what was `missed`. `sampled` are steps
    between two (exclusive) that stay known by signs and samples alone."""

    sure: int | None = None
    missed: tuple[MissedChange, ...] = ()
    sampled: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Probe:
    """Batches set aside in one file: tensors `<i>/<path>` for batch i, and the tree of the tuple of them. Without a
    path they are drawn from the objective's data, and what they hold is known once that is loaded."""

    path: str
    batch: Mapping[str, Extent]
    batch_tree: Any
    batches: int


@dataclass(frozen=True)
class MicroGradients:
    """Of the gradients g_i of a step's micro-batches, S their sum and U that of g_i / |g_i|: `squares` |g_i|^2, `dots`
    <g_i, S>, `units` <g_i, U>."""

    squares: tuple[float, ...]
    dots: tuple[float, ...]
    units: tuple[float, ...]


@dataclass(frozen=True)
class Snapshot:
    """One recorded step t.

    `parameters` are x_t, before the update (float32 masters where the weights were of low precision); `gradients` are
    what the optimizer used, so still multiplied by `clip`. `lr` and `tau` hold one value a parameter group.
    `window_gradient` is the sum G of the gradients, not clipped, over the steps of `window`.
    A step of several ranks has their micro-batches one rank after the other; `buffers` are those of the first rank, and
    `rank_buffers` those with which each other began, by the first of its micro-batches. `frozen` and `buffers` are as
    this step finds them, wherever they are stored. `modes` are those of the model's modules at the forward, {module:
    "train" or "eval"} where a module's differs from that of the one around it; None: unknown. `omitted` says why the
    batch or the gradient is not there, under "batch" and "gradient", where the recorder knew; under "randomness" why
    the generator states are not, under "targets" why the batch may lack some, and under "replay" why the sample cannot
    be evaluated again. `forwards` is how many generator states each micro-batch has, one for each forward of the model;
    (): one each. A weight in `micro_weights` that is not known is None.
    `groups` are the settings of each parameter group that differ at this step from those of the run's description;
    empty where none does. `unseen` tells of what else than the optimizer has moved the
    parameters, `trained` says which are trained otherwise than run.json says, by the number of their group or None,
    `held` which of the run's trained parameters this step holds fixed, `autocast` is the dtype of that of the
    forward.
    """

    step: int
    path: str
    parameters: Mapping[str, Extent]
    gradients: Mapping[str, Extent] = field(default_factory=dict)
    frozen: Mapping[str, Extent] = field(default_factory=dict)  # as this step finds them, wherever they are stored
    batch: Mapping[str, Extent] = field(default_factory=dict)
    buffers: Mapping[str, Extent] = field(default_factory=dict)
    generators: Mapping[str, Extent] = field(default_factory=dict)
    state: Mapping[str, Extent] = field(default_factory=dict)  # the optimizer's, "slot/name"
    loss: float | None = None
    epoch: float | None = None
    lr: tuple[float, ...] | None = None
    tau: tuple[float, ...] | None = None
    tau_squares: tuple[float, ...] | None = None
    clip: float | None = 1.0  # None: clipped, by a factor that nobody knows
    skipped: bool = False
    batch_from: int | None = None
    batch_tree: Any = None
    frozen_from: Mapping[str, int] = field(default_factory=dict)  # by name, or "": the step whose file holds it
    buffers_from: Mapping[str, int] = field(default_factory=dict)
    borrowed: Mapping[str, int] = field(default_factory=dict)  # buffers that it lacks, as another step has them
    modes: Mapping[str, str] | None = None
    micro_batches: int = 1
    micro_weights: tuple[float | None, ...] | None = None
    micro_gradients: MicroGradients | None = None
    forwards: tuple[int, ...] = ()
    omitted: Mapping[str, str] = field(default_factory=dict)
    groups: tuple[Mapping[str, Any], ...] = ()
    window: Window | None = None
    window_gradient: Mapping[str, Extent] = field(default_factory=dict)
    rank_buffers: Mapping[int, Mapping[str, Extent]] = field(default_factory=dict)
    unseen: Unseen | None = None
    trained: Mapping[str, int | None] = field(default_factory=dict)
    held: frozenset[str] = frozenset()
    autocast: str | None = None
    contents: Contents = field(default_factory=Contents)
    unsure: str = ""  # why its frozen parameters and buffers are not known; "" where they are

    @property
    def has_batch(self) -> bool:
        return bool(self.batch) or self.batch_from is not None
