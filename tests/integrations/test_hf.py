"""trajcheck.integrations.hf: a real transformers.Trainer, and the same training in a plain loop with the Recorder."""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from imported_late import Lazily
from loops import read, recorded_steps
from safetensors.torch import load_file, save_file
from same_reports import assert_same_reports
from torch import Tensor

import trajcheck
from trajcheck.errors import ObjectiveError, RecorderError, RunError
from trajcheck.objective.common.names import DataChoice
from trajcheck.objective.loading import load_objective
from trajcheck.recording.recorder import Recorder
from trajcheck.recording.step_recorder import StepRecorder
from trajcheck.runs.trajectory import open_trajectory

transformers: Any = Lazily("transformers")
hf: Any = Lazily("hf_trainers")

pytestmark = pytest.mark.skipif(
    not all(map(find_spec, ("transformers", "accelerate"))), reason="needs transformers and accelerate"
)

MICRO, SIZE, STEPS, CLIP = 2, 4, 6, 0.25

OBJECTIVE = """
from transformers import GPT2Config, GPT2LMHeadModel
from trajcheck.integrations.hf import model_loss

def gpt2():
    return GPT2LMHeadModel(GPT2Config(**{config})), model_loss
"""


def config(dropout: float = 0.0) -> dict[str, Any]:
    rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout)
    sizes = {"vocab_size": 40, "n_positions": 16, "n_embd": 16, "n_layer": 1, "n_head": 2}
    return {**sizes, **rates, "bos_token_id": 0, "eos_token_id": 0}


def gpt2(dropout: float = 0.0) -> Any:
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**config(dropout)))


def examples() -> list[dict[str, Tensor]]:
    """Sequences whose labels begin at different places, so that micro-batches have different numbers of items."""
    stream = torch.Generator().manual_seed(1)
    data = []
    for i in range(STEPS * MICRO * SIZE):
        tokens = torch.randint(40, (12,), generator=stream)
        labels = tokens.clone()
        labels[: 1 + i % 7] = -100  # the first is never predicted, and not every version of the Trainer counts so
        data.append({"input_ids": tokens, "labels": labels})
    return data


def sgd(model: Any) -> tuple[Any, Any]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)


def trainer(folder: Path, callbacks: list[Any], model: Any = None, **arguments: Any) -> Any:
    model = gpt2() if model is None else model
    settings = {
        "output_dir": str(folder / "trainer"), "per_device_train_batch_size": SIZE, "max_grad_norm": CLIP,
        "gradient_accumulation_steps": MICRO, "num_train_epochs": 1, "use_cpu": True, "report_to": [],
        "disable_tqdm": True, "save_strategy": "no", "logging_strategy": "no", "dataloader_pin_memory": False,
    }  # fmt: skip
    own = {
        key: arguments.pop(key) for key in ("compute_loss_func", "eval_dataset", "compute_metrics") if key in arguments
    }
    return hf.InOrder(
        model=model,
        args=transformers.TrainingArguments(**{**settings, **arguments}),
        train_dataset=examples(),
        callbacks=callbacks,
        optimizers=sgd(model),
        **own,
    )


def trained(folder: Path, callbacks: list[Any], model: Any = None, **arguments: Any) -> Any:
    made = trainer(folder, callbacks, model, **arguments)
    made.train()
    return made.model


def plain_loop(run: Path, autocast: bool) -> Any:
    """What the Trainer does, written by hand."""
    model = gpt2().train()
    optimizer, scheduler = sgd(model)
    data = examples()
    with Recorder(run, model, optimizer, every=1, strict=True, quiet=True) as recorder:
        recorder.epoch = 0
        for step in range(STEPS):
            rows = [data[SIZE * (MICRO * step + i) :][:SIZE] for i in range(MICRO)]
            batches = [{name: torch.stack([row[name] for row in part]) for name in part[0]} for part in rows]
            items = torch.stack([(batch["labels"][:, 1:] != -100).sum() for batch in batches]).sum()
            for batch in batches:
                batch["num_items_in_batch"] = items
                with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                    loss = model(**batch).loss
                loss.backward()
                recorder.observe(batch, loss)
            recorder.clip_grad_norm_(CLIP)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    return model


def objective(folder: Path, dropout: float = 0.0) -> str:
    path = folder / "objective.py"
    path.write_text(OBJECTIVE.format(config=config(dropout)))
    return f"{path}:gpt2"


def same_weights(a: Any, b: Any) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@pytest.fixture(autouse=True)
def accelerate_begins_anew() -> Any:
    """Its state and its environment variables outlive a Trainer."""
    from accelerate.state import AcceleratorState

    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
        del os.environ[name]


@pytest.mark.parametrize("autocast", [True, False], ids=["bf16", "float32"])
def test_the_one_line_records_what_a_plain_loop_records(autocast: bool, tmp_path: Path) -> None:
    """Bit by bit, but for the clipping factor, which is measured on the gradients and not computed from their norm."""
    callback = hf.TrajcheckCallback(tmp_path / "one-line", every=1, strict=True, quiet=True)
    recorded = trained(tmp_path, [callback], bf16=autocast)
    by_hand = plain_loop(tmp_path / "by-hand", autocast)
    assert same_weights(recorded, by_hand)
    assert same_weights(recorded, trained(tmp_path, [], bf16=autocast))  # training is the same without the callback
    assert recorded_steps(tmp_path / "one-line") == list(range(STEPS + 1))
    clips = []
    for step in range(STEPS + 1):
        (tensors, metadata), (expected, said) = (read(tmp_path / run, step) for run in ("one-line", "by-hand"))
        kinds = {name.partition("/")[0] for name in tensors} - {"buffer"}  # which not every version has
        assert kinds == ({"param", "grad", "batch"} if step < STEPS else {"param"})
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensors[name], expected[name]) for name in tensors)
        del metadata["checksum"], said["checksum"]  # which tell 0.0 from -0.0
        if step < STEPS:
            clips.append(metadata.pop("clip"))
            assert clips[-1] == pytest.approx(said.pop("clip"), rel=1e-6)
        assert metadata == said
    assert min(clips) < 0.9 and metadata["step"] == STEPS
    assert_same_reports(tmp_path, ("one-line", "by-hand"), objective(tmp_path), STEPS, autocast=autocast)


def test_dropout_epochs_and_evaluations_during_training(tmp_path: Path) -> None:
    """Masks come back from the generator states; forwards of evaluations are no batches."""
    arguments: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 1, "eval_dataset": examples()[:5]}
    arguments |= {"num_train_epochs": 2, "eval_on_start": True}
    callback = hf.TrajcheckCallback(tmp_path / "run", every=1, strict=True, quiet=True, windows=True)
    recorded = trained(tmp_path, [callback], gpt2(0.2), **arguments)
    assert same_weights(recorded, trained(tmp_path, [], gpt2(0.2), **arguments))
    assert callback.recorder is None  # closed
    metadata = [read(tmp_path / "run", step)[1] for step in range(2 * STEPS)]
    assert [each["epoch"] for each in metadata] == [0] * STEPS + [1] * STEPS
    assert {tuple(each["micro_weights"]) for each in metadata} == {(1.0, 1.0)}
    report = trajcheck.analyze(tmp_path / "run", objective=objective(tmp_path, 0.2), out=tmp_path / "report")
    errors = report.steps[["replay_loss_error", "replay_grad_error"]].dropna()
    assert len(errors) == 2 * STEPS
    assert (errors.max().to_numpy() < (1e-6, 1e-5)).all(), errors
    assert report.references["window_num"].notna().any()


def test_the_length_of_the_run_is_the_trainers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained(tmp_path, [hf.TrajcheckCallback(tmp_path / "run", schedule=trajcheck.Budget(bytes=10**9), strict=True)])
    assert "every step, " in capsys.readouterr().err  # not "every step at first", which is thinned later
    assert recorded_steps(tmp_path / "run") == list(range(STEPS + 1))


def test_a_job_resumed_from_a_checkpoint_goes_on_with_the_run(tmp_path: Path) -> None:
    saving: dict[str, Any] = {"save_strategy": "steps", "save_steps": 3}

    def callback(run: str) -> Any:
        return hf.TrajcheckCallback(tmp_path / run, every=1, strict=True, quiet=True)

    trained(tmp_path, [callback("run"), hf.Stop()], **saving)
    assert recorded_steps(tmp_path / "run") == [0, 1, 2, 3]
    made = trainer(tmp_path, [callback("run")], **saving)
    made.train(resume_from_checkpoint=True)
    trained(tmp_path / "whole", [callback("whole-run")])
    assert recorded_steps(tmp_path / "run") == list(range(STEPS + 1))
    for step in range(STEPS + 1):
        (tensors, metadata), (expected, said) = (read(tmp_path / run, step) for run in ("run", "whole-run"))
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensors[name], expected[name]) for name in tensors)
        assert metadata["tau"] == pytest.approx(said["tau"], rel=1e-14)


@pytest.mark.parametrize("by", ["steps", "epoch"])
def test_the_final_iterate_is_the_last_one_also_where_the_best_is_loaded(by: str, tmp_path: Path) -> None:
    """Two evaluations, the second of which stops the training early; by steps, at its end."""
    scores = iter(range(10, 0, -1))  # the first checkpoint is the best
    last: list[dict[str, Tensor]] = []

    class Watch(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            last[:] = [{name: p.detach().clone() for name, p in model.named_parameters()}]

    stopping = [transformers.EarlyStoppingCallback(1)] if by == "epoch" else []
    recorded = trained(
        tmp_path,
        [hf.TrajcheckCallback(tmp_path / "run", every=2, strict=True, quiet=True), Watch(), *stopping],
        num_train_epochs=1 if by == "steps" else 4, save_strategy=by, save_steps=3, eval_strategy=by, eval_steps=3,
        eval_dataset=examples()[:4],
        load_best_model_at_end=True, metric_for_best_model="score", greater_is_better=True,
        compute_metrics=lambda prediction: {"score": next(scores)},
    )  # fmt: skip
    assert recorded_steps(tmp_path / "run")[-1] == (STEPS if by == "steps" else 2 * STEPS)
    tensors = read(tmp_path / "run", recorded_steps(tmp_path / "run")[-1])[0]
    assert all(torch.equal(tensors[f"param/{name}"], value) for name, value in last[0].items())
    assert not torch.equal(tensors["param/transformer.wte.weight"], recorded.transformer.wte.weight)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of torch's own tracing
def test_a_compiled_model(tmp_path: Path) -> None:
    trained(
        tmp_path,
        [hf.TrajcheckCallback(tmp_path / "run", every=1, strict=True, quiet=True)],
        torch_compile=True, torch_compile_backend="aot_eager", max_steps=2, bf16=True,
    )  # fmt: skip
    tensors, metadata = read(tmp_path / "run", 1)
    assert "param/transformer.wte.weight" in tensors and "batch/1/labels" in tensors
    assert metadata["loss"] > 0 and metadata["autocast"] == "bfloat16"


def counted_loss(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    logits, targets = outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    return torch.nn.functional.cross_entropy(logits, targets, ignore_index=-100, reduction="sum") / num_items_in_batch


def test_a_loss_function_given_to_the_trainer(tmp_path: Path) -> None:
    callback = hf.TrajcheckCallback(tmp_path / "run", every=1, strict=True, quiet=True)
    trained(tmp_path, [callback], compute_loss_func=callback.observed(counted_loss))
    usual = hf.TrajcheckCallback(tmp_path / "usual", every=1, strict=True, quiet=True)
    trained(tmp_path, [usual])
    (tensors, metadata), (expected, said) = (read(tmp_path / run, 2) for run in ("run", "usual"))
    assert {name for name in tensors if name.startswith("batch")} == {n for n in expected if n.startswith("batch")}
    assert metadata["loss"] == pytest.approx(said["loss"], rel=1e-5)
    with pytest.warns(RuntimeWarning, match=r"the targets that this function took\. .*callback\.observed"):
        trained(
            tmp_path,
            [hf.TrajcheckCallback(tmp_path / "unseen", every=1, strict=True, quiet=True)],
            compute_loss_func=counted_loss,
        )
    tensors, metadata = read(tmp_path / "unseen", 1)
    labels = read(tmp_path / "usual", 1)[0]["batch/1/labels"]
    assert "batch/1/0/input_ids" in tensors and torch.equal(tensors["batch/1/1"], labels[:, 1:].flatten())
    assert metadata["loss"] == pytest.approx(read(tmp_path / "usual", 1)[1]["loss"], rel=1e-5)
    assert metadata["micro_weights"] == [None, None]


def test_the_weight_of_a_loss_is_measured(tmp_path: Path) -> None:
    """Without labels that the Trainer can count, it divides by the number of micro-batches."""

    class Own(hf.InOrder):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
            return 0.5 * model(**inputs).loss

    model = gpt2()
    arguments = trainer(tmp_path, []).args
    made = Own(
        model=model,
        args=arguments,
        train_dataset=examples(),
        optimizers=sgd(model),
        callbacks=[hf.TrajcheckCallback(tmp_path / "run", every=1, strict=True, quiet=True)],
    )
    made.model_accepts_loss_kwargs = False
    made.train()
    assert read(tmp_path / "run", 0)[1]["micro_weights"] == [0.25, 0.25]


def test_the_exported_program_is_without_the_autocast_that_accelerate_adds(tmp_path: Path) -> None:
    callback = hf.TrajcheckCallback(tmp_path / "run", every=1, strict=True, quiet=True, objective=hf.model_loss)
    trained(tmp_path, [callback], bf16=True, max_steps=2)
    exported, written = (
        trajcheck.analyze(tmp_path / "run", objective=spec, out=tmp_path / f"report{i}").steps["replay_grad_error"]
        for i, spec in enumerate(("run", objective(tmp_path)))
    )
    assert exported.dropna().min() > 1e-4  # against gradients of bfloat16
    np.testing.assert_allclose(exported.dropna(), written.dropna(), rtol=1e-3)


def test_what_fails_does_not_reach_training_unless_strict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> None:
        raise ZeroDivisionError("broken")

    untouched = trained(tmp_path, [])
    monkeypatch.setattr(StepRecorder, "observe", broken)
    with pytest.warns(RuntimeWarning, match="training goes on: step 0: ZeroDivisionError"):
        assert same_weights(untouched, trained(tmp_path, [hf.TrajcheckCallback(tmp_path / "run", every=1, quiet=True)]))
    with pytest.raises(RecorderError, match="ZeroDivisionError"):
        trained(tmp_path, [hf.TrajcheckCallback(tmp_path / "strict", every=1, strict=True, quiet=True)])


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecorderError, match="TrajcheckCallback takes no evry=; it takes every"):
        hf.TrajcheckCallback(tmp_path, evry=3)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(RecorderError, match="already holds a run"):
        trained(tmp_path, [hf.TrajcheckCallback(tmp_path / "run", every=1)])
    with pytest.raises(ValueError, match="returned no loss for a batch of input_ids"):
        hf.model_loss(gpt2(), {"input_ids": torch.zeros(1, 3, dtype=torch.long)})


# -- objectives that transformers builds from an archive's config.json -------------------------------------------------


def small(kind: str) -> Any:
    """Models of a few thousand parameters, with dropout, which an evaluation is without."""
    torch.manual_seed(1)
    if kind == "gpt2":
        return gpt2(0.3)
    if kind == "llama":
        sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_key_value_heads": 1}
        ends = {"bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": False}
        more = {"vocab_size": 40, "num_hidden_layers": 1, "max_position_embeddings": 16, "attention_dropout": 0.3}
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **ends, **more))
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_hidden_layers": 1}
    names = {"id2label": {0: "cat", 1: "dog", 2: "owl"}, "label2id": {"cat": 0, "dog": 1, "owl": 2}}
    more = {"image_size": 8, "patch_size": 4, "hidden_dropout_prob": 0.3}
    return transformers.ViTForImageClassification(transformers.ViTConfig(**sizes, **names, **more))


def archive(folder: Path, model: Any, steps: int = 3) -> Path:
    """Weights alone, of steps at random, with the config.json that transformers saves."""
    model.config.save_pretrained(folder)
    stream = torch.Generator().manual_seed(2)
    for step in range(steps):
        tensors = {f"param/{name}": p.detach().clone() for name, p in model.named_parameters()}
        meta = {"trajcheck": json.dumps({"format": 1, "step": step})}
        save_file(tensors, folder / f"step-{step:09d}.safetensors", meta)
        with torch.no_grad():
            for p in model.parameters():
                p += 0.1 * torch.randn(p.shape, generator=stream, dtype=p.dtype)
    return folder


class InFloat64(torch.overrides.TorchFunctionMode):
    """Whatever the code inside casts to float32 is float64."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def wide(value: Any) -> Any:
            return torch.float64 if value is torch.float32 else value

        if function is Tensor.float:
            return args[0].double()
        return function(*map(wide, args), **{name: wide(value) for name, value in (kwargs or {}).items()})


def values(steps: Any) -> dict[str, np.ndarray]:
    return {name: steps[name].to_numpy() for name in ("loss", "grad_norm")}


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_causal_model_of_an_archive(kind: str, tmp_path: Path) -> None:
    """Losses and gradients at every step, of batches that its records lack, are the live model's in float64, without
    the float32 that transformers' own code casts to."""
    run = archive(tmp_path / "run", small(kind).double())
    tokens = np.random.default_rng(0).integers(0, 40, 200)
    tokens.astype("<u2").tofile(tmp_path / "tokens.bin")
    data = str(tmp_path / "tokens.bin")
    report = trajcheck.analyze(
        run, objective="hf-causal-lm", data=data, probe=2, batch_size=2, sequence_length=8, out=tmp_path / "report"
    )
    drawn = report.summary["replay"]["data"]["probe"]
    model = small(kind).double().eval()
    wanted: dict[str, list[float]] = {"loss": [], "grad_norm": []}
    for step in range(3):
        stored = load_file(run / f"step-{step:09d}.safetensors")
        model.load_state_dict({name[6:]: value for name, value in stored.items()}, strict=False)
        found = []
        for places in drawn["places"]:
            ids = torch.tensor(np.stack([tokens[start : start + 8] for start in places]))
            model.zero_grad()
            with InFloat64():
                logits = model(ids).logits[:, :-1].reshape(-1, 40)
            loss = torch.nn.functional.cross_entropy(logits, ids[:, 1:].reshape(-1))
            loss.backward()
            norm = torch.stack([p.grad.pow(2).sum() for p in model.parameters()]).sum().sqrt()
            found.append((loss.item(), norm.item()))
        for name, each in zip(wanted, zip(*found, strict=True), strict=True):
            wanted[name].append(sum(each) / len(each))
    for name, value in values(report.steps).items():
        np.testing.assert_allclose(value, wanted[name], rtol=1e-12)
    assert report.steps["grad_norm_se"].notna().all() and "replay_grad_error" not in report.steps
    # another seed draws others; and what needs the step's own batch and gradient is empty for that reason
    more: dict[str, Any] = {
        "data": data,
        "probe": 2,
        "batch_size": 2,
        "sequence_length": 8,
        "data_seed": 1,
        "sample": ("own", "probe"),
    }
    again = trajcheck.analyze(run, objective="hf-causal-lm", out=tmp_path / "again", **more)
    assert again.summary["replay"]["data"]["probe"]["hash"] != drawn["hash"]
    own = set(again.undefined.loc[again.undefined["sample"] == "own", "reason"])
    assert {f"no {what} was recorded at this step" for what in ("batch", "loss", "gradient")} <= own


def test_the_whole_data_of_a_causal_model(tmp_path: Path) -> None:
    """--sample full is the mean over all tokens that are predicted, whatever windows and batches they are in."""
    run = archive(tmp_path / "run", small("gpt2").double(), steps=1)
    tokens = np.random.default_rng(0).integers(0, 40, 43)
    (tmp_path / "a.jsonl").write_text(json.dumps({"input_ids": tokens.tolist()}))
    report = trajcheck.analyze(
        run,
        objective="hf-causal-lm",
        data=str(tmp_path / "a.jsonl"),
        sample="full",
        batch_size=2,
        sequence_length=8,
        out=tmp_path / "report",
    )
    model = small("gpt2").double().eval()
    total, count = 0.0, 0
    for start in range(0, 43, 8):
        ids = torch.tensor(tokens[None, start : start + 8])
        logits = model(ids).logits[:, :-1].reshape(-1, 40)
        total += torch.nn.functional.cross_entropy(logits, ids[:, 1:].reshape(-1), reduction="sum").item()
        count += ids.shape[1] - 1
    np.testing.assert_allclose(report.steps["loss"], total / count, rtol=1e-12)


def test_an_image_classifier_of_an_archive(tmp_path: Path) -> None:
    run = archive(tmp_path / "run", small("vit").double(), steps=2)
    stream = np.random.default_rng(0)
    images, labels = stream.normal(size=(7, 3, 8, 8)), np.array([0, 1, 2, 2, 1, 0, 0])
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    report = trajcheck.analyze(
        run,
        objective="hf-image-classification",
        data=str(tmp_path / "data.npz"),
        sample="full",
        batch_size=3,
        out=tmp_path / "report",
    )
    model = small("vit").double().eval()
    for step in range(2):
        stored = load_file(run / f"step-{step:09d}.safetensors")
        model.load_state_dict({name[6:]: value for name, value in stored.items()})
        pixels = torch.tensor(images.astype(np.float32)).double()
        loss = torch.nn.functional.cross_entropy(model(pixels).logits, torch.tensor(labels))
        np.testing.assert_allclose(report.steps["loss"][step], loss.item(), rtol=1e-12)


def test_an_archive_without_the_name_of_the_inner_model(tmp_path: Path) -> None:
    """GPT-2 as it was published: `h.0.ln_1.weight`, where the model with a head has `transformer.` before it."""
    model = small("gpt2").double()
    model.config.save_pretrained(tmp_path / "run")
    tensors = {f"param/{name}": p.detach() for name, p in model.transformer.named_parameters()}
    save_file(tensors, tmp_path / "run" / "step-000000000.safetensors", {"trajcheck": '{"format": 1, "step": 0}'})
    tokens = np.arange(16) % 40
    tokens.astype("<u2").tofile(tmp_path / "tokens.bin")
    data = str(tmp_path / "tokens.bin")
    report = trajcheck.analyze(tmp_path / "run", objective="hf-causal-lm", data=data, sample="full", out=tmp_path / "o")
    ids = torch.tensor(tokens[None])
    loss = torch.nn.functional.cross_entropy(model.eval()(ids).logits[0, :-1], ids[0, 1:])
    np.testing.assert_allclose(report.steps["loss"], loss.item(), rtol=1e-12)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"problem_type": "regression"}, "problem_type regression with 3 classes is no classification"),
        ({"problem_type": "evil"}, "problem_type evil with 3 classes"),
        ({"id2label": {"0": "cat"}, "label2id": {"cat": 0}}, "is no classification|does not fit the run"),
        ({"label2id": {"cat": "b"}}, "label2id gives other numbers than those of its 3 classes"),
        ({"label2id": {"cat": 7}}, "label2id gives other numbers"),
        ({"id2label": {"x": "cat"}}, "cannot be made from it"),
        ({"num_labels": 10**9}, r"num_labels: 1000000000 can be no size"),
        ({"image_size": 10**6}, "more than [0-9,]+ elements of parameters"),
        ({"patch_size": 0}, "cannot be made from it"),
    ],
)
def test_config_files_of_classifiers(entries: dict[str, Any], words: str, tmp_path: Path) -> None:
    run = archive(tmp_path / "run", small("vit"), steps=1)
    np.savez(tmp_path / "data.npz", images=np.zeros((2, 3, 8, 8)), labels=np.array([0, 1]))
    known = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**known, **entries}))
    choice = DataChoice(data=str(tmp_path / "data.npz"))
    with pytest.raises(ObjectiveError, match=words):
        load_objective("hf-image-classification", device="cpu", trajectory=open_trajectory(run), choice=choice)


HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "code": ({"auto_map": {"AutoModelForCausalLM": "evil.Model"}}, "auto_map names code of the archive's own"),
    "nested code": ({"text_config": {"auto_map": {"AutoModel": "evil.M"}}}, r"text_config\.auto_map names code"),
    "unknown": ({"model_type": "evil"}, "model_type 'evil' is none of transformers"),
    "path": ({"model_type": "../../evil"}, r"model_type '\.\./\.\./evil' is none of transformers"),
    "module": ({"model_type": "os"}, "model_type 'os' is none of transformers"),
    "no type": ({"model_type": None}, "holds no model_type"),
    "another library": ({"model_type": "timm_wrapper"}, "is none of transformers"),
    "another task": ({"architectures": ["GPT2ForSequenceClassification"]}, "is of GPT2ForSequenceClassification; "),
    "no such task": ({"model_type": "vit", "architectures": None}, "no class for --objective hf-causal-lm"),
    "backbone": ({"backbone": "resnet50"}, "names a model from elsewhere"),
    "quantised": ({"quantization_config": {"quant_method": "gptq"}}, "has quantised weights"),
    "10 TB": ({"n_embd": 10**6, "vocab_size": 10**6}, "more than [0-9,]+ elements of parameters"),
    "wide": ({"vocab_size": 10**9}, r"cannot be made from it.*vocab_size: 1000000000 can be no size in this archive"),
    "deep": ({"n_layer": 10**6}, "more than [0-9,]+ (parameters|elements of parameters|modules)"),
    "deeper": ({"n_layer": 10**15}, "n_layer: 1000000000000000 can be no size"),
    "positions": ({"n_positions": 10**7}, "of another shape: .*wpe|elements of (buffers|parameters)"),
    "negative": ({"n_embd": -16}, "cannot be made from it"),
    "no heads": ({"n_head": 0}, "cannot be made from it"),
    "words": ({"n_embd": "many"}, "cannot be made from it"),
    "another width": ({"n_embd": 8}, "does not fit the run: of another shape"),
    "more layers": ({"n_layer": 2}, r"does not fit the run: only in the objective: transformer\.h\.1\."),
    "attention": ({"attn_implementation": "evil/kernels", "_attn_implementation_internal": "evil/kernels"}, ""),
    "from elsewhere": ({"_name_or_path": "https://example.org/evil", "name_or_path": "evil/model"}, ""),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_config_files_of_strangers(case: str, hostile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None imports, loads or makes what it names; each is refused by name, or does not matter."""
    import socket

    def refused(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("asks a network")

    monkeypatch.setattr(socket.socket, "connect", refused)
    entries, words = HOSTILE[case]
    (hostile / "config.json").write_text(json.dumps({**gpt2().config.to_dict(), **entries}, default=str))
    trajectory = open_trajectory(hostile)
    choice = DataChoice(data=str(hostile.parent / "tokens.bin"))
    if words:
        with pytest.raises(ObjectiveError, match=words):
            load_objective("hf-causal-lm", device="cpu", trajectory=trajectory, choice=choice)
    else:
        load_objective("hf-causal-lm", device="cpu", trajectory=trajectory, choice=choice)
    assert not {"evil", "timm"} & set(sys.modules)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    np.arange(40).astype("<u2").tofile(folder / "tokens.bin")
    return archive(folder / "run", gpt2(), steps=1)


def test_own_samples_of_an_archive_are_refused(hostile: Path, tmp_path: Path) -> None:
    data = str(hostile.parent / "tokens.bin")
    with pytest.raises(RunError, match=r"none of its 1 steps holds a batch.*--sample probe --probe N"):
        trajcheck.analyze(hostile, objective="hf-causal-lm", data=data, out=tmp_path / "report")
    (hostile / "config.json").unlink()
    with pytest.raises(ObjectiveError, match=r"no config\.json lies in .*hf-causal-lm:FOLDER"):
        trajcheck.analyze(hostile, objective="hf-causal-lm", data=data, probe=1, out=tmp_path / "report")
    gpt2().config.save_pretrained(tmp_path / "elsewhere")
    elsewhere = f"hf-causal-lm:{tmp_path / 'elsewhere'}"
    found = trajcheck.analyze(hostile, objective=elsewhere, data=data, probe=1, batch_size=1, out=tmp_path / "report")
    assert found.steps["loss"].notna().all()


# -- what these libraries leave is an archive: norms and distances are the live model's when it was saved --------------


def check_points(archive: Path, points: dict[int, Tensor], folder: Path) -> None:
    report = trajcheck.analyze(archive, out=folder / "report")
    assert report.steps["step"].tolist() == sorted(points)
    last = points[max(points)]
    norms = [points[step].norm().item() for step in sorted(points)]
    distances = [(points[step] - last).norm().item() for step in sorted(points)]
    np.testing.assert_allclose(report.steps["param_norm"], norms, rtol=1e-12)
    np.testing.assert_allclose(report.references["ref_dist"], distances, rtol=1e-12)
    assert max(distances) > 0


def saved_by_the_trainer(folder: Path, model: Any) -> Any:
    """With the Trainer's own AdamW, which decays some tensors, and a schedule that warms up from 0."""
    live = hf.Live()
    settings = {
        "output_dir": str(folder / "trainer"), "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2,
        "max_steps": 11, "use_cpu": True, "report_to": [], "disable_tqdm": True, "dataloader_pin_memory": False,
        "save_steps": 3, "logging_steps": 1, "learning_rate": 0.01, "weight_decay": 0.1, "warmup_steps": 4,
        "lr_scheduler_type": "cosine",
    }  # fmt: skip
    arguments = transformers.TrainingArguments(**settings)
    transformers.Trainer(model=model, args=arguments, train_dataset=examples(), callbacks=[live]).train()
    return live


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_checkpoints_of_the_trainer(dtype: torch.dtype, tmp_path: Path) -> None:
    """lm_head is tied; steps 3 to 11 sort otherwise by their names; rates are those that were used."""
    model = gpt2().to(dtype)
    live = saved_by_the_trainer(tmp_path, model)
    check_points(tmp_path / "trainer", live.points, tmp_path)
    trajectory = open_trajectory(tmp_path / "trainer")
    assert trajectory.numel == sum(p.numel() for p in model.parameters())
    assert trajectory.info.tied == {"lm_head.weight": "transformer.wte.weight"}
    assert trajectory.log is not None and trajectory.log.lr == {t: (rate,) for t, rate in enumerate(live.rates)}
    for snapshot in trajectory.snapshots:
        assert snapshot.tau == pytest.approx([sum(live.rates[: snapshot.step])] * 2, rel=1e-12)
        assert (snapshot.lr or [None])[0] == (live.rates[snapshot.step] if snapshot.step < 11 else None)
    decayed = {name: 0.1 for name, p in model.named_parameters() if p.dim() > 1}
    assert trajectory.info.optimizer == "AdamW" and trajectory.settings.decay_at(0) == decayed


def test_losses_that_the_trainer_logs(tmp_path: Path) -> None:
    """The entry at s, of one update, is f(x_(s-1); z_(s-1)): as recorded from the same training."""
    run = tmp_path / "run"
    more: dict[str, Any] = {"logging_strategy": "steps", "logging_steps": 1, "save_strategy": "steps", "save_steps": 2}
    trained(tmp_path, [hf.TrajcheckCallback(run, every=1, quiet=True)], **more)
    recorded = {snapshot.step: snapshot.loss for snapshot in open_trajectory(run).snapshots}
    trajectory = open_trajectory(tmp_path / "trainer")
    found = {snapshot.step: snapshot.loss for snapshot in trajectory.snapshots}
    assert trajectory.info.optimizer == "SGD" and found.pop(STEPS) is None
    assert found == {step: pytest.approx(recorded[step], rel=1e-6) for step in range(2, STEPS, 2)}


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft asks for it
def test_adapters_of_peft(tmp_path: Path) -> None:
    """With a layer that is trained whole; what lies beside is no part of the vector."""
    peft: Any = pytest.importorskip("peft")
    lora = peft.LoraConfig(r=2, target_modules=["c_attn"], modules_to_save=["ln_f"], fan_in_fan_out=True)
    model = peft.get_peft_model(gpt2(), lora)
    live = saved_by_the_trainer(tmp_path, model)
    check_points(tmp_path / "trainer", live.points, tmp_path)
    trajectory = open_trajectory(tmp_path / "trainer")
    assert trajectory.numel == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert "adapter of PEFT (LORA) of rank 2" in " ".join(trajectory.info.notes)
    assert trajectory.snapshots[0].tau is not None  # the scheduler has gone on, so the log's rates are those used


class Odd(torch.nn.Module):
    """Tied, frozen, with BatchNorm's buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(20, 20)
        self.norm = torch.nn.BatchNorm1d(20)
        self.still = torch.nn.Linear(20, 20).requires_grad_(False)
        self.last = torch.nn.Linear(20, 20)
        self.last.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.still(self.norm(self.first(x))))


def test_states_that_accelerate_saves(tmp_path: Path) -> None:
    """Its folders count the saves; steps are the optimizer's."""
    from accelerate import Accelerator
    from accelerate.utils import ProjectConfiguration

    torch.manual_seed(0)
    project = ProjectConfiguration(str(tmp_path / "project"), automatic_checkpoint_naming=True)
    accelerator = Accelerator(cpu=True, project_config=project)
    model = Odd()
    made = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.1)
    prepared, optimizer, scheduler = accelerator.prepare(model, made, torch.optim.lr_scheduler.ExponentialLR(made, 0.9))
    points, rates = {}, {}
    for step in range(1, 12):
        accelerator.backward(prepared(torch.randn(8, 20)).square().mean())
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        if step % 3 == 1:
            accelerator.save_state()
            points[step], rates[step] = hf.flat(model), optimizer.param_groups[0]["lr"]
    check_points(tmp_path / "project", points, tmp_path)
    trajectory = open_trajectory(tmp_path / "project")
    assert {snapshot.step: snapshot.lr for snapshot in trajectory.snapshots} == {t: (lr,) for t, lr in rates.items()}
    assert set(trajectory.snapshots[0].frozen) == {"still.weight", "still.bias"}
    assert set(trajectory.snapshots[0].buffers) == {f"norm.{n}" for n, _ in model.norm.named_buffers()}
