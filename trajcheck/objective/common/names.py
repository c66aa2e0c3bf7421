"""What --objective calls the objectives that need no file of the user's, and on which data they are; without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from trajcheck.errors import UsageError

CAUSAL_LM, IMAGE_CLASSIFICATION = "hf-causal-lm", "hf-image-classification"

#: Files that say how a model is made and its data are read.
CONFIG, TOKENIZER, PREPROCESSOR = "config.json", "tokenizer.json", "preprocessor_config.json"
BESIDE = (CONFIG, TOKENIZER, PREPROCESSOR)

#: Examples a batch, where nobody says; the longest windows of tokens that are taken without being asked for.
BATCH_SIZE, LONGEST = 8, 1024


@dataclass(frozen=True)
class DataChoice:
    """The options that say on which data. None: what follows from the model or the file."""

    data: str | None = None
    batch_size: int | None = None
    sequence_length: int | None = None
    data_seed: int = 0
    data_dtype: str | None = None
    probe: int | None = None  # batches that are drawn from the data


def common_objective(spec: str | None) -> tuple[str, str | None] | None:
    """(the objective's name, the folder with config.json, if one is named) of `hf-causal-lm[:FOLDER]` and its kin; None
    for any other spec."""
    name, _, folder = (spec or "").partition(":")
    return (name, folder or None) if name in (CAUSAL_LM, IMAGE_CLASSIFICATION) else None


class _Options(Protocol):
    """Options of a command that replays."""

    @property
    def data(self) -> str | None: ...
    @property
    def batch_size(self) -> int | None: ...
    @property
    def sequence_length(self) -> int | None: ...
    @property
    def data_seed(self) -> int: ...
    @property
    def data_dtype(self) -> str | None: ...
    @property
    def probe(self) -> int | None: ...


def choice_of(options: _Options) -> DataChoice:
    """What a command's options say."""
    o = options
    return DataChoice(o.data, o.batch_size, o.sequence_length, o.data_seed, o.data_dtype, o.probe)


def check_data(objective: str | None, choice: DataChoice, *samples: str) -> None:
    """Raise UsageError where data and objective do not go together, or probe batches are drawn that none of the
    `samples` takes. Without an objective it is said elsewhere which options need one."""
    if choice.probe is not None and "probe" not in samples:
        raise UsageError(f"--probe {choice.probe} draws batches for --sample probe: add it.")
    if objective is None:
        return
    common = common_objective(objective)
    if common is not None and choice.data is None:
        kinds = "tokens.bin, FILE.jsonl, FILE.txt or a folder" if common[0] == CAUSAL_LM else "a folder or a file"
        raise UsageError(f"--objective {objective} needs the data on which the loss is: --data, {kinds}.")
    given = {
        "--data": choice.data,
        "--batch-size": choice.batch_size,
        "--sequence-length": choice.sequence_length,
        "--data-dtype": choice.data_dtype,
    }
    for flag, value in given.items():
        if value is None:
            continue
        if common is None:
            raise UsageError(
                f"{flag} {value} is of --objective {CAUSAL_LM} and {IMAGE_CLASSIFICATION}: an objective file has its "
                "own data."
            )
        if flag in ("--sequence-length", "--data-dtype") and common[0] != CAUSAL_LM:
            raise UsageError(f"{flag} {value} is of tokens: --objective {CAUSAL_LM}.")
