"""A file of torch.save (.pt, .pth, .bin, .ckpt): its tensors, with nothing executed and nothing taken on trust.

torch's own reader with weights_only=True, which makes tensors and plain containers alone; before it, the zip archive is
looked at: entries as they were written, not packed, none beyond the file. What the old format, before zip, would ask
for cannot be known beforehand, so it is refused.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from trajcheck.errors import StepFileError
from trajcheck.files.opening import NotRegularError, opened, same_path

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
#: Bytes of the description of all tensors, the pickle, and entries of an archive.
MOST_DESCRIBED, MOST_ENTRIES = 100_000_000, 200_000
#: How deep a state dict may lie in a checkpoint.
DEEPEST = 3


def state_dicts(path: str) -> dict[str, dict[str, Tensor]]:
    """The mappings of names to tensors that a file holds, each by its place: "" is the file itself, "model" what stands
    there under that key. Raises StepFileError."""
    import torch

    try:
        with opened(path) as file:
            _check(path, file)
            # torch opens it by a path, to map it into memory
            whole = torch.load(same_path(file.fileno(), path), map_location="cpu", weights_only=True, mmap=True)
    except StepFileError:
        raise
    except NotRegularError as error:
        raise StepFileError(f"{path}: not a regular file; expected one of torch.save.") from error
    except OSError as error:
        raise StepFileError(f"{path}: cannot be read: {error.strerror or error}.") from error
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise StepFileError(
            f"{path}: torch cannot read it as weights alone ({type(error).__name__}: {reason}). Save the state dict by "
            "itself, torch.save(model.state_dict(), ...), or as safetensors."
        ) from error
    found = dict(_state_dicts(whole, "", DEEPEST))
    if not found:
        raise StepFileError(
            f"{path}: holds no state dict, a mapping of names to tensors; found {type(whole).__name__}."
        )
    return found


def _state_dicts(value: Any, place: str, levels: int) -> Iterator[tuple[str, dict[str, Tensor]]]:
    import torch

    if not isinstance(value, Mapping):
        return
    tensors = {
        name: tensor
        for name, tensor in value.items()
        if isinstance(name, str) and isinstance(tensor, torch.Tensor) and tensor.layout is torch.strided
    }
    if tensors:
        yield place, tensors
    if levels:
        for key, child in value.items():
            if isinstance(key, str):
                yield from _state_dicts(child, f"{place}.{key}" if place else key, levels - 1)


def _check(path: str, file: BinaryIO) -> None:
    """Raise StepFileError for a file that is no zip archive as torch.save writes it; OSError."""
    try:
        size = os.fstat(file.fileno()).st_size
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise StepFileError(
            f"{path}: no archive of torch.save ({error}). Files in the format before torch 1.6 are not read: load and "
            "save it again, or give a .safetensors file."
        ) from error
    packed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
    described = sum(entry.file_size for entry in entries if Path(entry.filename).name == "data.pkl")
    if packed or len(entries) > MOST_ENTRIES or described > MOST_DESCRIBED:
        what = "a packed entry" if packed else f"{len(entries):,} entries, {described:,} bytes of description"
        raise StepFileError(f"{path}: {what}, which torch.save does not write. Save it again.")
    if sum(entry.file_size for entry in entries) > size:
        raise StepFileError(f"{path}: its entries are larger than the file. It is damaged; copy it again.")
