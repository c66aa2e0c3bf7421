"""config.json of an archive as plain data: nothing in it names code that is imported, and no number in it asks for more
than the archive's own tensors warrant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trajcheck.errors import ObjectiveError
from trajcheck.files.plain_json import parse_json
from trajcheck.objective.common.model_folder import ModelFolder, folders_in, hash_of
from trajcheck.objective.common.names import CONFIG
from trajcheck.readable import one_line
from trajcheck.runs.trajectory import Trajectory

#: Bytes of a config.json that is read; one of a model of ten thousand classes has a megabyte.
MOST_CONFIG = 20_000_000
#: A number above it is no size but that of positions, which need no tensor; one above this is neither.
LARGEST_SIZE, LARGEST_POSITION = 1 << 20, 1 << 26

#: Entries that name code, or what is to be loaded from elsewhere.
_REFUSED = {
    "auto_map": "names code of the archive's own, which is never run",
    "custom_pipelines": "names code of the archive's own, which is never run",
    "quantization_config": "has quantised weights, which are no parameters that a gradient is taken of",
    "use_pretrained_backbone": "asks for weights from elsewhere",
    "use_timm_backbone": "is built by another library, from a name",
}
#: Entries that choose kernels, dtypes and names, which are the replay's to choose.
_LEFT_OUT = {
    *("attn_implementation", "experts_implementation", "dtype", "torch_dtype", "name_or_path", "use_kernels"),
    *("transformers_version", "output_attentions", "output_hidden_states", "return_dict", "use_cache", "loss_type"),
}
_POSITIONS = ("position", "seq", "context", "ctx", "window", "length")


@dataclass(frozen=True)
class ModelConfig:
    """What a config.json says. `entries` are those that are used; `too_large` names those whose numbers can be no
    sizes of this archive, and which are floating numbers in `entries`, of which no size can be made."""

    beside: ModelFolder
    entries: Mapping[str, Any]
    hash: str
    too_large: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """The file, for messages."""
        return self.beside.shown(CONFIG)

    @property
    def model_type(self) -> str:
        return str(self.entries["model_type"])

    @property
    def architectures(self) -> tuple[str, ...]:
        found = self.entries.get("architectures")
        return tuple(str(each) for each in found) if isinstance(found, list) else ()


def find_config(trajectory: Trajectory, folder: str | None) -> ModelFolder:
    """Where config.json is: in the folder that was named, in the run's, or beside its first step; of a run in a tar or
    zip file, or elsewhere, in that. Raises ObjectiveError."""
    steps = [trajectory.files[each][0] for each in (trajectory.steps[0], trajectory.steps[-1])]
    places = [Path(folder)] if folder else [trajectory.path, *(Path(file).parent for file in steps)]
    inside = () if folder else folders_in(trajectory.path)
    for place in (*inside, *map(ModelFolder, dict.fromkeys(places))):
        if place.holds(CONFIG):
            return place
    looked = " nor ".join(str(place) for place in dict.fromkeys(places))
    raise ObjectiveError(
        f"no {CONFIG} lies in {looked}: the model is built from the one that transformers' save_pretrained writes. "
        "Name the folder that has it, as in hf-causal-lm:FOLDER, or give --objective FILE.py:NAME."
    )


def read_config(folder: ModelFolder, shapes: Sequence[Sequence[int]]) -> ModelConfig:
    """The file, for a model of tensors of these shapes. Raises ObjectiveError, naming file and entry."""
    path = folder.shown(CONFIG)
    try:
        data = folder.read(CONFIG, MOST_CONFIG)
        found = parse_json(data.decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ObjectiveError(f"{path}: cannot be read: {one_line(str(error), 200)}.") from error
    if not isinstance(found, dict) or not isinstance(found.get("model_type"), str):
        raise ObjectiveError(f"{path}: holds no model_type; expected what transformers' save_pretrained writes.")
    largest = max((size for shape in shapes for size in shape), default=0)
    cleaning = _Cleaning(path, max(LARGEST_SIZE, largest))
    entries = cleaning.table(found, "", 0)
    return ModelConfig(folder, entries, hash_of(data), tuple(cleaning.too_large))


class _Cleaning:
    def __init__(self, path: Path, largest: int) -> None:
        self._path, self._largest = path, largest
        self.too_large: list[str] = []

    def table(self, found: Mapping[str, Any], where: str, depth: int) -> dict[str, Any]:
        kept = {}
        for name, value in found.items():
            at = f"{where}{name}"
            if name in _REFUSED and value:
                raise ObjectiveError(
                    f"{self._path}: {one_line(at, 80)} {_REFUSED[name]}. Give --objective FILE.py:NAME, which makes "
                    "the model by code that you trust."
                )
            if name == "backbone" and value:
                raise ObjectiveError(f"{self._path}: {one_line(at, 80)} names a model from elsewhere to be loaded.")
            if not name.startswith("_") and name not in _LEFT_OUT:
                kept[name] = self._value(value, name, at, depth)
        return kept

    def _value(self, value: Any, name: str, at: str, depth: int) -> Any:
        if depth > 20:
            raise ObjectiveError(f"{self._path}: {one_line(at, 80)} is nested more than 20 deep.")
        if isinstance(value, dict):
            return self.table(value, f"{at}.", depth + 1)
        if isinstance(value, list):
            return [self._value(each, name, at, depth + 1) for each in value]
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) > self._most(name):
            self.too_large.append(f"{one_line(at, 80)}: {value if abs(value) < 10**20 else 'a huge number'}")
            try:
                return float(value)
            except OverflowError:
                raise ObjectiveError(f"{self._path}: {self.too_large[-1]} is no number of a model.") from None
        return value

    def _most(self, name: str) -> int:
        positions = any(word in name for word in _POSITIONS)
        return max(self._largest, LARGEST_POSITION) if positions else self._largest
