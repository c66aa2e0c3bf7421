"""The sample z of a step, ready to be evaluated on: its batches, its buffers and its randomness."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trajcheck.errors import StepFileError
from trajcheck.objective.precision import in_width, narrower
from trajcheck.runs.batch_restoring import unflatten


@dataclass(frozen=True)
class Sample:
    """z: M micro-batches with their weights, and what else the loss depends on.

    `tensors` are the flattened batch on the device of the replay, and `tree` says how to put them together (None: as
    their paths say); with M > 1 that gives the tuple of all micro-batches. `buffers` are the model's as they were when
    the forward began (empty: the model's own initial ones); `rank_buffers` those with which another rank of the run
    began, by the first of its micro-batches. `generators` maps "cpu" and "cuda" to M states (uint8
    [M, n]); a device type that it lacks is seeded with `seed` + i before micro-batch i. Where `forwards` says that
    micro-batch i had forwards[i] > 1 forwards of the model with other draws between, it has as many states, one for
    each (see forward_states.py). `randomness` says in words where the draws come from. `modes` are
    those of the model's modules (module_modes.py); None: the objective's own. `apart`: each batch begins with the
    buffers, not with what the batch before has left of them, as the micro-batches of a step do.
    """

    tensors: Mapping[str, Tensor]
    tree: Any = None
    weights: tuple[float, ...] = (1.0,)
    buffers: Mapping[str, Tensor] = field(default_factory=dict)
    generators: Mapping[str, Tensor] = field(default_factory=dict)
    seed: int = 0
    randomness: str = ""
    rank_buffers: Mapping[int, Mapping[str, Tensor]] = field(default_factory=dict)
    forwards: tuple[int, ...] = ()
    modes: Mapping[str, str] | None = None
    apart: bool = False

    def batches(self, where: str = "") -> Iterable[Any]:
        """The M micro-batches, fresh copies at every call: a loss may do with its batch as it likes.

        Errors: StepFileError, beginning with `where`, for tensors and a tree that do not make M batches.
        """
        try:
            whole = unflatten({path: tensor.clone() for path, tensor in self.tensors.items()}, self.tree)
        except StepFileError as error:
            raise StepFileError(f"{where or 'sample'}: {error}") from error
        if len(self.weights) == 1:
            return [whole]
        if not isinstance(whole, tuple | list) or len(whole) != len(self.weights):
            found = f"{len(whole)} batches" if isinstance(whole, tuple | list) else f"a {type(whole).__name__}"
            raise StepFileError(
                f"{where or 'sample'}: {len(self.weights)} micro-batches were announced, the stored batch is {found}; "
                "expected tensors batch/0/... to batch/M-1/..."
            )
        return list(whole)

    def set_generators(self, i: int, device: torch.device) -> None:
        """Put the random streams of the process where they are to be when micro-batch i begins."""
        seed_generators(self.seed + i, device)
        self.set_states(sum(self.forwards[:i]) if self.forwards else i, device)

    def set_states(self, place: int, device: torch.device) -> None:
        """Put those random streams whose states were recorded into the one at a place."""
        # Copies, since torch 2.13 crashes on a view.
        if "cpu" in self.generators:
            torch.set_rng_state(self.generators["cpu"][place].clone())
        if "cuda" in self.generators:
            torch.cuda.set_rng_state(self.generators["cuda"][place].clone(), device)


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed Python's, numpy's and torch's random streams, on the CPU and on `device`."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def make_sample(
    batch: Mapping[str, Tensor],
    *,
    device: torch.device,
    tree: Any = None,
    micro_batches: int = 1,
    weights: Sequence[float] | None = None,
    buffers: Mapping[str, Tensor] | None = None,
    generators: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    recorded_dtype: torch.dtype | None = None,
    recorded_torch: str | None = None,
    forwards: Sequence[int] = (),
    no_randomness: str | None = None,
) -> Sample:
    """A Sample from the tensors of a step file.

    `batch` is flattened, by path ("" is a bare tensor), and with `micro_batches` M > 1 the tuple of M batches. Its
    floating and complex tensors are cast to `dtype`, as precision.py says, where that is not `recorded_dtype`, the
    one dtype of the run's parameters (None: they have several), and where they are of 16 bits: the model was then run
    under autocast, or has float32 masters, and is replayed without either. `dtype` None casts nothing. `weights`
    default to 1/M each. `no_randomness` says why no generator states were recorded, where that is known. Errors:
    StepFileError for another number of weights than M.
    """
    if weights is not None and len(weights) != micro_batches:
        raise StepFileError(f"{len(weights)} micro_weights for {micro_batches} micro-batches; expected one for each")
    tensors = {path: cast(tensor, device, dtype, recorded_dtype) for path, tensor in batch.items()}
    states, randomness = _usable_states(generators or {}, sum(forwards) or micro_batches, device, no_randomness)
    if not randomness:
        randomness = _recorded(dtype, recorded_dtype, recorded_torch)
    return Sample(
        tensors=tensors,
        tree=tree,
        weights=tuple(weights) if weights is not None else (1 / micro_batches,) * micro_batches,
        buffers={name: tensor.to(device) for name, tensor in (buffers or {}).items()},
        generators=states,
        seed=seed,
        randomness=randomness,
        forwards=tuple(forwards) if states else (),
    )


def cast(
    tensor: Tensor,
    device: torch.device,
    dtype: torch.dtype | None,
    recorded_dtype: torch.dtype | None,
    *,
    copy: bool = False,
) -> Tensor:
    """A tensor of a batch where and as the replay wants it; see `make_sample`."""
    wanted = dtype != recorded_dtype or tensor.dtype in (torch.float16, torch.bfloat16)
    return tensor.to(device, in_width(tensor.dtype, dtype if wanted else None), copy=copy)


@contextmanager
def process_generators_untouched(device: torch.device) -> Iterator[None]:
    """Give Python's, numpy's and torch's random streams (CPU and `device`) back as they were."""
    python, legacy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)


def _usable_states(
    generators: Mapping[str, Tensor], wanted: int, device: torch.device, why_none: str | None
) -> tuple[dict[str, Tensor], str]:
    """Recorded states by device type, `wanted` of each, and why they are not used; "" where they are.

    A run on a GPU drew its masks there: its CPU state hardly moves, and would give every step the same masks. Such a
    replay is seeded throughout.
    """
    states: dict[str, Tensor] = {}
    for name, state in generators.items():  # of several GPUs, the first one's
        states.setdefault(name.partition(":")[0], state.cpu().reshape(-1, state.shape[-1]))
    if not states:
        return {}, f"seeded: {why_none or 'no generator state recorded'}"
    recorded_on = "cuda" if "cuda" in states else "cpu"
    if recorded_on != device.type:
        return {}, f"seeded: the run was recorded on {recorded_on}, the replay is on {device.type}"
    for name, state in states.items():
        if len(state) != wanted:
            return {}, f"seeded: {len(state)} generator states recorded for {wanted} forwards"
        try:
            torch.Generator(device if name == "cuda" else name).set_state(state[0].clone())
        except RuntimeError:
            return {}, f"seeded: torch {torch.__version__} cannot use the recorded generator state ({name})"
    return states, ""


def _recorded(dtype: torch.dtype | None, recorded_dtype: torch.dtype | None, recorded_torch: str | None) -> str:
    doubts = []
    if recorded_torch is not None and recorded_torch != torch.__version__:
        doubts.append(f"by torch {recorded_torch}, replayed by {torch.__version__}: draws may differ")
    if (
        dtype is not None
        and dtype != recorded_dtype
        and (recorded_dtype is None or narrower({recorded_dtype}, dtype) is None)
    ):
        own = "in several dtypes" if recorded_dtype is None else f"in {_word(recorded_dtype)}"
        doubts.append(f"{own}, replayed in {_word(dtype)}: draws may differ")
    return "recorded" + (f" ({'; '.join(doubts)})" if doubts else "")


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
