"""trajcheck/permutations: another order of the units, declared, searched for and checked."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import loops
import numpy as np
import pandas as pd
import pytest
import torch
from places import HELPERS, SAMPLES
from plain_run_files import Outcome, write_plain_step
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

import trajcheck
from trajcheck.errors import ObjectiveError, UsageError
from trajcheck.objective.file import load_program
from trajcheck.permutations.declared import Axis, Permutations, apply, check_permutations
from trajcheck.permutations.weight_matching import Matched, match
from trajcheck.recording.recorder import Recorder

OBJECTIVES = SAMPLES / "objectives.py"
DIGITS, DIGITS1 = SAMPLES / "digits-sgd-seed0", SAMPLES / "digits-sgd-seed1"
TRANSFORMER = SAMPLES / "transformer-adamw"

Point = dict[str, np.ndarray]
Spec = dict[str, list[tuple[Any, ...]]]


# -- networks and what permutes in them ---------------------------------------------------------------------------


class Images(nn.Module):
    """Two convolutions with a normalisation, flattened channels first or last, and a linear layer."""

    def __init__(self, channels_last: bool) -> None:
        super().__init__()
        self.channels_last = channels_last
        self.one, self.norm, self.two = nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.Conv2d(5, 7, 3)
        self.out = nn.Linear(7 * 4, 3)
        nn.init.uniform_(self.norm.weight), nn.init.uniform_(self.norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.two(F.relu(self.norm(self.one(x)))))
        return self.out((x.permute(0, 2, 3, 1) if self.channels_last else x).flatten(1))


class Recurrent(nn.Module):
    def __init__(self, cell: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.cell, self.out = cell(4, 6, batch_first=True), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.cell(x)[0][:, -1])


def convolutions(last: tuple[Any, ...]) -> Spec:
    return {
        "one": [("one.weight", 0), ("one.bias", 0), ("norm.weight", 0), ("norm.bias", 0), ("two.weight", 1)],
        "two": [("two.weight", 0), ("two.bias", 0), last],
    }


def recurrent(gates: int) -> Spec:
    fused = [(f"cell.{kind}_l0", 0, 1, gates) for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    return {"hidden": [*fused, ("cell.weight_hh_l0", 1), ("out.weight", 1)]}


def mlp(*widths: int) -> nn.Module:
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
    return nn.Sequential(*[part for layer in layers for part in (layer, nn.Tanh())][:-1])


def chain(hidden: int) -> Spec:
    return {
        f"hidden{i}": [(f"{2 * i}.weight", 0), (f"{2 * i}.bias", 0), (f"{2 * i + 2}.weight", 1)] for i in range(hidden)
    }


def heads() -> tuple[nn.Module, Spec]:
    made: dict[str, Any] = {}
    exec(compile(OBJECTIVES.read_text(), str(OBJECTIVES), "exec"), made)
    return made["Transformer"]().eval(), made["PERMUTATIONS"]["transformer"]


NETWORKS: dict[str, Callable[[], tuple[nn.Module, Spec, Tensor]]] = {
    "mlp": lambda: (mlp(6, 9, 4), chain(1), torch.randn(5, 6)),
    "deep mlp": lambda: (mlp(6, 9, 9, 12, 9, 4), chain(4), torch.randn(5, 6)),
    "deep mlp, last layer first": lambda: (
        mlp(6, 9, 9, 4),
        dict(reversed(chain(2).items())),
        torch.randn(5, 6),
    ),
    "convolutions": lambda: (Images(False), convolutions(("out.weight", 1, 4)), torch.randn(5, 2, 6, 6)),
    "channels last": lambda: (Images(True), convolutions(("out.weight", 1, 1, 4)), torch.randn(5, 2, 6, 6)),
    "rnn": lambda: (Recurrent(nn.RNN), recurrent(1), torch.randn(5, 3, 4)),
    "lstm": lambda: (Recurrent(nn.LSTM), recurrent(4), torch.randn(5, 3, 4)),
    "gru": lambda: (Recurrent(nn.GRU), recurrent(3), torch.randn(5, 3, 4)),
    "attention": lambda: (*heads(), torch.randint(256, (2, 16))),
}


def point_of(model: nn.Module) -> Point:
    return {name: p.detach().double().numpy().copy() for name, p in model.named_parameters()}


def checked(spec: Spec, point: Point) -> Permutations:
    return check_permutations({"net": spec}, "file.py:net", {name: array.shape for name, array in point.items()})


def permuted(permutations: Permutations, found: Any, point: Point) -> Point:
    return {name: apply(permutations, found, name, array) for name, array in point.items()}


def shuffled(permutations: Permutations, seed: int) -> dict[str, np.ndarray]:
    stream = np.random.default_rng(seed)
    return {group.name: stream.permutation(group.size) for group in permutations.groups}


def output(model: nn.Module, point: Point, x: Tensor) -> np.ndarray:
    with torch.no_grad():
        double = x.double() if x.is_floating_point() else x
        weights = {name: torch.tensor(array) for name, array in point.items()}
        return np.asarray(torch.func.functional_call(model.double(), weights, (double,)))


def distance(a: Point, b: Point) -> float:
    return float(np.sqrt(sum(((a[name] - b[name]) ** 2).sum() for name in a)))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


# -- matching ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("seed", range(3))
def test_a_network_permuted_by_hand_is_the_same_function_and_is_matched_back(name: str, seed: int) -> None:
    model, spec, x = NETWORKS[name]()
    point = point_of(model)
    permutations = checked(spec, point)
    other = permuted(permutations, shuffled(permutations, seed), point)
    assert distance(point, other) > 1e-2
    np.testing.assert_allclose(output(model, other, x), output(model, point, x), rtol=1e-10, atol=1e-12)
    found = match(permutations, point, other).found
    assert distance(point, permuted(permutations, found, other)) == 0
    back = Matched(permutations, found, 1).inverse
    assert distance(other, {name: back.permute(name, array) for name, array in point.items()}) == 0


@pytest.mark.parametrize("name", NETWORKS)
def test_matching_other_weights_shortens_the_distance_and_keeps_the_function(name: str) -> None:
    model, spec, x = NETWORKS[name]()
    a, b = point_of(model), point_of(NETWORKS[name]()[0])
    permutations = checked(spec, a)
    found = match(permutations, a, b).found
    aligned = permuted(permutations, found, b)
    assert distance(a, aligned) < distance(a, b)
    np.testing.assert_allclose(output(model, aligned, x), output(model, b, x), rtol=1e-10, atol=1e-12)
    again = match(permutations, a, b).found
    assert all((again[group] == order).all() for group, order in found.items())
    # nothing is left to gain
    assert all((order == np.arange(len(order))).all() for order in match(permutations, a, aligned).found.values())


@pytest.mark.parametrize("seed", range(5))
def test_one_group_reaches_the_optimum_of_all_orders(seed: int) -> None:
    stream = np.random.default_rng(seed)
    shapes = {"0.weight": (5, 3), "0.bias": (5,), "2.weight": (2, 5)}
    a, b = ({name: stream.normal(size=shape) for name, shape in shapes.items()} for _ in range(2))
    permutations = checked(chain(1), a)
    found = match(permutations, a, b).found
    orders = [{"hidden0": np.array(order)} for order in itertools.permutations(range(5))]
    best = min(distance(a, permuted(permutations, order, b)) for order in orders)
    assert distance(a, permuted(permutations, found, b)) == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_no_group_alone_can_be_bettered(seed: int) -> None:
    """Of several groups the end of the descent is a minimum in each, and no worse than where it began."""
    stream = np.random.default_rng(seed)
    shapes = {"0.weight": (4, 3), "0.bias": (4,), "2.weight": (4, 4), "2.bias": (4,), "4.weight": (2, 4)}
    a, b = ({name: stream.normal(size=shape) for name, shape in shapes.items()} for _ in range(2))
    permutations = checked(chain(2), a)
    found = match(permutations, a, b).found
    reached = distance(a, permuted(permutations, found, b))
    assert reached <= distance(a, b)
    for group in found:
        for order in itertools.permutations(range(4)):
            other = {**found, group: np.array(order)}
            assert distance(a, permuted(permutations, other, b)) >= reached * (1 - 1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_a_deep_network_of_large_inner_weights_is_matched_back(seed: int) -> None:
    """Descent from the order given stays in a local minimum on most of these; the other start does not."""
    torch.manual_seed(seed)
    point = point_of(mlp(2, 9, 9, 9, 1))
    point |= {name: 10 * point[name] for name in ("2.weight", "4.weight")}
    permutations = checked(chain(3), point)
    other = permuted(permutations, shuffled(permutations, seed), point)
    assert distance(point, permuted(permutations, match(permutations, point, other).found, other)) == 0


@pytest.mark.parametrize("seed", range(5))
def test_a_recurrent_weight_never_makes_it_worse(seed: int) -> None:
    """On two axes of one parameter <a, P b> is quadratic in P, and its linear part may mislead."""
    stream = np.random.default_rng(seed)
    a, b = ({"w": stream.normal(size=(6, 6))} for _ in range(2))
    permutations = checked({"units": [("w", 0), ("w", 1)]}, a)
    assert distance(a, permuted(permutations, match(permutations, a, b).found, b)) <= distance(a, b)


def test_ties_and_zero_weights() -> None:
    zero = {"0.weight": np.zeros((4, 3)), "0.bias": np.zeros(4), "2.weight": np.zeros((2, 4))}
    permutations = checked(chain(1), zero)
    same = {name: np.ones_like(array) for name, array in zero.items()}
    for a, b in ((zero, zero), (same, same), (zero, same), (same, zero)):
        assert (match(permutations, a, b).found["hidden0"] == np.arange(4)).all()
    # where no order is better than the one given, nothing moves
    stream, stayed = np.random.default_rng(0), 0
    for _ in range(200):
        a, b = ({name: stream.integers(-1, 2, v.shape).astype(float) for name, v in zero.items()} for _ in range(2))
        orders = [{"hidden0": np.array(order)} for order in itertools.permutations(range(4))]
        if distance(a, b) <= min(distance(a, permuted(permutations, order, b)) for order in orders) + 1e-12:
            stayed += 1
            assert (match(permutations, a, b).found["hidden0"] == np.arange(4)).all()
    assert stayed > 3
    # twins, in another place: any order of the two is as good
    twins = {**same, "0.bias": np.array([1.0, 2.0, 2.0, 3.0])}
    other = permuted(permutations, {"hidden0": np.array([1, 3, 0, 2])}, twins)
    assert distance(twins, permuted(permutations, match(permutations, twins, other).found, other)) == 0


def test_what_no_group_names_and_gradients() -> None:
    """The gradient of a permuted network is the permuted gradient."""
    model = mlp(6, 9, 4).double()
    point = point_of(model)
    permutations = checked(chain(1), {**point, "other": np.arange(3.0)})
    found = shuffled(permutations, 1)
    assert (apply(permutations, found, "other", np.arange(3.0)) == np.arange(3.0)).all()
    x, gradients = torch.randn(5, 6).double(), []
    for each in (point, permuted(permutations, found, point)):
        weights = {name: torch.tensor(array, requires_grad=True) for name, array in each.items()}
        torch.func.functional_call(model, weights, (x,)).square().sum().backward()
        gradients.append({name: np.asarray(w.grad) for name, w in weights.items()})
    for name, gradient in permuted(permutations, found, gradients[0]).items():
        np.testing.assert_allclose(gradients[1][name], gradient, rtol=1e-12)


# -- the spec ------------------------------------------------------------------------------------------------------

SHAPES = {"0.weight": (8, 3), "0.bias": (8,), "2.weight": (2, 8), "scale": ()}
HIDDEN = [("0.weight", 0), ("0.bias", 0), ("2.weight", 1)]


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        (None, 'no PERMUTATIONS, and which units of net permute is not guessed. Write PERMUTATIONS = {"net":'),
        ({"other": {"hidden": HIDDEN}}, "PERMUTATIONS only for other"),
        ([1], "PERMUTATIONS is a list"),
        ({"net": {}}, r"is {}; expected {group"),
        ({"net": [("0.weight", 0)]}, "expected {group"),
        ({"net": {"hidden": []}}, r"group 'hidden' is \[\]"),
        ({"net": {"hidden": ["0.weight"]}}, "has the entry '0.weight'"),
        ({"net": {"hidden": [("0.weight",)]}}, "each entry \\(parameter, axis\\)"),
        ({"net": {"hidden": [("0.weight", 0, 1, 1, 1)]}}, "has the entry"),
        ({"net": {"hidden": [("0.weight", 0, 0)]}}, "block and segments are 1 or more"),
        ({"net": {"hidden": [("0.weigth", 0)]}}, "names '0.weigth', .* did you mean one of 0.weight"),
        ({"net": {"hidden": [("0.weight", 2)]}}, r"axis 2 of 0.weight, whose shape is \[8, 3\]; expected 0 to 1"),
        ({"net": {"hidden": [("0.weight", -1)]}}, "axis -1"),
        ({"net": {"hidden": [("scale", 0)]}}, "a scalar"),
        ({"net": {"hidden": [("0.weight", 0, 3)]}}, r"length 8 is no multiple of block \* segments = 3 \* 1"),
        ({"net": {"hidden": [("0.weight", 0, 2, 3)]}}, "2 \\* 3"),
        ({"net": {"hidden": [("0.weight", 0), ("2.weight", 1, 2)]}}, "0.weight axis 0: 8, 2.weight axis 1: 4"),
        ({"net": {"hidden": [("0.weight", 0), ("0.weight", 0, 2)]}}, "axis 0 of 0.weight is named twice"),
        ({"net": {"a": HIDDEN, "b": [("0.bias", 0)]}}, "named twice, by group 'a' and by 'b'"),
    ],
)
def test_a_spec_that_cannot_be_says_why(declared: Any, words: str) -> None:
    with pytest.raises(ObjectiveError, match=words):
        check_permutations(declared, "file.py:net", SHAPES)


def test_tied_names_and_repeated_entries_are_one() -> None:
    declared = {"net": {"hidden": [*HIDDEN, ("alias", 1), ("0.bias", 0)]}}
    (group,) = check_permutations(declared, "f.py:net", SHAPES, {"alias": "2.weight"}).groups
    assert group.size == 8
    assert group.axes == tuple(Axis(*entry) for entry in HIDDEN)


def test_blocks_and_segments() -> None:
    """[segments, units, block] in C order."""
    positions = Axis("w", 0, block=2, segments=3).positions(np.array([1, 0]))
    assert positions.tolist() == [2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9]


def declared(name: str, shapes: dict[str, tuple[int, ...]]) -> Permutations:
    """Those of the samples' objective file."""
    spec = f"{OBJECTIVES}:{name}"
    return check_permutations(load_program(spec, torch.device("cpu")).permutations, spec, shapes)


def test_read_from_the_objective_file() -> None:
    shapes = {"0.weight": (16, 64), "0.bias": (16,), "2.weight": (10, 16), "2.bias": (10,)}
    (group,) = declared("digits", shapes).groups
    assert (group.name, group.size) == ("hidden", 16)
    with pytest.raises(ObjectiveError, match="only for digits, transformer"):
        declared("breast_cancer", {"weight": (1, 30), "bias": (1,)})
    with pytest.raises(ObjectiveError, match=r"an exported program does not say .* Give --objective FILE.py:NAME"):
        check_permutations(None, "run", shapes)


# -- analyze -------------------------------------------------------------------------------------------------------


def analyzed(run: Path, refs: list[str], out: Path, name: str = "digits", **options: Any) -> Any:
    objective = options.pop("objective", f"{OBJECTIVES}:{name}")
    return trajcheck.analyze(run, refs, objective, out=out, match_permutations=True, **options)


def objective_with(folder: Path, permutations: object) -> str:
    path = folder / "wrong.py"
    path.write_text(f"{OBJECTIVES.read_text()}\n\nPERMUTATIONS = {permutations!r}\n")
    return f"{path}:digits"


def last_iterate(run: Path) -> Point:
    tensors = load_file(max(run.glob("step-*.safetensors")))
    return {name.removeprefix("param/"): array for name, array in tensors.items() if name.startswith("param/")}


def test_two_seeds_of_the_digits(tmp_path: Path) -> None:
    """The distance is shorter by a third, the loss unchanged, and every column is towards the permuted point."""
    plain = trajcheck.analyze(DIGITS, ["final", str(DIGITS1)], f"{OBJECTIVES}:digits", out=tmp_path / "plain")
    report = analyzed(DIGITS, ["final", str(DIGITS1)], tmp_path / "matched")
    assert plain.summary["permutations"] is None
    assert list(report.summary["permutations"]) == [str(DIGITS1)]
    found = report.summary["permutations"][str(DIGITS1)]
    assert found["loss_after"] == pytest.approx(found["loss_before"], rel=1e-6)
    assert found["after"] < 0.7 * found["before"]
    a, b = last_iterate(DIGITS), last_iterate(DIGITS1)
    assert found["before"] == pytest.approx(distance({k: v.astype(float) for k, v in a.items()}, b), rel=1e-12)
    rows = {
        key: each.references[each.references["ref"] == str(DIGITS1)]
        for key, each in {"plain": plain, "matched": report}.items()
    }
    assert rows["matched"]["ref_dist"].iloc[-1] == pytest.approx(found["after"], rel=1e-12)
    assert rows["plain"]["ref_dist"].iloc[-1] == pytest.approx(found["before"], rel=1e-12)
    np.testing.assert_allclose(rows["matched"]["loss_ref"].dropna(), rows["plain"]["loss_ref"].dropna(), rtol=1e-5)
    keys = [each.summary["headline"]["references"][str(DIGITS1)]["point"] for each in (plain, report)]
    assert keys[1].startswith(f"{keys[0]}/permuted:")
    for name in ("point", "cosine", "convexity_ratio"):  # what is this run's own stays as it is
        own = [each.summary["headline"]["references"]["final"][name] for each in (plain, report)]
        assert own[0] == own[1]
    assert not list((tmp_path / "matched").glob(".*"))
    assert {path.name for path in (tmp_path / "matched").iterdir()} == {
        path.name for path in (tmp_path / "plain").iterdir()
    }


def test_two_runs_for_a_comparison() -> None:
    from trajcheck.objective.loading import load_objective
    from trajcheck.permutations.permuted_references import match_runs
    from trajcheck.runs.trajectory import open_trajectory

    spec = f"{OBJECTIVES}:digits"
    a, b = open_trajectory(DIGITS), open_trajectory(DIGITS1)
    matched, found = match_runs(a, b, load_objective(spec, device="cpu"), spec)
    one, other = ({name: v.astype(float) for name, v in last_iterate(run).items()} for run in (DIGITS, DIGITS1))
    aligned = {name: matched.permute(name, array) for name, array in other.items()}
    assert distance(one, other) == pytest.approx(found.before, rel=1e-12)
    assert distance(one, aligned) == pytest.approx(found.after, rel=1e-12)
    assert distance(other, {name: matched.inverse.permute(name, array) for name, array in aligned.items()}) == 0


def test_a_run_permuted_by_hand_is_matched_back(tmp_path: Path) -> None:
    """The transformer, heads and hidden units; float32 numbers are moved, not changed."""
    point = last_iterate(TRANSFORMER)
    permutations = declared("transformer", {name: v.shape for name, v in point.items()})
    other = permuted(permutations, shuffled(permutations, 3), point)
    save_file({name: np.ascontiguousarray(array) for name, array in other.items()}, tmp_path / "other.safetensors")
    spec = str(tmp_path / "other.safetensors")
    report = analyzed(TRANSFORMER, [spec], tmp_path / "report", "transformer", steps="::100")
    found = report.summary["permutations"][spec]
    assert found["before"] > 1
    assert found["after"] == 0
    assert found["loss_after"] == pytest.approx(found["loss_before"], rel=1e-12)
    assert 0 < found["moved"] <= found["units"] == 2 * (64 + 4)


def test_a_point_that_is_in_order_stays_the_same_point(tmp_path: Path) -> None:
    save_file({name: array * 1.5 for name, array in last_iterate(DIGITS).items()}, tmp_path / "near.safetensors")
    spec = str(tmp_path / "near.safetensors")
    report = analyzed(DIGITS, [spec], tmp_path / "report", steps="::40")
    found = report.summary["permutations"][spec]
    assert found["moved"] == 0
    assert found["after"] == found["before"]
    assert found["loss_after"] == found["loss_before"]
    assert "permuted" not in report.summary["headline"]["references"][spec]["point"]


def test_a_wrong_spec_is_found_by_the_loss(tmp_path: Path) -> None:
    wrong = {"digits": {"hidden": [("0.weight", 0), ("2.weight", 1)]}}  # without the bias
    words = "does not describe a symmetry of this loss.*the sample of step 0.*At fault: group 'hidden'"
    with pytest.raises(ObjectiveError, match=words):
        analyzed(DIGITS, [str(DIGITS1)], tmp_path / "report", objective=objective_with(tmp_path, wrong))
    assert not (tmp_path / "report").exists()
    wrong = {"digits": {"in": [("0.weight", 0), ("0.bias", 0)], "out": [("2.weight", 1)]}}
    with pytest.raises(ObjectiveError, match="At fault: group 'in', 'out'"):
        analyzed(DIGITS, [str(DIGITS1)], tmp_path / "report", objective=objective_with(tmp_path, wrong))


def test_the_command_line(cli: Callable[..., Outcome], tmp_path: Path) -> None:
    digits = ("--objective", f"{OBJECTIVES}:digits", "--match-permutations", "--steps", "::40", "--out", tmp_path / "o")
    shown = cli("analyze", DIGITS, "--ref", DIGITS1, *digits)
    assert shown.code == 0, shown.err
    (line,) = [line for line in shown.out.splitlines() if line.startswith("permuted")]
    assert "14.44 from the last iterate, matched 10.07" in line
    assert all(len(line) <= 80 for line in shown.out.splitlines() if not line.startswith("/"))
    found = json.loads((tmp_path / "o" / "summary.json").read_text())
    assert found["options"]["match_permutations"] is True

    without = cli("analyze", DIGITS, "--ref", DIGITS1, "--match-permutations")
    assert without.code == 2 and "--match-permutations needs --objective" in without.err
    own = cli("analyze", DIGITS, "--ref", "final", *digits)
    assert own.code == 2 and "Give --ref OTHER_RUN" in own.err
    cancer = SAMPLES / "breast-cancer-gd"
    copy = tmp_path / "point.safetensors"
    save_file({name: array + 1 for name, array in last_iterate(cancer).items()}, copy)
    objective = f"{OBJECTIVES}:breast_cancer"
    refused = cli("analyze", cancer, "--ref", copy, "--objective", objective, "--match-permutations")
    assert refused.code == 3 and 'PERMUTATIONS = {"breast_cancer": {"hidden"' in refused.err


def test_an_exported_program_is_refused_before_it_is_loaded(cli: Callable[..., Outcome]) -> None:
    outcome = cli("analyze", DIGITS, "--ref", DIGITS1, "--objective", "run", "--match-permutations")
    assert outcome.code == 2 and "FILE.py:NAME, and beside NAME write PERMUTATIONS" in outcome.err


OBJECTIVE_OF_LOOPS = """
import sys

sys.path.insert(0, {tests!r})
from loops import loss_of, network as make

PERMUTATIONS = {{
    "network": {{"hidden": [("0.weight", 0), ("0.bias", 0), ("1.weight", 0), ("1.bias", 0), ("4.weight", 1)]}}
}}


def network():
    return make(), loss_of
"""


def test_dropout_of_the_units_is_off_where_the_loss_is_checked(tmp_path: Path) -> None:
    """With its mask the loss at the permuted point is another draw; the networks are the same."""
    for seed in (0, 1):
        model = loops.network(seed)
        optimizer = loops.sgd(model)
        with Recorder(tmp_path / f"run{seed}", model, optimizer, every=1, quiet=True, strict=True) as recorder:
            loops.train(model, optimizer, 5, recorder)
    file = tmp_path / "objective.py"
    file.write_text(OBJECTIVE_OF_LOOPS.format(tests=str(HELPERS)))
    ref = str(tmp_path / "run1")
    report = analyzed(tmp_path / "run0", [ref], tmp_path / "report", objective=f"{file}:network")
    found = report.summary["permutations"][ref]
    assert found["moved"] > 0
    assert found["loss_after"] == pytest.approx(found["loss_before"], rel=1e-12)
    plain = trajcheck.analyze(tmp_path / "run0", [ref], f"{file}:network", out=tmp_path / "plain")
    # the replay itself has dropout, and its recorded masks
    assert report.steps["replay_loss_error"].max() < 1e-5
    pd.testing.assert_frame_equal(report.steps, plain.steps)


def test_without_any_sample_nothing_can_be_checked(tmp_path: Path, plain_run: Path, objective_file: Path) -> None:
    for path in plain_run.glob("step-*.safetensors"):
        step = int(path.stem.removeprefix("step-"))
        kept = {name: array for name, array in load_file(path).items() if not name.startswith("batch")}
        write_plain_step(plain_run, step, kept)
    save_file({"layer.weight": np.eye(3, 2), "layer.bias": np.ones(2)}, tmp_path / "x.safetensors")
    with objective_file.open("a") as file:
        file.write('PERMUTATIONS = {"good": {"out": [("layer.bias", 0)]}}\n')
    with pytest.raises(ObjectiveError, match="no batch was recorded"):
        analyzed(plain_run, [str(tmp_path / "x.safetensors")], tmp_path / "o", objective=f"{objective_file}:good")


def test_compare_measures_runs_in_one_order(tmp_path: Path) -> None:
    """Two seeds of the digits network: nearer to one another, and the same towards themselves."""
    runs = [SAMPLES / f"digits-sgd-seed{seed}" for seed in (0, 1)]
    objective = f"{SAMPLES / 'objectives.py'}:digits"
    plain, matched = (
        trajcheck.compare(*runs, objective=objective, match_permutations=match, out=tmp_path / str(match))
        for match in (False, True)
    )
    found = matched.summary["permutations"][str(runs[1])]
    for comparison, distance in ((plain, found["before"]), (matched, found["after"])):
        assert comparison.pairs["dist"].iloc[-1] == pytest.approx(distance, rel=1e-6)
    assert found["after"] < 0.8 * found["before"]
    assert found["loss_after"] == pytest.approx(found["loss_before"], rel=1e-6)
    for name in ("init_dist_a", "init_dist_b", "loss_a", "loss_b"):
        assert matched.pairs[name].dropna().tolist() == pytest.approx(plain.pairs[name].dropna().tolist(), rel=1e-12)
    assert matched.pairs["barrier"].max() < plain.pairs["barrier"].max()
    assert matched.pairs["line_1"].dropna().tolist() == pytest.approx(plain.pairs["line_1"].dropna().tolist(), rel=1e-5)


def test_compare_refuses_a_program_that_does_not_say_what_permutes(tmp_path: Path) -> None:
    runs = [SAMPLES / f"digits-sgd-seed{seed}" for seed in (0, 1)]
    with pytest.raises(UsageError, match="PERMUTATIONS"):
        trajcheck.compare(*runs, objective="run", match_permutations=True, out=tmp_path)
