"""Real data that packages ship: scikit-learn's tables and images, and the text of Python's own documentation."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Data(NamedTuple):
    """What is trained on, and what is held aside for the probe: tensors whose rows are examples, a pair or one."""

    trained: tuple[Tensor, ...]
    aside: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.trained[0])

    def batch(self, rows: Tensor | None = None) -> Tensor | tuple[Tensor, ...]:
        """The examples of these rows; all of them where none are given."""
        return _plain(self.trained if rows is None else tuple(part[rows] for part in self.trained))

    def probe(self, batches: int, most: int = 64) -> list[Tensor | tuple[Tensor, ...]]:
        """So many batches of equal size, of `most` examples at most, from what was held aside."""
        size = min(len(self.aside[0]) // batches, most)
        return [_plain(tuple(part[i * size : (i + 1) * size] for part in self.aside)) for i in range(batches)]


def _plain(parts: tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
    return parts if len(parts) > 1 else parts[0]


def load(name: str) -> Data:
    """`digits`, `digits-300` (its first 300, all trained on), `diabetes`, `breast-cancer` or `python-docs`.

    A fifth of the examples is held aside, drawn by a fixed seed. Tables are standardised.
    """
    if name == "python-docs":
        return _text()
    from sklearn import datasets

    if name.startswith("digits"):
        found = datasets.load_digits()
        pixels, labels = torch.tensor(found.data, dtype=torch.uint8), torch.tensor(found.target)
        if name == "digits-300":
            return Data((pixels[:300], labels[:300]), (pixels[300:600], labels[300:600]))
        return _split(pixels, labels)
    found = {"diabetes": datasets.load_diabetes, "breast-cancer": datasets.load_breast_cancer}[name]()
    features, targets = torch.tensor(found.data).double(), torch.tensor(found.target).double()
    features = (features - features.mean(0)) / features.std(0)
    if name == "diabetes":
        targets = (targets - targets.mean()) / targets.std()
    return _split(features, targets)


def _split(*parts: Tensor) -> Data:
    order = torch.randperm(len(parts[0]), generator=torch.Generator().manual_seed(0))
    cut = len(order) * 4 // 5
    return Data(tuple(part[order[:cut]] for part in parts), tuple(part[order[cut:]] for part in parts))


def _text(length: int = 64) -> Data:
    """The topics of Python's `help()`, some 700 kB of English and examples, in stretches of `length` + 1 bytes."""
    from pydoc_data import topics

    text = "\n".join(topics.topics[name] for name in sorted(topics.topics)).encode()
    stretches = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    stretches = stretches[: len(stretches) // (length + 1) * (length + 1)].view(-1, length + 1)
    return _split(stretches)
