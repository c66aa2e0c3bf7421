"""Whether a compiled model draws its masks in another way than the same model that is not."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import torch

OTHER_DRAWS = (
    "the model is compiled by a backend (inductor) that draws masks in a way of its own, and a replay cannot draw them "
    "again; with torch._inductor.config.fallback_random = True they are the usual ones"
)


def draws_otherwise(module: torch.nn.Module) -> bool:
    """Whether `module` is what torch.compile made, or was compiled in place, for a backend with draws of its own.

    The settings are the backend's then, or now: it compiles at the first call.
    """
    settings = getattr(getattr(module, "dynamo_ctx", None), "compiler_config", None)
    call: Any = vars(module).get("_compiled_call_impl")
    asked = getattr(getattr(call, "compiled", call), "get_compiler_config", None)
    if settings is None and callable(asked):
        settings = asked()
    if not isinstance(settings, Mapping) or "fallback_random" not in settings:
        return False
    now = sys.modules.get("torch._inductor.config")
    return not (settings["fallback_random"] or getattr(now, "fallback_random", False))
