"""Batches of images with their classes, in the order of the data set, or drawn from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from trajcheck.errors import ObjectiveError
from trajcheck.objective.common.images import Images
from trajcheck.objective.common.seeded import choose


class ImageBatches:
    """Iterable again and again: the whole data set, what is left in a smaller batch; each image counts the same."""

    def __init__(self, images: Images, size: int, classes: int, source: str) -> None:
        self._images, self.size, self._source = images, size, source
        if not len(images):
            raise ObjectiveError(f"--data {source}: holds no image")
        low, high = int(images.labels.min()), int(images.labels.max())
        if low < 0 or high >= classes:
            raise ObjectiveError(
                f"--data {source}: its labels are {low} to {high}, and the model has {classes} classes"
            )

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        count = len(self._images)
        for first in range(0, count, self.size):
            yield self._batch(range(first, min(first + self.size, count)))

    def drawn(self, count: int, seed: int) -> tuple[list[dict[str, Tensor]], list[list[int]]]:
        """`count` batches, each image at most once, and which images they hold. Raises ObjectiveError where there are
        too few."""
        wanted = count * self.size
        if wanted > len(self._images):
            raise ObjectiveError(
                f"--data {self._source}: has {len(self._images):,} images, and --probe {count} of --batch-size "
                f"{self.size} takes {wanted:,}"
            )
        drawn = choose(wanted, len(self._images), seed)
        places = [drawn[i : i + self.size] for i in range(0, wanted, self.size)]
        return [self._batch(each) for each in places], places

    def _batch(self, places: Sequence[int]) -> dict[str, Tensor]:
        labels = torch.from_numpy(self._images.labels[list(places)])
        return {"pixel_values": torch.from_numpy(self._images.pixels(places)), "labels": labels}

    @staticmethod
    def weight(batch: Any) -> float:
        """The images of a batch."""
        return float(len(batch["labels"]))
