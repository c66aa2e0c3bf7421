"""Edits through `.data`, which raise no version, far from any record: each kind, at a random step, is noticed there.

Which steps those are is told by whole copies that the test makes after every step and before the next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from trajcheck.recording.model.content_prints import Difference
from trajcheck.recording.model.recorded_model import Parameter, RecordedModel
from trajcheck.recording.step import content_samples
from trajcheck.recording.step.content_samples import ContentSamples
from trajcheck.recording.step.unseen_updates import UnseenUpdates

Edit = Callable[[Tensor, torch.Generator], None]
STEPS = 12


def somewhere(size: int, stream: torch.Generator) -> int:
    return int(torch.randint(size, (), generator=stream))


def scaled(values: Tensor, stream: torch.Generator) -> None:
    values.mul_(0.9)


def copied(values: Tensor, stream: torch.Generator) -> None:
    values.copy_(torch.randn(values.shape, generator=stream))


def row(values: Tensor, stream: torch.Generator) -> None:
    values[somewhere(len(values), stream)].zero_()


def column(values: Tensor, stream: torch.Generator) -> None:
    values[..., somewhere(values.shape[-1], stream)] += 0.2


def clamped(values: Tensor, stream: torch.Generator) -> None:
    values.clamp_(-0.01, 0.01)


EDITS: list[Edit] = [scaled, copied, row, column, clamped]
#: The tensor that is edited: a square matrix, a wide one, a tall one whose rows are more than are read at once, a
#: convolution in another memory format, one that is a view of every other row, a vector, half precision.
TENSORS: dict[str, Callable[[], Tensor]] = {
    "square": lambda: torch.randn(80, 80),
    "wide": lambda: torch.randn(20, 700),
    "tall": lambda: torch.randn(700, 20),
    "channels last": lambda: torch.randn(24, 16, 3, 3).to(memory_format=torch.channels_last),
    "apart": lambda: torch.randn(120, 40)[::2],
    "bias": lambda: torch.randn(300),
    "bfloat16": lambda: torch.randn(64, 64).to(torch.bfloat16),
}


def parameters(tensor: Tensor) -> list[Parameter]:
    """Of a model that has this one among others."""
    model = nn.Sequential(nn.Linear(90, 40), nn.LayerNorm(40), nn.Linear(40, 3))
    model.register_parameter("edited", nn.Parameter(tensor))
    return RecordedModel(model, torch.optim.SGD(model.parameters(), lr=0.1)).stored


def follow(unseen: UnseenUpdates, found: list[Parameter], edits: Mapping[int, Callable[[], object]]) -> list[int]:
    """Steps of noise with edits after some; the steps at which parameters were others than the step before left."""
    moved = []
    left: list[Tensor] = []
    for step in range(STEPS):
        if left and any(not torch.equal(p.source, old) for p, old in zip(found, left, strict=True)):
            moved.append(step)
        unseen.arrives(step, content=False)
        with torch.no_grad():
            for p in found:
                p.source.add_(torch.randn_like(p.source), alpha=0.01)
        unseen.left(content=False)
        left = [p.source.detach().clone() for p in found]
        edits.get(step, lambda: None)()
    unseen.take()
    return moved


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("edit", EDITS)
def test_one_edit_at_a_random_step_is_noticed_there(name: str, edit: Edit) -> None:
    for seed in range(3):
        torch.manual_seed(seed)
        stream = torch.Generator().manual_seed(seed)
        found = parameters(TENSORS[name]())
        edited = next(p for p in found if p.name == "edited").source
        when = 1 + somewhere(STEPS - 2, stream)
        unseen = UnseenUpdates(found)
        moved = follow(unseen, found, {when: partial(edit, edited.data, stream)})
        assert moved == [when + 1]
        assert (unseen.all.times, unseen.all.first, list(unseen.all.names)) == (1, when + 1, ["edited"]), (edit, seed)


def test_edits_that_come_again_are_counted_one_by_one() -> None:
    """Single elements of large tensors: unseen until one of them is met, and all from then on."""
    torch.manual_seed(0)
    stream = torch.Generator().manual_seed(1)
    found = parameters(torch.randn(80, 80))
    edited = next(p for p in found if p.name == "edited").source
    unseen = UnseenUpdates(found)

    def element() -> None:
        edited.data.view(-1)[somewhere(edited.numel(), stream)] += 0.1

    moved = follow(unseen, found, {2: lambda: edited.data.mul_(0.5), **dict.fromkeys(range(3, STEPS), element)})
    assert moved == list(range(3, STEPS))
    assert (unseen.all.times, unseen.all.first, unseen.all.last) == (len(moved), 3, STEPS - 1)


def test_a_model_of_many_small_matrices_is_gone_through_in_turn() -> None:
    """Rows that are edited again and again are noticed within one rotation, whole tensors at once."""
    tensors = {f"{n}": torch.randn(40, 40) for n in range(22)}
    samples = ContentSamples(tensors)
    samples.look()
    turns = -(-len(tensors) // content_samples.AT_LEAST)
    for name in tensors:
        row_seen = whole_seen = 0
        for _ in range(turns):
            before, held = samples.next(), tensors[name].clone()
            tensors[name][7] += 1
            row_seen += (difference := samples.differ(before, samples.again())) is not None
            assert difference is None or difference.names == [name]
            tensors[name] += 1
            whole = samples.differ(before, samples.again())
            whole_seen += whole is not None and whole.names == [name]
            tensors[name].copy_(held)
        assert (row_seen, whole_seen) == (1, turns), name


def test_every_row_and_column_is_read_at_once() -> None:
    """Of a matrix with fewer rows than are read at once, from wherever it is begun; of one with more, in turn."""
    for rows, columns in ((50, 30), (1, 2000), (2000, 1), (3, 700), (900, 2)):
        tensor = torch.zeros(rows, columns)
        samples = ContentSamples({"w": tensor})
        samples.look()
        for _ in range(content_samples.STARTS):
            before = samples.next()
            places = [(tensor, i) for i in range(rows)] + [(tensor.T, i) for i in range(columns)]
            for matrix, i in places[:: 1 + len(places) // 20]:
                matrix[i] = 1.0
                assert samples.differ(before, samples.again()) is not None, (rows, columns, i)
                matrix[i] = 0.0


def test_rounding_is_no_move_and_nan_is_told_once() -> None:
    def names(before: Tensor, now: Tensor) -> list[str]:
        tensor = before.clone()
        samples = ContentSamples({"w": tensor, "other": torch.randn(3)})
        samples.look()
        old = samples.next()
        tensor.copy_(now)
        difference = samples.differ(old, samples.again())
        return [] if difference is None else difference.names

    before = torch.randn(50)
    assert names(before, before) == []
    assert names(before, (before + 0.3) - 0.3) == []
    assert names(before, before * 1.001) == ["w"]
    half = before.to(torch.bfloat16)
    assert names(half, (half + 0.3) - 0.3) == []
    assert names(half, half * 0.9) == ["w"]
    broken = before.clone()
    broken[3] = torch.nan
    assert names(before, broken) == names(broken, before) == ["w"]
    assert names(broken, broken) == []


def test_values_that_are_put_elsewhere_are_read_there_and_let_go() -> None:
    """A step that replaces `.data` is no edit; the memory that it gives up is not kept."""
    found = parameters(torch.randn(80, 80))
    unseen = UnseenUpdates(found)
    for step in range(6):
        unseen.arrives(step, content=False)
        before = [p.source.data for p in found]
        for p in found:
            p.source.data = p.source.data * 0.99
        unseen.left(content=False)
        assert unseen._samples is not None
        if step:  # from then on it is known
            views = [*unseen._samples._kinds[0]._always, *unseen._samples._kinds[0]._now]
            held = {view.untyped_storage().data_ptr() for view in views}
            assert not held & {old.untyped_storage().data_ptr() for old in before}
    unseen.take()
    assert unseen.all.times == 0
    found[0].source.data = found[0].source.data.clone()  # elsewhere, and the same
    unseen.arrives(6, content=False)
    unseen.take()
    assert unseen.all.times == 0


def test_flags_of_a_device_are_read_at_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a device tells it: nothing is read between records."""
    monkeypatch.setattr(content_samples, "_surely_equal", lambda before, now: False)
    monkeypatch.setattr(Difference, "at_hand", False)
    found = parameters(torch.randn(80, 80))
    unseen = UnseenUpdates(found)
    unseen.left(content=False)
    for step in range(1, 10):
        with monkeypatch.context() as patch:
            for name in ("item", "tolist", "cpu", "__bool__", "__float__", "__int__"):
                patch.setattr(Tensor, name, lambda *_: 1 / 0)
            unseen.arrives(step, content=False)
            unseen.left(content=False)
        if step in (3, 7):
            for each in found:
                each.source.data.mul_(0.5)
    unseen.take()
    assert (unseen.all.times, unseen.all.first, unseen.all.last) == (2, 4, 8)


def test_prints_tell_where_content_changed() -> None:
    found = parameters(torch.randn(4, 4))
    unseen = UnseenUpdates(found)
    before = unseen.prints.now()
    found[2].source.data[1] += 0.01
    difference = unseen.prints.differ(before, unseen.prints.now())
    assert bool(difference.anywhere)
    assert difference.names == [found[2].name]
