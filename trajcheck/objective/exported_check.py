"""The golden value of an exported program: f and |grad f| at the run's first recorded step, as the program gave them
when it was exported. Before a replay the program must give them again, from what the run's folder holds.

Parameters, batch, buffers and randomness of that step are in its step file; only the two numbers are stored with the
program, and what tells whether the step is still the same one (a resumed job may have recorded it anew).
"""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trajcheck.errors import ObjectiveError, RunError
from trajcheck.files.extent_reader import ExtentReader
from trajcheck.files.torch_tensors import FLOATING, as_bytes, read_tensor
from trajcheck.objective.objective import Objective
from trajcheck.objective.precision import floating_dtypes
from trajcheck.objective.program.stored import Facts
from trajcheck.objective.sample import Sample, make_sample
from trajcheck.runs.batch_flattening import flatten
from trajcheck.runs.batch_restoring import unflatten
from trajcheck.runs.formats.recognise import open_run
from trajcheck.runs.formats.stored_run import StoredRun
from trajcheck.runs.snapshot import Snapshot
from trajcheck.runs.surroundings import buffers_of_step, frozen_of

#: Largest relative difference of loss and gradient norm. Other kernels and processors round otherwise, deep networks
#: amplify it, and a wrong program is off by more.
TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-3}
LOW_PRECISION_TOLERANCE = 5e-2

#: Seconds of an evaluation from which it is timed at once.
WARM = 0.5


def golden_value(
    objective: Objective, parameters: Mapping[str, Tensor], batch: Any, sample: Sample, step: int, *, random: bool
) -> Facts | None:
    """What is stored: f(x_t; z) and |grad f(x_t; z)| on the first micro-batch z of `step`; None where not finite.

    `batch` is that micro-batch in host memory, and `random` whether the program draws random numbers.
    """
    loss, norm = _value(objective, parameters, sample)
    if not (math.isfinite(loss) and math.isfinite(norm)):
        return None
    return {
        "step": step,
        "loss": loss,
        "grad_norm": norm,
        "param_norm": _norm(parameters),
        "batch": _checksum(batch),
        "random": random,
        "randomness": sample.randomness,
        "device": objective.device.type,
    }


def check_golden_value(objective: Objective, run: Path, facts: Facts, path: Path) -> str:
    """Evaluate the program of `path`, on the device and in the dtypes that it has now, where its golden value was
    taken; in words, how that went, or why it was not done.

    Errors: ObjectiveError where loss or gradient norm differ by more than rounding.
    """
    golden = facts["reference"]
    if golden is None:
        return "no reference value is stored with the exported objective"
    try:
        stored, batch, extras = _stored(run, int(golden["step"]))
    except (RunError, OSError) as error:
        return f"the exported objective could not be checked at step {golden['step']}: {error}"
    unchecked = f"the exported objective could not be checked at step {golden['step']}"
    if missing := set(objective.names) - set(stored):
        return f"{unchecked}: its file lacks {min(missing)}"
    parameters = {name: stored[name].to(objective.device) for name in objective.names}
    tensors, tree = flatten(batch)
    exported = {getattr(torch, entry["dtype"]) for entry in facts["parameters"]} & set(FLOATING)
    sample = make_sample(
        tensors,
        device=objective.device,
        tree=tree,
        seed=golden["step"],
        dtype=objective.dtype,
        recorded_dtype=exported.pop() if len(exported) == 1 else None,
        recorded_torch=facts["torch"],
        **extras,
    )
    same_norm = math.isclose(_norm(parameters), golden["param_norm"], rel_tol=1e-5)
    if not same_norm or _checksum(batch) != golden["batch"]:
        return f"{unchecked}: the step has been recorded anew since"
    drawn = (sample.randomness, objective.device.type) == (golden["randomness"], golden["device"])
    if golden["random"] and not drawn:
        return f"{unchecked}: its random numbers are not those of the export ({sample.randomness})"
    loss, norm = _timed(objective, parameters, sample)
    widest = max(_tolerance(parameters.values()), _tolerance(objective.tensors))
    for what, now, then in (("loss", loss, golden["loss"]), ("gradient norm", norm, golden["grad_norm"])):
        if not abs(now - then) <= widest * (abs(then) + 1e-3):
            raise ObjectiveError(
                f"{path}: at step {golden['step']} the program gives the {what} {now:.7g}; when it was exported, by "
                f"torch {facts['torch']} on {golden['device']}, it gave {then:.7g}. "
                + _advice(facts, objective.device.type)
            )
    apart = abs(loss - golden["loss"]) / (abs(golden["loss"]) or 1.0)
    return f"the exported objective gives its reference loss at step {golden['step']} (relative error {apart:.1e})"


def _advice(facts: Facts, here: str) -> str:
    """Why a program may give something else than when it was exported, and what helps."""
    if (facts["torch"], facts["reference"]["device"]) != (torch.__version__, here):
        return (
            f"This is torch {torch.__version__} on {here}: use that version, or an objective file "
            "(--objective FILE.py:NAME)"
        )
    return (
        "Torch and device are the same. Random numbers that a loss draws before it calls the model are not in a run, "
        "which holds the generators of that call: recorder.forward_begins(model) before the loss keeps them. A loss "
        "that draws none there has a damaged step file or program: use an objective file (--objective FILE.py:NAME)"
    )


def _value(objective: Objective, parameters: Mapping[str, Tensor], sample: Sample) -> tuple[float, float]:
    loss, gradient = objective.loss_and_gradient(parameters, sample, where="the golden value")
    return float(loss), _norm(gradient)


def _timed(objective: Objective, parameters: Mapping[str, Tensor], sample: Sample) -> tuple[float, float]:
    """The same; how long it took is noted, once more where what is made at the first call may be most of it."""
    for _ in range(2):
        begin = time.perf_counter()
        found = _value(objective, parameters, sample)
        objective.seconds = time.perf_counter() - begin
        if objective.seconds > WARM:
            break
    return found


def _norm(tensors: Mapping[str, Tensor]) -> float:
    """Euclidean, over all that are real floating numbers (codes of a quantised weight are none), in float64."""
    numbers = [t.detach() for t in tensors.values() if t.numel() and t.dtype in FLOATING]
    norms = [torch.linalg.vector_norm(t, dtype=torch.float64) for t in numbers]
    return float(torch.linalg.vector_norm(torch.stack([norm.cpu() for norm in norms]))) if norms else 0.0


def _tolerance(parameters: Any) -> float:
    dtypes = floating_dtypes(list(parameters))
    return max(TOLERANCE.get(dtype, LOW_PRECISION_TOLERANCE) for dtype in dtypes)


def _checksum(batch: Any) -> int:
    tensors, _ = flatten(batch)
    checksum = 0
    for name in sorted(tensors):
        checksum = zlib.crc32(as_bytes(tensors[name].contiguous()), zlib.crc32(name.encode(), checksum))
    return checksum


def _stored(run: Path, step: int) -> tuple[dict[str, Tensor], Any, dict[str, Any]]:
    """Parameters (frozen ones too), first micro-batch, buffers and generator states of a recorded step."""
    stored = open_run(run)
    snapshot = source = _step(stored, step)
    if snapshot.batch_from not in (None, step):
        source = _step(stored, int(snapshot.batch_from or 0))
    if not source.batch:
        raise RunError(f"{source.path} holds no batch")

    def elsewhere(other: int) -> Snapshot:
        return _step(stored, other)

    frozen = set(stored.info().frozen)
    extents = {**dict(snapshot.parameters), **frozen_of(snapshot, frozen, elsewhere, snapshot.parameters)}
    held = buffers_of_step(snapshot, elsewhere)
    with ExtentReader() as reader:
        parameters = {name: read_tensor(reader, extent) for name, extent in extents.items()}
        batch = unflatten(
            {path: read_tensor(reader, extent) for path, extent in source.batch.items()}, source.batch_tree
        )
        buffers = {name: read_tensor(reader, extent) for name, extent in held.items()}
        states = {name: read_tensor(reader, extent) for name, extent in snapshot.generators.items()}
    generators = {name: state.reshape(-1, state.shape[-1])[:1] for name, state in states.items()}
    first = batch[0] if source.micro_batches > 1 else batch
    return parameters, first, {"buffers": buffers, "generators": generators}


def _step(stored: StoredRun, step: int) -> Snapshot:
    there = stored.steps().get(step)
    if there is None or there.missing is not None:
        raise RunError(f"{stored.path} does not hold step {step}")
    return stored.snapshot(step)
