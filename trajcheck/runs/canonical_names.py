"""The name of a tensor in the model, whatever the model was wrapped in when the name was taken."""

from __future__ import annotations

#: The attributes under which wrappers hold the model: DistributedDataParallel, DataParallel, AveragedModel and
#: DeepSpeed; torch.compile; Lightning Fabric; FSDP; activation checkpointing.
WRAPPERS = frozenset(
    {"module", "_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"},
)


def canonical(name: str) -> str:
    """The dotted name without what wrappers put into it, wherever that stands; the last part, the tensor's own name,
    is kept whatever it is."""
    *parents, last = name.split(".")
    return ".".join([part for part in parents if part not in WRAPPERS] + [last])
