"""What objective.json holds, and what it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import exported_models as models
import pytest
import torch
from exported_models import Language
from exported_runs import MODULE, RUNS, SENTENCES, exported, seeded
from loops import weights
from places import HELPERS
from torch import Tensor, nn


@pytest.mark.parametrize("name", RUNS)
def test_the_file_is_small_and_private(runs: Path, name: str) -> None:
    files = [runs / name / "objective.json", runs / name / "objective.safetensors"]
    data = b"".join(file.read_bytes() for file in files)
    assert len(data) < 20_000
    lines = [line.strip() for line in Path(models.__file__).read_text().splitlines()]
    source = [line for line in lines if len(line) > 12 and not line.startswith(("#", "@", '"""'))]
    assert "mixed = F.scaled_dot_product_attention" in "".join(source)
    secrets = [MODULE, "exported_models", str(runs), str(HELPERS), "SecretlyNamedBlock", "next_token", "site-packages"]
    for secret in [*secrets, *source]:
        assert secret.encode() not in data, secret
    tensors = [*weights(seeded(Language)).values()] if name == "tied" else []
    for tensor in tensors:
        assert tensor.numpy().tobytes() not in data
    assert SENTENCES[0].numpy().tobytes() not in data


def test_large_models_give_small_files(tmp_path: Path) -> None:
    exported(tmp_path, nn.Linear(1000, 500), F_sum, (torch.randn(4, 1000), torch.randn(4, 500)))
    assert (tmp_path / "objective.json").stat().st_size < 2_000


def F_sum(model: nn.Module, batch: Any) -> Tensor:
    return (model(batch[0]) - batch[1]).square().sum() / batch[0].shape[0]
