"""Which of a model's tensors are recorded, under which names, and copies of them.

A parameter is *trainable* when the optimizer holds it (or its master copy) and it requires a gradient, else *frozen*.
Names are canonical, without what wrappers put into them; a tied parameter goes by its first name. Of several ranks the
first copies what all have, and each its own rows of what is sharded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter, is_
from typing import Any

import torch

from trajcheck.errors import RecorderError
from trajcheck.files.torch_tensors import CODES, FLOATING, storable
from trajcheck.recording.model.optimizers import HoldsGroups
from trajcheck.recording.model.ranks import ALONE, Ranks
from trajcheck.recording.model.shards import StoredPiece, is_sharded, local, stored_piece
from trajcheck.runs.canonical_names import canonical

_requires_grad = attrgetter("requires_grad")
Copy = Callable[..., torch.Tensor]  # (name, tensor, dtype=None) -> a copy in host memory
LOW_PRECISION = (torch.float16, torch.bfloat16)


def fresh_copy(name: str, tensor: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
    copy = to_host(tensor)
    return copy if dtype is None else copy.to(dtype)


@dataclass
class Parameter:
    """One parameter: `source` is what the optimizer updates, the tensor itself or its master copy; `piece` what this
    rank stores of it."""

    name: str
    tensor: torch.Tensor
    source: torch.Tensor
    group: int | None
    trainable: bool
    recorded: bool
    piece: StoredPiece | None
    chosen: bool = True  # by the filter

    @property
    def lost(self) -> bool:
        """Whether it was to be recorded and no file can hold it."""
        return self.chosen and not self.recorded

    @property
    def has_master(self) -> bool:
        return self.source is not self.tensor

    def describe(self) -> dict[str, Any]:
        entry = {
            "name": self.name,
            "shape": list(self.tensor.shape),
            "dtype": CODES.get(self.tensor.dtype, str(self.tensor.dtype).removeprefix("torch.")),
            "group": self.group if self.trainable else None,
            "trainable": self.trainable,
        }
        return entry if self.recorded else {**entry, "recorded": False}


class RecordedModel:
    """The parameters and buffers of a model as an optimizer and a filter see them.

    Raises RecorderError where model and optimizer do not fit together, naming the tensor.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: HoldsGroups,
        keep: str | Callable[[str], bool] | None = None,
        masters: Mapping[str, torch.Tensor] | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.ranks = ranks
        named, self.tied = unique_names(model.named_parameters(remove_duplicate=False))
        groups = _numbers(optimizer)
        sources = {name: tensor for name, tensor in named.items() if id(tensor) in groups}
        sources.update(_match_masters(named, optimizer, set(map(id, sources.values())), masters))
        wanted = name_filter(keep)
        self.parameters = [
            self._parameter(name, tensor, sources.get(name), groups, wanted, ranks.first)
            for name, tensor in named.items()
        ]
        self._seen = [(p.group, p.tensor.requires_grad) for p in self.parameters]
        self._follow(optimizer)
        self._foreign = groups.keys() - {id(p.source) for p in self.parameters}
        self._sort()
        if not self.trained:
            raise RecorderError(
                f"there is nothing to record: the filter parameters={keep!r} leaves none of the trainable parameters: "
                f"{', '.join(p.name for p in self.parameters if p.trainable) or 'the model has none'}."
            )
        self._module = model
        buffers, _ = unique_names(model.named_buffers(remove_duplicate=False))
        self.not_stored = {f"buffer {name}": b for name, b in buffers.items() if not storable(local(b))}
        self.not_stored |= {f"frozen parameter {p.name}": p.tensor for p in self.parameters if p.lost}
        devices = {t.device for p in self.trained for t in (p.tensor, p.source)}
        self.cuda_devices = sorted((device for device in devices if device.type == "cuda"), key=str)

    def _sort(self) -> None:
        self.trained = [p for p in self.parameters if p.trainable and p.recorded]
        self.frozen = [p for p in self.parameters if not p.trainable and p.recorded]

    def _follow(self, optimizer: HoldsGroups) -> None:
        self._held = [list(group["params"]) for group in optimizer.param_groups]
        self._tensors = [p.tensor for p in self.parameters]
        self._wanted = list(map(_requires_grad, self._tensors))

    def unchanged(self, optimizer: HoldsGroups) -> bool:
        """Whether the optimizer holds the same tensors in the same groups as at the last `refresh()`, and the same
        parameters require a gradient: what is asked before every step."""
        held = [group["params"] for group in optimizer.param_groups]
        return (
            len(held) == len(self._held)
            and all(len(now) == len(old) and all(map(is_, now, old)) for now, old in zip(held, self._held, strict=True))
            and list(map(_requires_grad, self._tensors)) == self._wanted
        )

    def refresh(self, optimizer: HoldsGroups) -> bool:
        """Whether other parameters are trained than at the last call, or in other groups: some were unfrozen, frozen,
        or given to the optimizer. Raises RecorderError where none is left, or one cannot be recorded."""
        self._follow(optimizer)
        groups = _numbers(optimizer)
        seen = [(groups.get(id(p.source)), p.tensor.requires_grad) for p in self.parameters]
        if seen == self._seen:
            return False
        self._seen = seen
        for p, (group, wants_gradient) in zip(self.parameters, seen, strict=True):
            p.group, p.trainable = group, group is not None and wants_gradient
            if p.chosen and p.trainable and not (p.recorded and p.tensor.dtype in FLOATING):
                raise RecorderError(f"parameter {p.name!r} is trained now, and has dtype {p.tensor.dtype}.")
        self._sort()
        if not self.trained:
            raise RecorderError("no parameter that is recorded is trained any more.")
        return True

    def strangers(self, optimizer: HoldsGroups) -> list[str]:
        """The names of parameters that the optimizer has got since, and the model had not when recording began; said
        once."""
        new = _numbers(optimizer).keys() - {id(p.source) for p in self.parameters} - self._foreign
        self._foreign |= new
        named = {id(tensor): canonical(name) for name, tensor in self._module.named_parameters()} if new else {}
        return sorted(named.get(tensor, "a tensor that is no parameter of the model") for tensor in new)

    @staticmethod
    def _parameter(
        name: str,
        tensor: torch.Tensor,
        source: torch.Tensor | None,
        groups: Mapping[int, int],
        wanted: Callable[[str], bool],
        first: bool,
    ) -> Parameter:
        trainable = source is not None and tensor.requires_grad
        if torch.nn.parameter.is_lazy(tensor) or tensor.is_meta:
            raise RecorderError(
                f"parameter {name!r} has no values yet (a lazy module, or the meta device). Materialise the model, for "
                "example with one forward pass, before making the Recorder."
            )
        chosen = wanted(name)
        if chosen and trainable and not (tensor.dtype in FLOATING and storable(local(tensor))):
            raise RecorderError(
                f"parameter {name!r} has dtype {tensor.dtype} and layout {tensor.layout}; expected dense float64, "
                "float32, float16 or bfloat16. Leave it out with parameters=."
            )
        source = tensor if source is None else source
        recorded = chosen and storable(local(tensor))
        piece = stored_piece(name, source, first) if recorded else None
        return Parameter(name, tensor, source, groups.get(id(source)), trainable, recorded, piece, chosen)

    def lost(self) -> str:
        """In one sentence, the tensors that no file can hold and what follows from it; "" where there are none."""
        if not self.not_stored:
            return ""
        words = [
            f"{name} ({type(t.data).__name__}, {str(t.dtype).removeprefix('torch.')}, {t.layout})"
            for name, t in self.not_stored.items()
        ]
        frozen = any(name.startswith("frozen") for name in self.not_stored)
        follows = (
            "the losses of this run cannot be replayed" if frozen else "a replay takes the objective's own in its place"
        )
        return f"a step file cannot hold {', '.join(words[:4])}{' and more' * (len(words) > 4)}: {follows}"

    @property
    def buffers(self) -> dict[str, torch.Tensor]:
        """The buffers that a step file can hold, as they are now: a forward may put others in their place."""
        buffers, _ = unique_names(self._module.named_buffers(remove_duplicate=False))
        return {name: local(buffer) for name, buffer in buffers.items() if storable(local(buffer))}

    @property
    def stored(self) -> list[Parameter]:
        """Those trained parameters of which this rank stores something."""
        return [p for p in self.trained if p.piece is not None]

    @property
    def sharded(self) -> bool:
        return any(is_sharded(p.tensor) for p in self.parameters)

    def boxes(self, tensors: Iterable[str]) -> dict[str, Any]:
        """Metadata of a record with these tensors: where pieces that are not whole belong."""
        offset: dict[str, list[int]] = {}
        shape: dict[str, list[int]] = {}
        known = {p.name: p for p in self.parameters if p.piece is not None and p.piece.offset is not None}
        for stored in tensors:
            kind, _, name = stored.partition("/")
            if kind in ("param", "master", "grad", "window") and name in known:
                p = known[name]
                assert p.piece is not None and p.piece.offset is not None
                offset[stored], shape[stored] = list(p.piece.offset), list(p.tensor.shape)
        return {"offset": offset, "shape": shape} if offset else {}

    def replicated_norms(self) -> dict[str, Any]:
        """Metadata: norms now of parameters and gradients that the first rank stores for all, to tell by that all
        have the same."""
        tensors = [p.source for p in self.trained if not is_sharded(p.source)]
        if self.ranks.count == 1 or not tensors:
            return {}
        norms = {"parameter": _norm(tensors), "gradient": _norm([t.grad for t in tensors if t.grad is not None])}
        return {"replicated": {kind: norm for kind, norm in norms.items() if math.isfinite(norm)}}

    @property
    def watched(self) -> list[torch.Tensor]:
        """All tensors whose gradients one backward pass and one step use."""
        tensors = [p.tensor for p in self.parameters if p.trainable]
        return tensors + [p.source for p in self.parameters if p.trainable and p.has_master]

    def iterate(self, copy: Copy = fresh_copy) -> dict[str, torch.Tensor]:
        """Copies in host memory of the trainable parameters as they are now, and of their masters."""
        sources = {f"param/{p.name}": p.tensor for p in self.stored}
        sources.update({f"master/{p.name}": p.source for p in self.stored if p.has_master})
        return {name: copy(name, local(source)) for name, source in sources.items()}

    def gradients(
        self, dtype: torch.dtype | None, copy: Copy = fresh_copy, groups: Container[int] | None = None
    ) -> dict[str, torch.Tensor]:
        """Copies of the gradients as they are now, of all parameter groups or some; a parameter without one has the
        gradient zero."""
        stored = [p for p in self.stored if groups is None or p.group in groups]
        return {f"grad/{p.name}": copy(f"grad/{p.name}", _gradient(p.source), dtype) for p in stored}

    def record_bytes(self, grad_dtype: torch.dtype | None) -> int:
        """Bytes of one record of all ranks without its batch: parameters, masters, gradients, buffers."""
        total = self.ranks.count * sum(b.numel() * b.element_size() for b in self.buffers.values())
        for p in self.trained:
            grad_size = p.source.element_size() if grad_dtype is None else grad_dtype.itemsize
            master = p.source.element_size() if p.has_master else 0
            total += p.tensor.numel() * (p.tensor.element_size() + master + grad_size)
        return total

    def window_bytes(self) -> int:
        """Bytes of the sum of gradients that a record may hold besides."""
        return sum(p.source.numel() * (8 if p.source.dtype is torch.float64 else 4) for p in self.trained)

    def describe(self) -> list[dict[str, Any]]:
        return [parameter.describe() for parameter in self.parameters]


def _numbers(optimizer: HoldsGroups) -> dict[int, int]:
    """The number of the parameter group of each tensor, by identity."""
    return {id(tensor): number for number, group in enumerate(optimizer.param_groups) for tensor in group["params"]}


def unique_names(named: Any) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors by clean name, each once, and {other name: name} of those that are tied."""
    tensors: dict[str, torch.Tensor] = {}
    first: dict[int, str] = {}
    tied: dict[str, str] = {}
    for raw, tensor in named:
        name = canonical(raw)
        known = first.setdefault(id(tensor), name)
        if known == name and tensors.setdefault(name, tensor) is tensor:
            continue
        if name in tensors:
            raise RecorderError(
                f"two different tensors are both called {name!r} once what wrappers add ('module.', '_orig_mod.') is "
                "removed from their names; rename the submodule that is called 'module'."
            )
        tied[name] = known
    return tensors, tied


def _gradient(source: torch.Tensor) -> torch.Tensor:
    gradient = source.grad
    if gradient is None:
        return torch.zeros((), dtype=source.dtype).expand(local(source).shape)
    if is_sharded(source) and gradient.placements != source.placements:  # type: ignore[attr-defined]
        raise RecorderError(
            f"a gradient is placed as {gradient.placements}, and its parameter as "  # type: ignore[attr-defined]
            f"{source.placements}; expected one placement for both."  # type: ignore[attr-defined]
        )
    gradient = local(gradient)
    return gradient if gradient.layout is torch.strided else gradient.to_dense()


def _norm(tensors: Sequence[torch.Tensor]) -> float:
    """Euclidean, over all of them, in float64."""
    norms = [torch.linalg.vector_norm(t.detach().to_dense(), dtype=torch.float64).cpu() for t in tensors if t.numel()]
    return float(torch.linalg.vector_norm(torch.stack(norms))) if norms else 0.0


def name_filter(keep: str | Callable[[str], bool] | None) -> Callable[[str], bool]:
    if keep is None:
        return lambda name: True
    if callable(keep):
        return lambda name: bool(keep(name))
    try:
        pattern = re.compile(keep)
    except (re.error, TypeError) as error:
        raise RecorderError(
            f"parameters={keep!r} is neither a regular expression nor a function of a name: {error}."
        ) from error
    return lambda name: pattern.search(name) is not None


def _match_masters(
    named: Mapping[str, torch.Tensor],
    optimizer: HoldsGroups,
    matched: set[int],
    masters: Mapping[str, torch.Tensor] | None,
) -> dict[str, torch.Tensor]:
    """{name: master} for the tensors of the optimizer that are not the model's: named, or in order by shape."""
    foreign = [t for group in optimizer.param_groups for t in group["params"] if id(t) not in matched]
    if masters is not None:
        masters = {canonical(name): tensor for name, tensor in masters.items()}
        held = {id(tensor) for tensor in foreign}
        for name, tensor in masters.items():
            if name not in named or named[name].shape != tensor.shape or id(tensor) not in held:
                raise RecorderError(
                    f"masters={{{name!r}: ...}}: expected the name of a parameter of the model that the optimizer does "
                    "not hold itself, and the tensor of the same shape that the optimizer updates in its place."
                )
        foreign = [tensor for tensor in foreign if id(tensor) not in set(map(id, masters.values()))]
    else:
        masters = {}
    candidates = [
        name
        for name, tensor in named.items()
        if id(tensor) not in matched and name not in masters and tensor.requires_grad and tensor.dtype in LOW_PRECISION
    ]
    if foreign and _shapes(foreign) != _shapes([named[name] for name in candidates]):
        if not candidates:
            raise RecorderError(
                f"the optimizer updates {len(foreign)} tensors that are not parameters of the model. Was another model "
                "given, or were parameters replaced after the optimizer was made?"
            )
        raise RecorderError(
            f"the optimizer updates {len(foreign)} tensors that are not parameters of the model, and they do not match "
            f"its {len(candidates)} low-precision parameters one by one in order and shape. Name them: "
            "masters={name: tensor}."
        )
    return {**masters, **(dict(zip(candidates, foreign, strict=True)) if foreign else {})}


def _shapes(tensors: Sequence[torch.Tensor]) -> list[torch.Size]:
    return [tensor.shape for tensor in tensors]


def to_host(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous copy in host memory, never a view."""
    return tensor.detach().resolve_conj().resolve_neg().to("cpu", copy=True, memory_format=torch.contiguous_format)
