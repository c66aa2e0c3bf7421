"""Which of a folder's files is which step: by a number that stands inside, else by their names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from trajcheck.errors import RunError, StepFileError
from trajcheck.files.extent_reader import ExtentReader
from trajcheck.readable import some_of
from trajcheck.runs.canonical_names import canonical
from trajcheck.runs.formats.archives.step_names import natural_key, step_in
from trajcheck.runs.formats.archives.torch_saved.contents import COUNTED, EPOCHS, UPDATES, Contents, is_average
from trajcheck.runs.surroundings import same_bytes

#: Lightning's folder of checkpoints, within that of a version.
INNER = "checkpoints"
#: By which numbers steps are, where it is none inside.
NAMES = "their names"
_SCORED = re.compile(r"(^|[_.=-])(best|last|latest|final)([_.=-]|$)", re.IGNORECASE)
_COUNTED = re.compile(r"(step|iter|epoch|update|ckpt|checkpoint)[a-z]*[_.=-]?\d", re.IGNORECASE)


def numbered(path: str, files: Sequence[Contents]) -> tuple[dict[int, Contents], str, list[str]]:
    """The files of each step in order, what they are numbered by, and which were left out and why. Raises RunError."""
    files, notes = _iterates(sorted(files, key=lambda each: natural_key(each.name)))
    files, others = _of_one_model(path, files)
    notes += others
    schemes: list[tuple[int, dict[int, Contents], str, list[str]]] = []
    for key in (*UPDATES, COUNTED, *EPOCHS, NAMES):
        numbers = {each.name: each.numbers.get(key) if key != NAMES else named_step(each.name) for each in files}
        found, twice = _by(numbers, files)
        if found is not None:
            covered = len(found) + len(twice)
            schemes.append((covered, found, key, [*twice, *_without(files, numbers, found)]))
    if not schemes:
        if len(files) == 1:
            return {0: files[0]}, NAMES, [*notes, f"no step is said in {files[0].name}: taken as step 0"]
        raise RunError(
            f"{path}: which step each file is of is said neither inside (under step, iter, global_step, epoch, ...) "
            f"nor by its name: {some_of([each.name for each in files])}. Rename them so that each ends with its step, "
            "as ckpt-100.pt."
        )
    _, found, key, left = max(schemes, key=lambda scheme: scheme[0])
    return dict(sorted(found.items())), key, [*notes, *left]


def recounted(
    steps: dict[int, Contents], counted: Mapping[int, int | None]
) -> tuple[int, dict[int, Contents], list[str]]:
    """The files by the number of updates made, where it is another than the steps that they say: by how much more that
    is, and what there is to say. `counted` are those of the first step and the last that their optimizers counted.

    Many loops save with the index of the update that was made last, which is one less than their number: where the
    optimizer, or else a scheduler, counts one more at both ends, that is the step."""
    made = {step: steps[step].stepped if count is None else count for step, count in counted.items()}
    if len(made) > 1 and all(count == step + 1 for step, count in made.items()):
        by = "schedulers" if None in counted.values() else "optimizers"
        note = f"steps are one more than the files say, which is the index of the last update: {by} count one more"
        moved = {step + 1: replace(each, rate_of_next=each.stepped == step + 1) for step, each in steps.items()}
        return 1, moved, [note]
    others = {step: count for step, count in counted.items() if count is not None and count != step}
    if not others:
        return 0, steps, []
    step, count = max(others.items())
    told = f"at step {step}, as the files say it, the optimizer counts {count} updates"
    if step / 1.5 < count < step:
        return 0, steps, [f"{told}, fewer, as a loss scaler skips some: times tau count all of them"]
    told = f"{told}: steps are no updates, and the rates that its state holds were not taken"
    return 0, {step: replace(each, rates=None) for step, each in steps.items()}, [told]


def says_its_step(folder: str) -> bool:
    """Whether a folder is called as that of one checkpoint, step_100, and not as a run's, seed1."""
    return _COUNTED.search(folder) is not None and step_in(folder) is not None


def named_step(name: str) -> int | None:
    """The step of which a file's name speaks; beside `best` or `last` a number alone may be a score."""
    folder = name.rpartition("/")[0]
    if folder and folder != INNER:
        return step_in(folder)
    words = stem(name)
    return step_in(words) if not _SCORED.search(words) or _COUNTED.search(words) else None


def stem(name: str) -> str:
    """A file's name without what says of which kind it is."""
    return name.rpartition("/")[2].removesuffix(".tar").rpartition(".")[0]


def _iterates(files: list[Contents]) -> tuple[list[Contents], list[str]]:
    """Without files that are called averages, as ema_1000.pt beside model_1000.pt."""
    averages = [each.name for each in files if is_average(stem(each.name))]
    if not averages or len(averages) == len(files):
        return files, []
    note = f"averages of iterates, which are no iterates, were left out ({some_of(averages)})"
    return [each for each in files if each.name not in averages], [note]


def _of_one_model(path: str, files: Sequence[Contents]) -> tuple[list[Contents], list[str]]:
    """Those of the model of which most files are: that have at least half of their names in common."""
    kinds: list[tuple[set[str], list[Contents]]] = []
    for each in files:
        names = {canonical(name) for name in each.checkpoint.tensors}
        for known, members in kinds:
            if 2 * len(names & known) >= min(len(names), len(known)) > 0:
                members.append(each)
                break
        else:
            kinds.append((names, [each]))
    kinds.sort(key=lambda kind: -len(kind[1]))
    if len(kinds) > 1 and len(kinds[0][1]) == len(kinds[1][1]):
        one, other = (some_of([each.name for each in members]) for _, members in kinds[:2])
        raise RunError(f"{path}: holds checkpoints of several models: {one}; and {other}. Put each into a folder.")
    others = [each.name for _, members in kinds[1:] for each in members]
    return kinds[0][1], [f"left out, as of another model: {some_of(others)}"] if others else []


def _by(numbers: Mapping[str, int | None], files: Sequence[Contents]) -> tuple[dict[int, Contents] | None, list[str]]:
    """The file of each number, and which of them are there twice; None where two that differ have the same."""
    found: dict[int, Contents] = {}
    twice: list[str] = []
    for each in sorted(files, key=lambda each: named_step(each.name) is None):  # a file that says its step first
        step = numbers[each.name]
        if step is None:
            continue
        kept = found.setdefault(step, each)
        if kept is not each:
            if not same_contents(kept, each):
                return None, []
            twice.append(f"{each.name} is {kept.name} once more, and was left out")
    return found or None, twice


def _without(files: Sequence[Contents], numbers: Mapping[str, int | None], found: Mapping[int, Contents]) -> list[str]:
    """What there is to say of the files without a number."""
    said, unknown = [], []
    for each in files:
        if numbers[each.name] is None:
            equal = next((kept for kept in found.values() if same_contents(kept, each)), None)
            if equal is None:
                unknown.append(each.name)
            else:
                said.append(f"{each.name} is {equal.name} once more, and was left out")
    return [*said, f"left out, as no step is said in it: {some_of(unknown)}"] if unknown else said


def same_contents(one: Contents, other: Contents) -> bool:
    """Whether two files hold the same numbers; reads no further than where they differ."""
    a, b = one.checkpoint.tensors, other.checkpoint.tensors
    if a.keys() != b.keys():
        return False
    try:
        with ExtentReader() as reader:
            return all(same_bytes(reader, a[name], b[name]) for name in a)
    except StepFileError:
        return False
