"""A folder of files of torch.save, each of them the checkpoint of one step."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

from trajcheck.errors import RunError, StepFileError
from trajcheck.files.extent_reader import ExtentReader
from trajcheck.files.pickles.torch_file import begins_as_one
from trajcheck.files.trees.opening import open_tree
from trajcheck.files.trees.tree import Tree, join
from trajcheck.readable import some_of
from trajcheck.runs.formats.archives.checkpoint import Checkpoint
from trajcheck.runs.formats.archives.step_names import SHARD
from trajcheck.runs.formats.archives.torch_saved.contents import (
    COUNTED,
    EPOCHS,
    UPDATES,
    Contents,
    read_contents,
    updates_made,
    with_prefix,
)
from trajcheck.runs.formats.archives.torch_saved.metrics import NAME as METRICS
from trajcheck.runs.formats.archives.torch_saved.metrics import read_metrics
from trajcheck.runs.formats.archives.torch_saved.numbering import (
    INNER,
    named_step,
    numbered,
    recounted,
    says_its_step,
    stem,
)
from trajcheck.runs.formats.archives.tree_archive import TreeArchive
from trajcheck.runs.formats.stored_run import StoredStep
from trajcheck.runs.logs.run_log import RunLog
from trajcheck.runs.run_info import RunInfo
from trajcheck.runs.surroundings import same_bytes

_FILE = re.compile(r"\.(pt|pth|th|bin|ckpt)(\.tar)?$", re.IGNORECASE)
#: What libraries put beside a model, or shards that an index lists.
_OTHER = re.compile(
    r"^(optimizer|scheduler|scaler|training_args|rng_state.*|random_states.*|pytorch_model.*|adapter_model.*|"
    r"consolidated.*|.*[_-](optim|model)_states)\.",
    re.IGNORECASE,
)
#: Names of checkpoints that have no number.
_WORDS = re.compile(r"(^|[_.-])(last|latest|best|final|ckpt|checkpoint|model|weights|net)([_.-]|$)", re.IGNORECASE)


class TorchFiles(TreeArchive):
    """Files as training loops, nanoGPT, timm, fairseq, mmengine and Lightning leave them."""

    elsewhere = True
    name = "a folder of files of torch.save"
    looks = (
        "ckpt-100.pt, ckpt-200.pt, ..., or .pth, .ckpt, .bin, a file a step; Lightning's checkpoints/ and metrics.csv"
    )

    @classmethod
    def found_in(cls, tree: Tree) -> bool:
        for name in _files(tree):
            if named_step(name) is not None or _WORDS.search(stem(name)):
                try:
                    if begins_as_one(tree.range(tree.member(name), 0, 300)):
                        return True
                except StepFileError:
                    continue
        return False

    @cached_property
    def _held(self) -> tuple[dict[int, Contents], dict[int, tuple[str, str]], list[str]]:
        """The files of the steps, those that cannot be read with the reason, and what there is to say. Raises
        RunError."""
        read: list[Contents] = []
        broken: list[tuple[str, StepFileError]] = []
        others: list[tuple[str, str]] = []
        for name in _files(self.tree):
            try:
                found = read_contents(name, self.tree.torch_file(name))
            except StepFileError as error:
                broken.append((name, error))
                continue
            read.append(found) if isinstance(found, Contents) else others.append((name, found))
        if not read:
            reason = broken[0][1] if broken else f"{self.tree.shown(others[0][0])}: {others[0][1]}"
            raise RunError(f"{self.path}: none of its {len(broken) + len(others)} torch files is read. {reason}")
        steps, key, notes = numbered(str(self.path), read)
        damaged: dict[int, tuple[str, str]] = {}
        for name, why in broken:
            step = named_step(name)
            agree = all(named_step(each.name) in (number, None) for number, each in steps.items())
            if step is None or step in steps or step in damaged or not agree:
                raise RunError(
                    f"{why} Which step the file is of cannot be told; take it out of the folder, or copy it again."
                )
            damaged[step] = name, str(why)
        if others:
            notes.append(f"left out, as no checkpoints: {some_of([f'{name} ({words})' for name, words in others])}")
        if any(each.in_parts for each in steps.values()):
            notes.append("losses that were logged are not taken: an update is of another number of batches than one")
        if key in EPOCHS:
            notes.append(
                "steps are numbered by epochs, as no number of updates is said in the files: one is not one update"
            )
        steps = self._matched_by_bytes(steps)
        if key in UPDATES:
            later, steps, recount = recounted(steps, self._counted(steps))
            damaged = {step + later: each for step, each in damaged.items()}
            notes += recount
        if key not in (*UPDATES, COUNTED):  # a rate is that of an update, and would be summed as such
            steps = {step: replace(each, rates=None) for step, each in steps.items()}
        return _with_prefix(steps), damaged, [*notes, *_constant_rates(steps)[1]]

    def _counted(self, steps: Mapping[int, Contents]) -> dict[int, int | None]:
        """How many updates the optimizers of the first step and the last count, of other files than Lightning's, which
        counts itself."""
        ends = [step for step in (min(steps), max(steps)) if not steps[step].lightning]
        return {step: updates_made(self.tree.torch_file(steps[step].name)) for step in ends}

    def _matched_by_bytes(self, steps: dict[int, Contents]) -> dict[int, Contents]:
        """Where the optimizer's state could be of other tensors by its shapes, what never changes is not meant."""
        if len(steps) < 2 or all(each.checkpoint.trained is not None or each.rates is None for each in steps.values()):
            return steps
        first, *_, last = (each.checkpoint.tensors for each in steps.values())
        with ExtentReader() as reader:
            fixed = {n for n in first if n in last and same_bytes(reader, first[n], last[n])}
        found = {s: read_contents(each.name, self.tree.torch_file(each.name), fixed) for s, each in steps.items()}
        return {step: each for step, each in found.items() if isinstance(each, Contents)}

    def steps(self) -> Mapping[int, StoredStep]:
        steps, damaged, _ = self._held
        paths = {step: each.checkpoint.path for step, each in steps.items()}
        paths |= {step: self.tree.shown(name) for step, (name, _) in damaged.items()}
        return {step: StoredStep(step, (paths[step],)) for step in sorted(paths)}

    def checkpoint(self, step: int) -> Checkpoint:
        steps, damaged, _ = self._held
        if step in damaged:
            raise StepFileError(damaged[step][1])
        found = steps[step]
        return replace(found.checkpoint, lr=found.rates if found.rate_of_next or self._constant else None)

    @cached_property
    def _constant(self) -> bool:
        return _constant_rates(self._held[0])[0]

    def described(self) -> RunInfo:
        steps, _, notes = self._held
        return RunInfo(notes=tuple(notes), user=next(iter(steps.values())).settings or {})

    @cached_property
    def _log(self) -> RunLog | None:
        steps = self._held[0].values()
        if not any(each.lightning for each in steps):
            return None
        tree = self.tree if self.path.name != INNER else open_tree(self.path.parent)
        found = read_metrics(tree, METRICS) if tree is not None and tree.holds(METRICS) else None
        return replace(found, loss={}) if found is not None and any(each.in_parts for each in steps) else found

    def log(self) -> RunLog | None:
        return self._log


def _files(tree: Tree) -> list[str]:
    """The files that may be checkpoints: in a folder, in Lightning's inside, or the one in each step's folder."""
    for folder in ("", INNER):
        if names := _files_in(tree, folder):
            return names
    inner = [_files_in(tree, folder) for folder in tree.folders() if says_its_step(folder)]
    return [names[0] for names in inner if len(names) == 1]


def _files_in(tree: Tree, folder: str) -> list[str]:
    names = [name for name in tree.files(folder) if _FILE.search(name)]
    return [join(folder, name) for name in names if not _OTHER.search(name) and not SHARD.search(name)]


def _with_prefix(steps: Mapping[int, Contents]) -> dict[int, Contents]:
    """Of Lightning: the attribute that holds the model, where all names of all steps begin with it, is left out."""
    first = {name.partition(".")[0] for each in steps.values() for name in each.checkpoint.tensors}
    inner = all("." in name for each in steps.values() for name in each.checkpoint.tensors)
    shared = len(first) == 1 and inner and all(each.lightning for each in steps.values())
    prefix = f"{first.pop()}." if shared else ""
    return {step: with_prefix(each, prefix) for step, each in steps.items()}


def _constant_rates(steps: Mapping[int, Contents]) -> tuple[bool, list[str]]:
    """Whether the rates in the optimizers' states are one and the same, and nothing is there to move them; else what
    there is to say of them."""
    held = [each for each in steps.values() if each.rates is not None]
    if not held or all(each.rate_of_next for each in held):
        return False, []
    constant = len(held) > 1 and len({each.rates for each in held}) == 1 and not any(each.scheduled for each in held)
    said = (
        "the rates that the optimizer's state holds were not taken: whether the schedule had moved on when it was "
        "saved is not said in the files"
    )
    return constant, [] if constant else [said]
