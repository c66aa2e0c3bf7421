"""A recording belongs to the process that made it: a forked child trains on unrecorded, and is told so once."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from loops import batch_of, loss_of, network, sgd, train
from torch.utils.data import DataLoader

from trajcheck import Recorder

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


def file_names(run: Path) -> list[str]:
    return sorted(path.name for path in run.iterdir())


def in_child(work: Callable[[], str]) -> str:
    """What a forked child says; it has ten seconds."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)  # where it hangs
        try:
            os.write(writing, work().encode())
        except BaseException as error:
            os.write(writing, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as said:
        text = said.read()
    os.waitpid(pid, 0)
    return text


def test_the_child_trains_on_and_the_run_is_the_parents(tmp_path: Path) -> None:
    model, plain = network(), network()
    optimizer = sgd(model)
    recorder = Recorder(tmp_path / "run", model, optimizer, every=1, quiet=True)
    train(model, optimizer, 3, recorder)

    def child() -> str:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            train(model, optimizer, range(3, 6), recorder)
            recorder.state_dict()
            recorder.close()
        return " / ".join(str(each.message) for each in caught)

    said = in_child(child)
    assert said.count("this process was forked from the one that records") == 1
    assert " / " not in said
    train(model, optimizer, range(3, 5), recorder)
    recorder.close()
    with Recorder(tmp_path / "plain", plain, other := sgd(plain), every=1, quiet=True) as whole:
        train(plain, other, 5, whole)
    assert file_names(tmp_path / "run") == file_names(tmp_path / "plain")


def test_workers_of_a_loader_neither_warn_nor_wait(tmp_path: Path) -> None:
    model = network()
    optimizer = sgd(model)
    data = [batch_of(step) for step in range(2)]
    with warnings.catch_warnings(), Recorder(tmp_path, model, optimizer, every=1, quiet=True) as recorder:
        warnings.simplefilter("error")
        for inputs, targets in DataLoader(data, batch_size=None, num_workers=1):  # type: ignore[arg-type]
            loss = loss_of(model, (inputs, targets))
            loss.backward()
            recorder.observe((inputs, targets), loss)
            optimizer.step()
            optimizer.zero_grad()
    assert recorder.step == 2
    assert torch.isfinite(loss)
