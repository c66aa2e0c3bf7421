"""trajcheck.runs.batch_tree: flatten and unflatten are inverse; what comes from a file is checked."""

from __future__ import annotations

import json
from collections import OrderedDict, UserDict
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trajcheck.errors import RecorderError, StepFileError
from trajcheck.runs.batch_tree import flatten, unflatten


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


def test_other_containers_become_plain_ones() -> None:
    x = tensor(1)
    assert same(unflatten(*flatten(UserDict(a=x))), {"a": x})
    assert same(unflatten(*flatten(OrderedDict(a=x))), {"a": x})
    assert same(unflatten(*flatten(Pair(x, x))), (x, x))


def test_unflatten_takes_anything_by_path() -> None:
    assert unflatten({"1": "b", "0": "a"}) == ("a", "b")


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"images": [np.zeros(2)]}, r"batch\['images'\]\[0\] is a ndarray"),
        ((object(),), r"batch\[0\] is a object"),
        ({1: tensor()}, "key 1 of type int"),
        ((float("nan"),), r"batch\[0\] is a float \(nan\)"),
        (torch.zeros(2).to_sparse(), "sparse"),
        ({"a": b"bytes"}, "bytes"),
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
        (["", "a"], None, "bare tensor"),
        (["a", "a/b"], None, "inside another"),
        (["a/b", "a"], None, "same name as a group"),
    ],
)
def test_what_a_file_says_is_checked(paths: list[str], tree: Any, message: str) -> None:
    with pytest.raises(StepFileError, match=message):
        unflatten(dict.fromkeys(paths, 0), tree)
