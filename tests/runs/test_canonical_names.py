"""trajcheck.runs.canonical_names: what wrappers put into names is removed wherever it stands."""

from __future__ import annotations

import pytest

from trajcheck.runs.canonical_names import canonical


@pytest.mark.parametrize(
    ("found", "name"),
    [
        ("module.0.weight", "0.weight"),
        ("_orig_mod.module.a._orig_mod.b.module.weight", "a.b.weight"),
        ("_forward_module._orig_mod.h.0._checkpoint_wrapped_module.w", "h.0.w"),
        ("_fsdp_wrapped_module.h.0._fsdp_wrapped_module.w", "h.0.w"),
        ("submodule.module_list.weight", "submodule.module_list.weight"),
        ("module", "module"),
        ("net.module", "net.module"),
    ],
)
def test_canonical(found: str, name: str) -> None:
    assert canonical(found) == name
