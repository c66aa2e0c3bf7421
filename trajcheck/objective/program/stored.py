"""The two files of an exported loss program, read and checked without torch.

    objective.json           format, checksum, what the program takes (parameters, batch), and its nodes
    objective.safetensors    the tensors that belong to it: buffers as they were, constants; absent if there are none

Both come from strangers: they are regular files of a bounded size, each opened once, and what the first says of the
second is compared with it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trajcheck.errors import ObjectiveError
from trajcheck.files.opening import NotRegularError, TooLargeError, read_bytes
from trajcheck.files.plain_json import parse_json
from trajcheck.objective.program.arguments import DTYPES, Misfit
from trajcheck.objective.program.nodes import Checked
from trajcheck.runs.formats.stored_run import PROGRAM, PROGRAM_TENSORS

Facts = dict[str, Any]

FILE, CONSTANTS = PROGRAM, PROGRAM_TENSORS
FORMAT = 1

#: The largest that either file may be: the JSON of a hundred thousand nodes, and what a model holds beside its weights.
MOST_JSON, MOST_CONSTANTS = 16 << 20, 1 << 30
MOST_ELEMENTS, MOST_DIMENSIONS, MOST_TENSORS = 1 << 48, 64, 100_000

#: What stands before the name of a tensor of the second file: buffers of the model, tensors of a loss that is itself a
#: module, and whatever else the program holds.
KINDS = ("buffer/", "loss/", "constant/")

_LACKING = (
    "The run was recorded without Recorder(objective=...), or the export failed; give an objective file: "
    "--objective FILE.py:NAME"
)


def damaged(path: Path, what: str) -> ObjectiveError:
    return ObjectiveError(f"{path}: {what}. Restore the file, or give an objective file: --objective FILE.py:NAME")


def read_whole(path: Path, most: int) -> bytes:
    """A regular file of at most so many bytes. Raises ObjectiveError."""
    try:
        return read_bytes(path, most)
    except (NotRegularError, TooLargeError) as error:
        raise damaged(path, str(error.strerror)) from error
    except OSError as error:
        raise ObjectiveError(f"{path}: no exported objective ({error.strerror}). {_LACKING}") from error


def checksum(facts: Mapping[str, Any]) -> str:
    """sha256 of all of objective.json but its checksum: as JSON, keys in order, no spaces."""
    rest = {key: value for key, value in facts.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_facts(path: Path) -> Facts:
    """What objective.json says, with every part of it checked but the nodes (`checked_program`).

    Raises ObjectiveError for a file that is missing, damaged, or not what a Recorder writes.
    """
    data = read_whole(path, MOST_JSON)
    try:
        facts = parse_json(data.decode())
    except ValueError as error:
        raise damaged(path, f"it is not whole JSON ({error})") from error
    if not isinstance(facts, dict) or "format" not in facts:
        raise damaged(path, "it has no format, so no Recorder wrote it")
    if facts["format"] != FORMAT:
        raise ObjectiveError(
            f"{path}: its format is {facts['format']!r:.40}; this trajcheck reads format {FORMAT}. "
            "Use a newer trajcheck"
        )
    try:
        check_facts(facts)
    except Misfit as error:
        raise damaged(path, str(error)) from error
    return facts


_KINDS: dict[str, type | tuple[type, ...]] = {
    "checksum": str, "torch": str, "trajcheck": str, "parameters": list, "aliases": dict, "tensors": list,
    "constants": (dict, type(None)), "batch": list, "batch_tree": object, "dynamic": bool,
    "autocast": (str, type(None)), "modes": dict, "reference": (dict, type(None)), "nodes": list, "output": dict,
    "requires": list,
}  # fmt: skip


def check_facts(facts: Facts) -> None:
    """Raises Misfit for what no Recorder writes."""
    if lacking := _KINDS.keys() - facts.keys():
        raise Misfit(f"it lacks {', '.join(map(repr, sorted(lacking)))}")
    for key, kind in _KINDS.items():
        if not isinstance(facts[key], kind):
            raise Misfit(f"its {key} is {facts[key]!r:.40}, which no Recorder writes")
    if facts["checksum"] != checksum(facts):
        raise Misfit("its checksum is wrong")
    if not all(mode in ("train", "eval") for mode in facts["modes"].values()):
        raise Misfit(f"its modes are {facts['modes']!r:.60}; expected an object of train and eval")
    for entry in _entries(facts, "parameters", {"name": str, "shape": list, "dtype": str, "trainable": bool}):
        _check_shape(entry, (int,))
        if entry["dtype"] not in DTYPES:
            raise Misfit(f"its parameter {entry['name']!r:.80} has dtype {entry['dtype']!r:.40}")
    tensors = facts["tensors"]
    if not all(isinstance(each, str) and each.startswith(KINDS) for each in tensors):
        raise Misfit(f"its tensors are not called {', '.join(KINDS)}NAME")
    if len(tensors) > MOST_TENSORS or len(set(tensors)) != len(tensors):
        raise Misfit("its tensors name one twice")
    for entry in _entries(facts, "batch", {"path": str, "shape": list, "floating": bool}, name="path"):
        _check_shape(entry, (int, type(None)))
        if type(entry.get("constant", 0)) is not int:
            raise Misfit(f"its batch tensor {entry['path']!r:.80} has the checksum {entry['constant']!r:.40}")
    if not all(isinstance(name, str) for name in facts["aliases"].values()):
        raise Misfit("its aliases are no names")
    _check_reference(facts["reference"])
    held = facts["constants"]
    if held is not None and not (type(held.get("bytes")) is int and isinstance(held.get("sha256"), str)):
        raise Misfit("its constants are not said by bytes and sha256")


def _entries(facts: Facts, key: str, kinds: Mapping[str, type], name: str = "name") -> list[Facts]:
    """A list of objects, each of a name of its own."""
    entries: list[Facts] = facts[key]
    if len(entries) > MOST_TENSORS:
        raise Misfit(f"it has {len(entries):,} {key}")
    for entry in entries:
        if not isinstance(entry, dict) or not all(isinstance(entry.get(each), kinds[each]) for each in kinds):
            raise Misfit(f"its {key} hold {entry!r:.60}, which no Recorder writes")
    if len({entry[name] for entry in entries}) != len(entries):
        raise Misfit(f"its {key} name one twice")
    return entries


def _check_shape(entry: Facts, kinds: tuple[type, ...]) -> None:
    shape = entry["shape"]
    if len(shape) > MOST_DIMENSIONS or not all(type(size) in kinds for size in shape):
        raise Misfit(f"a shape is {shape!r:.60}")
    sizes = [size for size in shape if size is not None]
    if any(not 0 <= size <= MOST_ELEMENTS for size in sizes) or math.prod(sizes) > MOST_ELEMENTS:
        raise Misfit(f"a shape is {shape!r:.60}")


def _check_reference(reference: Any) -> None:
    """The golden value of exported_check.py."""
    if reference is None:
        return
    kinds: dict[str, Any] = {"step": int, "batch": int, "random": bool, "randomness": str, "device": str}
    kinds |= dict.fromkeys(["loss", "grad_norm", "param_norm"], (int, float))
    wrong = [key for key, kind in kinds.items() if not isinstance(reference.get(key), kind)]
    if wrong or not 0 <= reference["step"] <= 2**53:
        raise Misfit(f"its reference has no {(wrong or ['step'])[0]}")


def checked_program(facts: Facts, path: Path) -> Checked:
    """The nodes as steps. Raises ObjectiveError, naming the node and its operator."""
    kinds: dict[str, set[str]] = {"parameter": {entry["name"] for entry in facts["parameters"]}}
    for kind in KINDS:
        kinds[kind[:-1]] = {each.removeprefix(kind) for each in facts["tensors"] if each.startswith(kind)}
    for alias, name in facts["aliases"].items():
        kinds["parameter" if name in kinds["parameter"] else "buffer"].add(alias)
    tensors = {kind: frozenset(names) for kind, names in kinds.items()}
    try:
        return Checked(facts["nodes"], facts["output"], facts["requires"], len(facts["batch"]), tensors)
    except Misfit as error:
        raise ObjectiveError(
            f"{path}: {error}. Such a program is not run; an objective file (--objective FILE.py:NAME) may do anything"
        ) from error


def read_constants(facts: Facts, path: Path) -> bytes:
    """The bytes of the file beside objective.json; b"" where the program has none. Raises ObjectiveError."""
    held = facts["constants"]
    if held is None:
        return b""
    beside = path.with_name(CONSTANTS)
    if not 0 <= held["bytes"] <= MOST_CONSTANTS:
        raise damaged(path, f"its constants have {held['bytes']:,} bytes")
    data = read_whole(beside, held["bytes"])
    if len(data) != held["bytes"] or hashlib.sha256(data).hexdigest() != held["sha256"]:
        raise damaged(beside, f"it is not the file that {FILE} was written with")
    return data


def program_damage(path: Path) -> str | None:
    """What is wrong with the program of a run, if anything; nothing of it is run."""
    if not os.path.lexists(path):
        return None
    try:
        facts = read_facts(path)
        checked_program(facts, path)
        read_constants(facts, path)
    except ObjectiveError as error:
        return str(error)
    return None
