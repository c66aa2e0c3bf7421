"""trajcheck.runs.batch_tree: flatten and unflatten are inverse; what comes from a file is checked."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections import OrderedDict, UserDict
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_packed_sequence

from trajcheck.errors import RecorderError, StepFileError
from trajcheck.runs.batch_containers import AttributeDict, FieldTuple
from trajcheck.runs.batch_flattening import flatten, together
from trajcheck.runs.batch_restoring import unflatten


def tensor(i: int = 0) -> Tensor:
    return torch.tensor([i])


keys = st.text("ab01/_", max_size=3)
leaves = st.one_of(
    st.integers(0, 9).map(tensor),
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=3),
)
batches = st.recursive(
    leaves,
    lambda children: st.one_of(
        st.lists(children, max_size=3),
        st.lists(children, max_size=3).map(tuple),
        st.dictionaries(keys, children, max_size=3),
    ),
    max_leaves=12,
)


def same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@given(batches)
def test_round_trip(batch: Any) -> None:
    tensors, tree = flatten(batch)
    assert all(isinstance(value, Tensor) for value in tensors.values())
    reordered = dict(sorted(tensors.items()))  # a file may hold them in any order
    assert same(unflatten(reordered, json.loads(json.dumps(tree, allow_nan=False))), batch)


def test_plain_batches_need_no_tree() -> None:
    x, y = tensor(1), tensor(2)
    assert flatten(x) == ({"": x}, None)
    assert flatten((x, y)) == ({"0": x, "1": y}, None)
    assert flatten({"input_ids": x, "more": (x, {"deep": y})}) == (
        {"input_ids": x, "more/0": x, "more/1/deep": y},
        None,
    )
    long = tuple(tensor(i) for i in range(12))
    assert same(unflatten(dict(sorted(flatten(long)[0].items()))), long)


@pytest.mark.parametrize(
    "batch",
    [
        [tensor()],
        {"0": tensor()},
        {"a/b": tensor()},
        {"": tensor()},
        (tensor(), None),
        {"a": tensor(), "b": {}},
        {},
        (),
    ],
)
def test_less_plain_batches_have_a_tree(batch: Any) -> None:
    tensors, tree = flatten(batch)
    assert tree is not None
    assert same(unflatten(tensors, tree), batch)


def test_keys_that_would_collide() -> None:
    batch = {"a/b": tensor(1), "a": {"b": tensor(2)}, "a_b": tensor(3)}
    tensors, tree = flatten(batch)
    assert len(tensors) == 3
    assert same(unflatten(tensors, tree), batch)


class Pair(NamedTuple):
    x: Tensor
    y: Tensor


def restored(batch: Any) -> Any:
    """By way of JSON, as in a file, and flattened once more: the trees agree."""
    tensors, tree = flatten(batch)
    whole = unflatten(tensors, json.loads(json.dumps(tree, allow_nan=False)))
    assert flatten(whole)[1] == tree
    return whole


@dataclasses.dataclass
class Example:
    x: Tensor
    names: list[str]


class Custom:
    """As the documentation of DataLoader has it."""

    def __init__(self) -> None:
        self.inputs, self.target = tensor(1), tensor(2)


def test_mappings_and_objects_come_back_as_their_fields() -> None:
    x = tensor(1)
    encoding = restored(UserDict(a=x, b=[1]))
    assert isinstance(encoding, AttributeDict) and same(dict(encoding), {"a": x, "b": [1]})
    assert encoding.a is encoding["a"] and encoding.to("cpu") is encoding
    with pytest.raises(AttributeError, match="no 'c'; it has 'a', 'b'"):
        encoding.c  # noqa: B018
    assert type(restored(OrderedDict(a=x))) is dict
    pair = restored(Pair(x, tensor(2)))
    first, second = pair
    assert isinstance(pair, FieldTuple) and torch.equal(pair.x, x) and pair.y is second and pair[0] is first
    assert pair._fields == ("x", "y") and same(pair._asdict(), {"x": x, "y": tensor(2)})
    assert same(copy.deepcopy(pair).y, tensor(2))
    example = restored(Example(x, ["a"]))
    assert torch.equal(example.x, x) and example["names"] == ["a"] and "x" in example
    assert torch.equal(restored(Custom()).target, tensor(2))


def test_values_come_back_as_they_were() -> None:
    values = [math.inf, -math.inf, 1 + 2j, b"\x00\xff", {1, 2}, frozenset({"a"}), {3: "c", (1, "a"): None, True: 0}]
    assert restored(values) == values
    assert math.isnan(restored([math.nan])[0])
    for number in (np.float32(0.1), np.int64(2**40), np.bool_(True), np.float16(0.5), np.complex64(1j), np.uint8(7)):
        [back] = restored([number])
        assert back == number and type(back) is type(number)
    arrays = [
        np.arange(6).reshape(2, 3)[:, ::-1],
        np.ones(2, ">f4"),
        np.array(["a b", "é"]),
        np.full(1, np.nan),
    ]
    for array, back in zip(arrays, restored(arrays), strict=True):
        np.testing.assert_array_equal(back, array)
        assert back.dtype.kind == array.dtype.kind and back.shape == array.shape
    batch = {3: tensor(3), "3": tensor(4), (3,): tensor(5)}
    assert same(restored(batch), batch)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_sequences_of_several_lengths_come_back() -> None:
    sequences = [torch.randn(n, 2) for n in (2, 4, 1)]
    packed = pack_sequence(sequences, enforce_sorted=False)
    back = restored({"x": packed})["x"]
    assert isinstance(back, PackedSequence)
    assert same(pad_packed_sequence(back)[0], pad_packed_sequence(packed)[0])
    for layout in (torch.strided, torch.jagged):
        nested = torch.nested.nested_tensor(sequences, layout=layout)
        [back] = restored([nested])
        assert back.is_nested and back.layout is layout
        assert all(torch.equal(a, b) for a, b in zip(back.unbind(), sequences, strict=True))


def test_several_batches_together_are_as_the_tuple_of_them() -> None:
    batches = [(tensor(1), tensor(2)), {"x": np.arange(2), "t": ["a"]}, tensor(3)]
    assert together([flatten(batch) for batch in batches])[1] == flatten(tuple(batches))[1]
    plain = [tensor(1), tensor(2)]
    assert together([flatten(each) for each in plain]) == flatten(tuple(plain))


def test_unflatten_takes_anything_by_path() -> None:
    assert unflatten({"1": "b", "0": "a"}) == ("a", "b")


looped: list[Any] = []
looped.append(looped)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"images": [np.array([object()])]}, r"batch\['images'\]\[0\] is a numpy array of dtype object"),
        ((object(),), r"batch\[0\] is a object"),
        (Example(tensor(), [len]), r"batch.names\[0\] is a builtin_function_or_method"),  # type: ignore[list-item]
        ({1: nn.Linear(1, 1)}, r"batch\[1\] is a Linear"),
        ({tensor(): 1}, r"batch has a key of type Tensor"),
        (looped, "nested more than 40 levels deep"),
        (torch.zeros(2).to_sparse(), "sparse"),
    ],
)
def test_what_cannot_be_stored_is_named(batch: Any, message: str) -> None:
    with pytest.raises(RecorderError, match=message):
        flatten(batch)


nested: Any = {"value": 1}
for _ in range(5000):
    nested = {"list": [nested]}


@pytest.mark.parametrize(
    ("paths", "tree", "message"),
    [
        (["a"], {"tensor": "b"}, "'b'"),
        (["a"], {"tensor": 3}, "expected an object"),
        (["a"], {"tensor": "a", "value": 1}, "expected an object"),
        (["a"], [{"tensor": "a"}], "expected an object"),
        (["a"], {"list": {"a": 1}}, "expected an object"),
        (["a"], {"dict": [1]}, "expected an object"),
        (["a"], {"value": {"x": 1}}, "expected an object"),
        (["a"], {"class": "os.system"}, "expected an object"),
        (["a"], nested, "nested too deeply"),
        (["a"], {"float": "1e9"}, "expected an object"),
        (["a"], {"named": [["x"]]}, "expected an object"),
        (["a"], {"items": [[{"tensor": "a"}, {"value": 1}, {"value": 2}]]}, "expected an object"),
        (["a"], {"items": [[{"list": []}, {"value": 1}]]}, "a items that cannot be restored"),
        (["a"], {"scalar": ["object", {"value": 1}]}, "expected an object"),
        (["a"], {"array": "b"}, "'b'"),
        (["a"], {"bytes": "@"}, "a bytes that cannot be restored"),
        (["a"], {"texts": {"shape": [3], "items": ["x"]}}, "1 texts for the shape"),
        (["a"], {"packed": {"data": {"tensor": "a"}}}, "expected an object"),
        (["a"], {"nested": {"sparse": []}}, "expected an object"),
        (["", "a"], None, "bare tensor"),
        (["a", "a/b"], None, "inside another"),
        (["a/b", "a"], None, "same name as a group"),
    ],
)
def test_what_a_file_says_is_checked(paths: list[str], tree: Any, message: str) -> None:
    with pytest.raises(StepFileError, match=message):
        unflatten(dict.fromkeys(paths, 0), tree)


def test_a_packed_sequence_of_a_file_is_checked() -> None:
    tree = {
        "packed": {
            "data": {"tensor": "data"},
            "batch_sizes": {"tensor": "sizes"},
            "sorted_indices": {"value": None},
            "unsorted_indices": {"value": None},
        }
    }
    rows = torch.randn(3, 2)
    assert isinstance(unflatten({"data": rows, "sizes": torch.tensor([2, 1])}, tree), PackedSequence)
    for sizes in (torch.tensor([1, 2]), torch.tensor([4]), torch.tensor([3, 0]), torch.tensor([3.0])):
        with pytest.raises(StepFileError, match="a packed that cannot be restored"):
            unflatten({"data": rows, "sizes": sizes}, tree)
