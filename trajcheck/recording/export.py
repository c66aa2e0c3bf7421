"""`Recorder(objective=loss_fn)`: the loss program is exported once, at the first batch that is recorded."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from trajcheck.errors import RecorderError, TrajcheckError
from trajcheck.objective.file import LossProgram
from trajcheck.objective.program.stored import FILE, Facts
from trajcheck.readable import size_text
from trajcheck.recording.failures import announce
from trajcheck.recording.model.recorded_model import RecordedModel
from trajcheck.recording.step.observations import MicroBatch
from trajcheck.runs.canonical_names import canonical

#: The exported loss and the observed one may differ by so much, relatively, without a word: autocast, TF32, and the
#: masks that a compiled model draws make them differ.
AGREEMENT = 0.05


def check_loss(loss: Any) -> None:
    """Raise RecorderError for an `objective=` that is no function."""
    if loss is not None and not callable(loss):
        raise RecorderError(f"objective={loss!r:.60}: expected a function loss(model, batch) -> scalar tensor.")


def exportable(loss: Any, recorded: RecordedModel, say: Callable[[str], None]) -> Any:
    """`loss`, unless the model's parameters are spread over several ranks; then None, with a warning."""
    if loss is None or not recorded.sharded:
        return loss
    message = (
        "the loss program of a sharded model cannot be exported. The run is recorded without it, and an objective file "
        "(--objective FILE.py:NAME) replays it"
    )
    announce(message, say, stacklevel=3)
    return None


class ObjectiveExport:
    """Exports loss(model, batch) into `folder` at its first call; later ones do nothing.

    A failure is one warning and one line, also where recording is strict: an objective file replays the run as well.
    `resumed` runs keep the file that they have.
    """

    def __init__(
        self, folder: Path, model: torch.nn.Module, loss: Any, *, resumed: bool, say: Callable[[str], None]
    ) -> None:
        self._path, self._say = folder / FILE, say
        self.pending = loss is not None and not (resumed and self._path.exists())
        self._program = (model, loss) if self.pending else None

    def export(self, batch: Any, observed: MicroBatch, step: int) -> None:
        """From the model as it is at `step`, for its first micro-batch; sets `pending` to False."""
        assert self._program is not None
        (model, loss), self._program, self.pending = self._program, None, False
        self._say(f"exporting the loss program to {self._path}, once; a large model takes a minute")
        try:
            message = _export(self._path, model, loss, batch, observed, step)
        except Exception as error:
            reason = str(error) if isinstance(error, TrajcheckError) else f"{type(error).__name__}: {error}"
            warn = (
                f"the loss program of {self._path.parent} could not be exported: {reason}. The run is recorded without "
                "it, and an objective file (--objective FILE.py:NAME) replays it"
            )
        else:
            self._say(message[0])
            warn = message[1]
        if warn:
            self._say(warn)
            warnings.warn(warn, RuntimeWarning, stacklevel=4)


def _export(
    path: Path, model: torch.nn.Module, loss: Any, batch: Any, observed: MicroBatch, step: int
) -> tuple[str, str]:
    """Export, and say so; and a warning where the program does not give the loss that was observed, else ""."""
    from trajcheck.objective.exported_check import golden_value
    from trajcheck.objective.exporting import export_objective
    from trajcheck.objective.objective import Objective
    from trajcheck.objective.sample import make_sample
    from trajcheck.runs.batch_restoring import unflatten

    device = next(iter(model.parameters())).device
    state = observed.state

    def golden(program: LossProgram) -> Facts | None:
        objective = Objective(program.model, program.loss, device=device, title=str(path))
        parameters = {canonical(name): p.detach() for name, p in model.named_parameters()}
        sample = make_sample(
            observed.tensors,
            device=device,
            tree=observed.tree,
            buffers={} if state is None else state.surroundings.buffers,
            generators={} if state is None else {name: drawn[None] for name, drawn in state.generators.items()},
            seed=step,
            recorded_torch=torch.__version__,
        )
        drawn = state is None or any(observed.consumed.values())
        whole = unflatten(observed.tensors, observed.tree)
        try:
            return golden_value(objective, parameters, whole, sample, step, random=drawn)
        except torch.OutOfMemoryError:
            return None  # training fills the device; the program is as good without it

    autocast, modes = (None, None) if state is None else (state.autocast, state.modes)
    done = export_objective(path, model, loss, batch, autocast=autocast, modes=modes, golden=golden)
    notes = [size_text(done.bytes), f"{done.seconds:.1f} s"]
    if not done.dynamic:
        notes.append("for batches of this shape only")
    if autocast is not None:
        notes.append("without autocast, as it is replayed")
    said = f"loss program exported to {path} ({', '.join(notes)})"
    value = done.facts["reference"]
    if value is None or abs(value["loss"] - observed.loss) <= AGREEMENT * max(abs(observed.loss), abs(value["loss"])):
        return said, ""
    return said, (
        f"{path}: the exported program gives the loss {value['loss']:.6g} at step {step}, where {observed.loss:.6g} "
        "was observed. Is objective= the loss that training computes, without scaling?"
    )
