"""What a replay keeps on its device, within --memory.

Counted is what trajcheck itself holds there: the objective's parameters, iterates, gradients, references, what is read
ahead, Lanczos vectors. Activations, and all else that the model's own forward and backward take, are not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from trajcheck.errors import UsageError
from trajcheck.files.extents import EPSILON, ITEM_SIZE, Extent
from trajcheck.objective.dtype_names import AS_IS
from trajcheck.replay.plan import Plan, Reads, fixed_everywhere
from trajcheck.runs.references import Reference
from trajcheck.runs.trajectory import Trajectory
from trajcheck.scalars.micro_batches import micro_batches

#: Bytes at whose multiples the tensors of a vector begin, as torch's own do: kernels may round otherwise elsewhere.
ALIGNMENT = 64

ITEM = {"float64": 8, "float32": 4, "bfloat16": 2}


def replayed_bytes(extents: Iterable[Extent], dtype: str) -> int:
    """Of tensors in the replay's dtype; codes, and all tensors of "as-is", keep their own."""
    own = dtype == AS_IS
    return sum(each.length if own or each.dtype not in EPSILON else each.numel * ITEM[dtype] for each in extents)


#: Lanczos: the fewest vectors of a basis, those that save most products, and those at work beside the basis (the
#: gradient with its graph and flat, the product flat and in parts, two of the solver's own).
SMALLEST_BASIS, USEFUL_BASIS, BESIDE_BASIS = 6, 32, 6

#: Bytes of gradients that are kept from row to row, on samples that are the same on both, where --memory says nothing.
KEPT = 10**9
#: The same of the gradients of a step's micro-batches, which are held until its own is known.
HELD = 4 * 10**9

#: Elements that the device's inner products widen to float64 at a time, and the vectors and differences among them.
REDUCED, WIDENED = 1 << 22, 16


@dataclass(frozen=True)
class Residency:
    """What stays on the device. `references`: how many of them, the first ones; the others are read again wherever they
    are needed, into one buffer. `kept`: on how many samples the gradient at x_t is kept for the next row. `ahead`:
    whether the next row is read while this one computes. `basis`: bytes for Lanczos vectors (None: as many as help).
    `bytes`: the most that all of it takes, the basis excepted where it is not bounded; `minimum`: of any residency.
    `micro`: whether the gradients of all micro-batches of a step are held at once; else they are evaluated twice."""

    references: int
    kept: int
    ahead: bool
    basis: int | None
    bytes: int
    minimum: int
    micro: bool = False


def replay_residency(
    trajectory: Trajectory,
    reads: Sequence[Reads],
    references: Sequence[Reference],
    plan: Plan,
    dtype: str,
    *,
    cuda: bool = False,
    copies: bool = False,
) -> Residency:
    """What stays within `plan.memory`; everything where that is None.

    `dtype` is the replay's; `copies`: every evaluation copies its point. Errors: UsageError for less than the minimum.
    """
    sizes = _Sizes.of(trajectory, reads, references, plan, dtype, cuda, copies)
    kept = kept_gradients(trajectory, plan)
    least = Residency(0, 0, False, None, 0, 0)
    minimum = sizes.total(least)
    if plan.memory is None:
        few = min(kept, KEPT // sizes.replayed)
        held = sizes.micros * sizes.replayed <= HELD
        all_of_it = Residency(len(references), few, True, None, 0, minimum, held)
        return replace(all_of_it, bytes=sizes.total(all_of_it))
    if plan.memory < minimum:
        raise UsageError(
            f"--memory: {plan.memory:,} bytes are too few for this replay, which keeps {minimum:,} on its device at "
            f"least. Give --memory {-(-minimum // 10**6)}MB or more, beside what the model's own forward and backward "
            "take."
        )
    chosen = least
    wishes = [replace(least, kept=number) for number in range(kept, 0, -1)]
    chosen = next((each for each in wishes if sizes.total(each) <= plan.memory), chosen)
    if sizes.total(replace(chosen, micro=True)) <= plan.memory:
        chosen = replace(chosen, micro=True)
    for vectors in (USEFUL_BASIS, USEFUL_BASIS // 2, SMALLEST_BASIS):
        sizes = replace(sizes, basis=vectors)
        if sizes.total(chosen) <= plan.memory:
            break
    counts = range(len(references), 0, -1)
    wishes = [replace(chosen, references=number) for number in counts]
    chosen = next((each for each in wishes if sizes.total(each) <= plan.memory), chosen)
    if sizes.total(replace(chosen, ahead=True)) <= plan.memory:
        chosen = replace(chosen, ahead=True)
    spare = plan.memory - sizes.curvature(chosen)
    basis = spare + sizes.basis * sizes.lanczos if plan.curvature else None
    return replace(chosen, basis=basis, bytes=sizes.total(chosen), minimum=minimum)


def accumulated(trajectory: Trajectory, read: Reads, plan: Plan) -> int:
    """How many micro-batches of a row meet one another."""
    own = plan.batch_sums and read.is_row and "own" in read.samples
    return micro_batches(trajectory, read.row.place) if own else 0


def kept_gradients(trajectory: Trajectory, plan: Plan) -> int:
    """On how many samples grad f at x_t is asked for again (Plan.gradient_again)."""
    always_fixed = fixed_everywhere(trajectory)
    again = [name for name in plan.samples if plan.gradient_again(name, always_fixed)]
    return sum(sum(probe.batches for probe in trajectory.probes) if name == "probe" else 1 for name in again)


@dataclass(frozen=True)
class _Sizes:
    """Bytes of what may be on the device, and how many of each there are at once."""

    recorded: int  # a vector of parameters as it was recorded
    replayed: int  # a vector in the replay's dtype, so a gradient too
    lanczos: int  # a vector of the Hessian, or of a sum of gradients
    fixed: int  # the objective's parameters, and frozen ones
    iterates: int  # how many are needed at once
    fresh: int  # and how many are read ahead at most
    converted: int  # an iterate in the replay's dtype, where that is a copy
    gradient: int  # a recorded gradient
    references: tuple[int, ...]
    gradients: int  # at x_t, and at x_{t-1} where that is evaluated
    ref_gradients: bool
    micro: bool  # gradients of several micro-batches are added up
    micros: int  # micro-batches whose gradients may be held
    sums: int  # vectors, of float32 at least, that batches of a row are added up in
    chord: bool
    curvatures: bool
    reduced: int  # what inner products widen
    basis: int = SMALLEST_BASIS

    @classmethod
    def of(
        cls,
        trajectory: Trajectory,
        reads: Sequence[Reads],
        references: Sequence[Reference],
        plan: Plan,
        dtype: str,
        cuda: bool,
        copies: bool,
    ) -> _Sizes:
        snapshots, names = trajectory.snapshots, list(trajectory.shapes)
        first = snapshots[0]
        trained, frozen = [first.parameters[name] for name in names], [first.frozen[name] for name in first.frozen]
        replayed, fixed = replayed_bytes(trained, dtype), replayed_bytes(frozen, dtype)
        same = dtype == AS_IS or all(ITEM_SIZE[each.dtype] == ITEM[dtype] for each in trained)
        widest = max((ITEM_SIZE[each.dtype] for each in trained), default=4) if dtype == AS_IS else ITEM[dtype]
        own = [read for read in reads if read.recorded]
        return cls(
            recorded=_bytes(first.parameters, names),
            replayed=replayed,
            lanczos=trajectory.numel * max(4, widest),
            fixed=replayed + fixed + sum(each.length for each in frozen),
            iterates=max((len(read.iterates) for read in reads), default=0),
            fresh=max((len(read.fresh) for read in reads[1:]), default=0),
            converted=0 if same and not copies else replayed + fixed,
            gradient=max((_bytes(snapshots[read.row.place].gradients, names) for read in own), default=0),
            references=tuple(_bytes(reference.parameters, names) for reference in references),
            gradients=1 + ("loss_previous" in plan.evaluations and any(map(plan.previous_gradient, (True, False)))),
            ref_gradients=plan.ref_gradients,
            micro="full" in plan.samples or any(each.micro_batches > 1 for each in snapshots),
            micros=max((accumulated(trajectory, read, plan) for read in reads), default=0),
            sums=(2 if plan.batch_sums else 0) + (4 if plan.tails else 0),
            chord=bool(plan.path_points),
            curvatures=bool(plan.curvature),
            reduced=8 * WIDENED * min(REDUCED, trajectory.numel) if cuda else 0,
        )

    def total(self, chosen: Residency) -> int:
        """The most bytes at any time."""
        phases = [self.products(chosen)]
        if self.chord:
            phases.append(self._always(chosen) + 2 * self.replayed + max(self._evaluation(), self.reduced))
        if self.curvatures:
            phases.append(self.curvature(chosen))
        return max(phases)

    def products(self, chosen: Residency) -> int:
        """While the gradients at x_t, x_{t-1} and a reference are evaluated, and meet the recorded vectors."""
        streamed = max(self.references[chosen.references :], default=0)
        gradients = self.replayed * (self.gradients + self.ref_gradients * bool(self.references))
        held = self.micros * self.replayed if chosen.micro else 0
        return self._always(chosen) + gradients + held + streamed + max(self._evaluation(), self.reduced)

    def curvature(self, chosen: Residency) -> int:
        """While Lanczos works, with a basis of `basis` vectors."""
        return self._always(chosen) + self.converted + (self.basis + BESIDE_BASIS) * self.lanczos

    def _always(self, chosen: Residency) -> int:
        ahead = self.fresh * self.recorded + self.gradient if chosen.ahead else 0
        resident = sum(self.references[: chosen.references])
        iterates = self.iterates * self.recorded + self.gradient
        return self.fixed + iterates + resident + chosen.kept * self.replayed + self.sums * self.lanczos + ahead

    def _evaluation(self) -> int:
        """Beside its point and its gradient."""
        return self.converted + self.micro * self.replayed


def _bytes(tensors: Mapping[str, Extent], names: Collection[str]) -> int:
    return sum(aligned(tensors[name].length) for name in names)


def aligned(length: int) -> int:
    """With the padding behind a tensor."""
    return -(-length // ALIGNMENT) * ALIGNMENT
