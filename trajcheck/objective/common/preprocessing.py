"""From an image to the model's pixel values, as preprocessor_config.json says, in numpy and Pillow alone."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trajcheck.errors import ObjectiveError
from trajcheck.files.plain_json import parse_json
from trajcheck.objective.common.model_folder import ModelFolder, hash_of
from trajcheck.objective.common.names import PREPROCESSOR
from trajcheck.readable import one_line

#: Pixels along a side, and of a picture that is decoded.
MOST_SIDE, MOST_PIXELS = 10_000, 200_000_000

#: Pillow's filter where the file does not name one: bilinear.
_FILTER = 2


@dataclass(frozen=True)
class Preprocessing:
    """`size` is [height, width], `shortest` the length of the shorter side instead; None: as it is. `crop` is what is
    kept from the middle. Pixels are multiplied by `factor`, less `mean`, over `std`, a number a channel."""

    size: tuple[int, int] | None = None
    shortest: int | None = None
    crop: tuple[int, int] | None = None
    filter: int = _FILTER
    factor: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    files: tuple[tuple[str, str], ...] = ()

    def of_bytes(self, image: np.ndarray) -> np.ndarray:
        """Pixel values [channels, height, width] of an image of bytes, channels first or last or none."""
        if image.ndim == 2:
            image = image[..., None]
        if image.ndim != 3:
            raise ObjectiveError(f"an image has the shape {list(image.shape)}; expected height, width, channels")
        if image.shape[0] in (1, 3) and image.shape[2] not in (1, 3):
            image = image.transpose(1, 2, 0)
        image = self._cropped(self._resized(np.ascontiguousarray(image)))
        values = image.astype(np.float64) * self.factor
        values = (values - np.array(self.mean)) / np.array(self.std)
        return np.ascontiguousarray(values.transpose(2, 0, 1).astype(np.float32))

    def _resized(self, image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        wanted = self.size
        if self.shortest is not None:
            scale = self.shortest / min(height, width)
            wanted = (max(self.shortest, int(height * scale)), max(self.shortest, int(width * scale)))
        if wanted is None or wanted == (height, width):
            return image
        pillow = _pillow()
        kind = image[..., 0] if image.shape[2] == 1 else image
        made = np.asarray(pillow.fromarray(kind).resize((wanted[1], wanted[0]), self.filter))
        return made[..., None] if made.ndim == 2 else made

    def _cropped(self, image: np.ndarray) -> np.ndarray:
        if self.crop is None:
            return image
        top, left = ((have - keep) // 2 for have, keep in zip(image.shape[:2], self.crop, strict=True))
        if min(top, left) < 0:
            raise ObjectiveError(f"an image of {list(image.shape[:2])} pixels is smaller than the crop {self.crop}")
        return image[top : top + self.crop[0], left : left + self.crop[1]]


def read_preprocessing(folder: ModelFolder) -> Preprocessing:
    """What the file beside config.json says; without one, pixels over 255. Raises ObjectiveError."""
    if not folder.holds(PREPROCESSOR):
        return Preprocessing()
    path = folder.shown(PREPROCESSOR)
    try:
        data = folder.read(PREPROCESSOR)
        found = parse_json(data.decode("utf-8"))
        if not isinstance(found, dict):
            raise ValueError("holds no object")
        return replace(_read(found), files=((str(path), hash_of(data)),))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ObjectiveError(f"{path}: cannot be used: {one_line(str(error), 200)}") from error


def _read(found: dict[str, Any]) -> Preprocessing:
    size = found.get("size") if found.get("do_resize") else None
    size = {"height": size, "width": size} if isinstance(size, int) else size
    shortest = None if size is None else size.get("shortest_edge")
    both = None if size is None or shortest is not None else (_side(size["height"]), _side(size["width"]))
    crop = found.get("crop_size") if found.get("do_center_crop") else None
    crop = {"height": crop, "width": crop} if isinstance(crop, int) else crop
    normal = found.get("do_normalize")
    mean, std = (tuple(map(float, found[name])) if normal else () for name in ("image_mean", "image_std"))
    if 0.0 in std:
        raise ValueError("image_std is 0")
    factor = float(found.get("rescale_factor", 1 / 255)) if found.get("do_rescale", True) else 1.0
    return Preprocessing(
        size=both,
        shortest=None if shortest is None else _side(shortest),
        crop=None if crop is None else (_side(crop["height"]), _side(crop["width"])),
        filter=int(found.get("resample", _FILTER)),
        factor=factor,
        mean=mean or (0.0,),
        std=std or (1.0,),
    )


def _side(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= MOST_SIDE:
        raise ValueError(f"a side of {one_line(value, 40)} pixels; expected 1 to {MOST_SIDE}")
    return value


def decoded(data: bytes, source: str) -> np.ndarray:
    """A picture's file as bytes [height, width, 3]. Raises ObjectiveError."""
    pillow = _pillow()
    try:
        with pillow.open(io.BytesIO(data)) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise ValueError(f"{picture.width} x {picture.height} pixels")
            return np.asarray(picture.convert("RGB"))
    except Exception as error:
        raise ObjectiveError(f"{source}: is no picture that can be read: {one_line(str(error), 200)}") from error


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ObjectiveError(
            "pictures are decoded and resized by Pillow, which is not installed: pip install trajcheck[hf]"
        ) from error
    return Image
