"""Record the runs of this folder anew: python sample_checkpoints/make.py OUTPUT_FOLDER (about ten seconds).

Needs scikit-learn: pip install "trajcheck[samples]".
"""

from __future__ import annotations

import argparse
import inspect
import math
from pathlib import Path

import torch
from objectives import CONTEXT, breast_cancer, digits, transformer

from trajcheck.recording.recorder import Recorder
from trajcheck.recording.schedule.schedules import Every, Pairs


def record_digits(folder: Path, seed: int, steps: int = 120) -> None:
    """Plain SGD at a constant rate, minibatches of 32, every step; ten batches are set aside as the probe."""
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels, labels = torch.tensor(data.data, dtype=torch.uint8), torch.tensor(data.target)
    trained = len(labels) - 10 * 32
    probe = list(zip(pixels[trained:].split(32), labels[trained:].split(32), strict=True))
    torch.manual_seed(seed)
    model, loss_of = digits()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    recorder = Recorder(folder, model, optimizer, loss_of, schedule=Every(1), total_steps=steps, strict=True)
    with recorder:
        recorder.probe(probe)
        for _ in range(steps):
            chosen = torch.randperm(trained)[:32]
            batch = (pixels[chosen], labels[chosen])
            loss = loss_of(model, batch)
            loss.backward()
            recorder.observe(batch, loss)
            optimizer.step()
            optimizer.zero_grad()


def record_breast_cancer(folder: Path, steps: int = 150) -> None:
    """Gradient descent on the whole data set, in float64, every step."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    features = torch.tensor(data.data, dtype=torch.float64)
    features = (features - features.mean(0)) / features.std(0)
    batch = (features, torch.tensor(data.target, dtype=torch.float64))
    torch.manual_seed(0)
    model, loss_of = breast_cancer()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    recorder = Recorder(folder, model, optimizer, loss_of, schedule=Every(1), total_steps=steps, strict=True)
    with recorder:
        for _ in range(steps):
            loss = loss_of(model, batch)
            loss.backward()
            recorder.observe(batch, loss)
            optimizer.step()
            optimizer.zero_grad()


def record_transformer(folder: Path, steps: int = 400) -> None:
    """AdamW, cosine rate, dropout, on the source of Python's argparse; pairs of steps, and a probe of eight batches."""
    text = torch.tensor(list(inspect.getsource(argparse).encode()), dtype=torch.uint8)
    torch.manual_seed(0)
    model, loss_of = transformer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.01)
    cosine = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
    trained = len(text) - 8 * 16 * (CONTEXT + 1)
    probe = text[trained:].view(8, 16, CONTEXT + 1).unbind()
    recorder = Recorder(folder, model, optimizer, loss_of, schedule=Pairs(50), total_steps=steps, strict=True)
    with recorder:
        recorder.probe(probe)
        for _ in range(steps):
            starts = torch.randint(trained - CONTEXT, (16, 1))
            batch = text[starts + torch.arange(CONTEXT + 1)]
            loss = loss_of(model, batch)
            loss.backward()
            recorder.observe(batch, loss)
            optimizer.step()
            optimizer.zero_grad()
            cosine.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help="folder for the runs; must not hold them yet")
    output = parser.parse_args().output
    torch.set_num_threads(1)
    record_digits(output / "digits-sgd-seed0", seed=0)
    record_digits(output / "digits-sgd-seed1", seed=1)
    record_breast_cancer(output / "breast-cancer-gd")
    record_transformer(output / "transformer-adamw")


if __name__ == "__main__":
    main()
