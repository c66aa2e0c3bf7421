"""Which tensors of an archive's checkpoints are trained, and which are frozen, tied or buffers.

A checkpoint of a library lists all tensors of a model alike. What tells them apart, in this order: numbers that are no
floating ones, and names that belong to buffers in the libraries that people use; the optimizer's state, where a
checkpoint holds it; and the bytes: a tensor that is the same in every checkpoint was not trained, and one that is
another's equal in every one, while both change, is tied to it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import TypeVar

from trajcheck.errors import StepFileError
from trajcheck.files.extent_reader import ExtentReader
from trajcheck.files.extents import COMPLEX, FLOATING, ITEM_SIZE, Extent
from trajcheck.files.remote.address import is_remote
from trajcheck.files.remote.file import fetch_pieces
from trajcheck.readable import some_of
from trajcheck.runs.canonical_names import canonical
from trajcheck.runs.formats.archives.checkpoint import Checkpoint
from trajcheck.runs.surroundings import same_bytes

#: Checkpoints whose samples are compared, spread over the archive; pieces of each tensor, and bytes of each piece.
COMPARED, PIECES, PIECE = 5, 8, 512
#: Elements that a vector and a matrix have at least which equal bytes make a tied one: vectors begin at one value each,
#: and one sign of their gradients makes short ones equal.
TIED_FROM, TIED_MATRIX_FROM = 256, 32

#: Buffers that change: statistics of BatchNorm, the count of an average.
_STATISTICS = re.compile(r"(^|\.)(running_(mean|var)|num_batches_tracked|n_averaged)$")
#: Buffers that do not: tables of rotary and other positions, causal masks, windows of attention. What has such a name
#: and changes is a parameter.
_CONSTANTS = re.compile(
    r"(^|\.)((original_)?inv_freq|rotary_emb\.\w+|position_ids|attn\.(masked_)?bias|attention\.(masked_)?bias|"
    r"bias_mask|causal_mask|attn_mask|relative_position_index|relative_coords_table)$"
)
#: The last layer of a model, which is tied to its first one, and not the other way round.
_HEAD = re.compile(r"(^|\.)(lm_head|embed_out|proj_out|output_projection|output|decoder|head)(\.\w+)*\.\w+$")


Each = TypeVar("Each")


@dataclass(frozen=True)
class Roles:
    """Of the tensors of every checkpoint, by their names in the model. What is in none of the sets is trained.

    `tied` maps a second name to the one that is kept. `notes` say what was decided by bytes or by names.
    """

    buffers: frozenset[str] = frozenset()
    frozen: frozenset[str] = frozenset()
    tied: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def model_names(checkpoint: Checkpoint) -> dict[str, str]:
    """{name in the model: name in the file}, without prefix and wrappers. Raises StepFileError where two are one."""
    found: dict[str, str] = {}
    for name in checkpoint.tensors:
        shown = canonical(name.removeprefix(checkpoint.prefix))
        if found.setdefault(shown, name) != name:
            raise StepFileError(
                f"{checkpoint.path}: tensors {found[shown]!r:.200} and {name!r:.200} would both be {shown!r:.200}. "
                "Which of them is the model's is not known; keep one of them."
            )
    return found


def may_be_trained(tensors: Mapping[str, Extent]) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors of one checkpoint that are no buffers by their names and dtypes, in their order; of
    several names of one place the first."""
    aliases = _one_place([tensors], list(tensors))
    return {
        name: extent.shape
        for name, extent in ((name, tensors[name]) for name in tensors if name not in aliases)
        if extent.dtype in FLOATING and not is_buffer(name, extent.shape)
    }


def is_buffer(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor has the name of a buffer. One of those that do not change, and does, is a parameter."""
    return bool(_STATISTICS.search(name)) or _is_constant(name, shape)


def _is_constant(name: str, shape: tuple[int, ...]) -> bool:
    """A vector that is called the bias of an attention is one; a mask has other dimensions."""
    return bool(_CONSTANTS.search(name)) and not (name.endswith("bias") and len(shape) == 1)


def find_roles(checkpoints: Sequence[Checkpoint]) -> Roles:
    """From the checkpoints of a run, in their order; some of them are read. Raises StepFileError."""
    chosen = spread(checkpoints)
    tables = [{shown: each.tensors[name] for shown, name in model_names(each).items()} for each in chosen]
    everywhere = [name for name in tables[0] if all(name in table for table in tables)] if tables else []
    names = dict.fromkeys(name for table in tables for name in table)
    dtypes = {name: next(table[name].dtype for table in tables if name in table) for name in names}
    shapes = {name: next(table[name].shape for table in tables if name in table) for name in names}
    constants = {name for name in names if _is_constant(name, shapes[name]) and dtypes[name] in FLOATING}
    buffers = constants | {name for name in names if dtypes[name] not in FLOATING or _STATISTICS.search(name)}
    aliases = _one_place(tables, everywhere)
    trained = _trained(checkpoints)
    if trained is not None:
        trained |= {alias for alias, name in aliases.items() if name in trained}
        trained |= {aliases[alias] for alias in aliases if alias in trained}
        buffers -= {name for name in trained if dtypes.get(name) in FLOATING}
    rest = [name for name in everywhere if name not in buffers and name not in aliases]
    notes: list[str] = []
    frozen: set[str] = set()
    if len(tables) > 1:
        with ExtentReader() as reader:
            buffers -= {n for n in constants if n in buffers and n in everywhere and _changes(reader, tables, n)}
            rest = [name for name in everywhere if name not in buffers and name not in aliases]
            samples = _samples(reader, tables, rest)
            still = [name for name in rest if len(set(samples[name])) == 1]
            unchanged = {name for name in still if same_bytes(reader, tables[0][name], tables[-1][name])}
            if trained is None and len(unchanged) < len(rest):
                frozen = unchanged
                if frozen:
                    notes.append(
                        f"{_count(frozen, 'has', 'have')} the same bytes in the checkpoints that were compared "
                        f"({some_of(sorted(frozen), 8)}): taken as frozen, and in no norm{_too_coarse(frozen, dtypes)}"
                    )
            aliases |= _equal(reader, tables, [name for name in rest if name not in unchanged], samples, notes)
    if trained is not None:
        frozen = {name for name in rest if name not in trained}
    if named := sorted(name for name in buffers if dtypes[name] in FLOATING):
        notes.append(f"{_count(named, 'is', 'are')} a buffer by the name ({some_of(named)}): in no norm")
    if odd := sorted(name for name in names if name.endswith("weight") and dtypes[name] not in FLOATING):
        kinds = ", ".join(sorted({dtypes[name] for name in odd}))
        notes.append(f"{_count(odd, 'is', 'are')} called weight and stored in {kinds} ({some_of(odd)}): in no norm")
    if pairs_of := sorted(name for name in names if dtypes[name] in COMPLEX):
        notes.append(f"{_count(pairs_of, 'is', 'are')} complex ({some_of(pairs_of)}), which no norm is of")
    pairs = [pair for each in checkpoints for pair in _said(each).items()]
    said = {alias: aliases.get(kept, kept) for alias, kept in pairs if alias not in names}
    return Roles(frozenset(buffers), frozenset(frozen - aliases.keys()), {**said, **aliases}, tuple(notes))


def _too_coarse(frozen: Iterable[str], dtypes: Mapping[str, str]) -> str:
    """That tensors may be trained all the same, and move less than their dtype can say."""
    coarse = sorted({dtypes[name] for name in frozen} & {"BF16", "F16"})
    if not coarse:
        return ""
    return (
        f"; in {' and '.join(coarse)} a tensor whose updates are smaller than half the spacing of its numbers keeps "
        "its bytes too, so trained ones may be among them: the optimizer's state in a checkpoint would tell"
    )


def _said(checkpoint: Checkpoint) -> dict[str, str]:
    """Second names that a checkpoint speaks of and does not hold, in the model."""
    named = {a: canonical(a.removeprefix(checkpoint.prefix)) for pair in checkpoint.tied.items() for a in pair}
    return {named[alias]: named[kept] for alias, kept in checkpoint.tied.items()}


def _changes(reader: ExtentReader, tables: Sequence[Mapping[str, Extent]], name: str) -> bool:
    return len({sample(reader, table[name]) for table in tables}) > 1


def _count(names: Sized, one: str, several: str) -> str:
    return f"1 tensor {one}" if len(names) == 1 else f"{len(names)} tensors {several}"


def spread(checkpoints: Sequence[Each]) -> list[Each]:
    """At most COMPARED, the first and the last among them."""
    last = len(checkpoints) - 1
    places = sorted({round(last * part / (COMPARED - 1)) for part in range(COMPARED)}) if last > 0 else range(last + 1)
    return [checkpoints[place] for place in places]


def _trained(checkpoints: Sequence[Checkpoint]) -> set[str] | None:
    """What any optimizer has; None where no checkpoint says."""
    said = [each for each in checkpoints if each.trained is not None]
    return {canonical(name.removeprefix(each.prefix)) for each in said for name in each.trained or ()} if said else None


def _one_place(tables: Sequence[Mapping[str, Extent]], names: Sequence[str]) -> dict[str, str]:
    """Second names of the same bytes of the same file, in every checkpoint."""
    first: dict[tuple[object, ...], str] = {}
    aliases = {}
    for name in _heads_last(names):
        place = tuple((e.path, e.offset, e.shape, e.dtype, e.parts) for e in (table[name] for table in tables))
        if tables[0][name].length and (kept := first.setdefault(place, name)) != name:
            aliases[name] = kept
    return aliases


def _heads_last(names: Sequence[str]) -> list[str]:
    """In their order, but for the last layers of models: of two tied names the other is kept."""
    return sorted(names, key=lambda name: bool(_HEAD.search(name)))


def sample(reader: ExtentReader, extent: Extent) -> bytes:
    """Pieces of a tensor, spread evenly, or all of a small one; its shape and dtype with them."""
    return _taken(reader, extent, _pieces(extent))


def _taken(reader: ExtentReader, extent: Extent, pieces: Iterable[tuple[int, int]]) -> bytes:
    what = repr((extent.dtype, extent.shape)).encode()
    return what + b"".join(bytes(reader.raw(extent, start, length)) for start, length in pieces)


def _pieces(extent: Extent) -> list[tuple[int, int]]:
    """(start, length) of what is looked at in a tensor."""
    if extent.length <= PIECES * PIECE:
        return [(0, extent.length)]
    size = ITEM_SIZE[extent.dtype]
    return [(part * (extent.length - PIECE) // (PIECES - 1) // size * size, PIECE) for part in range(PIECES)]


def _samples(
    reader: ExtentReader, tables: Sequence[Mapping[str, Extent]], names: Sequence[str]
) -> dict[str, tuple[bytes, ...]]:
    """Of each tensor, something that is equal where samples of it are, in all checkpoints, and tells whether they are
    equal in these: of one that changes and has no equal, a piece in the first and the last is enough."""
    ends = (tables[0], tables[-1])
    _fetch((table[name], [_middle(table[name])]) for name in names for table in ends)
    found = {name: tuple(_taken(reader, table[name], [_middle(table[name])]) for table in ends) for name in names}
    counts = Counter(found.values())
    unclear = [name for name in names if found[name][0] == found[name][1] or counts[found[name]] > 1]
    _fetch((table[name], _pieces(table[name])) for name in unclear for table in tables)
    return found | {name: tuple(sample(reader, table[name]) for table in tables) for name in unclear}


def _middle(extent: Extent) -> tuple[int, int]:
    pieces = _pieces(extent)
    return pieces[len(pieces) // 2]


def _fetch(places: Iterable[tuple[Extent, list[tuple[int, int]]]]) -> None:
    """Pieces of tensors that lie in remote files, each in one run: several at once, for those who read them to find."""
    whole = [(each, pieces) for each, pieces in places if not each.parts and is_remote(each.path)]
    fetch_pieces([(each.path, each.offset + start, length) for each, pieces in whole for start, length in pieces])


def _equal(
    reader: ExtentReader,
    tables: Sequence[Mapping[str, Extent]],
    names: Sequence[str],
    samples: Mapping[str, tuple[bytes, ...]],
    notes: list[str],
) -> dict[str, str]:
    """Second names of tensors that lie in several places and are equal in the first checkpoint and in the last, while
    they change."""
    first: dict[tuple[bytes, ...], str] = {}
    aliases = {}
    for name in _heads_last(names):
        first_of = tables[0][name]
        least = TIED_FROM if len(first_of.shape) < 2 else TIED_MATRIX_FROM
        if first_of.numel < least or (kept := first.setdefault(samples[name], name)) == name:
            continue
        if all(same_bytes(reader, table[kept], table[name]) for table in (tables[0], tables[-1])):
            aliases[name] = kept
            notes.append(f"tensor {name} has the bytes of {kept} in the checkpoints that were compared: taken as tied")
    return aliases
