"""Options that several commands have; words that differ are arguments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from trajcheck.errors import UsageError
from trajcheck.options.checks import among, within
from trajcheck.options.declared import Declared, Option

#: The default of --device.
AUTO = "auto"


@dataclass(frozen=True)
class OneRun:
    """The argument of a command about one run, before its options."""

    run: Annotated[str | Path, "folder of the run; it is only read."]


#: As an objective: nothing is replayed, whatever lies in the run's folder.
NONE = "none"


def objective(help: str, python: str, metavar: str = "FILE.py:NAME|run|none|hf-...") -> Option:
    return Option(f"{help} {COMMON}", metavar, python=f"{python} {COMMON}")


#: What the objectives of common models are.
COMMON = (
    "hf-causal-lm, hf-image-classification: the model of the archive's config.json, or of the one in hf-...:FOLDER, "
    "built by transformers, on --data; no code of the archive's is run."
)

#: What the objective `run` is, in the words of the command line.
PROGRAM = "run: the program that the Recorder exported, RUN/objective.json, which is plain data."

SkipBad = Annotated[
    bool,
    Option(
        "Leave out steps that cannot be read or hold NaN or Inf; the summary lists them.",
        python="leave out step files that cannot be used or hold NaN or Inf, and list them.",
    ),
]


Data = Annotated[
    str | None,
    Option(
        "On which data the objectives of common models are: tokens.bin, FILE.jsonl, FILE.txt or a folder for "
        "hf-causal-lm, a folder of classes, an .npz or .safetensors file for hf-image-classification; arrow or parquet "
        "files for either.",
        "PATH",
        after="objective",
        replays=True,
        python="the data of the objectives hf-causal-lm (a file of tokens, .jsonl, .txt, a folder) and "
        "hf-image-classification (a folder of classes, .npz, .safetensors, a folder of tables).",
    ),
]
BatchSize = Annotated[
    int | None,
    Option(
        "Windows of tokens, or images, in a batch of --data.  (default: 8)",
        "N",
        after="data",
        check=within(1, 1 << 20, "a number"),
        replays=True,
        python="windows of tokens, or images, in a batch of `data`; 8 by default.",
    ),
]
SequenceLength = Annotated[
    int | None,
    Option(
        "Tokens in a window of --data.  (default: as many as the model has positions, 1024 at most)",
        "N",
        after="batch_size",
        check=within(2, 1 << 24, "a number"),
        replays=True,
        python="tokens in a window of `data`; by default as many as the model has positions, 1024 at most.",
    ),
]
DataDtype = Annotated[
    str | None,
    Option(
        "Of a file of tokens: uint16 or uint32.  (default: uint16 for a vocabulary of at most 65536)",
        "DTYPE",
        after="sequence_length",
        check=among(("uint16", "uint32"), "expected"),
        replays=True,
        python="of a file of tokens, uint16 or uint32; by default uint16 for a vocabulary of at most 65536.",
    ),
]
DataSeed = Annotated[
    int,
    Option(
        "By which --probe draws its batches.",
        "N",
        after="data_dtype",
        check=within(0, 2**63 - 1, "a number"),
        replays=True,
        python="the seed by which `probe` draws its batches.",
    ),
]
ProbeBatches = Annotated[
    int | None,
    Option(
        "With --sample probe: draw N batches of the objective's data as probe batches, in place of the run's own; the "
        "summary says which.",
        "N",
        after="sample",
        check=within(1, 100_000, "a number of batches"),
        replays=True,
        python="draw so many batches of the objective's data as probe batches, in place of the run's own.",
    ),
]
Log = Annotated[
    str | None,
    Option(
        "A CSV with the loss and the rate of every step, for what the records lack: losses, lr, tau. {run} stands for "
        "the run's folder.",
        "FILE",
        python="a CSV with the loss and the rate of every step; {run} stands for the run's folder.",
    ),
]
LogStep = Annotated[
    str,
    Option(
        "Its column of the step t, the number of updates made before.",
        "COL",
        python="its column of the step t, the number of updates made before.",
    ),
]
LogLoss = Annotated[
    str | None,
    Option(
        "Its column of the loss f(x_t; z_t) with which update t began, not a mean over several steps.",
        "COL",
        python="its column of the loss f(x_t; z_t), not a mean over several steps.",
    ),
]
LogLr = Annotated[
    Sequence[str],
    Option(
        "Its column of the rate of update t; one for all parameter groups, or one for each: repeat or separate by "
        "commas.",
        "COL",
        commas=True,
        python="its columns of the rate of update t: one for all parameter groups, or one for each.",
    ),
]


def device(verb: str = "replay", after: str = "") -> Option:
    return Option(f"Where to {verb}: auto, cpu, cuda, cuda:1.", python="auto, cpu, cuda, cuda:1, ...", after=after)


def out(default: str, python: str) -> Option:
    return Option(f"The report folder.  (default: {default})", "DIR", python=f"the report folder; default {python}.")


def check_objective(options: Declared, objective: str | None, *more: tuple[str, bool]) -> None:
    """Raise UsageError where nothing is replayed and an option that is about it was given: one that is declared so, or
    one of `more`, flags and whether they were given."""
    if objective not in (None, NONE):
        return
    for flag in (*options.replaying(), *(flag for flag, given in more if given)):
        if objective == NONE:
            raise UsageError(f"{flag} needs replayed losses, which --objective none leaves out.")
        raise UsageError(
            f"{flag} needs --objective FILE.py:NAME: without it nothing is replayed, and no program of its own lies in "
            "the run's folder."
        )


def check_permutable(objective: str | None) -> None:
    """Raise UsageError where --match-permutations is given with an objective that cannot say which units permute."""
    if objective == "run":
        raise UsageError(
            "--match-permutations with --objective run: an exported program does not say which units permute. Give "
            'FILE.py:NAME, and beside NAME write PERMUTATIONS = {"NAME": {"hidden": [("0.weight", 0), ("0.bias", '
            '0), ("2.weight", 1)]}}.'
        )
