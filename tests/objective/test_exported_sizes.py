"""Shapes and values of the batch of an exported objective."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from exported_models import Language, next_token, tokens
from exported_runs import assert_same, exported, record, sample, seeded
from loops import batch_of, loss_of, weights
from torch import Tensor, nn
from torch.nn import functional as F

from trajcheck.errors import ObjectiveError
from trajcheck.objective.exported import load_exported
from trajcheck.objective.objective import Objective


def test_sizes_stay_open_where_they_can(tmp_path: Path) -> None:
    model = seeded(lambda: Language(0.25))
    here = exported(tmp_path, model, next_token, tokens(6, 7, 0))
    for shape in ((6, 7), (2, 9), (1, 4), (11, 5)):
        assert_same(here, Objective(Language(0.25), next_token), model, tokens(*shape, 1))
    with pytest.raises(ObjectiveError, match="has shape \\[2\\], and the program takes \\[any, any\\]"):
        here.loss(weights(model), sample(torch.zeros(2, dtype=torch.int64)))
    with pytest.raises(ObjectiveError, match=r"is floating, in the program not floating"):
        here.loss(weights(model), sample(torch.zeros(2, 4)))


def test_sizes_that_the_program_fixes(tmp_path: Path) -> None:
    def by_length(model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1], reduction="sum") / len(batch[0])

    model = seeded(lambda: nn.Linear(4, 3))
    here = exported(tmp_path, model, by_length, batch_of(0))
    assert_same(here, Objective(nn.Linear(4, 3), by_length), model, batch_of(1))
    with pytest.raises(ObjectiveError, match=r"tensor '0' has shape \[5, 4\], and the program takes \[6, 4\]"):
        here.loss(weights(model), sample(batch_of(1, size=5)))


def test_static_sizes_where_open_ones_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = torch.export.export

    def only_static(*arguments: Any, dynamic_shapes: Any = None, **options: Any) -> Any:
        if dynamic_shapes is not None:
            raise RuntimeError("cannot")
        return real(*arguments, **options)

    monkeypatch.setattr(torch.export, "export", only_static)
    record(tmp_path, nn.Linear(4, 3), loss_of, [batch_of(0)], quiet=False)
    assert "for batches of this shape only" in capsys.readouterr().err
    program, facts = load_exported(tmp_path / "objective.json")
    assert facts["dynamic"] is False
    assert [entry["shape"] for entry in facts["batch"]] == [[6, 4], [6]]
    with pytest.raises(ObjectiveError, match="takes"):
        program.loss(program.model, batch_of(0, size=3))


def test_what_is_no_tensor_is_part_of_the_program(tmp_path: Path) -> None:
    def smoothed(model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(model(batch["x"]), batch["y"][0], label_smoothing=batch["options"][0])

    def batch(smoothing: float, name: str = "a") -> dict[str, Any]:
        x, y = batch_of(0)
        return {"x": x, "y": [y], "options": (smoothing, None, name)}

    model = seeded(lambda: nn.Linear(4, 3))
    here = exported(tmp_path, model, smoothed, batch(0.1))
    assert_same(here, Objective(nn.Linear(4, 3), smoothed), model, batch(0.1))
    with pytest.raises(ObjectiveError, match=r"batch\['options'\]\[0\] is 0.2, and was 0.1 when the program"):
        here.loss(weights(model), sample(batch(0.2)))
    with pytest.raises(ObjectiveError, match=r"batch\['options'\]\[2\] is 'b', and was 'a'"):
        here.loss(weights(model), sample(batch(0.1, "b")))
    with pytest.raises(ObjectiveError, match="its tensors are '0', '1', those exported with 'x', 'y/0'"):
        here.loss(weights(model), sample(batch_of(0)))


def test_batches_of_other_classes(tmp_path: Path) -> None:
    """What training is given may have attributes; what is replayed is plain."""
    import collections

    Pair = collections.namedtuple("Pair", "x y")

    class Attributes(dict):
        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return self[name]

    x, y = batch_of(0)
    for batch in (Pair(x, y), Attributes(x=x, y=y)):
        model = seeded(lambda: nn.Linear(4, 3))
        here = exported(tmp_path, model, lambda m, b: F.cross_entropy(m(b.x), b.y), batch)
        expected = Objective(nn.Linear(4, 3), loss_of).loss(weights(model), sample((x, y)))
        assert torch.equal(here.loss(weights(model), sample(batch)), expected)
