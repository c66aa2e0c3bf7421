"""A snapshot as the content of a step file: its tensors by their names there, and its metadata (docs/run-format.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trajcheck.errors import RunError
from trajcheck.files.extents import Extent
from trajcheck.runs.snapshot import Snapshot
from trajcheck.runs.trajectory import Trajectory

#: Sections whose floating tensors are rounded where another dtype is asked for: what is trained, and what moves it.
ROUNDED = ("param", "grad", "state", "window")


@dataclass
class Content:
    """A step file to be. `rounded` are the tensors whose dtype may be changed."""

    tensors: dict[str, Extent]
    metadata: dict[str, Any]
    rounded: set[str]


@dataclass
class Contents:
    """The contents of the steps of a run, asked for in their order: what an earlier one holds is referred to."""

    trajectory: Trajectory
    kept: frozenset[int]
    same: Callable[[Extent, Extent], bool]  # whether two tensors hold the same bytes
    _batches: dict[int, int] = field(default_factory=dict)  # by the step that has a batch: the one that holds it here
    _places: dict[tuple[str, str], tuple[Extent, int]] = field(default_factory=dict)

    def of(self, snapshot: Snapshot) -> Content:
        """Raises RunError for what one file cannot hold."""
        if snapshot.rank_buffers:
            raise RunError(
                f"{snapshot.path}: step {snapshot.step} holds the buffers of several ranks, which the file of one step "
                "cannot hold; copy such a run as it is."
            )
        step = snapshot.step
        sections: dict[str, Mapping[str, Extent]] = {
            "param": snapshot.parameters,
            "grad": snapshot.gradients,
            "rng": snapshot.generators,
            "state": snapshot.state,
        }
        metadata = _said(snapshot)
        window = snapshot.window
        if window is not None and window.start in self.kept:
            sections["window"] = snapshot.window_gradient
            metadata["window"] = {
                "from": window.start,
                "steps": window.steps,
                "grad_dot_offset": window.grad_dot_offset,
                "loss_sum": window.loss_sum,
                "grad_sq_sum": window.grad_sq_sum,
            }
        tensors = {f"{name}/{each}": e for name, held in sections.items() for each, e in held.items()}
        rounded = {name for name in tensors if name.partition("/")[0] in ROUNDED}
        own = {name: extent for name, extent in snapshot.buffers.items() if name not in snapshot.borrowed}
        for kind, held in (("param", snapshot.frozen), ("buffer", own)):
            here, elsewhere = self._stored(kind, held, step)
            tensors |= {f"{kind}/{name}": extent for name, extent in here.items()}
            if elsewhere:
                metadata["frozen_from" if kind == "param" else "buffers_from"] = elsewhere
        self._batch(snapshot, tensors, metadata)
        return Content(tensors, {"format": 1, "step": step, **metadata}, rounded)

    def _stored(self, kind: str, held: Mapping[str, Extent], step: int) -> tuple[dict[str, Extent], dict[str, int]]:
        """What this step stores, and {name: the step that holds it} of what is as it was before."""
        here, elsewhere = {}, {}
        for name, extent in held.items():
            known = self._places.get((kind, name))
            if known is not None and self.same(known[0], extent):
                elsewhere[name] = known[1]
            else:
                self._places[kind, name] = extent, step
                here[name] = extent
        if not here and len(set(elsewhere.values())) == 1:
            return here, {"": next(iter(elsewhere.values()))}
        return here, elsewhere

    def _batch(self, snapshot: Snapshot, tensors: dict[str, Extent], metadata: dict[str, Any]) -> None:
        source = self.trajectory.batch_source(snapshot)
        if source is None:
            return
        holder = self._batches.setdefault(source.step, snapshot.step)
        if holder != snapshot.step:
            metadata["batch_from"] = holder
            return
        tensors.update((f"batch/{name}" if name else "batch", extent) for name, extent in source.batch.items())
        if source.batch_tree is not None:
            metadata["batch_tree"] = source.batch_tree


def _said(snapshot: Snapshot) -> dict[str, Any]:
    """What a step's metadata say besides what its tensors and windows are."""
    each = snapshot
    unseen, contents = each.unseen, each.contents
    said: dict[str, Any] = {
        "loss": each.loss,
        "epoch": each.epoch,
        "lr": _listed(each.lr),
        "tau": _listed(each.tau),
        "tau_squares": _listed(each.tau_squares),
        "modes": None if each.modes is None else dict(each.modes),
        "micro_weights": _listed(each.micro_weights),
        "forwards": list(each.forwards) or None,
        "omitted": dict(each.omitted) or None,
        "groups": [dict(group) for group in each.groups] or None,
        "trained": dict(each.trained) or None,
        "autocast": each.autocast,
        "skipped": True if each.skipped else None,
        "micro_batches": each.micro_batches if each.micro_batches > 1 else None,
        "unseen": None
        if unseen is None
        else {
            "times": unseen.times,
            "first": unseen.first,
            "last": unseen.last,
            "tensors": list(unseen.tensors),
            "changed": unseen.changed,
        },
        "contents": {
            **({} if contents.sure is None else {"sure": contents.sure}),
            **({"missed": [missed.metadata for missed in contents.missed]} if contents.missed else {}),
            **({"sampled": [list(steps) for steps in contents.sampled]} if contents.sampled else {}),
        }
        or None,
    }
    found = {key: value for key, value in said.items() if value is not None}
    return found if each.clip == 1.0 else {**found, "clip": each.clip}


def _listed(values: tuple[float | None, ...] | None) -> list[float | None] | None:
    return None if values is None else list(values)
