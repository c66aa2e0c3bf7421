"""Other storages, through fsspec, and single files over HTTP; which paths are addresses at all."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from hf_archives import in_tar, write_weights
from safetensors.numpy import save_file

import trajcheck
from trajcheck.cli.parameters import archive_path, named_path
from trajcheck.commands.inspect.command import inspect
from trajcheck.errors import RunError, UsageError
from trajcheck.files.remote import ranges
from trajcheck.files.remote.address import as_address, as_path, folder_name, is_remote
from trajcheck.files.remote.file import forget
from trajcheck.files.remote.opening import forget_listings

STEPS = (1, 2, 30)


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    forget()
    forget_listings()
    monkeypatch.setattr(ranges, "PAUSE", 0.001)


@pytest.fixture
def points() -> dict[int, dict[str, np.ndarray]]:
    stream = np.random.default_rng(0)
    return {step: {"w": stream.normal(size=(90, 100)), "b": stream.normal(size=90)} for step in STEPS}


def test_what_is_an_address() -> None:
    assert all(map(is_remote, ("hf://a/b@step*", "hf:/a/b", "s3://bucket/run", "https://host/run.tar")))
    assert not any(map(is_remote, ("hf:", "./hf:/a", "C:/run", "runs/hf://a", "file:///run", "ftp2://x/y", "hf:///a")))
    path = as_path("s3://bucket/run")
    assert str(path) == "s3://bucket/run" and as_address(Path(path)) == str(path) == str(as_path(Path(path)))
    assert folder_name("hf://org/name@step*") == "org--name@step"
    assert folder_name("https://host/a/../../run.tar?key=secret") == "host--a--run.tar"
    assert str(archive_path("hf://a/b")) == "hf://a/b"
    with pytest.raises(UsageError, match=r"s3://bucket/out: expected a folder or file of this machine"):
        named_path("s3://bucket/out")


@pytest.mark.parametrize("kind", ["safetensors", "torch", "folders"])
def test_a_bucket(kind: str, points: dict[int, dict[str, np.ndarray]], tmp_path: Path) -> None:
    for step, tensors in points.items():
        if kind == "torch":
            torch.save({name: torch.tensor(value) for name, value in tensors.items()}, tmp_path / f"ckpt-{step}.pt")
        elif kind == "folders":
            write_weights(tmp_path / f"step{step}", tensors)
        else:
            save_file(tensors, tmp_path / f"step_{step}.safetensors")
    bucket, address = fsspec.filesystem("memory"), f"memory://{kind}/run"
    bucket.put(str(tmp_path) + "/", f"/{kind}/run", recursive=True)
    here = trajcheck.analyze(tmp_path, out=tmp_path / "here")
    there = trajcheck.analyze(address, out=tmp_path / "there")
    for name in ("steps.csv", "references.csv"):
        assert (there.folder / name).read_bytes() == (here.folder / name).read_bytes()
    assert there.steps["step"].tolist() == list(STEPS)


def test_no_such_place_and_no_such_storage() -> None:
    with pytest.raises(RunError, match="memory://nowhere: there is no such file"):
        inspect("memory://nowhere")
    with pytest.raises(RunError, match=r"s3://bucket/run: cannot be read: .*s3fs"):
        inspect("s3://bucket/run")


class _Ranges(BaseHTTPRequestHandler):
    content = b""

    def log_message(self, *args: object) -> None:
        return

    def do_GET(self) -> None:
        first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        data = self.content[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{first + len(data) - 1}/{len(self.content)}")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def tar(points: dict[int, dict[str, np.ndarray]], tmp_path: Path) -> Path:
    for step, tensors in points.items():
        write_weights(tmp_path / "run" / f"step{step}", tensors)
    return in_tar(tmp_path / "run", tmp_path / "run.tar")


@pytest.fixture
def url(tar: Path) -> Iterator[str]:
    handler = type("Handler", (_Ranges,), {"content": tar.read_bytes()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/run.tar"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_tar_file_over_http(url: str, tar: Path, tmp_path: Path) -> None:
    here = trajcheck.analyze(tar, out=tmp_path / "here")
    there = trajcheck.analyze(url, out=tmp_path / "there")
    assert (there.folder / "references.csv").read_bytes() == (here.folder / "references.csv").read_bytes()
    assert there.steps["step"].tolist() == list(STEPS)
