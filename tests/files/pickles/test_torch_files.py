"""Files of torch.save are read in place, as torch itself reads them, without torch."""

from __future__ import annotations

import argparse
from collections import Counter, OrderedDict, defaultdict, deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile_files import archive, pickled

from trajcheck.errors import StepFileError
from trajcheck.files.extent_reader import ExtentReader
from trajcheck.files.pickles.inert import Global, Inert
from trajcheck.files.pickles.tensors import StoredTensor
from trajcheck.files.pickles.torch_file import read_pickle, read_torch_file
from trajcheck.files.pickles.walking import number, plain, table
from trajcheck.files.torch_tensors import as_bytes, read_tensor, same_bytes


def saved(path: Path, value: Any, zipped: bool = True) -> Any:
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return read_torch_file(str(path)).value


def numbers(tensor: StoredTensor) -> torch.Tensor:
    with ExtentReader() as reader:
        return read_tensor(reader, tensor.extent("x"))


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_are_those_that_were_saved(tmp_path: Path, zipped: bool) -> None:
    base = torch.randn(6, 8, dtype=torch.float64)
    kept = {
        **{str(dtype): torch.arange(6).to(dtype).reshape(2, 3) for dtype in (torch.float16, torch.bfloat16)},
        **{str(dtype): torch.arange(4).to(dtype) for dtype in (torch.float32, torch.int64, torch.uint8, torch.bool)},
        "complex": torch.randn(3, dtype=torch.complex128),
        "float8": torch.arange(4).float().to(torch.float8_e4m3fn),
        "uint16": torch.arange(4).to(torch.uint16),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
        "rows": base[2:4],
        "columns": base[:, 3:5],
        "transposed": base.T,
        "one column": base[:, :1],
        "repeated": base[:1, :2].expand(5, 2),
        "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "parameter": torch.nn.Parameter(torch.randn(3)),
    }
    found = saved(tmp_path / "x.pt", kept, zipped)
    for name, tensor in kept.items():
        there = numbers(found[name])
        assert there.dtype == tensor.dtype and there.shape == tensor.shape
        assert same_bytes(there, tensor.detach().contiguous()), name
        with ExtentReader() as reader:
            middle = there.numel() // 2
            halves = [found[name].in_order(reader, *each) for each in ((0, middle), (middle, there.numel()))]
            whole = found[name].in_order(reader, 0, there.numel())
        assert b"".join(halves) == whole == bytes(as_bytes(there)), name
    assert found["parameter"].parameter and found["parameter"].requires_grad
    assert found["transposed"].extent("x").parts and not found["rows"].extent("x").parts


@pytest.mark.parametrize("protocol", [3, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_other_protocols_of_torch(tmp_path: Path, protocol: int, zipped: bool) -> None:
    value = {"w": torch.arange(3.0), "state": {0: (1, "x")}, "args": argparse.Namespace(lr=0.1)}
    torch.save(value, tmp_path / "x.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    found = read_torch_file(str(tmp_path / "x.pt")).value
    assert numbers(found["w"]).tolist() == [0, 1, 2] and found["state"] == {0: (1, "x")}


def test_tied_tensors_have_one_place(tmp_path: Path) -> None:
    weight = torch.randn(3, 4)
    found = saved(tmp_path / "x.pt", {"a": weight, "b": weight.detach(), "c": weight.clone(), "d": weight[:1]})
    places = {name: tensor.place for name, tensor in found.items()}
    assert places["a"] == places["b"] and len({*places.values()}) == 3


@pytest.mark.parametrize("zipped", [True, False])
def test_plain_values(tmp_path: Path, zipped: bool) -> None:
    tied = [1, 2]
    value = {
        "tables": [OrderedDict(a=1), defaultdict(list, {"b": [2]}), Counter("aab"), {1: "x", (1, 2): "y", None: 0.5}],
        "rows": [deque([1, 2]), {1, 2}, frozenset("a"), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), ()],
        "numbers": [0, 255, 65535, 2**31 - 1, -1, 2**100, -(2**100), 1.5, float("inf"), True, False, None, 1 - 2j],
        "texts": ["", "ü\ud800", "long" * 100, b"", b"\x00\xff", bytearray(b"ab")],
        "torch": [torch.Size([1, 2]), torch.device("cuda", 1), torch.device("cpu"), torch.float16],
        "numpy": [np.float64(2.5), np.int32(7), np.bool_(True), np.arange(6.0).reshape(2, 3), np.arange(3)[::-1]],
        "tied": [tied, tied],
    }
    value["itself"] = value
    found = saved(tmp_path / "x.pt", value, zipped)
    assert found["tables"] == [{"a": 1}, {"b": [2]}, {"a": 2, "b": 1}, {1: "x", (1, 2): "y", None: 0.5}]
    assert found["rows"] == [[1, 2], {1, 2}, frozenset("a"), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), ()]
    assert found["numbers"] == value["numbers"]
    assert found["texts"] == value["texts"]
    assert found["torch"] == [(1, 2), "cuda:1", "cpu", Global("torch", "float16")]
    assert plain(found["numpy"]) == [2.5, 7, True, [[0, 1, 2], [3, 4, 5]], [2, 1, 0]]
    assert found["tied"][0] is found["tied"][1] and found["itself"] is found


class Config(dict):
    """A table of a class of its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen = True


class Loud:
    """Whoever makes one of it hears it."""

    def __init__(self) -> None:
        self.lr = 0.5

    def __setstate__(self, state: Any) -> None:
        raise AssertionError("was called")


def test_objects_are_held_and_not_made(tmp_path: Path) -> None:
    value = {
        "args": argparse.Namespace(lr=0.1, layers=[1, 2]),
        "config": Config(depth=3),
        "loud": Loud(),
        "path": Path("/tmp/x"),
        "class": torch.nn.Linear,
        "schedule": torch.optim.lr_scheduler.StepLR,
    }
    found = saved(tmp_path / "x.pt", value)
    assert isinstance(found["args"], Inert) and found["args"].of == "argparse.Namespace"
    assert table(found["args"])["lr"] == 0.1 and plain(found["args"]) == {"lr": 0.1, "layers": [1, 2]}
    assert table(found["config"]) == {"depth": 3, "seen": True}
    assert number(found, "missing", "loud.lr") == 0.5
    assert found["class"] == Global("torch.nn.modules.linear", "Linear")


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol(tmp_path: Path, protocol: int) -> None:
    import pickle

    value = {"a": [1, 2**70, -3, 1.5, "x\n'ü", b"y", None, True, (1, 2)], "b": {1, 2}, "c": frozenset({3}), 4: {}}
    value["d"] = [argparse.Namespace(lr=0.1), value["a"]]
    (tmp_path / "x").write_bytes(pickle.dumps(value, protocol))
    found = read_pickle(str(tmp_path / "x"))
    assert found["a"] == value["a"] and found["b"] == {1, 2} and found["c"] == {3} and found[4] == {}
    assert table(found["d"][0]) == {"lr": 0.1} and found["d"][1] is found["a"]


def test_a_file_within_another(tmp_path: Path) -> None:
    torch.save(torch.arange(3.0), tmp_path / "x.pt")
    data = (tmp_path / "x.pt").read_bytes()
    (tmp_path / "many").write_bytes(b"before" + data + b"behind")
    found = read_torch_file(str(tmp_path / "many"), 6, len(data)).value
    assert numbers(found).tolist() == [0, 1, 2]


def test_state_dicts_by_their_places(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    torch.save(
        {"model": model.state_dict(), "epoch": 3, "extra": {"deep": {"ema": model.state_dict()}}}, tmp_path / "x"
    )
    file = read_torch_file(str(tmp_path / "x"))
    assert {place: [*found] for place, found in file.state_dicts().items()} == {
        "model": ["weight", "bias"],
        "extra.deep.ema": ["weight", "bias"],
    }
    assert file.find("iter_num", "epoch") == 3


def test_what_is_refused_says_what_to_do(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    torch.save(model, tmp_path / "module.pt")
    with pytest.raises(StepFileError, match=r"a pickled module, torch.*Linear, .*torch.save\(model.state_dict"):
        read_torch_file(str(tmp_path / "module.pt")).state_dicts()
    torch.save({"epoch": 1, "model": model, "ema": torch.nn.ReLU()}, tmp_path / "yolo.pt")
    with pytest.raises(StepFileError, match=r"under 'model' torch.*Linear and under 'ema'.* there are 'epoch'\."):
        read_torch_file(str(tmp_path / "yolo.pt")).state_dicts()
    torch.save({"epoch": 1}, tmp_path / "none.pt")
    with pytest.raises(StepFileError, match=r"holds no state dict.*found a table of 'epoch'"):
        read_torch_file(str(tmp_path / "none.pt")).state_dicts()
    archive(tmp_path / "program.pt", pickled(b"N"), {"constants.pkl": pickled(b")")})
    with pytest.raises(StepFileError, match="TorchScript"):
        read_torch_file(str(tmp_path / "program.pt"))
    torch.save(
        {"w": torch.randn(64, 64, 3, 3).to(memory_format=torch.channels_last), "z": torch.randn(2) + 1j}, tmp_path / "o"
    )
    kept = read_torch_file(str(tmp_path / "o")).value
    with pytest.raises(StepFileError, match=r"tensor 'w' .* channels last: .* Save tensor.contiguous\(\)"):
        kept["w"].extent("w")
    torch.save({"z": torch.randn(2, dtype=torch.complex64).conj()}, tmp_path / "c")
    with pytest.raises(StepFileError, match="the conjugate of what is stored"):
        read_torch_file(str(tmp_path / "c")).value["z"].extent("z")
