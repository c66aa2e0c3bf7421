"""objective.pt2: exported by the Recorder, replayed without the user's code, checked before it is used."""

from __future__ import annotations

import importlib.util
import io
import json
import random
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import exported_models as models
import numpy as np
import pytest
import torch
from exported_models import Convolutional, Language, classify, images, next_token, tokens
from loops import batch_of, loss_of, network, recorded_steps, sgd, weights
from places import HELPERS
from plain_run_files import Outcome
from replay_exported import product, sample_of, stored
from torch import Tensor, nn
from torch.nn import functional as F

from trajcheck.errors import ObjectiveError, RecorderError
from trajcheck.objective import exporting as objective_export
from trajcheck.objective.exported import FACTS, ExportedModel, load_exported
from trajcheck.objective.exporting import export_objective
from trajcheck.objective.loading import load_objective
from trajcheck.objective.objective import Objective
from trajcheck.objective.sample import make_sample
from trajcheck.recording import export as recorder_export
from trajcheck.recording.recorder import Recorder
from trajcheck.runs.batch_tree import flatten

CPU = torch.device("cpu")
MODULE = "users_own_models"


def record(folder: Path, model: nn.Module, loss_fn: Any, batches: list[Any], **options: Any) -> nn.Module:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    options = {"every": 1, "strict": True, "quiet": True, "objective": loss_fn, **options}
    with Recorder(folder, model, optimizer, **options) as recorder:
        for batch in batches:
            loss = loss_fn(model, batch)
            loss.backward()
            recorder.observe(batch, loss)
            optimizer.step()
            optimizer.zero_grad()
    return model


def seeded(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return make()


SENTENCES = [tokens(6, 7, 0), tokens(6, 7, 1), tokens(4, 5, 2), tokens(1, 7, 3)]  # a smaller, shorter last batch
PICTURES = [images(6, 0), images(6, 1), images(3, 2)]
RUNS: dict[str, tuple[Callable[[Any], nn.Module], str, list[Any]]] = {
    "tied": (lambda users: users.Language(), "next_token", SENTENCES),
    "dropout": (lambda users: users.Language(0.25), "next_token", SENTENCES),
    "batchnorm": (lambda users: users.Convolutional(), "classify", PICTURES),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Runs of models whose module is gone when the test begins."""
    folder = tmp_path_factory.mktemp("runs")
    source = folder / f"{MODULE}.py"
    shutil.copy(models.__file__, source)
    spec = importlib.util.spec_from_file_location(MODULE, source)
    assert spec is not None and spec.loader is not None
    users = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = users
    spec.loader.exec_module(users)
    for name, (make, loss, batches) in RUNS.items():
        torch.manual_seed(0)
        record(folder / name, make(users), getattr(users, loss), batches)
    del sys.modules[MODULE]
    source.unlink()
    yield folder


def eager(name: str) -> Objective:
    make, loss, _ = RUNS[name]
    return Objective(make(models), getattr(models, loss))


def exported(tmp_path: Path, model: nn.Module, loss_fn: Any, batch: Any) -> Objective:
    path = tmp_path / "objective.pt2"
    export_objective(path, model, loss_fn, batch)
    program, _ = load_exported(path)
    return Objective(program.model, program.loss, title=str(path))


def sample(batch: Any, **options: Any) -> Any:
    tensors, tree = flatten(batch)
    return make_sample(tensors, tree=tree, device=CPU, **options)


def assert_same(one: Objective, other: Objective, model: nn.Module, batch: Any, **options: Any) -> None:
    """Loss and gradient at another point than the model's, with the same random numbers; to the last bit."""
    stream = torch.Generator().manual_seed(5)
    x = {
        name: p.detach() + 0.1 * torch.randn(p.shape, generator=stream).to(p.dtype)
        for name, p in model.named_parameters()
    }
    z = sample(batch, seed=3, **options)
    for _ in range(2):
        loss, gradient = one.loss_and_gradient(x, z)
        expected, expected_gradient = other.loss_and_gradient(x, z)
        assert torch.equal(loss, expected)
        assert list(gradient) == list(expected_gradient)
        for name, part in expected_gradient.items():
            torch.testing.assert_close(gradient[name], part, rtol=1e-6, atol=0)


# Replay


def test_replay_without_the_users_code(runs: Path) -> None:
    """In a process that cannot import the models: losses and gradients are the recorded ones, H v the eager one."""
    script = [sys.executable, str(HELPERS / "replay_exported.py"), MODULE, *(str(runs / name) for name in RUNS)]
    done = subprocess.run(script, capture_output=True, text=True, cwd=runs)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for name, line in zip(RUNS, done.stdout.splitlines(), strict=True):
        found = json.loads(line)
        assert found["steps"] == list(range(len(RUNS[name][2])))
        assert max(map(abs, found["losses"])) <= 1e-6
        assert max(found["gradients"]) <= 1e-6
        assert found["note"].startswith("the exported objective gives its reference loss at step 0")
        own = eager(name)
        assert found["names"] == list(own.trainable)
        expected = product(own, stored(runs / name, 0, "param"), sample_of(runs / name, 0))
        torch.testing.assert_close(torch.tensor(found["product"]), expected, rtol=1e-5, atol=1e-6)
        assert float(expected.abs().max()) > 0.01


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_replay_in_another_dtype(runs: Path, name: str, dtype: str) -> None:
    here, own = load_objective("run", run=runs / name, device="cpu", dtype=dtype), eager(name)
    own.prepare(dtype)
    if name != "batchnorm":  # a plain tensor of the model, which .to() does not reach, and the export does
        own._scope.model.shift = own._scope.model.shift.to(own.dtype)
    x, z = stored(runs / name, 1, "param"), sample_of(runs / name, 1, own.dtype)
    loss, gradient = here.loss_and_gradient(x, z)
    expected, expected_gradient = own.loss_and_gradient(x, z)
    assert torch.equal(loss, expected)
    for parameter, part in expected_gradient.items():
        assert torch.equal(gradient[parameter], part)
    if dtype == "float64":
        torch.testing.assert_close(product(here, x, z), product(own, x, z), rtol=1e-9, atol=1e-12)


def test_buffers_start_anew_at_every_evaluation(runs: Path) -> None:
    here = load_objective("run", run=runs / "batchnorm", device="cpu")
    before = {name: buffer.clone() for name, buffer in here._scope.named_buffers()}
    assert any("running_mean" in name for name in before)
    x, z = stored(runs / "batchnorm", 1, "param"), sample_of(runs / "batchnorm", 1)
    values = [here.loss(x, z) for _ in range(3)]
    assert torch.equal(values[0], values[1]) and torch.equal(values[0], values[2])
    for name, buffer in here._scope.named_buffers():
        assert torch.equal(buffer, before[name])


def test_tied_parameters_are_one(runs: Path) -> None:
    here = load_objective("run", run=runs / "tied", device="cpu")
    model = here._scope.model
    assert isinstance(model, ExportedModel)
    assert model.get_parameter("output.weight") is model.get_parameter("embedding.weight")
    assert [name for name in here.names if "weight" in name and name.startswith(("output", "embedding"))] == [
        "embedding.weight"
    ]
    here.check({name: tuple(t.shape) for name, t in stored(runs / "tied", 0, "param").items()}, {})


def test_the_model_takes_no_memory(runs: Path) -> None:
    here = load_objective("run", run=runs / "tied", device="cpu", dtype="float64")
    for parameter in here._scope.model.parameters():
        assert parameter.untyped_storage().nbytes() <= 8
        assert parameter.dtype is torch.float64


def test_the_command_line(cli: Callable[..., Outcome], runs: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli("analyze", runs / "dropout", "--objective", "run", "--out", "report")
    assert done.code == 0, done
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert "recorded" in json.dumps(summary)
    rows = (tmp_path / "report" / "steps.csv").read_text().splitlines()
    column = rows[0].split(",").index("replay_loss_error")
    assert [float(row.split(",")[column]) for row in rows[1:5]] == [0.0] * 4
    text = " ".join(cli("analyze", "--help").out.split())
    assert "loading it can execute code" in text.replace(" │ ", " ")


def test_run_names_a_run() -> None:
    with pytest.raises(ObjectiveError, match="say which run"):
        load_objective("run")


# What the file holds


@pytest.mark.parametrize("name", RUNS)
def test_the_file_is_small_and_private(runs: Path, name: str) -> None:
    data = (runs / name / "objective.pt2").read_bytes()
    assert len(data) < 200_000
    lines = [line.strip() for line in Path(models.__file__).read_text().splitlines()]
    source = [line for line in lines if len(line) > 12 and not line.startswith(("#", "@", '"""'))]
    assert "mixed = F.scaled_dot_product_attention" in "".join(source)
    secrets = [MODULE, "exported_models", str(runs), str(HELPERS), "SecretlyNamedBlock", "next_token", "site-packages"]
    for secret in [*secrets, *source]:
        assert secret.encode() not in data, secret
    tensors = [*weights(seeded(Language)).values()] if name == "tied" else []
    for tensor in tensors:
        assert tensor.numpy().tobytes() not in data
    assert SENTENCES[0].numpy().tobytes() not in data


def test_the_file_holds_no_pickles(runs: Path) -> None:
    with zipfile.ZipFile(runs / "dropout" / "objective.pt2") as archive:
        for entry in archive.infolist():
            assert not entry.filename.endswith((".pkl", ".pickle"))
            assert entry.filename.rpartition("/")[2] != "model.pt" or not entry.file_size


def test_large_models_give_small_files(tmp_path: Path) -> None:
    exported(tmp_path, nn.Linear(1000, 500), F_sum, (torch.randn(4, 1000), torch.randn(4, 500)))
    assert (tmp_path / "objective.pt2").stat().st_size < 20_000


def F_sum(model: nn.Module, batch: Any) -> Tensor:
    return (model(batch[0]) - batch[1]).square().sum() / batch[0].shape[0]


# The training loop


class Counted(nn.Module):
    """Counts its calls, and has a part in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.frozen_norm = network(), nn.BatchNorm1d(3).eval()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.frozen_norm(self.body(x))


def trained(folder: Path | None, objective: Any, seen: list[Any]) -> tuple[Any, ...]:
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    model = Counted()
    optimizer = sgd(model)
    recorder = None
    if folder is not None:
        recorder = Recorder(folder, model, optimizer, objective=objective, every=2, strict=True, quiet=True)
    for step in range(5):
        batch = batch_of(step)
        loss = loss_of(model, batch)
        loss.backward()
        if recorder is not None:
            recorder.observe(batch, loss)
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        buffers = {name: b.clone() for name, b in model.named_buffers()}
        modes = [m.training for m in model.modules()]
        states = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[index]
        hooks = [len(m._forward_pre_hooks) for m in model.modules()] if step else []
        seen.append((gradients, buffers, modes, states, batch, loss.detach(), model.calls, hooks, set(vars(model))))
        optimizer.step()
        optimizer.zero_grad()
    if recorder is not None:
        recorder.close()
    return model, model.state_dict()


def flat(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [part for key in value for part in (key, *flat(value[key]))]
    if isinstance(value, list | tuple):
        return [part for item in value for part in flat(item)]
    return [value]


def test_training_is_untouched(tmp_path: Path) -> None:
    with_it: list[Any] = []
    without: list[Any] = []
    _, state = trained(tmp_path / "a", loss_of, with_it)
    _, plain = trained(tmp_path / "b", None, without)
    assert (tmp_path / "a" / "objective.pt2").exists() and not (tmp_path / "b" / "objective.pt2").exists()
    pairs = zip(flat([with_it, state]), flat([without, plain]), strict=True)
    assert all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs)


def test_nothing_is_done_after_the_first_recorded_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def count(module: Any, name: str) -> None:
        real = getattr(module, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            calls.append(name)
            return real(*arguments, **options)

        monkeypatch.setattr(module, name, counted)

    count(torch.export, "export")
    count(recorder_export, "_export")
    loss_calls: list[int] = []

    def loss_fn(model: nn.Module, batch: Any) -> Tensor:
        loss_calls.append(1)
        return loss_of(model, batch)

    record(tmp_path / "run", network(), loss_fn, [batch_of(step) for step in range(6)], every=2)
    assert calls == ["_export", "export"]
    assert len(loss_calls) == 7


def test_a_resumed_run_keeps_its_file(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    model = record(folder, network(), loss_of, [batch_of(0), batch_of(1)])
    before = (folder / "objective.pt2").read_bytes()
    record(folder, model, loss_of, [batch_of(2)], start_step=2)
    assert (folder / "objective.pt2").read_bytes() == before
    assert recorded_steps(folder) == [0, 1, 2, 3]
    assert sorted(path.name for path in folder.iterdir() if "objective" in path.name) == ["objective.pt2"]


def test_gradient_accumulation_checks_the_first_micro_batch(tmp_path: Path) -> None:
    model = network()
    optimizer = sgd(model)
    with Recorder(tmp_path, model, optimizer, loss_of, every=1, strict=True, quiet=True) as recorder:
        for part in range(3):
            loss = loss_of(model, batch_of(part))
            (loss / 3).backward()
            recorder.observe(batch_of(part), loss, weight=1 / 3)
        optimizer.step()
    here = load_objective("run", run=tmp_path, device="cpu")
    assert "gives its reference loss" in here.note
    loss, gradient = here.loss_and_gradient(stored(tmp_path, 0, "param"), sample_of(tmp_path, 0))
    for name, recorded in stored(tmp_path, 0, "grad").items():
        torch.testing.assert_close(gradient[name], recorded, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: torch.compile(model, backend="eager")])
def test_wrapped_models(tmp_path: Path, wrap: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    record(tmp_path, wrap(model), loss_of, [batch_of(0)])
    here = load_objective("run", run=tmp_path, device="cpu")
    assert here.names == ("0.weight", "0.bias", "2.weight", "2.bias")
    assert float(here.loss(stored(tmp_path, 0, "param"), sample_of(tmp_path, 0))) > 0
    torch._dynamo.reset()


def test_autocast_is_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = seeded(lambda: nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3)))

    def loss_fn(model: nn.Module, batch: Any) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=torch.is_autocast_enabled("cpu")):
            return loss_of(model, batch)

    optimizer = sgd(model)
    with Recorder(tmp_path, model, optimizer, loss_fn, every=1, strict=True) as recorder, torch.autocast("cpu"):
        loss = loss_fn(model, batch_of(0))
        loss.backward()
        recorder.observe(batch_of(0), loss)
        optimizer.step()
    said = capsys.readouterr().err
    assert "without autocast, as it is replayed" in said
    here = load_objective("run", run=tmp_path, device="cpu")
    z = sample_of(tmp_path, 0)
    expected = Objective(model, loss_of).loss(stored(tmp_path, 0, "param"), z)
    assert torch.equal(here.loss(stored(tmp_path, 0, "param"), z), expected)
    assert abs(float(expected) - float(loss.detach())) > 1e-6


# What cannot be exported


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 3 * gradient


OTHER = nn.Linear(4, 3)
TRAINED: list[nn.Linear] = []  # the model that is being trained


@torch.library.custom_op("trajcheck_tests::twice", mutates_args=())
def foreign(x: Tensor) -> Tensor:
    return 2 * x


@foreign.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


foreign.register_autograd(lambda ctx, gradient: 2 * gradient)

FAILURES: dict[str, tuple[Any, str]] = {
    "control flow": (lambda model, batch: loss_of(model, batch) * (2 if loss_of(model, batch) > 1 else 1), "data-dep"),
    "function": (lambda model, batch: Doubled.apply(loss_of(model, batch)), "uses Doubled, a torch.autograd.Function"),
    "closure": (lambda model, batch: loss_of(OTHER, batch), "write it as a function of its arguments"),
    "both": (lambda model, batch: loss_of(model, batch) + 0.1 * TRAINED[0].weight.square().sum(), "from elsewhere"),
    "python": (lambda model, batch: loss_of(model, batch) * (1 + random.random()), "random stream"),
    "numpy": (lambda model, batch: loss_of(model, batch) * float(1 + np.random.rand()), "random stream"),
    "vector": (lambda model, batch: F.cross_entropy(model(batch[0]), batch[1], reduction="none"), "shape"),
    "foreign": (lambda model, batch: loss_of(model, (foreign(batch[0]), batch[1])), "operator from outside torch"),
    "foreign gradient": (lambda model, batch: foreign(loss_of(model, batch)), "torch.autograd.Function"),
    "raises": (lambda model, batch: batch["images"], "TypeError"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_what_cannot_be_exported(tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str) -> None:
    """One warning and one line, also under strict=True; the run is recorded, and the streams are as they were."""
    loss_fn, reason = FAILURES[name]
    torch.manual_seed(0)
    TRAINED[:] = [model := nn.Linear(4, 3)]
    optimizer = sgd(model)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[index]
    apply = torch.autograd.Function.__dict__["apply"]
    with (
        warnings.catch_warnings(record=True) as caught,
        Recorder(tmp_path, model, optimizer, loss_fn, every=1, strict=True) as recorder,
    ):
        warnings.simplefilter("always")
        for step in range(2):
            loss = loss_of(model, batch_of(step))
            loss.backward()
            recorder.observe(batch_of(step), loss)
            optimizer.step()
            optimizer.zero_grad()
    (warning,) = caught
    assert warning.category is RuntimeWarning and warning.filename == __file__
    assert reason in str(warning.message) and "an objective file" in str(warning.message)
    lines = capfd.readouterr().err.splitlines()
    assert [("could not be exported" in line) for line in lines].count(True) == 1
    assert all(line.startswith("trajcheck: ") for line in lines)
    assert recorded_steps(tmp_path) == [0, 1, 2]
    assert not [path for path in tmp_path.iterdir() if "objective" in path.name]
    assert states[:2] == (random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[index]
    assert torch.equal(states[2], torch.get_rng_state())
    assert torch.autograd.Function.__dict__["apply"] is apply
    with pytest.raises(ObjectiveError, match="no exported objective"):
        load_objective("run", run=tmp_path)


def test_a_loss_that_is_not_the_observed_one_is_said(tmp_path: Path) -> None:
    model = nn.Linear(4, 3)
    optimizer = sgd(model)
    with Recorder(tmp_path, model, optimizer, loss_of, every=1, strict=True, quiet=True) as recorder:
        loss = 2 * loss_of(model, batch_of(0))
        loss.backward()
        with pytest.warns(RuntimeWarning, match="exported program gives the loss"):
            recorder.observe(batch_of(0), loss)
        optimizer.step()


def test_what_is_no_function_is_refused_at_once(tmp_path: Path) -> None:
    model = nn.Linear(4, 3)
    with pytest.raises(RecorderError, match="expected a function"):
        Recorder(tmp_path / "run", model, sgd(model), objective="loss")
    assert not (tmp_path / "run").exists()


def test_a_full_disk_is_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(objective_export, "write_bytes", full)
    with pytest.warns(RuntimeWarning, match="No space left"):
        record(tmp_path, nn.Linear(4, 3), loss_of, [batch_of(0)])
    assert recorded_steps(tmp_path) == [0, 1]


# Shapes and values of the batch


def test_sizes_stay_open_where_they_can(tmp_path: Path) -> None:
    model = seeded(lambda: Language(0.25))
    here = exported(tmp_path, model, next_token, tokens(6, 7, 0))
    for shape in ((6, 7), (2, 9), (1, 4), (11, 5)):
        assert_same(here, Objective(Language(0.25), next_token), model, tokens(*shape, 1))
    with pytest.raises(ObjectiveError, match="has shape \\[2\\], and the program takes \\[any, any\\]"):
        here.loss(weights(model), sample(torch.zeros(2, dtype=torch.int64)))
    with pytest.raises(ObjectiveError, match=r"is floating, in the program not floating"):
        here.loss(weights(model), sample(torch.zeros(2, 4)))


def test_sizes_that_the_program_fixes(tmp_path: Path) -> None:
    def by_length(model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1], reduction="sum") / len(batch[0])

    model = seeded(lambda: nn.Linear(4, 3))
    here = exported(tmp_path, model, by_length, batch_of(0))
    assert_same(here, Objective(nn.Linear(4, 3), by_length), model, batch_of(1))
    with pytest.raises(ObjectiveError, match=r"tensor '0' has shape \[5, 4\], and the program takes \[6, 4\]"):
        here.loss(weights(model), sample(batch_of(1, size=5)))


def test_static_sizes_where_open_ones_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = torch.export.export

    def only_static(*arguments: Any, dynamic_shapes: Any = None, **options: Any) -> Any:
        if dynamic_shapes is not None:
            raise RuntimeError("cannot")
        return real(*arguments, **options)

    monkeypatch.setattr(torch.export, "export", only_static)
    record(tmp_path, nn.Linear(4, 3), loss_of, [batch_of(0)], quiet=False)
    assert "for batches of this shape only" in capsys.readouterr().err
    program, facts = load_exported(tmp_path / "objective.pt2")
    assert facts["dynamic"] is False
    assert [entry["shape"] for entry in facts["batch"]] == [[6, 4], [6]]
    with pytest.raises(ObjectiveError, match="takes"):
        program.loss(program.model, batch_of(0, size=3))


def test_what_is_no_tensor_is_part_of_the_program(tmp_path: Path) -> None:
    def smoothed(model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(model(batch["x"]), batch["y"][0], label_smoothing=batch["options"][0])

    def batch(smoothing: float, name: str = "a") -> dict[str, Any]:
        x, y = batch_of(0)
        return {"x": x, "y": [y], "options": (smoothing, None, name)}

    model = seeded(lambda: nn.Linear(4, 3))
    here = exported(tmp_path, model, smoothed, batch(0.1))
    assert_same(here, Objective(nn.Linear(4, 3), smoothed), model, batch(0.1))
    with pytest.raises(ObjectiveError, match=r"batch\['options'\]\[0\] is 0.2, and was 0.1 when the program"):
        here.loss(weights(model), sample(batch(0.2)))
    with pytest.raises(ObjectiveError, match=r"batch\['options'\]\[2\] is 'b', and was 'a'"):
        here.loss(weights(model), sample(batch(0.1, "b")))
    with pytest.raises(ObjectiveError, match="its tensors are '0', '1', those exported with 'x', 'y/0'"):
        here.loss(weights(model), sample(batch_of(0)))


def test_batches_of_other_classes(tmp_path: Path) -> None:
    """What training is given may have attributes; what is replayed is plain."""
    import collections

    Pair = collections.namedtuple("Pair", "x y")

    class Attributes(dict):
        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return self[name]

    x, y = batch_of(0)
    for batch in (Pair(x, y), Attributes(x=x, y=y)):
        model = seeded(lambda: nn.Linear(4, 3))
        here = exported(tmp_path, model, lambda m, b: F.cross_entropy(m(b.x), b.y), batch)
        expected = Objective(nn.Linear(4, 3), loss_of).loss(weights(model), sample((x, y)))
        assert torch.equal(here.loss(weights(model), sample(batch)), expected)


# Kinds of models


class Upcast(nn.Module):
    """Computes in float32 whatever its parameters are; constants of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.table = nn.Linear(4, 3), torch.linspace(0, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x).float() + self.table + torch.tensor([1.0, 2.0, 3.0]) + torch.zeros(3, dtype=torch.float32)
        with torch.no_grad():
            gate = torch.sigmoid(y).to(torch.float32)
        return (gate * y).type_as(x)


class Wide(Upcast):
    """`Upcast` as it would be written for float64."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x) + self.table.double() + torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
        with torch.no_grad():
            gate = torch.sigmoid(y)
        return gate * y


def test_a_float64_replay_is_not_rounded_by_the_program(tmp_path: Path) -> None:
    model = seeded(Upcast)
    here = exported(tmp_path, model, loss_of, batch_of(0)).prepare("float64")
    other = Wide()
    other.table = torch.linspace(0, 1, 3)
    assert_same(here, Objective(other, loss_of).prepare("float64"), model, batch_of(0), dtype=torch.float64)
    narrow = seeded(Upcast).bfloat16()
    low = exported(tmp_path, narrow, lambda m, b: loss_of(m, (b[0].to(m.layer.weight.dtype), b[1])), batch_of(0))
    assert_same(
        low.prepare("float64"), Objective(other, loss_of).prepare("float64"), narrow, batch_of(0), dtype=torch.float64
    )
    # In float32 it is what was exported.
    low = exported(tmp_path, model, loss_of, batch_of(0)).prepare("float32")
    assert_same(low, Objective(Upcast(), loss_of), model, batch_of(0))


class Odd(nn.Module):
    """Unused, empty, frozen and scalar parameters, a module under two names, a buffer that is assigned anew."""

    average: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.again = self.first
        self.norm = nn.BatchNorm1d(4)
        self.norm_again = self.norm
        self.last = nn.Linear(4, 3)
        self.unused, self.empty = nn.Parameter(torch.ones(2)), nn.Parameter(torch.zeros(0, 3))
        self.frozen = nn.Parameter(torch.full((4,), 0.5), requires_grad=False)
        self.gain = nn.Parameter(torch.tensor(1.5))
        self.register_buffer("average", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        self.average = 0.5 * self.average + x.mean(0)
        h = self.norm_again(self.again(self.norm(self.first(x)))) * self.frozen
        return self.last(h + self.average) * self.gain + self.empty.sum()


KINDS: dict[str, Callable[[], nn.Module]] = {
    "odd": Odd,
    "lstm": lambda: Recurrent(),
    "weight norm": lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 5)), nn.Linear(5, 3)),
    "encoder": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 2)), nn.TransformerEncoderLayer(2, 1, 4, batch_first=True), nn.Flatten(), nn.Linear(4, 3)
    ),
    "checkpoint": lambda: Checkpointed(),
    "noise": lambda: Noisy(),
}


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(2, 4, num_layers=2, dropout=0.3, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x.view(-1, 2, 2))[0][:, -1])


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.3), nn.Tanh())
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.utils.checkpoint.checkpoint(self.body, x, use_reentrant=False))


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x + 0.1 * torch.randn_like(x) + torch.rand(x.shape[1]))


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_models(tmp_path: Path, kind: str) -> None:
    model = seeded(KINDS[kind])
    here = exported(tmp_path, model, loss_of, batch_of(0))
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    for size in (6, 3):
        assert_same(here, Objective(seeded(KINDS[kind]), loss_of), model, batch_of(1, size), buffers=buffers)


def test_lookups_and_weights_that_are_written(tmp_path: Path) -> None:
    """An embedding with max_norm writes into its weight: the caller's tensor stays as it is."""

    class Limited(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(7, 4, max_norm=0.5), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.table(x).mean(1))

    model = seeded(Limited)
    batch = (torch.arange(12).reshape(6, 2) % 7, batch_of(0)[1])
    here = exported(tmp_path, model, loss_of, batch)
    assert_same(here, Objective(Limited(), loss_of), model, batch)


def test_a_loss_that_is_a_module(tmp_path: Path) -> None:
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.criterion = nn.CrossEntropyLoss(weight=torch.tensor([0.2, 0.5, 0.3]))
            self.temperature = nn.Parameter(torch.tensor(2.0))

        def forward(self, model: nn.Module, batch: Any) -> Tensor:
            return self.criterion(model(batch[0]) * self.temperature, batch[1])

        def value(self, model: nn.Module, batch: Any) -> Tensor:
            return self(model, batch)

    for loss_fn in (Weighted(), Weighted().value):
        model = seeded(lambda: nn.Linear(4, 3))
        here = exported(tmp_path, model, loss_fn, batch_of(0))
        for dtype in (None, "float64"):
            other = Objective(nn.Linear(4, 3), Weighted())
            if dtype is not None:
                here.prepare(dtype), other.prepare(dtype)
            assert_same(here, other, model, batch_of(1), dtype=here.dtype)


def test_a_data_set_that_the_loss_closes_over_is_a_constant(tmp_path: Path) -> None:
    data = torch.randn(20, 4)

    def loss_fn(model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(model(data[batch[0]]), batch[1])

    model = seeded(lambda: nn.Linear(4, 3))
    batch = (torch.arange(6), batch_of(0)[1])
    here = exported(tmp_path, model, loss_fn, batch)
    assert_same(here, Objective(nn.Linear(4, 3), loss_fn), model, batch)
    here.prepare("float64")
    expected = Objective(nn.Linear(4, 3).double(), loss_of).loss(weights(model), sample((data[:6].double(), batch[1])))
    assert torch.equal(here.loss(weights(model), sample(batch)), expected)


# The reference value, and damaged files


def rewritten(path: Path, change: Callable[[str, bytes], bytes | None]) -> None:
    """The archive with changed entries, and right checksums."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    path.write_bytes(buffer.getvalue())


def with_facts(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    def edited(name: str, content: bytes) -> bytes:
        if not name.endswith(FACTS):
            return content
        facts = json.loads(content)
        change(facts)
        return json.dumps(facts).encode()

    rewritten(path, edited)


@pytest.fixture
def run(runs: Path, tmp_path: Path) -> Path:
    """A copy of a run with dropout."""
    shutil.copytree(runs / "dropout", tmp_path / "run")
    return tmp_path / "run"


def test_an_intact_copy_is_as_good(run: Path) -> None:
    rewritten(run / "objective.pt2", lambda name, content: content)
    assert "reference loss at step 0 (relative error 0.0e+00)" in load_objective("run", run=run, device="cpu").note


@pytest.mark.parametrize("key", ["loss", "grad_norm"])
def test_another_value_is_refused(run: Path, key: str) -> None:
    with_facts(run / "objective.pt2", lambda facts: facts["reference"].update({key: facts["reference"][key] * 1.01}))
    what = "loss" if key == "loss" else "gradient norm"
    with pytest.raises(ObjectiveError, match=f"objective.pt2: at step 0 the program gives the {what} .* it gave .*use"):
        load_objective("run", run=run, device="cpu")


def test_another_program_is_refused(run: Path) -> None:
    """The graph itself changed: 0.25 of dropout become 0.5."""
    path = run / "objective.pt2"
    rewritten(path, lambda name, content: content.replace(b"0.25", b"0.50") if name.endswith("model.json") else content)
    with pytest.raises(ObjectiveError, match="at step 0 the program gives"):
        load_objective("run", run=run, device="cpu")


def test_where_the_reference_cannot_be_checked_the_note_says_so(run: Path) -> None:
    step = run / "step-000000000.safetensors"
    data = step.read_bytes()
    shutil.copy(run / "step-000000001.safetensors", step)
    assert "could not be checked" in load_objective("run", run=run, device="cpu").note
    step.unlink()
    assert "could not be checked at step 0" in load_objective("run", run=run, device="cpu").note
    step.write_bytes(data)
    with_facts(run / "objective.pt2", lambda facts: facts.update(torch="2.99.0"))
    assert "its random numbers are not those" in load_objective("run", run=run, device="cpu").note
    with_facts(run / "objective.pt2", lambda facts: facts.update(reference=None))
    assert load_objective("run", run=run, device="cpu").note.startswith("no reference value")


def test_damaged_files(run: Path) -> None:
    path = run / "objective.pt2"
    data = path.read_bytes()
    for damaged, reason in (
        (data[: len(data) // 2], "not a whole .pt2 archive"),
        (b"", "not a whole .pt2 archive"),
        (b"hello", "not a whole .pt2 archive"),
        (data.replace(b"aten.dropout", b"aten.droptou", 1), "the checksum of .*model.json is wrong"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(ObjectiveError, match=reason) as raised:
            load_objective("run", run=run)
        assert str(path) in str(raised.value) and "FILE.py:NAME" in str(raised.value)


def test_files_of_others(run: Path) -> None:
    path = run / "objective.pt2"
    data = path.read_bytes()

    def fails(reason: str) -> None:
        with pytest.raises(ObjectiveError, match=reason) as raised:
            load_objective("run", run=run)
        assert str(path) in str(raised.value)
        path.write_bytes(data)

    rewritten(path, lambda name, content: None if name.endswith(FACTS) else content)
    fails("no Recorder wrote it")
    with_facts(path, lambda facts: facts.update(format=2))
    fails("its format is 2; this trajcheck reads format 1")
    with_facts(path, lambda facts: facts.pop("batch"))
    fails("lacks 'batch'")
    with_facts(path, lambda facts: facts.update(parameters=[{"name": "a"}]))
    fails("does not have what trajcheck.json says")
    with_facts(path, lambda facts: facts.update(aliases={"a": "b"}))
    fails("does not have what trajcheck.json says")
    with_facts(path, lambda facts: facts.update(torch="2.99.0"))
    rewritten(
        path, lambda name, content: content.replace(b'"major": ', b'"major": 9') if "models/" in name else content
    )
    fails("torch cannot load the program .*exported by torch 2.99.0, this is torch .*use that version, or an objective")


def test_pickles_are_refused_before_torch_sees_them(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = run / "objective.pt2"
    data = path.read_bytes()
    monkeypatch.setattr(torch.export, "load", lambda *a, **k: pytest.fail("it was loaded"))
    changes: list[Callable[[str, bytes], bytes]] = [
        lambda name, content: b"pickle" if "sample_inputs/" in name else content,
        lambda name, content: content.replace(b'"use_pickle": false', b'"use_pickle": true'),
        lambda name, content: content.replace(b'"use_pickle": false', b'"use_pickle":\ttrue'),
    ]
    for change in changes:
        rewritten(path, change)
        with pytest.raises(ObjectiveError, match="is not loaded"):
            load_objective("run", run=run)
        path.write_bytes(data)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("objective/data/constants/custom_obj_0", b"x")
    with pytest.raises(ObjectiveError, match="object of another class"):
        load_objective("run", run=run)


def test_batchnorm_model_alone(tmp_path: Path) -> None:
    model = seeded(Convolutional)
    here = exported(tmp_path, model, classify, images(6, 0))
    for rows in (6, 2):
        assert_same(here, Objective(Convolutional(), classify), model, images(rows, 1))
