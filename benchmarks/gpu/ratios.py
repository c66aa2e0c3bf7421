"""What a device is worth: the replay against a bare loop, the recorder's share of training, reductions, curvature."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks.gpu.budget import Budget
from benchmarks.gpu.device import wait
from benchmarks.gpu.recording import Training
from benchmarks.gpu.sizes import Shape, Sizes
from benchmarks.models import gpt, gpt_batch, mlp, mlp_batch
from benchmarks.replay import Bare, Case, record
from benchmarks.table import Row
from benchmarks.timing import Spread
from trajcheck import Recorder
from trajcheck.measuring.measured_run import MeasuredRun
from trajcheck.measuring.options import Options
from trajcheck.objective.objective import Objective
from trajcheck.objective.sample import make_sample
from trajcheck.replay.gpu_reducer import DeviceReducer
from trajcheck.replay.host_reducer import HostReducer
from trajcheck.replay.reducer import fetch
from trajcheck.runs.references import Reference, resolve_references

REFERENCES = {1: ("final",), 4: ("final", "mean:2", "mean:3", "init")}
#: What the issue of these figures asks for.
AGAINST_BARE, SHARE = {"small": 1.10, "mlp": 1.25, "large": 1.10}, 0.02


def cases(folder: Path, device: torch.device, sizes: Sizes) -> dict[str, Callable[[], Case]]:
    """The recorded runs that are replayed, each made when it is asked for."""

    def of_gpt(name: str, shape: Shape, autocast: torch.dtype | None) -> Case:
        task = gpt(shape.layers, shape.width, shape.vocabulary, shape.length)
        batch = partial(gpt_batch, shape.batch, shape.vocabulary, shape.length)
        return record(name, folder, task, shape.words, batch, sizes.steps, device, autocast)

    words = f"mlp({sizes.hidden})"
    return {
        "mlp": lambda: record(
            "mlp", folder, mlp(sizes.hidden), words, partial(mlp_batch, 128), sizes.mlp_steps, device
        ),
        "small": lambda: of_gpt("small", sizes.small, None),
        "large": lambda: of_gpt("large", sizes.large, torch.bfloat16),
    }


def replay(budget: Budget, make: Callable[[], Case]) -> list[Row]:
    """Against a loop that reads the same files and makes the same passes in float32, for one reference and for four."""
    case = make()
    tasks: dict[str, Callable[[], object]] = {}
    with tempfile.TemporaryDirectory() as workspace:
        for count, specs in REFERENCES.items():
            options = Options(specs, case.objective, device=str(case.device), replay_dtype="float32")
            analysis = MeasuredRun(case.run, options, quiet=True)
            references = resolve_references(specs, analysis.trajectory, Path(workspace))
            tasks[f"bare {count}"] = partial(_to_the_end, case.device, Bare(case, references))
            tasks[f"replay {count}"] = partial(_to_the_end, case.device, partial(_walk, analysis, references))
        times = budget.in_turn(tasks)
    title = f"replay, {case.name}, {case.numel / 1e6:.3g} M"
    return [
        Row(
            f"{title}, K={count}, against the bare loop",
            times.ratio(f"replay {count}", f"bare {count}"),
            target=AGAINST_BARE[case.name],
            note=f"{statistics.median(times.seconds[f'replay {count}']) / case.rows:.3g} s a row",
        )
        for count in REFERENCES
    ]


def _walk(analysis: MeasuredRun, references: list[Reference]) -> None:
    for _ in analysis.prepare_replay(references).rows():
        pass


def _to_the_end(device: torch.device, work: Callable[[], object]) -> None:
    work()
    wait(device)


def recorder(budget: Budget, folder: Path, device: torch.device, sizes: Sizes) -> list[Row]:
    """Time of the training thread in the recorder, as a share of training, and steps against those without one."""
    training = Training(sizes.large, device)
    shares: dict[str, list[float]] = {"every step": [], "every=10": [], "every step, windows": []}
    settings = {"every step": {"every": 1}, "every=10": {"every": 10}, "every step, windows": {"every": 1}}

    def steps(name: str | None) -> None:
        if name is None:
            for _ in range(sizes.training):
                training.forward_and_backward()
                training.update()
            return wait(device)
        with tempfile.TemporaryDirectory(dir=folder) as path:
            options = {**settings[name], "windows": "windows" in name, "quiet": True, "strict": True}
            with Recorder(path, training.model, training.optimizer, **options) as made:  # type: ignore[arg-type]
                for _ in range(sizes.training):
                    loss = training.forward_and_backward()
                    made.observe(training.batch, loss)
                    training.update()
                wait(device)
                spent = made.spent
                shares[name].append((spent.records + spent.every_step) / spent.training)

    times = budget.in_turn({"bare": partial(steps, None), **{name: partial(steps, name) for name in shares}})
    rounds = len(times.seconds["bare"])
    millions = sum(p.numel() for p in training.model.parameters()) / 1e6
    step = statistics.median(times.seconds["bare"]) / sizes.training
    rows = [Row(f"a training step, {millions:.3g} M", step, "s")]
    for name, found in shares.items():
        rows.append(Row(f"recorder, {name}: share of the training thread", Spread.of(found[-rounds:]), target=SHARE))
        rows.append(Row(f"recorder, {name}: steps against those without", times.ratio(name, "bare")))
    return rows


def reductions(budget: Budget, device: torch.device, sizes: Sizes) -> list[Row]:
    """A row's inner products towards four references, of vectors that are there already."""
    shape = sizes.large
    model = gpt(shape.layers, shape.width, shape.vocabulary, shape.length)[0]
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    here = {name: torch.randn(shape) for name, shape in shapes.items()}
    there = {name: tensor.to(device) for name, tensor in here.items()}
    asked = (["grad_sq", "step_sq"], ["grad_dot_ref", "ref_sq"])
    with DeviceReducer(shapes, device) as on_device, HostReducer(shapes) as on_host:

        def reduce(reducer: DeviceReducer | HostReducer, x: dict[str, torch.Tensor]) -> None:
            vectors = {"x": x, "gradient": x, "previous": x}
            fetch([reducer.reduce(vectors, {place: {"reference": x} for place in range(4)}, *asked).values])

        times = budget.in_turn({"device": partial(reduce, on_device, there), "host": partial(reduce, on_host, here)})
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    return [Row(f"inner products of a row, K=4, {millions:.3g} M: device / host", times.ratio("device", "host"))]


def curvature(budget: Budget, device: torch.device, sizes: Sizes) -> list[Row]:
    """Products of the Hessian with a vector, the graph of the gradient being there."""
    shape = sizes.small
    model, loss = gpt(shape.layers, shape.width, shape.vocabulary, shape.length)
    objective = Objective(model, loss, device=device)
    x = {name: p.detach().clone().to(device) for name, p in model.named_parameters()}
    tokens = gpt_batch(shape.batch, shape.vocabulary, shape.length)
    sample = make_sample({"0": tokens[0], "1": tokens[1]}, device=device)
    hessian = objective.hessian(x, sample)
    v = torch.ones(hessian.dimension, dtype=hessian.dtype, device=device)

    def product() -> None:
        hessian.product(v)
        wait(device)

    def gradient() -> None:
        objective.loss_and_gradient(x, sample)
        wait(device)

    times = budget.in_turn({"product": product, "gradient": gradient}, most=20)
    title = f"Hessian products, {hessian.dimension / 1e6:.3g} M"
    return [
        Row(f"{title}, a second", 1 / statistics.median(times.seconds["product"])),
        Row(f"{title}, a product in gradients", times.ratio("product", "gradient")),
    ]
