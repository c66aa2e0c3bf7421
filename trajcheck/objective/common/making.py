"""An objective from --objective hf-causal-lm or hf-image-classification, --data, and the archive's own config.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trajcheck.errors import ObjectiveError
from trajcheck.files.extents import EPSILON
from trajcheck.files.torch_tensors import TORCH_DTYPES
from trajcheck.objective.common.built_model import build, transformers_modules
from trajcheck.objective.common.config_file import ModelConfig, find_config, read_config
from trajcheck.objective.common.image_batches import ImageBatches
from trajcheck.objective.common.images import open_images
from trajcheck.objective.common.names import BATCH_SIZE, CAUSAL_LM, LONGEST, DataChoice
from trajcheck.objective.common.preprocessing import read_preprocessing
from trajcheck.objective.common.token_batches import TokenBatches
from trajcheck.objective.common.token_stream import TokenFile, open_tokens
from trajcheck.objective.objective import Objective
from trajcheck.objective.sample import process_generators_untouched, seed_generators
from trajcheck.readable import one_line
from trajcheck.runs.canonical_names import canonical
from trajcheck.runs.trajectory import Trajectory

#: The loss of a classifier, by transformers' name for it.
ONE_CLASS = "single_label_classification"

#: Under which names configurations say how many positions a model has.
_POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")


def make_common(
    name: str, folder: str | None, trajectory: Trajectory, device: torch.device, choice: DataChoice
) -> Objective:
    """The objective of that name, on `choice.data`. `folder` holds config.json where the archive does not.

    The model is in evaluation mode: dropout is off where no step says otherwise. Errors: ObjectiveError, naming the
    file and what is wrong with it.
    """
    frozen = trajectory.snapshots[0].frozen
    shapes = {**trajectory.shapes, **{name: extent.shape for name, extent in frozen.items()}}
    config = read_config(find_config(trajectory, folder), list(shapes.values()))
    with process_generators_untouched(device):
        seed_generators(0, device)
        model = build(config, name, shapes, trajectory.info.tied, _dtype(trajectory))
    assert choice.data is not None
    path = Path(choice.data).expanduser()
    if not path.exists():
        raise ObjectiveError(f"--data {path}: there is no such file or folder")
    given = _tokens if name == CAUSAL_LM else _images
    batches, sources, facts = given(path, config, model, choice)
    loss = causal_lm_loss if name == CAUSAL_LM else classification_loss
    objective = Objective(model, loss, device=device, title=name, data=batches, as_it_is=True)
    objective.weight = batches.weight
    objective.cast_to = frozenset({torch.float32})  # logits.float() and the like are no narrower in float64
    objective.makes = frozenset(
        canonical(f"{path}.{name}" if path else name)
        for path, module in model.named_modules()
        for name in module._non_persistent_buffers_set
    )
    objective.sources = {str(config.path): config.hash, **sources}
    objective.facts = {
        "model": type(model).__name__,
        "transformers": transformers_modules()[0].__version__,
        "config": str(config.path),
        "data": str(path),
        "files": dict(objective.sources),
        "batch_size": batches.size,
        **facts,
    }
    return objective


def causal_lm_loss(model: nn.Module, batch: Any) -> Tensor:
    """The mean over the tokens that are predicted. A batch is tokens [sequences, length], which the model shifts, or a
    recorded table of what the model takes, whose labels are its tokens where it has none."""
    if isinstance(batch, Tensor):
        batch = {"input_ids": batch, "labels": batch}
    given = {"labels": batch["input_ids"], **batch}
    found: Tensor = model(**given).loss
    return found


def classification_loss(model: nn.Module, batch: Any) -> Tensor:
    """The mean over the images of a batch, a table of pixel_values and labels, or the pair of them."""
    given = dict(batch) if isinstance(batch, Mapping) else dict(zip(("pixel_values", "labels"), batch, strict=True))
    found: Tensor = model(**given).loss
    return found


def _dtype(trajectory: Trajectory) -> torch.dtype:
    """That of the run's parameters, or float32 where they have several."""
    first = trajectory.snapshots[0]
    stored = {first.parameters[name].dtype for name in trajectory.shapes} & set(EPSILON)
    return TORCH_DTYPES[stored.pop()] if len(stored) == 1 else torch.float32


def _tokens(
    path: Path, config: ModelConfig, model: Any, choice: DataChoice
) -> tuple[TokenBatches, dict[str, str], dict[str, Any]]:
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    known = [found for name in _POSITIONS if type(found := getattr(model.config, name, None)) is int and found > 0]
    length = choice.sequence_length or min([*known[:1], LONGEST])
    if known and length > known[0]:
        raise ObjectiveError(f"--sequence-length {length}: {config.path} has {known[0]} positions")
    stream, sources = open_tokens(path, config, vocabulary, choice.data_dtype)
    batches = TokenBatches(stream, length, choice.batch_size or BATCH_SIZE, str(path))
    facts = {"tokens": len(stream), "sequence_length": length, "vocabulary": vocabulary}
    kind = {"token_dtype": stream.dtype} if isinstance(stream, TokenFile) else {"documents": stream.documents}
    return batches, sources, {**facts, **kind}


def _images(
    path: Path, config: ModelConfig, model: Any, choice: DataChoice
) -> tuple[ImageBatches, dict[str, str], dict[str, Any]]:
    preprocessing = read_preprocessing(config.beside)
    count = int(model.config.num_labels)
    images, sources = open_images(path, preprocessing, _classes(config, model.config, count))
    batches = ImageBatches(images, choice.batch_size or BATCH_SIZE, count, str(path))
    return batches, {**sources, **dict(preprocessing.files)}, {"images": len(images)}


def _classes(config: ModelConfig, settings: Any, count: int) -> dict[str, int]:
    """The numbers of a model's classes by their names, empty where it names none; its loss is then the cross entropy
    of one class an image. Raises ObjectiveError for a model of another loss."""
    kind = settings.problem_type
    if kind not in (None, ONE_CLASS) or count < 2:
        raise ObjectiveError(
            f"{config.path}: problem_type {one_line(str(kind), 60)} with {count} classes is no classification into one "
            "of several; give --objective FILE.py:NAME"
        )
    settings.problem_type = ONE_CLASS
    found = settings.label2id or {}
    if not all(type(number) is int and 0 <= number < count for number in found.values()):
        raise ObjectiveError(f"{config.path}: label2id gives other numbers than those of its {count} classes")
    unnamed = all(name == f"LABEL_{number}" for name, number in found.items())
    return {} if unnamed else {str(name): number for name, number in found.items()}
