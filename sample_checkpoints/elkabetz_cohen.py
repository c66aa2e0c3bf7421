"""How far is gradient descent from gradient flow? The figure of Elkabetz and Cohen (arXiv 2107.06608), from real runs.

    python sample_checkpoints/elkabetz_cohen.py FOLDER        (about a minute)

Gradient descent with all of 300 images at every step, for a linear, a ReLU and a convolutional network, each from one
init at the rates eta, eta/2, eta/5, eta/10, eta/20 and for the same time tau = sum of rates. The smaller the rate, the
nearer a run is to the flow: eta's run is near it where its distance from the others is small beside the distance that
it went.

FOLDER then holds the runs, in runs/<network>/, the comparison of eta's run with the others at equal tau, in
compare/<network>/, and figure.png: a row for each network; on the left the losses, on the right the distance of eta's
run from the init and from the others. Runs that are there already are used again. The functions `linear`, `relu` and
`convolutional` are objectives, as in `--objective sample_checkpoints/elkabetz_cohen.py:relu`.

Needs scikit-learn (pip install "trajcheck[samples]"), and matplotlib for the figure.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import trajcheck

if TYPE_CHECKING:
    import pandas as pd

Objective = tuple[nn.Module, Callable[[nn.Module, Any], Tensor]]
Batch = tuple[Tensor, Tensor]

#: eta, and its divisors: eta, eta/2, ...
RATE = 0.15
DIVISORS = (1, 2, 5, 10, 20)

#: Okabe and Ito's, told apart by all readers.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")
#: Updates of eta's run; that of eta/k makes k times as many, and records every k-th.
STEPS = 100
IMAGES = 300


def linear() -> Objective:
    """Three linear layers, 64-32-32-10; a batch is (pixels 0..1 [n, 64], labels [n]), everything in float64."""
    return _double(nn.Linear(64, 32), nn.Linear(32, 32), nn.Linear(32, 10)), _loss


def relu() -> Objective:
    """The same with ReLU between the layers."""
    return _double(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)), _loss


def convolutional() -> Objective:
    """Two convolutions of stride 2 with ReLU, and a linear layer."""
    return _double(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 10),
    ), _loss


NETWORKS: dict[str, Callable[[], Objective]] = {"linear": linear, "relu": relu, "convolutional": convolutional}

PERMUTATIONS = {
    "linear": {
        "one": [("0.weight", 0), ("0.bias", 0), ("1.weight", 1)],
        "two": [("1.weight", 0), ("1.bias", 0), ("2.weight", 1)],
    },
    "relu": {
        "one": [("0.weight", 0), ("0.bias", 0), ("2.weight", 1)],
        "two": [("2.weight", 0), ("2.bias", 0), ("4.weight", 1)],
    },
    "convolutional": {
        "one": [("1.weight", 0), ("1.bias", 0), ("3.weight", 1)],
        "two": [("3.weight", 0), ("3.bias", 0), ("6.weight", 1, 4)],  # 2 x 2 places of each channel
    },
}


def _double(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers).double()


def _loss(model: nn.Module, batch: Batch) -> Tensor:
    pixels, labels = batch
    return F.cross_entropy(model(pixels), labels)


def digits() -> Batch:
    """The full batch: the first IMAGES digits."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return torch.tensor(data.data[:IMAGES] / 16), torch.tensor(data.target[:IMAGES])


def record(folder: Path, objective: Objective, batch: Batch, rate: float, divisor: int, steps: int) -> None:
    """Gradient descent at rate / divisor for `steps` * `divisor` updates from the model as it is, recorded at the times
    tau = 0, rate, 2 rate, ..., the full batch once."""
    model, loss_of = objective
    optimizer = torch.optim.SGD(model.parameters(), lr=rate / divisor)
    total = steps * divisor
    with trajcheck.Recorder(
        folder, model, optimizer, every=divisor, total_steps=total, strict=True, quiet=True
    ) as recorder:
        for _ in range(total):
            loss = loss_of(model, batch)
            loss.backward()
            recorder.observe(batch, loss)
            optimizer.step()
            optimizer.zero_grad()


def record_all(folder: Path, network: str, batch: Batch, steps: int = STEPS) -> list[Path]:
    """The runs of one network, that of eta first; each from the same init."""
    runs = []
    for divisor in DIVISORS:
        runs.append(folder / network / f"eta-over-{divisor}")
        if not runs[-1].exists():
            torch.manual_seed(0)
            record(runs[-1], NETWORKS[network](), batch, RATE, divisor, steps)
    return runs


def draw(pairs: Mapping[str, pd.DataFrame], path: Path) -> None:
    """A row for each network, from the rows of its compare.csv: losses; distances from the init and between runs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(pairs), 2, figsize=(10, 3 * len(pairs)), squeeze=False, sharex="row")
    for (network, frame), (losses, distances) in zip(pairs.items(), axes, strict=True):
        others = list(frame.groupby("run_b", sort=False))
        first = others[0][1]
        losses.plot(first["tau_a"], first["loss_a"], color="black", label="eta")
        from_init = first["init_dist_a"].where(first["init_dist_a"] > 0)
        distances.plot(first["tau_a"], from_init, color="black", label="eta from the init")
        for (_, rows), divisor, color in zip(others, DIVISORS[1:], COLORS, strict=True):
            losses.plot(rows["tau_a"], rows["loss_b"], color=color, linestyle="--", label=f"eta/{divisor}")
            apart = rows["dist"].where(rows["dist"] > 0)  # runs begin at one point
            distances.plot(rows["tau_a"], apart, color=color, label=f"eta from eta/{divisor}")
        losses.set(ylabel=f"{network}: loss", yscale="log")
        distances.set(ylabel="distance", yscale="log")
        for axis in (losses, distances):
            axis.set(xlabel=f"time tau (eta = {RATE:g})")
            axis.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder for the runs, the comparisons and the figure")
    folder = parser.parse_args().folder
    torch.set_num_threads(1)
    batch, pairs = digits(), {}
    for network in NETWORKS:
        runs = record_all(folder / "runs", network, batch)
        report = trajcheck.compare(*runs, align="time", out=folder / "compare" / network)
        pairs[network] = report.pairs
        last = report.pairs.groupby("run_b", sort=False).last()
        print(f"{network}: eta's run ended {last['init_dist_a'].iloc[0]:.3g} from the init and")
        for divisor, apart in zip(DIVISORS[1:], last["dist"], strict=True):
            print(f"    {apart:8.3g} from that of eta/{divisor}")
    try:
        draw(pairs, folder / "figure.png")
    except ModuleNotFoundError as error:
        print(f"no figure: {error}; install matplotlib, and run this again. The tables are in {folder / 'compare'}.")
    else:
        print(folder / "figure.png")


if __name__ == "__main__":
    main()
