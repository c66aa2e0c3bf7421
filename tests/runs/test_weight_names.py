"""trajcheck.runs.weight_names: which tensors of a file are a run's parameters, under whatever names."""

from __future__ import annotations

import pytest

from trajcheck.runs.weight_names import match_weights

RUN = ("wte.weight", "h.bias")
TIED = {"head.weight": "wte.weight"}


@pytest.mark.parametrize(
    ("file", "names"),
    [
        (["wte.weight", "h.bias"], ["wte.weight", "h.bias"]),
        (["head.weight", "h.bias", "pos"], ["head.weight", "h.bias"]),
        (["_orig_mod.wte.weight", "_orig_mod.h.bias"], ["_orig_mod.wte.weight", "_orig_mod.h.bias"]),
        (["model.wte.weight", "model.h.bias", "model.pos"], ["model.wte.weight", "model.h.bias"]),
    ],
)
def test_all_are_found(file: list[str], names: list[str]) -> None:
    found = match_weights(RUN, TIED, {"pos"}, file)
    assert found.whole and list(found.names.values()) == names and list(found.names) == list(RUN)


def test_a_text_before_the_runs_names() -> None:
    found = match_weights(("net.a.weight", "net.b"), {}, {"net.pos"}, ["a.weight", "b", "pos"])
    assert found.whole and found.names == {"net.a.weight": "a.weight", "net.b": "b"}


def test_adapters() -> None:
    run = ("x.lora_A.default.weight", "cls.modules_to_save.default.weight", "x.lora_magnitude_vector.default")
    file = ["x.lora_A.weight", "cls.weight", "x.lora_magnitude_vector"]
    assert match_weights(run, {}, (), file).names == dict(zip(run, file, strict=True))
    two = match_weights(("x.lora_A.a.weight", "x.lora_A.b.weight"), {}, (), ["x.lora_A.weight"])
    assert not two.whole and two.missing


def test_what_is_wrong_is_said() -> None:
    found = match_weights(RUN, {}, (), ["wte.weight", "other"])
    assert (found.missing, found.extra, found.double) == (["h.bias"], ["other"], [])
    found = match_weights(RUN, {}, (), ["wte.weight", "module.wte.weight", "h.bias"])
    assert not found.whole and found.double == [("wte.weight", "module.wte.weight")]
