"""Which device a replay runs on."""

from __future__ import annotations

import torch

from trajcheck.errors import UsageError

#: Compute capabilities of NVIDIA's cards that are made for float64: half the rate of float32 (P100, V100, A100, H100,
#: B200). On all others it has a 24th to a 64th of it.
DOUBLE_AT_HALF_RATE = {(6, 0), (7, 0), (8, 0), (9, 0), (10, 0)}


def resolve_device(name: str) -> torch.device:
    """ "auto" is a GPU where there is one, else the CPU. Errors: UsageError for a device that is not available."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"device {name!r} is not supported; expected auto, cpu, cuda or cuda:N")
    if device.type == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = torch.cuda.current_device() if count and device.index is None else device.index or 0
    if index >= count:
        found = f"torch {torch.__version__} sees {count or 'no'} GPUs here"
        raise UsageError(f"device {name!r} is not available: {found}; use --device auto or --device cpu")
    return torch.device("cuda", index)


def devices_of(model: torch.nn.Module) -> list[torch.device]:
    """The CUDA devices that hold parameters or buffers."""
    tensors = [*model.parameters(), *model.buffers()]
    return sorted({t.device for t in tensors if t.device.type == "cuda"}, key=str)


def slow_in_double(device: torch.device) -> str:
    """Why float64 may cost many times what float32 does on a device, in words; '' where it is known not to."""
    if device.type == "cpu":
        return ""
    name = torch.cuda.get_device_name(device)
    if torch.version.hip is not None:
        return f"how fast float64 is on {name} is not known"
    capability = torch.cuda.get_device_capability(device)
    if capability in DOUBLE_AT_HALF_RATE:
        return ""
    return (
        f"float64 is up to 64 times slower than float32 on {name} (compute capability {capability[0]}.{capability[1]})"
    )
