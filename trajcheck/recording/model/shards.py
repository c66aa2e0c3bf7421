"""What one rank holds of a tensor that is sharded over several (torch's DTensor), and where it belongs."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from trajcheck.errors import RecorderError


class StoredPiece(NamedTuple):
    """The part of a parameter that a rank stores: from `offset` on in each dimension. None: all of it."""

    offset: tuple[int, ...] | None = None


def is_sharded(tensor: torch.Tensor) -> bool:
    """Whether a tensor is a DTensor."""
    return hasattr(tensor, "device_mesh") and hasattr(tensor, "placements")


def local(tensor: torch.Tensor) -> torch.Tensor:
    """The elements that this rank holds; the tensor itself where it is not sharded. Not a copy."""
    if not is_sharded(tensor):
        return tensor
    with torch.no_grad():
        held: torch.Tensor = tensor.to_local()  # type: ignore[attr-defined]
    return held


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All elements of a small sharded tensor, gathered on every rank: all must call it."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def stored_piece(name: str, tensor: torch.Tensor, first: bool) -> StoredPiece | None:
    """What this rank stores of a parameter: None where others store it.

    Of a tensor that is not sharded, the `first` rank stores all. Of one that is sharded along its first dimension every
    rank stores its rows, and of replicas (meshes with several dimensions) the first.
    Raises RecorderError for any other placement.
    """
    if not is_sharded(tensor):
        return StoredPiece() if first else None
    mesh: Any = tensor.device_mesh  # type: ignore[attr-defined]
    placements: Any = tensor.placements  # type: ignore[attr-defined]
    coordinate = mesh.get_coordinate()
    if coordinate is None:  # this rank is not part of the mesh
        return None
    cut = [i for i, placement in enumerate(placements) if not placement.is_replicate()]
    if any(coordinate[i] for i in range(len(placements)) if i not in cut):
        return None
    if not cut:
        return StoredPiece()
    if len(cut) > 1 or type(placements[cut[0]]) is not torch.distributed.tensor.Shard or placements[cut[0]].dim:
        raise RecorderError(
            f"parameter {name!r} is placed as {tuple(placements)}; expected Shard(0) in one dimension of the mesh and "
            "Replicate() in the others, as fully_shard places it. Leave it out with parameters=, or shard rows only."
        )
    rows, ranks = tensor.shape[0], mesh.size(cut[0])
    share = -(-rows // ranks)
    begin = min(coordinate[cut[0]] * share, rows)
    held = local(tensor).shape[0]
    if held != min(share, rows - begin):
        raise RecorderError(
            f"parameter {name!r} has {rows} rows over {ranks} ranks, and {held} of them are here; expected "
            f"{min(share, rows - begin)}, the even division that fully_shard makes."
        )
    if held == rows:
        return StoredPiece()
    return StoredPiece((begin,) + (0,) * (tensor.dim() - 1)) if held else None
